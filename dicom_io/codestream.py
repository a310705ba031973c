"""What a compressed frame says of itself, read before any decoder is near it (ISO/IEC 10918-1, 14495-1, 15444-1)."""

import struct
from dataclasses import dataclass
from typing import Final

from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

from dicom_io.errors import UndecodablePixels

HTJ2K: Final = frozenset({"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"})
_END = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_START_OF_SCAN = 0xDA
_SEQUENTIAL = (0xC0, 0xC1)
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15 of JPEG without DHT, JPG and DAC among them, and SOF55 of JPEG-LS."""
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """Size as the frame header has it."""

    rows: int
    columns: int
    samples: int


def checked_frame(frame: bytes, *, transfer_syntax: UID, rows: int, columns: int) -> bytes:
    """Refuse a compressed frame that would decode to something else than the data set says.

    Parameters
    ----------
    frame
        One frame, its fragments joined.
    transfer_syntax
        One of the encapsulated transfer syntaxes; those without a parser here pass unchecked.
    rows, columns
        As the data set says, single sample.

    Returns
    -------
    bytes
        The frame, its scan header repaired where an encoder is known to write it wrongly.

    Raises
    ------
    UndecodablePixels
        Other dimensions than Rows and Columns, more than one sample, or a frame that ends early.
    """
    if transfer_syntax in JPEG2000TransferSyntaxes or transfer_syntax in HTJ2K:
        announced = _read_size_marker(frame)
    elif transfer_syntax in JPEGTransferSyntaxes or transfer_syntax in JPEGLSTransferSyntaxes:
        frame, announced = _read_jpeg(frame)
    else:
        return frame
    if (announced.rows, announced.columns) != (rows, columns):
        raise UndecodablePixels(
            f"The compressed image is {announced.rows} by {announced.columns}, Rows and Columns say {rows} by {columns}."
        )
    if announced.samples != 1:
        raise UndecodablePixels(f"The compressed image has {announced.samples} samples per pixel, SamplesPerPixel says 1.")
    if _END not in frame[-16:]:  # a pad byte or two may follow
        raise UndecodablePixels("The compressed image ends early: it has no end marker.")
    return frame


def _read_jpeg(frame: bytes) -> tuple[bytes, Announced]:
    """Walk the marker segments up to the first scan (ISO/IEC 10918-1 B.1.1.4)."""
    if frame[:2] != b"\xff\xd8":
        raise UndecodablePixels("The compressed image is not JPEG: no start marker.")
    announced: Announced | None = None
    sequential = False
    at = 2
    while at + 4 <= len(frame):
        if frame[at] != 0xFF:
            break
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", frame, at + 2)
        if marker in _FRAME_HEADERS and at + 10 <= len(frame):
            rows, columns, samples = struct.unpack_from(">HHB", frame, at + 5)
            announced, sequential = Announced(rows=rows, columns=columns, samples=samples), marker in _SEQUENTIAL
        if marker == _START_OF_SCAN:
            if announced is None:
                break
            return (_with_full_spectrum(frame, at) if sequential else frame), announced
        at += 2 + length
    raise UndecodablePixels("The compressed image has no readable JPEG frame header.")


def _with_full_spectrum(frame: bytes, scan: int) -> bytes:
    """Set Ss, Se, Ah and Al of a sequential scan to the only values allowed, 0, 63, 0, 0 (ISO/IEC 10918-1 B.2.3).

    Some 12-bit encoders leave Se at 0, which makes libjpeg refuse a sound image.
    """
    if scan + 5 > len(frame):
        return frame
    at = scan + 5 + 2 * frame[scan + 4]
    return frame if frame[at : at + 3] == b"\x00\x3f\x00" else frame[:at] + b"\x00\x3f\x00" + frame[at + 3 :]


def _read_size_marker(frame: bytes) -> Announced:
    """SIZ follows SOC at once (ISO/IEC 15444-1 A.5.1)."""
    if frame[:4] != b"\xff\x4f\xff\x51" or len(frame) < 42:
        raise UndecodablePixels("The compressed image is not a JPEG 2000 codestream: no SIZ marker at its start.")
    x_size, y_size, x_offset, y_offset = struct.unpack_from(">4I", frame, 8)
    (samples,) = struct.unpack_from(">H", frame, 40)
    return Announced(rows=y_size - y_offset, columns=x_size - x_offset, samples=samples)
