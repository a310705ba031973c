"""What our Structured Reports have in common, whatever they tell: the document around the tree, and items of the tree."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

from dicom_io import uids
from dicom_io.codes import Heading
from dicom_io.identity import SourceImage, put
from dicom_io.kinds import Kind, new_object
from dicom_io.values import ObjectReference, SeriesUID, StudyUID
from dicom_io.wording import Language, Wording


class Told(Protocol):
    """What a document is made from: the findings of a study, or its refusal."""

    @property
    def result_key(self) -> str:
        """Names the result."""

    @property
    def language(self) -> Language:
        """Of its words."""

    @property
    def predecessor(self) -> ObjectReference | None:
        """The document that it supersedes."""


def new_document(
    kind: Kind, told: Told, images: Sequence[SourceImage], *, root: Dataset, sop_class: UID | None = None
) -> Dataset:
    """Put a tree into a complete, preliminary, unverified SR document (PS3.3 C.17.2) that is yet to be signed.

    Parameters
    ----------
    images
        All of one patient and one study. Each is evidence.
    root
        The tree's root content item.
    sop_class
        One of the kind's; its first where none is given.

    Raises
    ------
    InvalidReport
        The images are not of one patient and study.
    """
    ds = new_object(kind, images, result_key=told.result_key, language=told.language, sop_class=sop_class)
    ds.CompletionFlag = "COMPLETE"
    ds.VerificationFlag = "UNVERIFIED"
    ds.PreliminaryFlag = "PRELIMINARY"
    ds.PerformedProcedureCodeSequence = []
    if told.predecessor is not None:
        ds.PredecessorDocumentsSequence = [_study_reference(images[0].study_uid, [told.predecessor])]
    name_evidence(ds, images)
    ds.update(root)
    return ds


def name_evidence(ds: Dataset, images: Sequence[SourceImage]) -> None:
    """Name the images that a document refers to, and the order that asked for them."""
    ds.ReferencedPerformedProcedureStepSequence = []
    if images[0].requests:
        ds.ReferencedRequestSequence = images[0].requests
    evidence = _study_reference(images[0].study_uid, [image.reference for image in images])
    ds.CurrentRequestedProcedureEvidenceSequence = [evidence]


def _study_reference(study_uid: StudyUID, objects: Sequence[ObjectReference]) -> Dataset:
    """Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1)."""
    series: dict[SeriesUID, Dataset] = {}
    for referenced in objects:
        item = series.setdefault(referenced.series_uid, Dataset())
        put(item, "SeriesInstanceUID", referenced.series_uid)
        item.ReferencedSOPSequence = [*item.get("ReferencedSOPSequence", []), reference(referenced)]
    study = Dataset()
    put(study, "StudyInstanceUID", study_uid)
    study.ReferencedSeriesSequence = list(series.values())
    return study


def reference(referenced: ObjectReference) -> Dataset:
    """SOP Instance Reference Macro (PS3.3 10.8)."""
    item = Dataset()
    put(item, "ReferencedSOPClassUID", referenced.sop_class_uid)
    put(item, "ReferencedSOPInstanceUID", referenced.sop_instance_uid)
    return item


def observer() -> sr.ObserverContext:
    """Ourselves as the device that observed (TID 1002, 1004)."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=uids.DEVICE_UID,
        name=uids.MODEL_NAME,
        manufacturer_name=uids.MANUFACTURER,
        model_name=uids.MODEL_NAME,
        serial_number=uids.DEVICE_SERIAL_NUMBER,
    )
    return sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)


def language_item(words: Wording) -> sr.LanguageOfContentItemAndDescendants:
    """Which language a tree is in (TID 1204)."""
    return sr.LanguageOfContentItemAndDescendants(coded(words.code))


def report_in_words(words: Wording, sections: Sequence[Dataset]) -> Dataset:
    """Root of a report that is read as text (TID 2000 "Basic Diagnostic Imaging Report")."""
    return root_item(Heading.REPORT, words, [*language_item(words), *observer(), *sections], template="2000")


def root_item(title: Heading, words: Wording, items: Sequence[Dataset], *, template: str) -> Dataset:
    """The CONTAINER that is the whole tree."""
    root = section(title, words, items)
    del root.RelationshipType
    named = Dataset()
    named.MappingResource, named.TemplateIdentifier = "DCMR", template
    root.ContentTemplateSequence = [named]
    return root


def section(heading: Heading, words: Wording, items: Sequence[Dataset]) -> Dataset:
    """A heading, and what stands under it."""
    item = _item("CONTAINER", "CONTAINS")
    item.ConceptNameCodeSequence = [_in_words(heading, words)]
    item.ContinuityOfContent = "SEPARATE"
    item.ContentSequence = items
    return item


def paragraph(concept: Heading, words: Wording, text: str, *, about: SourceImage | None = None) -> Dataset:
    """A paragraph, and the image that it tells of."""
    item = _item("TEXT", "CONTAINS")
    item.ConceptNameCodeSequence = [_in_words(concept, words)]
    item.TextValue = text
    if about is not None:
        item.ContentSequence = [image_item(about, "INFERRED FROM")]
    return item


def image_item(image: SourceImage, relationship: str = "CONTAINS") -> Dataset:
    """An IMAGE item, or a COMPOSITE item for what has no rows and columns.

    It has no purpose of reference: key objects may not state one (TID 2010), and highdicom cannot leave it out.
    """
    item = _item("IMAGE" if image.rows and image.columns else "COMPOSITE", relationship)
    item.ReferencedSOPSequence = [reference(image.reference)]
    return item


def _item(value_type: str, relationship: str) -> Dataset:
    item = Dataset()
    item.ValueType, item.RelationshipType = value_type, relationship
    return item


def _in_words(heading: Heading, words: Wording) -> sr.CodedConcept:
    """A concept with its meaning in the reader's language (PS3.3 section 8.3)."""
    return sr.CodedConcept(heading.value.value, heading.value.scheme_designator, words.headings[heading])


def coded(code: Code) -> sr.CodedConcept:
    """A code as the item of a code sequence."""
    return sr.CodedConcept.from_code(code)


def readable_time(moment: datetime) -> str:
    """A moment as people write it, to the minute, with its distance from UTC."""
    offset = moment.strftime("%z")
    return f"{moment:%Y-%m-%d %H:%M} UTC{offset[:3]}:{offset[3:5]}"
