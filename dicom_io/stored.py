"""From the Pixel Data element to stored values: bounded, single frame, single sample (PS3.3 C.7.6.3, PS3.5 section 8)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from dicom_io.bounded import value_of
from dicom_io.codestream import checked_frame
from dicom_io.decoders import decoders
from dicom_io.errors import UndecodablePixels
from dicom_io.foreign import any_error_as
from dicom_io.frame import Cells, Frame
from dicom_io.quiet import quietly
from dicom_io.rle import unpacked
from dicom_io.values import ANY_UID

MAX_PIXELS: Final = 60_000_000
"""Rows times Columns that is still decoded; the largest stitched radiographs have some 30 million.

A film of so many that is turned and inverted takes 800 MiB, however few bytes it came in.
"""

MOST_FILE_BYTES: Final = 256 * 1024 * 1024
"""A file whose pixels are read at all: `MAX_PIXELS` of 16 bits, and some more."""

LOSSY: Final = frozenset(
    {
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.81",
        "1.2.840.10008.1.2.4.91",
        "1.2.840.10008.1.2.4.203",
    }
)
"""Transfer syntaxes whose decoded values may overshoot BitsStored by rounding, and so are clipped, never masked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the stored value lies in its cell, checked."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    lossy: bool
    """Whether the transfer syntax allows loss."""

    @property
    def lowest(self) -> int:
        """Smallest stored value there can be."""
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """Largest stored value there can be."""
        return (1 << (self.bits_stored - self.signed)) - 1

    def cell_values(self) -> NDArray[np.int32]:
        """Stored value of each content that a cell can have.

        Returns
        -------
        NDArray[np.int32]
            Shape ``(2 ** bits_allocated,)``: overlay bits stripped, two's complement undone (PS3.5 8.1.1).
        """
        cells = np.arange(1 << self.bits_allocated, dtype=np.int32)
        if self.lossy:
            if self.signed:
                cells = np.where(cells >> (self.bits_allocated - 1), cells - (1 << self.bits_allocated), cells)
            return np.clip(cells, self.lowest, self.highest).astype(np.int32)
        values = (cells >> (self.high_bit + 1 - self.bits_stored)) & ((1 << self.bits_stored) - 1)
        return np.where(values > self.highest, values - (1 << self.bits_stored), values).astype(np.int32)


def read_layout(ds: Dataset) -> Layout:
    """Check the Image Pixel attributes.

    Raises
    ------
    UndecodablePixels
        One is missing, contradictory, or asks for more than `MAX_PIXELS`.
    """
    rows, columns = _integer(ds, "Rows"), _integer(ds, "Columns")
    if rows < 1 or columns < 1:
        raise UndecodablePixels(f"Rows {rows} and Columns {columns} leave no image.")
    if rows * columns > MAX_PIXELS:
        raise UndecodablePixels(f"Rows {rows} by Columns {columns} is more than {MAX_PIXELS} pixels.")
    if (samples := _integer(ds, "SamplesPerPixel", 1)) != 1:
        raise UndecodablePixels(f"SamplesPerPixel is {samples}, 1 is expected.")
    if (frames := _integer(ds, "NumberOfFrames", 1)) > 1:
        raise UndecodablePixels(f"NumberOfFrames is {frames}, 1 is expected.")
    bits_allocated = _integer(ds, "BitsAllocated")
    if bits_allocated not in (8, 16):
        raise UndecodablePixels(f"BitsAllocated is {bits_allocated}, 8 or 16 is expected.")
    bits_stored = _integer(ds, "BitsStored", bits_allocated)
    high_bit = _integer(ds, "HighBit", bits_stored - 1)
    if not 1 <= bits_stored <= high_bit + 1 <= bits_allocated:
        raise UndecodablePixels(f"BitsStored {bits_stored} and HighBit {high_bit} do not fit BitsAllocated {bits_allocated}.")
    if (representation := _integer(ds, "PixelRepresentation", 0)) not in (0, 1):
        raise UndecodablePixels(f"PixelRepresentation is {representation}, 0 or 1 is expected.")
    return Layout(
        rows=rows,
        columns=columns,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=high_bit,
        signed=representation == 1,
        lossy=transfer_syntax_of(ds) in LOSSY,
    )


