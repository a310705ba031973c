"""Whether two files with one SOP Instance UID say the same: a retransmission, perhaps compressed otherwise, or a conflict."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from dicom_io.bounded import require_short
from dicom_io.errors import DicomError, InvalidObject
from dicom_io.foreign import any_error_as
from dicom_io.frame import Cells
from dicom_io.header import read_header
from dicom_io.stored import MOST_FILE_BYTES, read_cells, read_layout, transfer_syntax_of

_PIXEL_ENCODING = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00010})
"""Offset tables and the pixel data itself."""
_DATA_SET_TRAILING_PADDING = 0xFFFCFFFC
_MOST_ATTRIBUTES = 20_000
_BLOCK_ROWS = 64


def same_content(a: Path, b: Path) -> bool:
    """Compare what two files say, whatever their transfer syntaxes.

    Parameters
    ----------
    a, b
        DICOM files.

    Returns
    -------
    bool
        True where every attribute outside the file meta information is equal and the pixels decode to equal values. A
        lossy copy, a changed patient name and anything that cannot be read or decoded, or is too much to be compared,
        give False. Colour and multi-frame pixels are compared as bytes only.
    """
    try:
        if max(a.stat().st_size, b.stat().st_size) > MOST_FILE_BYTES:
            return False
        first, second = read_header(a), read_header(b)
        with any_error_as(InvalidObject, "The values cannot be compared ({})."):
            return _equal_attributes(first, second) and _equal_pixels(first, second)
    except (DicomError, OSError):  # unreadable is not the same
        return False


def _equal_pixels(a: Dataset, b: Dataset) -> bool:
    if "PixelData" not in a and "PixelData" not in b:
        return True
    if transfer_syntax_of(a) == transfer_syntax_of(b) and a.PixelData == b.PixelData:
        return True
    (values, cells), (other_values, other_cells) = _stored(a), _stored(b)
    return cells.shape == other_cells.shape and all(
        np.array_equal(values[cells[row : row + _BLOCK_ROWS]], other_values[other_cells[row : row + _BLOCK_ROWS]])
        for row in range(0, len(cells), _BLOCK_ROWS)
    )


def _stored(ds: Dataset) -> tuple[NDArray[np.int32], Cells]:
    """Stored values of what the cells hold, and the cells."""
    layout = read_layout(ds)
    return layout.cell_values(), read_cells(ds, layout)[0]


def _equal_attributes(a: Dataset, b: Dataset) -> bool:
    tags = _compared(a)
    if len(tags) > _MOST_ATTRIBUTES:
        raise InvalidObject("There are too many attributes to compare.")
    return tags == _compared(b) and all(_equal_at(tag, a, b) for tag in tags)


def _equal_at(tag: BaseTag, a: Dataset, b: Dataset) -> bool:
    for ds in (a, b):
        require_short(ds, tag)
    return _equal_elements(a[tag], b[tag])


def _compared(ds: Dataset) -> list[BaseTag]:
    return sorted(filter(_is_compared, ds.keys()))


def _is_compared(tag: BaseTag) -> bool:
    is_group_length = tag.element == 0
    return not is_group_length and tag != _DATA_SET_TRAILING_PADDING and tag not in _PIXEL_ENCODING


def _equal_elements(a: DataElement, b: DataElement) -> bool:
    if isinstance(a.value, Sequence) and isinstance(b.value, Sequence):
        return len(a.value) == len(b.value) and all(map(_equal_attributes, a.value, b.value))
    return _encoded(a) == _encoded(b)


def _encoded(element: DataElement) -> bytes:
    """Write one element as implicit VR little endian, where an unknown VR and the true one come out alike."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = True, True
    write_data_element(buffer, element, ["ISO_IR 192"])
    return buffer.getvalue()
