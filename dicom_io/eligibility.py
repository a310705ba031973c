"""The header gate: which image says of itself that it is a frontal chest radiograph of a human, ready to be looked at.

A wrong or contradictory attribute is a refusal with a reason, never a guess. A header that names no body part or no view leaves
the image in doubt: its pixels decide, and nothing here looks at pixels.
"""

from collections.abc import Callable
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from dicom_io.age import age_years
from dicom_io.anatomy import (
    chest_by_code,
    chest_by_name,
    is_described_as_another_part,
    is_described_otherwise,
    said,
    view_by_code,
    view_by_name,
)
from dicom_io.attributes import Unreadable, code_of, integer, items, shown, strings
from dicom_io.reasons import ReasonCode, Verdict
from dicom_io.standing import orientation_of
from dicom_io.stored import MAX_PIXELS

__all__ = ["MAX_ASPECT", "MIN_SIDE", "SOP_CLASSES", "ReasonCode", "Verdict", "judge"]

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
_SCOUT_WORDS = frozenset({"LOCALIZER", "LOCALISER", "SCOUT", "SCOUTS", "TOPOGRAM", "SCANOGRAM", "SCANOSCOPE", "SURVIEW"})
_OF_SCANNERS = ("DataCollectionDiameter", "ConvolutionKernel", "GantryDetectorTilt", "RotationDirection")
"""Attributes of CT images (PS3.3 C.8.2.1) that stay where a scout is sent as a radiograph."""
_TEST_WORDS = frozenset({"PHANTOM", "SMPTE", "TESTPATTERN", "TESTIMAGE", "FLATFIELD"})


class _Refused(Exception):
    def __init__(self, code: ReasonCode, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def judge(ds: Dataset, *, minimum_age_years: int = 0) -> Verdict:
    """Decide by the tags alone whether an image is analysed.

    Parameters
    ----------
    ds
        Any data set; pixel data may be deferred and is not read.
    minimum_age_years
        Patients must be so old; where it is 0 the age is not looked at.

    Returns
    -------
    Verdict
        Always: a tag that cannot be read is a refusal too.
    """
    notes: list[str] = []
    try:
        for check in _CHECKS:
            notes.extend(check(ds))
        notes.extend(_age(ds, minimum_age_years))
        silence = _silence(ds)
    except _Refused as refused:
        return Verdict(eligible=False, code=refused.code, reason=refused.reason)
    except Unreadable as unreadable:
        return Verdict(eligible=False, code=ReasonCode.UNREADABLE, reason=str(unreadable))
    if silence is not None:
        code, reason = silence
        return Verdict(eligible=False, code=code, reason=reason, doubtful=True, notes=tuple(notes))
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
    for keyword in ("QualityControlImage", "QualityControlSubject"):
        if strings(ds, keyword) == ("YES",):
            raise _Refused(ReasonCode.QUALITY_CONTROL, f"{keyword} is YES; an image of a patient is expected.")
    for keyword in ("SeriesDescription", "StudyDescription", "ProtocolName"):
        if said(ds, keyword) & _TEST_WORDS:
            raise _Refused(ReasonCode.QUALITY_CONTROL, f"{keyword} tells of a test object; an image of a patient is expected.")
    return []


def _image_type(ds: Dataset) -> list[str]:
    kind = said(ds, "ImageType")
    if kind & _SCOUT_WORDS:
        raise _Refused(ReasonCode.LOCALIZER, "ImageType says LOCALIZER; a diagnostic image is expected.")
    for keyword in ("ScanOptions", "SeriesDescription", "ProtocolName"):
        if said(ds, keyword) & _SCOUT_WORDS:
            raise _Refused(ReasonCode.LOCALIZER, f"{keyword} tells of a scout; a diagnostic image is expected.")
    if strings(ds, "RescaleType") == ("HU",):
        raise _Refused(ReasonCode.LOCALIZER, "RescaleType is HU, the unit of a scanner of slices; a radiograph is expected.")
    for keyword in _OF_SCANNERS:
        if keyword in ds:
            raise _Refused(ReasonCode.LOCALIZER, f"{keyword} is of a scanner of slices; a radiograph is expected.")
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
        if is_described_as_another_part(ds):
            raise _Refused(ReasonCode.NOT_CHEST, "A description names another part of the body; CHEST or THORAX is expected.")
        return []
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
        if is_described_otherwise(ds):
            raise _Refused(ReasonCode.NOT_FRONTAL, "SeriesDescription tells of another view; PA or AP is expected.")
        return []
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


def _silence(ds: Dataset) -> tuple[ReasonCode, str] | None:
    """What the tags leave open of a chest and a frontal view, where they do."""
    if chest_by_name(ds) is None and chest_by_code(ds) is None:
        return (
            ReasonCode.BODY_PART_MISSING,
            "BodyPartExamined and AnatomicRegionSequence are empty; CHEST or THORAX is expected.",
        )
    if view_by_name(ds) is None and view_by_code(ds) is None:
        return ReasonCode.VIEW_MISSING, "ViewPosition and ViewCodeSequence are empty; PA or AP is expected."
    return None


def _age(ds: Dataset, minimum_years: int) -> list[str]:
    if minimum_years == 0:
        return []
    age = age_years(ds)
    if age is None:
        raise _Refused(
            ReasonCode.AGE_MISSING,
            f"PatientAge, or PatientBirthDate and StudyDate, are empty; {minimum_years} years or more are expected.",
        )
    if age < minimum_years:
        raise _Refused(ReasonCode.UNDER_AGE, f"The patient is under {minimum_years} years; older patients are expected.")
    return []


def _orientation(ds: Dataset) -> list[str]:
    orientation = strings(ds, "PatientOrientation")
    if orientation and orientation_of(ds) is None:
        raise _Refused(
            ReasonCode.CONTRADICTORY,
            f"PatientOrientation is {shown(orientation)}; one of a frontal picture, such as L\\F, is expected.",
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
