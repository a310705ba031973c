"""Objects as bytes: who they are, read from the first few tags, and the file they become (PS3.10 section 7)."""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_io.bounded import bounded, value_of
from dicom_io.errors import InvalidObject, NotDicom
from dicom_io.foreign import any_error_as
from dicom_io.prefix import PREFIX_BYTES, read_plain
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_io.values import ANY_UID, SeriesUID, SOPClassUID, SOPInstanceUID, StudyUID, TransferSyntaxUID

PREAMBLE = bytes(128) + b"DICM"
_INFLATE_AT_MOST = 4 * 1024 * 1024
_LAST_GROUP = 0x0020
_WANTED: list[BaseTag | int] = [
    BaseTag(0x00080005),  # SpecificCharacterSet
    BaseTag(0x00080016),  # SOPClassUID
    BaseTag(0x00080018),  # SOPInstanceUID
    BaseTag(0x00080050),  # AccessionNumber
    BaseTag(0x00080060),  # Modality
    BaseTag(0x00100020),  # PatientID
    BaseTag(0x00100021),  # IssuerOfPatientID
    BaseTag(0x0020000D),  # StudyInstanceUID
    BaseTag(0x0020000E),  # SeriesInstanceUID
]
_PLAIN = {
    0x00080005: b"CS",  # of several sets, or of one that pydicom may refuse, pydicom decides
    0x00080016: b"UI",
    0x00080018: b"UI",
    0x00080050: b"SH",
    0x00080060: b"CS",
    0x00100020: b"LO",
    0x00100021: b"LO",
    0x0020000D: b"UI",
    0x0020000E: b"UI",
}
_PLAIN_UIDS = tuple(tag for tag, vr in _PLAIN.items() if vr == b"UI")
_IMPLICIT = str(ImplicitVRLittleEndian)
_OUT_OF_THE_ORDINARY = frozenset({str(DeflatedExplicitVRLittleEndian), str(ExplicitVRBigEndian)})
_TEXT_CHARACTERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """One C-STORE request as it came: what the command and the association say of the data set that follows."""

    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    transfer_syntax: TransferSyntaxUID
    calling_ae_title: str
    called_ae_title: str
    peer_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Where an object belongs, read from the data set itself."""

    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    study_uid: StudyUID
    series_uid: SeriesUID
    modality: str
    patient_id: str
    issuer_of_patient_id: str
    accession_number: str


def identify(request: StoreRequest, dataset: BinaryIO) -> Identity:
    """Read who an object is from the tags up to group 0020, without touching the rest.

    Parameters
    ----------
    request
        The request as received; its command's UIDs must agree with the data set (PS3.4 B.2.3, status 0xA9xx).
    dataset
        A file that stands at the first byte of the data set.

    Raises
    ------
    NotDicom
        The bytes cannot be parsed that far.
    InvalidObject
        A UID is missing, malformed or contradicts the request.
    """
    begin = dataset.tell()
    plain = identify_plain(request, dataset.read(PREFIX_BYTES))
    if plain is not None:
        return plain
    dataset.seek(begin)
    return _agreed(_identify_any(request, dataset), request)


def _agreed(identity: Identity, request: StoreRequest) -> Identity:
    if identity.sop_class_uid != request.sop_class_uid:
        raise InvalidObject("SOPClassUID (0008,0016) differs from the Affected SOP Class UID of the request.")
    if identity.sop_instance_uid != request.sop_instance_uid:
        raise InvalidObject("SOPInstanceUID (0008,0018) differs from the Affected SOP Instance UID of the request.")
    return identity


def identify_plain(request: StoreRequest, head: bytes) -> Identity | None:
    """Read who an object is from its first bytes; None where they are out of the ordinary and `identify` must look.

    Parameters
    ----------
    request
        As of `identify`.
    head
        The first `dicom_io.prefix.PREFIX_BYTES` of the data set, or all of it.

    Raises
    ------
    InvalidObject
        A UID contradicts the request.
    """
    if request.transfer_syntax in _OUT_OF_THE_ORDINARY:
        return None
    values = read_plain(head, _PLAIN, implicit=request.transfer_syntax == _IMPLICIT)
    if values is None or not all(ANY_UID.fullmatch(values.get(tag, "")) for tag in _PLAIN_UIDS):
        return None
    identity = Identity(
        sop_class_uid=SOPClassUID(values[0x00080016]),
        sop_instance_uid=SOPInstanceUID(values[0x00080018]),
        study_uid=StudyUID(values[0x0020000D]),
        series_uid=SeriesUID(values[0x0020000E]),
        modality=values.get(0x00080060, "")[:16],
        patient_id=values.get(0x00100020, "")[:_TEXT_CHARACTERS],
        issuer_of_patient_id=values.get(0x00100021, "")[:_TEXT_CHARACTERS],
        accession_number=values.get(0x00080050, "")[:_TEXT_CHARACTERS],
    )
    return _agreed(identity, request)


def _identify_any(request: StoreRequest, dataset: BinaryIO) -> Identity:
    ds = _read_prefix(dataset, UID(request.transfer_syntax))
    return Identity(
        sop_class_uid=SOPClassUID(_uid(ds, "SOPClassUID")),
        sop_instance_uid=SOPInstanceUID(_uid(ds, "SOPInstanceUID")),
        study_uid=StudyUID(_uid(ds, "StudyInstanceUID")),
        series_uid=SeriesUID(_uid(ds, "SeriesInstanceUID")),
        modality=_text(ds, "Modality", limit=16),
        patient_id=_text(ds, "PatientID"),
        issuer_of_patient_id=_text(ds, "IssuerOfPatientID"),
        accession_number=_text(ds, "AccessionNumber"),
    )


def file_header(request: StoreRequest, *, receiver: str) -> bytes:
    """Preamble and File Meta Information to stand before the data set bytes of a request (PS3.10 table 7.1-1).

    Parameters
    ----------
    request
        Its calling AE title becomes Source Application Entity Title.
    receiver
        Our own AE title, becomes Receiving Application Entity Title.

    Raises
    ------
    InvalidObject
        The request names no SOP class or no instance.
    """
    if not (ANY_UID.fullmatch(request.sop_class_uid) and ANY_UID.fullmatch(request.sop_instance_uid)):
        raise InvalidObject("The request names no SOP class or instance: digits and dots, at most 64.")
    # By hand, because every object waits for it: pydicom takes ten times as long.
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", request.sop_class_uid.encode()),
            _element(0x0003, b"UI", request.sop_instance_uid.encode()),
            _element(0x0010, b"UI", request.transfer_syntax.encode()),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
            _element(0x0016, b"AE", request.calling_ae_title.encode()),
            _element(0x0018, b"AE", receiver.encode()),
        )
    )
    return PREAMBLE + _element(0x0000, b"UL", struct.pack("<I", len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 0002 in Explicit VR Little Endian, padded to an even length (PS3.5 section 6.2)."""
    padded = value + (b"\0" if vr in {b"UI", b"OB"} else b" ") * (len(value) % 2)
    if vr == b"OB":
        return struct.pack("<HH2sxxI", 0x0002, number, vr, len(padded)) + padded
    return struct.pack("<HH2sH", 0x0002, number, vr, len(padded)) + padded


