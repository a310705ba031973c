"""The kinds of objects that we make: their series, SOP classes and UIDs, in one place."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_io import uids
from dicom_io.identity import SourceImage, shared_identity
from dicom_io.wording import Language, wording_in


class Kind(StrEnum):
    """What an object is for. Each kind has a series of its own in the study of its images."""

    SR = "sr"
    """TID 1500 Structured Report, for machines."""
    TEXT_SR = "text_sr"
    """The same in sentences, for viewers that show the text of a report."""
    CAPTURE = "capture"
    """Secondary Capture: one page for a person."""
    HEATMAP = "heatmap"
    """The page with the saliency over the radiograph."""
    SEGMENTATION = "segmentation"
    """The saliency as a fractional segmentation, for viewers that overlay it themselves."""
    PRESENTATION_STATE = "presentation_state"
    """The radiograph as it was analysed, with the answer written beside the lungs."""
    KEY_OBJECT = "key_object"
    """Points at the flagged images."""
    PDF = "pdf"
    """The page and all figures as a document."""
    NOT_ANALYSED = "not_analysed"
    """Says that and why a study was not analysed; no probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The series that the objects of one kind go into.

    Attributes
    ----------
    number
        Series Number (0020,0011): 9001 and up, behind those of the examination in every list.
    modality
        Modality (0008,0060), as the IOD demands.
    sop_classes
        What an object of the kind may be; the first one unless a site asks for another.
    """

    number: int
    modality: str
    sop_classes: tuple[UID, ...]


SERIES: Final = {
    Kind.SR: Series(number=9001, modality="SR", sop_classes=(ComprehensiveSRStorage, Comprehensive3DSRStorage)),
    Kind.CAPTURE: Series(number=9002, modality="OT", sop_classes=(SecondaryCaptureImageStorage,)),
    Kind.TEXT_SR: Series(number=9003, modality="SR", sop_classes=(BasicTextSRStorage,)),
    Kind.HEATMAP: Series(number=9004, modality="OT", sop_classes=(SecondaryCaptureImageStorage,)),
    Kind.SEGMENTATION: Series(number=9005, modality="SEG", sop_classes=(SegmentationStorage,)),
    Kind.PRESENTATION_STATE: Series(number=9006, modality="PR", sop_classes=(GrayscaleSoftcopyPresentationStateStorage,)),
    Kind.KEY_OBJECT: Series(number=9007, modality="KO", sop_classes=(KeyObjectSelectionDocumentStorage,)),
    Kind.PDF: Series(number=9008, modality="DOC", sop_classes=(EncapsulatedPDFStorage,)),
    Kind.NOT_ANALYSED: Series(number=9009, modality="SR", sop_classes=(BasicTextSRStorage,)),
}


def new_object(
    kind: Kind, images: Sequence[SourceImage], *, result_key: str, language: Language, sop_class: UID | None = None
) -> Dataset:
    """Begin an object: patient and study of its images, its own series, and UIDs that follow from what it tells.

    Parameters
    ----------
    images
        All of one patient and one study.
    result_key
        Names the result. The same one in the same kind, SOP class and language gives the same UIDs, on every machine.
    sop_class
        One of the kind's; its first where none is given.

    Raises
    ------
    InvalidReport
        The images are not of one patient and study.
    """
    series = SERIES[kind]
    sop_class = series.sop_classes[0] if sop_class is None else sop_class
    ds = shared_identity(images)
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = uids.derived_uid("instance", kind, sop_class, language, result_key)
    ds.SeriesInstanceUID = uids.derived_uid("series", kind, sop_class, language, result_key)
    ds.Modality = series.modality
    ds.SeriesNumber = series.number
    ds.SeriesDescription = wording_in(language).series[kind]
    ds.InstanceNumber = 1
    return ds
