"""Files as they lie on disk, read back: whose they are, and whether their bytes are those that came (PS3.10 section 7)."""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pydicom.filereader import read_file_meta_info

from dicom_io.errors import NotDicom
from dicom_io.foreign import any_error_as
from dicom_io.part10 import PREAMBLE, Identity, StoreRequest, identify
from dicom_io.values import EXACT_UID, SOPClassUID, SOPInstanceUID, TransferSyntaxUID

_TITLE_CHARACTERS: Final = 16
_GROUP_LENGTH: Final = struct.Struct("<HH2sHI")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A PS3.10 file that was found on disk."""

    identity: Identity
    transfer_syntax: TransferSyntaxUID
    source_ae_title: str
    """Who sent it, by its file meta; empty where that does not say."""


def read_found(path: Path) -> FoundFile:
    """Read whose object a file is.

    Raises
    ------
    NotDicom, InvalidObject
        It is no PS3.10 file, or lacks what every stored object must have.
    OSError
        The disk did not give it.
    """
    with any_error_as(NotDicom, "The file meta cannot be read: {}."):
        meta = read_file_meta_info(path)
        source = str(meta.get("SourceApplicationEntityTitle", "")).strip()
        sop_class, sop_instance = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
        transfer_syntax = TransferSyntaxUID(str(meta.TransferSyntaxUID))
        if not EXACT_UID.fullmatch(transfer_syntax) or len(source) > _TITLE_CHARACTERS or not source.isprintable():
            raise NotDicom("The file meta names no transfer syntax, or a sender that is none.")
    request = StoreRequest(
        sop_class_uid=SOPClassUID(sop_class),
        sop_instance_uid=SOPInstanceUID(sop_instance),
        transfer_syntax=transfer_syntax,
        calling_ae_title=source,
        called_ae_title="",
        peer_address="",
    )
    with path.open("rb") as file:
        file.seek(_dataset_begin(file))
        identity = identify(request, file)
    return FoundFile(identity=identity, transfer_syntax=transfer_syntax, source_ae_title=source)


def dataset_digest(path: Path) -> tuple[str, int]:
    """SHA-256 (hexadecimal) and size in bytes of the data set in a PS3.10 file, the file meta left out.

    Raises
    ------
    NotDicom
        It does not begin as one.
    OSError
        The disk did not give it.
    """
    with path.open("rb") as file:
        begin = file.seek(_dataset_begin(file))
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell() - begin


def _dataset_begin(file: BinaryIO) -> int:
    """Where the data set begins: behind the group that (0002,0000) gives the length of (PS3.10 table 7.1-1)."""
    begin = file.read(len(PREAMBLE) + _GROUP_LENGTH.size)
    if len(begin) < len(PREAMBLE) + _GROUP_LENGTH.size or begin[128:132] != b"DICM":
        raise NotDicom("The file does not begin as PS3.10 says.")
    group, element, vr, _, length = _GROUP_LENGTH.unpack(begin[len(PREAMBLE) :])
    if (group, element, vr) != (0x0002, 0x0000, b"UL"):
        raise NotDicom("The file meta does not begin with its length.")
    return len(begin) + int(length)