def _read_prefix(encoded: BinaryIO, transfer_syntax: UID) -> Dataset:
    if transfer_syntax == DeflatedExplicitVRLittleEndian:
        encoded = BytesIO(_inflate_start(encoded.read(_INFLATE_AT_MOST)))
    with any_error_as(NotDicom, f"The data set cannot be parsed as {transfer_syntax.name}: {{}}."), bounded(encoded) as file:
        return read_dataset(
            file,
            is_implicit_VR=transfer_syntax == ImplicitVRLittleEndian,
            is_little_endian=transfer_syntax != ExplicitVRBigEndian,
            stop_when=_past_identity,
            specific_tags=_WANTED,
        )


def _inflate_start(encoded: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(encoded, _INFLATE_AT_MOST)
    except zlib.error as error:
        raise NotDicom("The deflated data set does not inflate.") from error


def _past_identity(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group > _LAST_GROUP


def _uid(ds: Dataset, keyword: str) -> str:
    value = _value(ds, keyword)
    if not isinstance(value, str) and value:
        raise InvalidObject(f"{keyword} is not a UID: it has another value representation.")
    text = str(value or "").strip()
    if text == "":
        raise InvalidObject(f"{keyword} is missing.")
    if not ANY_UID.fullmatch(text):
        raise InvalidObject(f"{keyword} is not a UID: digits and dots, at most 64.")
    return text


def _text(ds: Dataset, keyword: str, *, limit: int = _TEXT_CHARACTERS) -> str:
    value = _value(ds, keyword)
    with any_error_as(NotDicom, f"{keyword} cannot be read: {{}}."):  # a sequence reads what it holds only now
        text = "" if value is None else str(value)
    # Half a surrogate pair, which a strange character set may leave, fits into no database.
    return text.encode("utf-8", "replace").decode().strip().replace("\x00", "")[:limit]


def _value(ds: Dataset, keyword: str) -> Any:
    with any_error_as(NotDicom, f"{keyword} cannot be read: {{}}."):
        return value_of(ds, keyword)
