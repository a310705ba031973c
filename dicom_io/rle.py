"""DICOM's run length encoding (PS3.5 Annex G), decoded here because a frame does not tell its size.

The decoders at hand cut or pad a frame of other dimensions without a word, or panic; the sheared picture would be analysed.
"""

import struct
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dicom_io.errors import UndecodablePixels

_HEADER_BYTES = 64
_MOST_GROWTH = 64  # two bytes stand for at most 128
_PAD_BYTES = 1  # a segment of odd length is padded, and the pad byte may read as one more value


def unpacked(frame: bytes, *, rows: int, columns: int, bytes_per_pixel: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode one single-sample frame.

    Parameters
    ----------
    frame
        Header and segments, most significant byte plane first.
    rows, columns, bytes_per_pixel
        What it must hold; 1 or 2 bytes.

    Returns
    -------
    NDArray[np.uint8] | NDArray[np.uint16]
        Shape ``(rows, columns)``.

    Raises
    ------
    UndecodablePixels
        It holds something else.
    """
    if len(frame) < _HEADER_BYTES:
        raise UndecodablePixels("The RLE image is shorter than its header.")
    count, *offsets = struct.unpack_from("<16I", frame)
    if count != bytes_per_pixel:
        raise UndecodablePixels(f"The RLE image has {count} segments where {bytes_per_pixel} are expected.")
    bounds = [*offsets[:count], len(frame)]
    if bounds[0] < _HEADER_BYTES or any(end <= start for start, end in pairwise(bounds)):
        raise UndecodablePixels("The RLE image has segment offsets outside its data.")
    pixels = rows * columns
    if any((end - start) * _MOST_GROWTH < pixels for start, end in pairwise(bounds)):
        raise UndecodablePixels("The RLE image ends early: its segments are too short for Rows by Columns.")
    planes = np.empty((pixels, count), np.uint8)
    for plane, (start, end) in enumerate(pairwise(bounds)):
        planes[:, plane] = np.frombuffer(_unpacked_segment(frame[start:end], pixels), np.uint8, pixels)
    cells = planes.reshape(-1) if count == 1 else planes.view(">u2").astype(np.uint16).reshape(-1)
    return cells.reshape(rows, columns)


def _unpacked_segment(segment: bytes, pixels: int) -> bytearray:
    values = bytearray()
    at, end = 0, len(segment)
    while at < end and len(values) <= pixels + _PAD_BYTES:
        control = segment[at]
        if control < 128:
            values += segment[at + 1 : at + 2 + control]
            at += 2 + control
        elif control > 128:
            values += segment[at + 1 : at + 2] * (257 - control)
            at += 2
        else:
            at += 1
    if not pixels <= len(values) <= pixels + _PAD_BYTES:
        found = "more" if len(values) > pixels else len(values)
        raise UndecodablePixels(f"An RLE segment holds {found} values where Rows by Columns needs {pixels}.")
    return values
