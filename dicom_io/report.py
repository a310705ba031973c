"""The Structured Report: TID 1500 "Measurement Report" with one TID 1501 group per image and class (PS3.16).

The tree is highdicom's; the document around it is written here. highdicom's own document class copies the tree twice,
searches it three times (40 ms a report), signs with the time of day and checks, and so prints, the values of the patient.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ComprehensiveSRStorage

from dicom_io import uids
from dicom_io.codes import Anatomy, Document, View
from dicom_io.errors import InvalidReport
from dicom_io.identity import SourceImage, read_source_image
from dicom_io.kinds import SERIES, Kind
from dicom_io.provenance import local_time, sign
from dicom_io.quiet import quietly
from dicom_io.sr_document import language_item, new_document, observer
from dicom_io.values import Algorithm, ClassFinding, StudyFindings

_MODALITIES: Final = {"CR": codes.cid29.ComputedRadiography, "DX": codes.cid29.DigitalRadiography}
_CONTAINS: Final = sr.RelationshipTypeValues.CONTAINS
_ACQUISITION: Final = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT


def build_structured_report(findings: StudyFindings, *, sop_class: str = ComprehensiveSRStorage) -> Dataset:
    """Write findings as a Structured Report, unverified and preliminary, in the study of its images.

    Parameters
    ----------
    findings
        Their image files are read, without the pixels.
    sop_class
        Comprehensive SR, which most PACS and viewers take, or Comprehensive 3D SR, which IHE AIR names. The tree is the same.

    Returns
    -------
    Dataset
        With file meta information, Explicit VR Little Endian; equal findings give equal bytes.

    Raises
    ------
    InvalidReport
        An image cannot be read or is not of the same patient and study, or no such SOP class of reports is known here.
    """
    if sop_class not in SERIES[Kind.SR].sop_classes:
        raise InvalidReport("A report is a Comprehensive SR or a Comprehensive 3D SR.")
    images = [read_source_image(image.path) for image in findings.images]
    with quietly:  # a source image may have a UID that breaks the rules, and is referred to all the same
        root = _content(findings, images)
    ds = new_document(Kind.SR, findings, images, root=root, sop_class=UID(sop_class))
    sign(ds, local_time(findings.analysed_at, images[0]))
    return ds


def _content(findings: StudyFindings, images: Sequence[SourceImage]) -> Dataset:
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer()),
        procedure_reported=Document.IMAGING_PROCEDURE.value,
        language_of_content_item_and_descendants=language_item(findings.wording),
        imaging_measurements=[*_groups(findings, images)],
    )
    root: Dataset = report[0]
    # highdicom's own image library raises for an image without Imager Pixel Spacing or Patient Orientation.
    root.ContentSequence.insert(len(root.ContentSequence) - 1, _image_library(images))
    root.ContentSequence.append(_conclusion(findings))
    return root


def _groups(findings: StudyFindings, images: Sequence[SourceImage]) -> Iterator[sr.MeasurementsAndQualitativeEvaluations]:
    """TID 1501, one per image and class."""
    for number, (of_image, image) in enumerate(zip(findings.images, images, strict=True), start=1):
        for finding in of_image.findings:
            yield sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=_tracking(finding, image, findings.algorithm, number),
                finding_type=finding.condition.value,
                finding_sites=[sr.FindingSite(Anatomy.LUNG.value)],
                algorithm_id=sr.AlgorithmIdentification(
                    name=findings.algorithm.name,
                    version=findings.algorithm.version,
                    manufacturer=findings.algorithm.manufacturer,
                    parameters=findings.algorithm.parameters,
                    family=codes.DCM.ArtificialIntelligence,
                ),
                measurements=[
                    sr.Measurement(
                        name=codes.DCM.CertaintyOfFinding,
                        value=round(finding.probability * 100, 2),
                        unit=codes.UCUM.Percent,
                    )
                ],
                qualitative_evaluations=[
                    sr.QualitativeEvaluation(name=finding.condition.value, value=of_image.presence(finding).value)
                ],
                source_images=[
                    sr.SourceImageForMeasurementGroup(image.reference.sop_class_uid, image.reference.sop_instance_uid)
                ],
            )


def _tracking(finding: ClassFinding, image: SourceImage, algorithm: Algorithm, number: int) -> sr.TrackingIdentifier:
    """The same for the same class of the same image by the same version of the model, in whatever report."""
    concept = finding.condition.value
    identifier = f"{concept.meaning}, image {number}, {algorithm.name} {algorithm.version}"
    uid = uids.derived_uid(
        "tracking",
        image.study_uid,
        image.reference.sop_instance_uid,
        f"{concept.value} {concept.scheme_designator}",
        f"{algorithm.name} {algorithm.version}",
    )
    return sr.TrackingIdentifier(uid=uid, identifier=identifier)


def _image_library(images: Sequence[SourceImage]) -> sr.ContainerContentItem:
    """TID 1600 with the descriptors of projection radiography (TID 1602, 1603) that the image states."""
    group = sr.ContainerContentItem(name=codes.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
    group.ContentSequence = sr.ContentSequence()
    for image in images:
        item = sr.ImageContentItem(
            name=codes.DCM.SourceOfMeasurement,
            referenced_sop_class_uid=image.reference.sop_class_uid,
            referenced_sop_instance_uid=image.reference.sop_instance_uid,
            relationship_type=_CONTAINS,
        )
        if descriptors := [*_descriptors(image)]:
            item.ContentSequence = sr.ContentSequence(descriptors)
        group.ContentSequence.append(item)
    library = sr.ContainerContentItem(name=codes.DCM.ImageLibrary, relationship_type=_CONTAINS)
    library.ContentSequence = sr.ContentSequence([group])
    return library


def _descriptors(image: SourceImage) -> Iterator[Any]:
    # No target region: CID 4031 changed its code for the chest, and validators of either age refuse the other's.
    if image.modality in _MODALITIES:
        yield sr.CodeContentItem(codes.DCM.Modality, _MODALITIES[image.modality], _ACQUISITION)
    if image.view_position in View.__members__:
        yield sr.CodeContentItem(codes.DCM.ImageView, View[image.view_position].value, _ACQUISITION)
    if image.orientation:
        row, column = image.orientation
        yield sr.TextContentItem(codes.DCM.PatientOrientationRow, row, _ACQUISITION)
        yield sr.TextContentItem(codes.DCM.PatientOrientationColumn, column, _ACQUISITION)
    pixels, millimetre = Document.PIXELS.value, codes.UCUM.Millimeter
    if image.spacing_mm:
        vertical, horizontal = image.spacing_mm
        yield sr.NumContentItem(codes.DCM.HorizontalPixelSpacing, horizontal, millimetre, relationship_type=_ACQUISITION)
        yield sr.NumContentItem(codes.DCM.VerticalPixelSpacing, vertical, millimetre, relationship_type=_ACQUISITION)
    if image.rows and image.columns:
        yield sr.NumContentItem(codes.DCM.PixelDataRows, image.rows, pixels, relationship_type=_ACQUISITION)
        yield sr.NumContentItem(codes.DCM.PixelDataColumns, image.columns, pixels, relationship_type=_ACQUISITION)


def _conclusion(findings: StudyFindings) -> sr.ContainerContentItem:
    """What is said of the whole study (TID 1500 row 12); highdicom has no template for it."""
    container = sr.ContainerContentItem(name=Document.QUALITATIVE_EVALUATIONS.value, relationship_type=_CONTAINS)
    told = (findings.wording.told(image.correction, number=number) for number, image in enumerate(findings.images))
    container.ContentSequence = sr.ContentSequence(
        [
            sr.CodeContentItem(codes.DCM.OverallAssessment, findings.assessment.value, _CONTAINS),
            sr.TextContentItem(codes.DCM.Impression, findings.impression, _CONTAINS),
            *(sr.TextContentItem(codes.DCM.Comment, comment, _CONTAINS) for comment in told if comment),
            sr.TextContentItem(codes.DCM.Comment, findings.wording.disclaimer, _CONTAINS),
        ]
    )
    return container
