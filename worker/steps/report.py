"""Report: from recorded predictions to DICOM objects on disk."""

from collections.abc import Callable, Mapping
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, Comprehensive3DSRStorage, ComprehensiveSRStorage

from dicom_io.capture import build_capture
from dicom_io.document import build_document
from dicom_io.film import reduce_film
from dicom_io.heatmap import build_heatmap
from dicom_io.key_object import build_key_object
from dicom_io.kinds import SERIES, Kind
from dicom_io.not_analysed import build_not_analysed_report
from dicom_io.pixels import Correction, read_image
from dicom_io.presentation_state import build_presentation_state
from dicom_io.report import build_structured_report
from dicom_io.segmentation import build_segmentation
from dicom_io.text_report import build_text_report
from dicom_io.values import ObjectReference, Saliency, SeriesUID, SOPClassUID, SOPInstanceUID, StudyFindings
from dicom_io.wording import Language
from worker.destination import Destination
from worker.files import write_durably
from worker.findings import MEANINGS, most_telling, most_urgent, refused_study, study_findings
from worker.values import AnalysedStudy, MadeReport, ModelIdentity, Output, UnansweredStudy

FOLDER = Path("reports")
NEED_SALIENCY: Final = frozenset({Kind.HEATMAP, Kind.SEGMENTATION})
"""What cannot be made without the model that answered."""


class Explainer(Protocol):
    """Who can say what in an image spoke for a label."""

    def explain(self, pixels: NDArray[np.float32], model: ModelIdentity, label: str) -> NDArray[np.float32] | None:
        """A map of 0..1 over the whole image; None where other weights than these are at hand."""


class Maker(Protocol):
    """What makes one object under a name; None where it cannot be made now and never will."""

    def __call__(self, *, name: str, predecessor: ObjectReference | None) -> Dataset | None:
        """Make it."""


class Pictures:
    """What a study's outputs show: its most telling image, decoded once for all of them."""

    def __init__(self, study: AnalysedStudy, explainer: Callable[[], Explainer]) -> None:
        self.shown = most_urgent(study)
        self._image = study.images[self.shown]
        self._explainer = explainer

    @property
    def correction(self) -> Correction:
        """What its pixels told when it was analysed."""
        return self._image.correction

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        """The image as displayed, 0..1."""
        return read_image(self._image.instance.path, self.correction).pixels

    @cached_property
    def film(self) -> NDArray[np.float32]:
        """The same, as fine as pages show it."""
        return reduce_film(self.pixels)

    @cached_property
    def saliency(self) -> Saliency | None:
        """What spoke for its most probable abnormal condition; None where the model that answered is not at hand."""
        answer = self._image.answer
        assert answer is not None  # noqa: S101  an analysed study has only images with an answer  # nosec B101
        label = most_telling(answer)
        found = self._explainer().explain(self.pixels, answer.model, label)
        return None if found is None else Saliency(condition=MEANINGS[label].condition, map=found)


def towards(destinations: tuple[Destination, ...], senders: frozenset[str]) -> tuple[Destination, ...]:
    """To which destinations the results of a study go that these application entities sent."""
    return tuple(known for known in destinations if not known.to_sender or known.ae_title in senders)


def unknown_senders(destinations: tuple[Destination, ...], senders: frozenset[str]) -> frozenset[str]:
    """Who should be sent results back and is in no table of callers."""
    callers = {known.ae_title for known in destinations if known.to_sender}
    return senders - callers if callers else frozenset()


def wanted(destinations: tuple[Destination, ...], study: AnalysedStudy) -> dict[Output, tuple[str, ...]]:
    """Which outputs must be made of a study, and which destinations are sent each. A Structured Report is always made."""
    receivers: dict[Output, list[str]] = {}
    for destination in destinations:
        for kind in destination.outputs:
            if kind in _BUILDERS and (kind is not Kind.KEY_OBJECT or study.flagged):
                receivers.setdefault(output_of(kind, destination), []).append(destination.name)
    if not receivers:
        receivers[Output(kind=Kind.SR, sop_class_uid=SOPClassUID(ComprehensiveSRStorage), language=Language.ENGLISH)] = []
    return {output: tuple(names) for output, names in receivers.items()}


