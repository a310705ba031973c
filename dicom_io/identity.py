"""Whose image it is: patient, study and request as the source image states them, and nowhere else.

Identifying values are copied as they are, even where they break a length limit: an identifier that was cut would name
somebody else. What the standard enumerates (dates, times, sex) is copied when it is valid and left empty when it is not.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

from pydicom import config
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from dicom_io.bounded import require_short, value_of
from dicom_io.errors import InvalidReport
from dicom_io.foreign import any_error_as
from dicom_io.header import read_header
from dicom_io.values import ObjectReference, SeriesUID, SOPClassUID, SOPInstanceUID, StudyUID

_REQUIRED: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""Type 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): always written, empty where unknown."""
_OPTIONAL: Final = ("IssuerOfPatientID", "StudyDescription")
COPIED: Final = frozenset({*_REQUIRED, *_OPTIONAL, "StudyInstanceUID", "ReferencedRequestSequence"})
"""Attributes of our objects whose values are those of the source image."""
_ORDER: Final = (
    "AccessionNumber",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
)
"""Type 2 of an item of the Referenced Request Sequence (PS3.3 C.17.2)."""
_UIDS: Final = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_DESCRIPTIONS: Final = {"StudyDescription": 64, "RequestedProcedureDescription": 64, "CodeMeaning": 64}
"""Free text that identifies nobody: cut to the length its VR allows."""
_MOST_ITEMS: Final = 100
"""Of orders and of their codes: an image is made for one order, a few at most."""
_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """What a stored image says of itself, decoded to Unicode."""

    reference: ObjectReference
    study_uid: StudyUID
    identity: dict[str, str]
    """Patient and study attributes by keyword; all of type 2 are there, perhaps empty."""
    requests: tuple[Dataset, ...]
    """Items for the Referenced Request Sequence; none where the image names no order."""
    timezone: timezone | None
    """What its dates and times are in, where it says so."""
    modality: str
    view_position: str
    rows: int
    columns: int
    orientation: tuple[str, ...]
    """Patient Orientation (0020,0020): two values or none."""
    spacing_mm: tuple[float, ...]
    """Row spacing, then column spacing, at the detector; or none."""
    annotated: bool
    """Whether the pixels name the patient (Burned In Annotation)."""
    lossy: bool
    """Whether the pixels were ever compressed with loss."""


def read_source_image(path: Path) -> SourceImage:
    """Read the header of a stored image.

    Raises
    ------
    InvalidReport
        The file cannot be read, or lacks a UID without which nothing can refer to it.
    """
    with any_error_as(InvalidReport, "The header of a source image cannot be read ({})."):
        return _source_image(_Header(read_header(path)))


def _source_image(header: "_Header") -> SourceImage:
    uids = {keyword: header.text(keyword) for keyword in _UIDS}
    for keyword, uid in uids.items():
        if not re.fullmatch(r"[0-9.]{1,64}", uid):
            raise InvalidReport(f"A source image has no usable {keyword}.")
    rows, columns = header.text("Rows"), header.text("Columns")
    identity = {keyword: header.text(keyword) for keyword in _REQUIRED}
    return SourceImage(
        reference=ObjectReference(
            sop_class_uid=SOPClassUID(uids["SOPClassUID"]),
            sop_instance_uid=SOPInstanceUID(uids["SOPInstanceUID"]),
            series_uid=SeriesUID(uids["SeriesInstanceUID"]),
        ),
        study_uid=StudyUID(uids["StudyInstanceUID"]),
        identity=identity | {keyword: value for keyword in _OPTIONAL if (value := header.text(keyword))},
        requests=_requests(header),
        timezone=_offset(header.text("TimezoneOffsetFromUTC")),
        modality=header.text("Modality"),
        view_position=header.text("ViewPosition"),
        rows=int(rows) if rows.isdecimal() else 0,
        columns=int(columns) if columns.isdecimal() else 0,
        orientation=_pair(header.text("PatientOrientation"), re.compile(r"[APRLHF]{1,3}")),
        spacing_mm=tuple(
            float(value)
            for value in _pair(header.text("ImagerPixelSpacing") or header.text("PixelSpacing"), re.compile(r"\d*\.?\d+"))
        ),
        annotated=header.text("BurnedInAnnotation") == "YES",
        lossy=header.text("LossyImageCompression") == "01",
    )


def shared_identity(images: Sequence[SourceImage]) -> Dataset:
    """Patient and study of a new object made from these images, in Unicode.

    Parameters
    ----------
    images
        At least one. The attributes are those of the first.

    Raises
    ------
    InvalidReport
        There is no image, one is named twice, or they are not of one patient and one study.
    """
    if not images:
        raise InvalidReport("The findings name no image.")
    if len({image.reference.sop_instance_uid for image in images}) < len(images):
        raise InvalidReport("The findings name one image twice.")
    first = images[0]
    for other in images[1:]:
        if other.study_uid != first.study_uid:
            raise InvalidReport("The images are not of one study.")
        if not _same_patient(first.identity, other.identity):
            raise InvalidReport("The images of the study are not of one patient.")
    ds = Dataset()
    put(ds, "SpecificCharacterSet", "ISO_IR 192")
    put(ds, "StudyInstanceUID", first.study_uid)
    for keyword, value in first.identity.items():
        put(ds, keyword, value)
    return ds


