"""A file's data set, with what is large left on disk."""

import zlib
from io import BytesIO
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io.bounded import bounded
from dicom_io.errors import NotDicom
from dicom_io.foreign import any_error_as

MAX_INFLATED_BYTES: Final = 256 * 1024 * 1024
"""What a deflated data set may grow to: a kilobyte of zeros inflates to a megabyte, a file of 100 MB to a machine's memory."""

_DEFER_BYTES = 64 * 1024
_INFLATE_BYTES = 1024 * 1024
_META_START = 132
_GROUP_LENGTH_ELEMENT = 12


def read_header(path: Path) -> Dataset:
    """Read all attributes of a file, leaving values larger than 64 KiB (its pixel data) on disk until they are asked for.

    Parameters
    ----------
    path
        A PS3.10 file, or a bare data set without preamble as old archives hold them.

    Returns
    -------
    Dataset
        ``"PixelData" in ds`` tells whether there are pixels; ``ds.file_meta.TransferSyntaxUID`` is always set, from the bytes
        where the file does not name it.

    Raises
    ------
    NotDicom
        The file cannot be parsed, or holds nothing that names a kind of object. A missing file raises `OSError` as usual.
    """
    not_there = (FileNotFoundError, PermissionError, IsADirectoryError)
    with any_error_as(NotDicom, "The file cannot be parsed as DICOM ({}).", but=not_there):
        with path.open("rb") as file:
            has_preamble = file.read(_META_START)[128:] == b"DICM"
        ds = _parse(path, has_preamble=has_preamble)
        names_its_kind = bool(ds.get("SOPClassUID") or ds.get("Modality"))
    if not names_its_kind:
        raise NotDicom("The file names neither SOPClassUID nor Modality.")
    return ds


def _parse(path: Path, *, has_preamble: bool) -> Dataset:
    if has_preamble:
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return _inflated(path, meta)
    with path.open("rb") as file, bounded(file) as reader:
        ds = dcmread(reader, force=not has_preamble, defer_size=_DEFER_BYTES)
    ds.filename = str(path)  # where deferred values are
    if not ds.file_meta.get("TransferSyntaxUID"):
        is_implicit, is_little_endian = ds.original_encoding
        explicit = ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    return ds


def _inflated(path: Path, meta: FileMetaDataset) -> Dataset:
    # pydicom inflates without bound, and its deferred values would be looked for in the deflated file.
    start = _META_START + _GROUP_LENGTH_ELEMENT + int(meta.FileMetaInformationGroupLength)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    encoded = BytesIO()
    with path.open("rb") as file:
        file.seek(start)
        while not inflater.eof and (chunk := inflater.unconsumed_tail or file.read(_INFLATE_BYTES)):
            encoded.write(inflater.decompress(chunk, _INFLATE_BYTES))
            if encoded.tell() > MAX_INFLATED_BYTES:
                raise NotDicom(f"The deflated data set is larger than {MAX_INFLATED_BYTES} bytes.")
    encoded.seek(0)
    with bounded(encoded, most_bytes=MAX_INFLATED_BYTES) as reader:  # its pixels too
        ds = read_dataset(reader, is_implicit_VR=False, is_little_endian=True)
    return FileDataset(encoded, ds, file_meta=meta, is_implicit_VR=False)