def read_cells(ds: Dataset, layout: Layout) -> tuple[Cells, str | None]:
    """Decode the one frame.

    Parameters
    ----------
    ds
        With Pixel Data, in memory or deferred.
    layout
        From `read_layout` of the same data set.

    Returns
    -------
    tuple[Cells, str | None]
        Shape ``(rows, columns)``, the raw content of each cell, which `Layout.cell_values` maps to stored values; and a
        note where decoders did not agree that the image is sound.

    Raises
    ------
    UndecodablePixels
        No pixel data, too little of it, or no decoder that reads it.
    OSError
        No process can be started to decode it; see `status.is_transient`.
    """
    with quietly:
        with any_error_as(UndecodablePixels, "PixelData cannot be read ({})."):  # perhaps only now, from the file
            if (path := getattr(ds, "filename", None)) and Path(path).stat().st_size > MOST_FILE_BYTES:
                raise UndecodablePixels(f"The file has more than {MOST_FILE_BYTES} bytes.")
            value = ds.get("PixelData")
        if not isinstance(value, bytes | bytearray | memoryview) or len(value) == 0:
            raise UndecodablePixels("There is no PixelData.")
        transfer_syntax = transfer_syntax_of(ds)
        if not ANY_UID.fullmatch(transfer_syntax):  # what it is instead may fit into no column
            raise UndecodablePixels("TransferSyntaxUID is not a UID.")
        if transfer_syntax.is_private or not transfer_syntax.is_transfer_syntax:
            raise UndecodablePixels(f"Transfer syntax {transfer_syntax} is unknown.")
        if transfer_syntax.is_encapsulated:
            return _decode(bytes(value), transfer_syntax, layout)
        swapped = transfer_syntax == ExplicitVRBigEndian and ds["PixelData"].VR == "OW"
        return _native(value, layout, big_endian_words=swapped), None


def transfer_syntax_of(ds: Dataset) -> UID:
    """Transfer syntax of the pixel data.

    Raises
    ------
    UndecodablePixels
        The data set does not carry one.
    """
    value = getattr(ds, "file_meta", Dataset()).get("TransferSyntaxUID")
    if not isinstance(value, UID):
        raise UndecodablePixels("TransferSyntaxUID is missing.")
    return value


def _native(value: bytes | bytearray | memoryview, layout: Layout, *, big_endian_words: bool) -> Cells:
    count = layout.rows * layout.columns
    needed = count * layout.bits_allocated // 8
    if len(value) < needed:
        raise UndecodablePixels(f"PixelData has {len(value)} bytes where Rows by Columns needs {needed}.")
    cells: Cells
    if layout.bits_allocated == 16:
        cells = np.frombuffer(value, ">u2" if big_endian_words else "<u2", count).astype(np.uint16, copy=False)
    elif big_endian_words:  # 8-bit cells in 16-bit words stand in swapped pairs (PS3.5 8.1.1)
        words = np.frombuffer(value, ">u2", len(value) // 2)
        cells = words.astype("<u2").view(np.uint8)[:count]
        if len(cells) < count:
            raise UndecodablePixels("PixelData is not a whole number of words.")
    else:
        cells = np.frombuffer(value, np.uint8, count)
    return cells.reshape(layout.rows, layout.columns)


def _decode(value: bytes, transfer_syntax: UID, layout: Layout) -> tuple[Cells, str | None]:
    with any_error_as(UndecodablePixels, "The fragments of PixelData cannot be read ({})."):
        frame = next(generate_frames(value, number_of_frames=1))
    if transfer_syntax == RLELossless:
        bytes_per_pixel = layout.bits_allocated // 8
        return unpacked(frame, rows=layout.rows, columns=layout.columns, bytes_per_pixel=bytes_per_pixel), None
    frame = checked_frame(frame, transfer_syntax=transfer_syntax, rows=layout.rows, columns=layout.columns)
    return decoders.decode(
        Frame(
            transfer_syntax=transfer_syntax,
            rows=layout.rows,
            columns=layout.columns,
            bits_allocated=layout.bits_allocated,
            bits_stored=layout.bits_stored,
            signed=layout.signed,
            data=frame,
        )
    )


def _integer(ds: Dataset, keyword: str, default: int | None = None) -> int:
    with any_error_as(UndecodablePixels, f"{keyword} is not one whole number."):
        value = value_of(ds, keyword)
        number = default if value is None or value == "" else int(value)
    if number is None:
        raise UndecodablePixels(f"{keyword} is missing.")
    return number
