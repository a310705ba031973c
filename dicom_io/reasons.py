"""Why an image is analysed or not: the codes that stand in a row, in a report and in `wording`."""

from dataclasses import dataclass
from enum import StrEnum


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
    """A scout view, or another picture by a scanner of slices."""
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
    UNDER_AGE = "under_age"
    """A patient younger than the site has analysed."""
    AGE_MISSING = "age_missing"
    """No tag tells the age, and the site has only patients from an age on analysed."""
    CONTRADICTORY = "contradictory"
    """Two tags cannot both be true."""
    UNREADABLE = "unreadable"
    """A tag that decides cannot be read."""
    NO_PIXELS = "no_pixels"
    """There is no pixel data."""
    TOO_SMALL = "too_small"
    """A thumbnail, or the shutter leaves no more than one."""
    TOO_LARGE = "too_large"
    """More pixels than are decoded, or a strip."""
    EMPTY = "empty"
    """Hardly any grey value differs from the others."""
    SATURATED = "saturated"
    """Nearly everything is black or white."""
    NOT_LIKE_CHEST = "not_like_chest"
    """The pixels are surely not those of a frontal chest radiograph, whatever the header says."""
    TURNED = "turned"
    """The pixels surely do not stand as PatientOrientation says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the tags of one image say about analysing it."""

    eligible: bool
    """Whether it is analysed by its tags alone."""
    code: ReasonCode
    reason: str
    """One sentence for an operator, naming the attribute and what is expected. No values of a patient."""
    doubtful: bool = False
    """Nothing speaks against it, but no tag names the chest, or the view: not eligible unless its pixels are."""
    notes: tuple[str, ...] = ()
    """What lowers the trust in a result on an image that may be analysed."""
