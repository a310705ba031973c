"""The header gate: which image says of itself that it is a frontal chest radiograph of a human, ready to be looked at.

Missing or contradictory attributes are a refusal with a reason, never a guess. Nothing here looks at pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from dicom_io.anatomy import chest_by_code, chest_by_name, is_described_otherwise, said, view_by_code, view_by_name
from dicom_io.attributes import Unreadable, code_of, integer, items, shown, strings
from dicom_io.stored import MAX_PIXELS


class ReasonCode(StrEnum):
    """Why an image is analysed or not."""

    ELIGIBLE = "eligible"
    """A frontal chest radiograph by its own tags."""
    NOT_RADIOGRAPH = "not_radiograph"
    """Another modality or SOP class."""
    NOT_HUMAN = "not_human"
    """A veterinary image."""
    QUALITY_CONTROL = "quality_control"
    """An image of a phantom or test object."""
    FOR_PROCESSING = "for_processing"
    """Raw detector values, not meant to be read."""
    LOCALIZER = "localizer"
    """A scout view."""
    DERIVED = "derived"
    """Made from other images: subtracted, suppressed, reformatted, captured."""
    MULTI_FRAME = "multi_frame"
    """More than one frame."""
    NOT_MONOCHROME = "not_monochrome"
    """Colour, or more than one sample per pixel."""
    BODY_PART_MISSING = "body_part_missing"
    """No tag names the body part."""
    NOT_CHEST = "not_chest"
    """Another body part."""
    VIEW_MISSING = "view_missing"
    """No tag names the view."""
    NOT_FRONTAL = "not_frontal"
    """Lateral, oblique, or another view."""
    CONTRADICTORY = "contradictory"
    """Two tags cannot both be true."""
    UNREADABLE = "unreadable"
    """A tag that decides cannot be read."""
    NO_PIXELS = "no_pixels"
    """There is no pixel data."""
    TOO_SMALL = "too_small"
    """A thumbnail."""
    TOO_LARGE = "too_large"
    """More pixels than are decoded, or a strip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the tags of one image say about analysing it."""

    eligible: bool
    code: ReasonCode
    reason: str
    """One sentence for an operator, naming the attribute and what is expected. No values of a patient."""
    notes: tuple[str, ...] = ()
    """What lowers the trust in a result on an eligible image."""


MIN_SIDE: Final = 128
"""Pixels below which a picture is a thumbnail."""
MAX_ASPECT: Final = 2.5
"""Longer side to shorter; films of the chest are at most 43 cm by 35 cm, stitched or cropped ones somewhat more."""

SOP_CLASSES: Final = frozenset(
    {ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation, SecondaryCaptureImageStorage}
)
"""Secondary Capture, with Modality CR or DX, is what digitised films and the large public collections come in."""

_HUMAN_CODES = frozenset({"337915000", "L-85003", "L-85B00"})
_DERIVED_WORDS = frozenset(
    {"BONE", "SOFT", "TISSUE", "SUBTRACT", "SUBTRACTED", "SUBTRACTION", "SUPPRESSED", "SUPPRESSION", "ENERGY"}
    | {"TOMO", "TOMOSYNTHESIS", "SYNTHETIC", "CAD", "MPR"}
)


class _Refused(Exception):
    def __init__(self, code: ReasonCode, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def judge(ds: Dataset) -> Verdict:
    """Decide by the tags alone whether an image is analysed.

    Parameters
    ----------
    ds
        Any data set; pixel data may be deferred and is not read.

    Returns
    -------
    Verdict
        Always: a tag that cannot be read is a refusal too.
    """
    notes: list[str] = []
    try:
        for check in _CHECKS:
            notes.extend(check(ds))
    except _Refused as refused:
        return Verdict(eligible=False, code=refused.code, reason=refused.reason)
    except Unreadable as unreadable:
        return Verdict(eligible=False, code=ReasonCode.UNREADABLE, reason=str(unreadable))
    view = view_by_name(ds) or view_by_code(ds)
    return Verdict(
        eligible=True,
        code=ReasonCode.ELIGIBLE,
        reason=f"A frontal chest radiograph, view {view}, by its tags.",
        notes=tuple(notes),
    )


def _radiograph(ds: Dataset) -> list[str]:
    modality = strings(ds, "Modality")
    if modality not in (("CR",), ("DX",)):
        raise _Refused(ReasonCode.NOT_RADIOGRAPH, f"Modality is {shown(modality)}; CR or DX is expected.")
    sop_class = strings(ds, "SOPClassUID")
    if sop_class == (DigitalXRayImageStorageForProcessing,):
        raise _Refused(ReasonCode.FOR_PROCESSING, "SOPClassUID is for processing; an image for presentation is expected.")
    if len(sop_class) != 1 or sop_class[0] not in SOP_CLASSES:
        raise _Refused(
            ReasonCode.NOT_RADIOGRAPH,
            "SOPClassUID is another; Computed Radiography, Digital X-Ray for presentation or Secondary Capture is expected.",
        )
    return (
        ["Secondary Capture: whether the grey values were altered is not known"]
        if sop_class[0] == SecondaryCaptureImageStorage
        else []
    )


def _human(ds: Dataset) -> list[str]:
    species = strings(ds, "PatientSpeciesDescription")
    is_other = bool(species) and not said(ds, "PatientSpeciesDescription") & {"HUMAN", "HOMO"}
    is_other |= any(code_of(item) not in _HUMAN_CODES for item in items(ds, "PatientSpeciesCodeSequence"))
    if is_other or strings(ds, "PatientBreedDescription") or "QUADRUPED" in strings(ds, "AnatomicalOrientationType"):
        raise _Refused(
            ReasonCode.NOT_HUMAN,
            "PatientSpeciesDescription, its code, the breed or AnatomicalOrientationType tell of an animal.",
        )
    return []


def _intent(ds: Dataset) -> list[str]:
    intent = strings(ds, "PresentationIntentType")
    if intent not in ((), ("FOR PRESENTATION",)):
        raise _Refused(ReasonCode.FOR_PROCESSING, f"PresentationIntentType is {shown(intent)}; FOR PRESENTATION is expected.")
    if strings(ds, "QualityControlImage") == ("YES",):
        raise _Refused(ReasonCode.QUALITY_CONTROL, "QualityControlImage is YES; an image of a patient is expected.")
    return []


def _image_type(ds: Dataset) -> list[str]:
    kind = said(ds, "ImageType")
    if kind & {"LOCALIZER", "SCOUT"}:
        raise _Refused(ReasonCode.LOCALIZER, "ImageType says LOCALIZER; a diagnostic image is expected.")
    if kind & _DERIVED_WORDS:
        raise _Refused(
            ReasonCode.DERIVED, "ImageType names a subtracted or otherwise processed image; a plain one is expected."
        )
    captured = strings(ds, "SOPClassUID") == (SecondaryCaptureImageStorage,)
    if captured and strings(ds, "ConversionType") in (("SYN",), ("DRW",)):
        raise _Refused(ReasonCode.DERIVED, "ConversionType says that the image is synthetic or drawn; a film is expected.")
    if "SECONDARY" in kind and not captured and not _only_compressed(ds):
        raise _Refused(
            ReasonCode.DERIVED, "ImageType value 2 is SECONDARY; PRIMARY, an image straight from the examination, is expected."
        )
    return []


def _only_compressed(ds: Dataset) -> bool:
    """Whether an image is called SECONDARY for no other reason than compression, as some archives do."""
    codes = [code_of(item) for item in items(ds, "DerivationCodeSequence")]
    description = said(ds, "DerivationDescription")
    told = "113040" in codes or bool(description & {"COMPRESSION", "COMPRESSED"})  # (113040, DCM, "Lossy Compression")
    return told and set(codes) <= {"113040"} and not description & _DERIVED_WORDS


def _single_grey_frame(ds: Dataset) -> list[str]:
    if (frames := integer(ds, "NumberOfFrames")) not in (None, 0, 1):
        raise _Refused(ReasonCode.MULTI_FRAME, f"NumberOfFrames is {frames}; 1 is expected.")
    photometric = strings(ds, "PhotometricInterpretation")
    if photometric not in (("MONOCHROME1",), ("MONOCHROME2",)):
        raise _Refused(
            ReasonCode.NOT_MONOCHROME,
            f"PhotometricInterpretation is {shown(photometric)}; MONOCHROME1 or MONOCHROME2 is expected.",
        )
    if (samples := integer(ds, "SamplesPerPixel")) not in (None, 1):
        raise _Refused(ReasonCode.NOT_MONOCHROME, f"SamplesPerPixel is {samples}; 1 is expected.")
    return []


def _body_part(ds: Dataset) -> list[str]:
    by_name, by_code = chest_by_name(ds), chest_by_code(ds)
    if by_name is None and by_code is None:
        raise _Refused(
            ReasonCode.BODY_PART_MISSING, "BodyPartExamined and AnatomicRegionSequence are empty; CHEST or THORAX is expected."
        )
    if by_name is not None and by_code is not None and by_name != by_code:
        raise _Refused(
            ReasonCode.CONTRADICTORY, "BodyPartExamined and AnatomicRegionSequence name different parts of the body."
        )
    if not (by_name or by_code):
        named = shown(strings(ds, "BodyPartExamined"))
        what = "AnatomicRegionSequence names another region" if by_name is None else f"BodyPartExamined is {named}"
        raise _Refused(ReasonCode.NOT_CHEST, f"{what}; CHEST or THORAX is expected.")
    return []


def _view(ds: Dataset) -> list[str]:
    by_name, by_code = view_by_name(ds), view_by_code(ds)
    if by_name is None and by_code is None:
        raise _Refused(ReasonCode.VIEW_MISSING, "ViewPosition and ViewCodeSequence are empty; PA or AP is expected.")
    if by_name and by_code and by_name != by_code and {by_name, by_code} not in ({"PA", "FRONTAL"}, {"AP", "FRONTAL"}):
        raise _Refused(ReasonCode.CONTRADICTORY, "ViewPosition and ViewCodeSequence name different views.")
    if "OTHER" in (by_name, by_code):
        what = f"ViewPosition is {shown(strings(ds, 'ViewPosition'))}" if by_name else "ViewCodeSequence names another view"
        raise _Refused(ReasonCode.NOT_FRONTAL, f"{what}; PA or AP is expected.")
    if is_described_otherwise(ds):
        raise _Refused(
            ReasonCode.CONTRADICTORY, "SeriesDescription tells of another view than ViewPosition or ViewCodeSequence."
        )
    return ["AP view: often portable or supine, lower trust"] if "AP" in (by_name, by_code) else []


def _orientation(ds: Dataset) -> list[str]:
    orientation = strings(ds, "PatientOrientation")
    if not orientation:
        return []
    if len(orientation) != 2 or orientation[0][:1] not in ("L", "R") or orientation[1][:1] not in ("F", "H"):
        raise _Refused(
            ReasonCode.CONTRADICTORY,
            f"PatientOrientation is {shown(orientation)}; L\\F, an upright frontal picture, is expected.",
        )
    return []


def _size(ds: Dataset) -> list[str]:
    if "PixelData" not in ds:
        raise _Refused(ReasonCode.NO_PIXELS, "PixelData is missing; an image is expected.")
    rows, columns = integer(ds, "Rows"), integer(ds, "Columns")
    if rows is None or columns is None:
        raise _Refused(ReasonCode.UNREADABLE, "Rows or Columns is missing; both are expected.")
    if min(rows, columns) < MIN_SIDE:
        raise _Refused(ReasonCode.TOO_SMALL, f"Rows is {rows} and Columns {columns}; at least {MIN_SIDE} of each are expected.")
    if rows * columns > MAX_PIXELS or max(rows, columns) > MAX_ASPECT * min(rows, columns):
        raise _Refused(
            ReasonCode.TOO_LARGE,
            f"Rows is {rows} and Columns {columns}; at most {MAX_PIXELS} pixels and {MAX_ASPECT:g} to 1 are expected.",
        )
    return ["BurnedInAnnotation is YES"] if strings(ds, "BurnedInAnnotation") == ("YES",) else []


_CHECKS: Final[tuple[Callable[[Dataset], list[str]], ...]] = (
    _radiograph,
    _human,
    _intent,
    _image_type,
    _single_grey_frame,
    _body_part,
    _view,
    _orientation,
    _size,
)
