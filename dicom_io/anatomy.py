"""What the tags call the body part and the view, in the words and codes that devices use (PS3.16 Annex L, CID 4010)."""

from typing import Final, Literal

from pydicom.dataset import Dataset

from dicom_io.attributes import code_of, items, strings, words

View = Literal["PA", "AP", "FRONTAL", "OTHER"]

CHEST_CODES: Final = frozenset({"816094009", "51185008", "T-D3000"})
"""SNOMED CT today, SNOMED CT until 2020, and the retired SNOMED-RT style code."""
VIEW_CODES: Final[dict[str, View]] = {
    "272479007": "PA",
    "R-40888": "PA",
    "R-10214": "PA",
    "399348003": "AP",
    "R-10206": "AP",
    "399033003": "FRONTAL",
    "R-10202": "FRONTAL",
}
"""The frontal ones of CID 4010, as SNOMED CT and as retired codes."""

_VIEWS: Final[dict[str, View]] = {"PA": "PA", "AP": "AP", "FRONTAL": "FRONTAL"}
_CHEST = frozenset({"CHEST", "THORAX"})
_POSITION = frozenset(
    {"ERECT", "STANDING", "UPRIGHT", "SITTING", "SUPINE", "RECUMBENT", "SEMI", "SEMIERECT", "SEMIUPRIGHT"}
    | {"PORTABLE", "MOBILE", "BEDSIDE", "BED", "VIEW", "PROJECTION"}
)
_OTHER_VIEW = frozenset({"LAT", "LATERAL", "LL", "RL", "OBL", "OBLIQUE", "DECUB", "DECUBITUS", "LORDOTIC"})
_ANOTHER_PART = frozenset(
    {"ABDOMEN", "KUB", "PELVIS", "HIP", "FEMUR", "KNEE", "TIBIA", "LEG", "ANKLE", "FOOT", "TOE", "SHOULDER", "HUMERUS", "ELBOW"}
    | {
        "FOREARM",
        "WRIST",
        "HAND",
        "FINGER",
        "THUMB",
        "SPINE",
        "CSPINE",
        "TSPINE",
        "LSPINE",
        "SKULL",
        "HEAD",
        "SINUS",
        "SINUSES",
    }
    | {"NECK", "TEETH", "PANORAMIC", "BREAST", "EXTREMITY", "CLAVICLE", "SCAPULA", "STERNUM", "BABYGRAM"}
)


def said(ds: Dataset, keyword: str) -> set[str]:
    """All words of a text attribute, in capitals."""
    return {word for text in strings(ds, keyword) for word in words(text)}


def chest_by_name(ds: Dataset) -> bool | None:
    """Whether BodyPartExamined names the chest and nothing else; None where it is empty. ``CHEST AP`` does."""
    if not strings(ds, "BodyPartExamined"):
        return None
    named = said(ds, "BodyPartExamined")
    return bool(named & _CHEST) and named <= _CHEST | _VIEWS.keys() | _POSITION


def chest_by_code(ds: Dataset) -> bool | None:
    """Whether AnatomicRegionSequence codes the chest and nothing else; None where it is empty."""
    regions = {code_of(item) for item in items(ds, "AnatomicRegionSequence")}
    return regions <= CHEST_CODES if regions else None


def view_by_name(ds: Dataset) -> View | None:
    """View in ViewPosition; None where it is empty. ``AP SUPINE`` is AP, ``AP/LAT`` and ``AP/PA`` are OTHER."""
    if not strings(ds, "ViewPosition"):
        return None
    named = said(ds, "ViewPosition")
    frontal = [view for word, view in _VIEWS.items() if word in named]
    return frontal[0] if len(frontal) == 1 and named <= _VIEWS.keys() | _POSITION | _CHEST else "OTHER"


def view_by_code(ds: Dataset) -> View | None:
    """View in ViewCodeSequence; None where it is empty. Two different ones are OTHER."""
    views: set[View] = {VIEW_CODES.get(code_of(item), "OTHER") for item in items(ds, "ViewCodeSequence")}
    if not views:
        return None
    return views.pop() if len(views) == 1 else "OTHER"


def is_described_otherwise(ds: Dataset) -> bool:
    """Whether SeriesDescription speaks of a lateral or oblique view and of no frontal one."""
    described = said(ds, "SeriesDescription")
    return bool(described & _OTHER_VIEW) and not described & _VIEWS.keys()


def is_described_as_another_part(ds: Dataset) -> bool:
    """Whether series, study or protocol are named after another part of the body, and not after the chest."""
    described = {word for keyword in ("SeriesDescription", "StudyDescription", "ProtocolName") for word in said(ds, keyword)}
    return bool(described & _ANOTHER_PART) and not described & _CHEST