def put(ds: Dataset, keyword: str, value: Any) -> None:
    """Set an attribute that came from a source image, unchecked: pydicom's check would print the value as a warning."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is no attribute of the standard.")
    ds[tag] = DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE)


class _Header:
    """Text of a data set's attributes, read from the encoded bytes."""

    def __init__(self, ds: Dataset, encodings: list[str] | None = None) -> None:
        self.ds = ds
        declared = [term.strip() for term in _raw(ds, "SpecificCharacterSet").decode("ascii", "ignore").split("\\")]
        self.encodings = convert_encodings(declared) if any(declared) else (encodings or [])

    def text(self, keyword: str) -> str:
        """Value of an attribute, empty where it is missing or where the standard does not allow what it says."""
        vr = dictionary_VR(keyword)
        raw = _raw(self.ds, keyword)
        if vr == "US":
            return str(value_of(self.ds, keyword) or "")
        groups = raw.split(b"=") if vr == "PN" and b"\x1b" in raw else [raw]
        text = "=".join(self._decoded(group) for group in groups)
        text = "".join(c for c in text if unicodedata.category(c) != "Cc").strip()
        match vr:
            case "DA":
                return _date(text)
            case "TM":
                return _time(text)
            case "CS" if keyword == "PatientSex":
                return text.upper() if text.upper() in {"M", "F", "O"} else ""
        return text[: _DESCRIPTIONS.get(keyword)]

    def items(self, keyword: str) -> list["_Header"]:
        """Items of a sequence."""
        sequence = value_of(self.ds, keyword) or []
        if len(sequence) > _MOST_ITEMS:
            raise InvalidReport(f"{keyword} of a source image has {len(sequence)} items; at most {_MOST_ITEMS} are expected.")
        return [_Header(item, self.encodings) for item in sequence if isinstance(item, Dataset)]

    def _decoded(self, raw: bytes) -> str:
        if raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii")
        if b"\x1b" in raw:
            return decode_bytes(raw, self.encodings or ["iso8859"], PN_DELIMS | TEXT_VR_DELIMS)
        # Where nothing but ASCII is declared, senders mean Latin-1 or UTF-8; what is valid UTF-8 is hardly ever anything else.
        first = self.encodings[0] if self.encodings else "iso8859"
        try:
            return raw.decode("utf-8" if first == "iso8859" else first)
        except (UnicodeError, LookupError):  # the second for what names a codec of Python that is none of text
            return raw.decode("latin-1")


def _raw(ds: Dataset, keyword: str) -> bytes:
    require_short(ds, keyword)
    tag = tag_for_keyword(keyword)
    element = ds.get_item(tag) if tag is not None and tag in ds else None
    value = element.value if element is not None else None
    if isinstance(value, bytes):
        return value
    return b"" if value is None else "\\".join([value] if isinstance(value, str) else map(str, value)).encode("utf-8")


def _requests(header: _Header) -> tuple[Dataset, ...]:
    orders = []
    for item in header.items("RequestAttributesSequence") or [header]:
        values = {keyword: item.text(keyword) or header.text(keyword) for keyword in _ORDER}
        if not any(values.values()):
            continue
        order = Dataset()
        put(order, "StudyInstanceUID", header.text("StudyInstanceUID"))
        order.ReferencedStudySequence = []
        order.RequestedProcedureCodeSequence = _procedure_codes(item)
        for keyword, value in values.items():
            put(order, keyword, value)
        orders.append(order)
    return tuple(orders)


def _procedure_codes(request: _Header) -> list[Dataset]:
    codes = []
    for item in request.items("RequestedProcedureCodeSequence"):
        triple = {keyword: item.text(keyword) for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")}
        if all(triple.values()):  # each is required; a code without its scheme or its meaning names nothing
            code = Dataset()
            for keyword, value in triple.items():
                put(code, keyword, value)
            codes.append(code)
    return codes


def _same_patient(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether two images are of one patient; what only one of them states is no contradiction."""

    def contradicts(a: str, b: str) -> bool:
        return bool(a and b and a != b)

    if one["PatientID"] != other["PatientID"]:
        return False
    return not (
        contradicts(one.get("IssuerOfPatientID", ""), other.get("IssuerOfPatientID", ""))
        or contradicts(one["PatientBirthDate"], other["PatientBirthDate"])
        or contradicts(_comparable_name(one["PatientName"]), _comparable_name(other["PatientName"]))
    )


def _comparable_name(name: str) -> str:
    """Family and given name, without what differs between modalities: case, width, padding, other representations."""
    group = next((group for group in name.split("=") if group.strip("^ ")), "")
    return "^".join(part.strip() for part in unicodedata.normalize("NFKC", group).casefold().split("^")[:2]).strip("^")


def _date(text: str) -> str:
    digits = text.replace(".", "") if re.fullmatch(r"\d{4}\.\d\d\.\d\d", text) else text  # the form of ACR-NEMA
    try:
        datetime.strptime(digits, "%Y%m%d")  # noqa: DTZ007  a date has no zone
    except ValueError:
        return ""
    return digits if len(digits) == 8 else ""


def _time(text: str) -> str:
    digits = text.replace(":", "")  # the form of ACR-NEMA
    return digits if _TIME.fullmatch(digits) else ""


def _offset(text: str) -> timezone | None:
    match = re.fullmatch(r"([+-])(0\d|1[0-4])([0-5]\d)", text)
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    return timezone((1 if sign == "+" else -1) * timedelta(hours=int(hours), minutes=int(minutes)))


def _pair(text: str, allowed: re.Pattern[str]) -> tuple[str, ...]:
    values = tuple(value.strip() for value in text.split("\\"))
    return values if len(values) == 2 and all(allowed.fullmatch(value) for value in values) else ()