def wanted_refusals(destinations: tuple[Destination, ...]) -> dict[Output, tuple[str, ...]]:
    """Which destinations are told that and why a study was not analysed, in which language."""
    receivers: dict[Output, list[str]] = {}
    for destination in destinations:
        if Kind.NOT_ANALYSED in destination.outputs:
            receivers.setdefault(output_of(Kind.NOT_ANALYSED, destination), []).append(destination.name)
    return {output: tuple(names) for output, names in receivers.items()}


def output_of(kind: Kind, destination: Destination) -> Output:
    """What exactly a destination means by a kind."""
    sop_class = SERIES[kind].sop_classes[0]
    if kind is Kind.SR and destination.sr_sop_class == "comprehensive-3d":
        sop_class = Comprehensive3DSRStorage
    return Output(kind=kind, sop_class_uid=SOPClassUID(sop_class), language=destination.language)


def build(
    study: AnalysedStudy, output: Output, pictures: Pictures, *, name: str, predecessor: ObjectReference | None
) -> Dataset | None:
    """Make one object, its UIDs derived from a name. Equal arguments give equal bytes.

    Returns
    -------
    Dataset or None
        None where it needs a saliency and the model that answered is not at hand any more.

    Raises
    ------
    dicom_io.errors.Permanent
        The images do not allow a valid report.
    """
    if output.kind in NEED_SALIENCY and pictures.saliency is None:
        return None
    findings = study_findings(study, name=name, predecessor=predecessor, language=output.language)
    return _BUILDERS[output.kind](findings, output, pictures)


def refuse(study: UnansweredStudy, output: Output, *, name: str, predecessor: ObjectReference | None) -> Dataset:
    """Make the report that says why a study was not analysed.

    Raises
    ------
    dicom_io.errors.Permanent
        The images do not allow a valid report.
    """
    return build_not_analysed_report(refused_study(study, name=name, predecessor=predecessor, language=output.language))


def _structured_report(findings: StudyFindings, output: Output, _: Pictures) -> Dataset:
    return build_structured_report(findings, sop_class=UID(output.sop_class_uid))


def _capture(findings: StudyFindings, _: Output, pictures: Pictures) -> Dataset:
    return build_capture(findings, image=pictures.shown, pixels=pictures.film)


def _heatmap(findings: StudyFindings, _: Output, pictures: Pictures) -> Dataset:
    assert pictures.saliency is not None  # noqa: S101  `build` looked  # nosec B101
    return build_heatmap(findings, image=pictures.shown, pixels=pictures.film, saliency=pictures.saliency)


def _segmentation(findings: StudyFindings, _: Output, pictures: Pictures) -> Dataset:
    assert pictures.saliency is not None  # noqa: S101  `build` looked  # nosec B101
    return build_segmentation(findings, image=pictures.shown, saliency=pictures.saliency, correction=pictures.correction)


def _document(findings: StudyFindings, _: Output, pictures: Pictures) -> Dataset:
    return build_document(findings, image=pictures.shown, pixels=pictures.film)


_BUILDERS: Final[Mapping[Kind, Callable[[StudyFindings, Output, Pictures], Dataset]]] = {
    Kind.SR: _structured_report,
    Kind.TEXT_SR: lambda findings, _output, _pictures: build_text_report(findings),
    Kind.CAPTURE: _capture,
    Kind.HEATMAP: _heatmap,
    Kind.SEGMENTATION: _segmentation,
    Kind.PRESENTATION_STATE: lambda findings, _output, _pictures: build_presentation_state(findings),
    Kind.KEY_OBJECT: lambda findings, _output, _pictures: build_key_object(findings),
    Kind.PDF: _document,
}
"""What is made of a study that has an answer."""


def keep(ds: Dataset, output: Output, *, result_key: str, data_dir: Path) -> MadeReport:
    """Write an object durably, named by its UID."""
    encoded = BytesIO()
    dcmwrite(encoded, ds, enforce_file_format=True)
    path, content = FOLDER / f"{ds.SOPInstanceUID}.dcm", encoded.getvalue()
    write_durably(data_dir / path, (content,))
    return MadeReport(
        output=output,
        sop_instance_uid=SOPInstanceUID(ds.SOPInstanceUID),
        series_uid=SeriesUID(ds.SeriesInstanceUID),
        result_key=result_key,
        path=path,
        sha256=sha256(content).hexdigest(),
    )
