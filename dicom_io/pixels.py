"""From a file to the picture a reader would see, in one chain (PS3.4 N.2, Grayscale Standard Display Function pipeline).

stored cell -> stored value -> Modality LUT -> VOI LUT or window -> polarity -> patient's orientation -> 0..1
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.attributes import Unreadable, integers, numbers, shown, strings
from dicom_io.frame import Cells
from dicom_io.header import read_header
from dicom_io.shutter import Mask, visible_pixels
from dicom_io.standing import AS_TOLD, Correction, Standing, orientation_of
from dicom_io.stored import MAX_PIXELS, Layout, read_cells, read_layout
from dicom_io.voi import display_values, is_inverted, modality_values

__all__ = ["AS_TOLD", "MAX_PIXELS", "Correction", "Image", "image_from", "read_header", "read_image"]

_BLOCK_ROWS = 64  # keeps numpy's block of 64-bit indices in the processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A radiograph as displayed."""

    pixels: NDArray[np.float32]
    """Shape (rows, columns), 0..1, finite; bright is dense, the patient's right is at the picture's left, the head up."""
    notes: tuple[str, ...]
    """How it came about: the VOI, loss, shutters, turning. No values of a patient."""


def read_image(path: Path, correction: Correction = AS_TOLD) -> Image:
    """Read one radiograph.

    Parameters
    ----------
    path
        A DICOM file.
    correction
        What its pixels told, where it was looked at before.

    Raises
    ------
    NotDicom
        The file cannot be parsed.
    UndecodablePixels
        It can, but its pixels cannot be turned into an image; the message says why.
    """
    return image_from(read_header(path), correction)


def image_from(ds: Dataset, correction: Correction = AS_TOLD) -> Image:
    """Turn a data set into a picture.

    Parameters
    ----------
    ds
        Single frame, monochrome, with Pixel Data in memory or deferred and ``ds.file_meta.TransferSyntaxUID``.
    correction
        As for `read_image`.

    Returns
    -------
    Image
        Padding and whatever lies outside shutter and collimator is 0 and has no part in the contrast. A constant image
        without window is 0 throughout.

    Raises
    ------
    UndecodablePixels
        See `stored.read_layout`, `stored.read_cells` and `voi`.
    """
    layout = read_layout(ds)
    inverted, contradiction = is_inverted(ds)
    stored = layout.cell_values()
    values = modality_values(ds, stored, layout)
    cells, doubt = read_cells(ds, layout)
    visible, shapes = visible_pixels(ds, layout.rows, layout.columns)
    padding = _padding(ds, stored, layout)

    def counts() -> NDArray[np.int64]:
        return np.where(padding, 0, _histogram(cells, visible, len(stored)))

    table, how = display_values(ds, values, counts, layout)
    if inverted != correction.inverted:
        table = 1.0 - table
    table[padding] = 0.0
    pixels = _look_up(cells, table.astype(np.float32), visible)
    standing = Standing.of(ds, correction)
    turned = standing.note and f"{standing.note}, PatientOrientation was {shown(orientation_of(ds) or ())}"
    notes = (how, doubt, contradiction, _loss(ds), *shapes, turned)
    return Image(pixels=standing.upright(pixels), notes=tuple(note for note in notes if note))


def _histogram(cells: Cells, visible: Mask | None, size: int) -> NDArray[np.int64]:
    found = np.zeros(size, np.int64)
    for row in range(0, len(cells), _BLOCK_ROWS):
        block = slice(row, row + _BLOCK_ROWS)
        found += np.bincount((cells[block] if visible is None else cells[block][visible[block]]).ravel(), minlength=size)
    return found


def _look_up(cells: Cells, table: NDArray[np.float32], visible: Mask | None) -> NDArray[np.float32]:
    pixels = np.empty(cells.shape, np.float32)
    for row in range(0, len(cells), _BLOCK_ROWS):
        block = slice(row, row + _BLOCK_ROWS)
        np.take(table, cells[block], out=pixels[block], mode="clip")
        if visible is not None:
            pixels[block] *= visible[block]
    return pixels


def _padding(ds: Dataset, stored: NDArray[np.int32], layout: Layout) -> NDArray[np.bool_]:
    """Tell which cell contents are padding (PS3.3 C.7.5.1.1.2)."""
    bounds: list[int] = []
    with suppress(Unreadable):  # absent, many or no number: then there is no such bound
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
            bounds += integers(ds, keyword, count=1)
    if not bounds:
        return np.zeros(len(stored), np.bool_)
    low, high = min(bounds), max(bounds)
    if layout.signed and low >= 0x8000:  # written as US although the pixels are signed
        low, high = low - 0x10000, high - 0x10000
    if low > layout.highest or high < layout.lowest:  # beyond Bits Stored: the whole cell is meant
        return np.equal(np.arange(len(stored)), low % len(stored))
    return np.logical_and(stored >= low, stored <= high)


def _loss(ds: Dataset) -> str | None:
    try:
        if strings(ds, "LossyImageCompression") != ("01",):
            return None
        ratio = max(numbers(ds, "LossyImageCompressionRatio"), default=0.0)
    except Unreadable:  # a note is not worth a film
        ratio = 0.0
    return f"lossy compression {ratio:g}:1" if ratio else "lossy compression"
