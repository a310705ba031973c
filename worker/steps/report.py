"""Report: from recorded predictions to DICOM objects on disk."""

from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, Comprehensive3DSRStorage, ComprehensiveSRStorage, SecondaryCaptureImageStorage

from dicom_io.capture import build_capture
from dicom_io.pixels import read_image
from dicom_io.report import build_structured_report
from dicom_io.values import ObjectReference, SeriesUID, SOPClassUID, SOPInstanceUID
from worker.files import write_durably
from worker.findings import most_urgent, study_findings
from worker.settings import Destination
from worker.values import AnalysedStudy, MadeReport, ReportKind

FOLDER = Path("reports")
_CAPTURE = SOPClassUID(SecondaryCaptureImageStorage)


def wanted(destinations: tuple[Destination, ...]) -> dict[SOPClassUID, tuple[str, ...]]:
    """Which SOP classes must be made, and which destinations are sent each. A Structured Report is always made."""
    receivers: dict[SOPClassUID, list[str]] = {}
    for destination in destinations:
        for kind in destination.outputs:
            receivers.setdefault(_sop_class(kind, destination), []).append(destination.name)
    if not receivers:
        receivers[SOPClassUID(ComprehensiveSRStorage)] = []
    return {sop_class: tuple(names) for sop_class, names in receivers.items()}


def build(study: AnalysedStudy, sop_class: SOPClassUID, *, name: str, predecessor: ObjectReference | None) -> Dataset:
    """Make one object, its UIDs derived from a name. Equal arguments give equal bytes.

    Raises
    ------
    dicom_io.errors.Permanent
        The images do not allow a valid report.
    """
    findings = study_findings(study, name=name, predecessor=predecessor)
    if sop_class == _CAPTURE:
        shown = most_urgent(study)
        return build_capture(findings, image=shown, pixels=read_image(findings.images[shown].path).pixels)
    return build_structured_report(findings, sop_class=UID(sop_class))


def keep(ds: Dataset, *, result_key: str, data_dir: Path) -> MadeReport:
    """Write an object durably, named by its UID."""
    encoded = BytesIO()
    dcmwrite(encoded, ds, enforce_file_format=True)
    path = FOLDER / f"{ds.SOPInstanceUID}.dcm"
    write_durably(data_dir / path, (encoded.getvalue(),))
    return MadeReport(
        kind=ReportKind.CAPTURE if ds.SOPClassUID == _CAPTURE else ReportKind.SR,
        sop_instance_uid=SOPInstanceUID(ds.SOPInstanceUID),
        sop_class_uid=SOPClassUID(ds.SOPClassUID),
        series_uid=SeriesUID(ds.SeriesInstanceUID),
        result_key=result_key,
        path=path,
    )


def _sop_class(kind: ReportKind, destination: Destination) -> SOPClassUID:
    if kind is ReportKind.CAPTURE:
        return _CAPTURE
    chosen = Comprehensive3DSRStorage if destination.sr_sop_class == "comprehensive-3d" else ComprehensiveSRStorage
    return SOPClassUID(chosen)
