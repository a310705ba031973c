"""Radiographs from PNG and JPEG files, for training and for the command line. DICOM is `dicom_io`'s."""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cxr_models.errors import UnreadableImage

SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
SIXTEEN_BIT = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for files that are cut off, broken, of another format, or too large to be a film."""


def read_radiograph(path: Path) -> NDArray[np.float32]:
    """Read a PNG or JPEG file as a grey image.

    16-bit grey keeps its depth; colour, palettes and CMYK become grey by ITU-R 601 luma, transparent pixels black. An EXIF
    orientation is obeyed.

    Returns
    -------
    numpy.ndarray
        Shape (rows, columns), 0..1, where 1 is the file's largest possible value.

    Raises
    ------
    UnreadableImage
        The file is missing, cut off, or neither PNG nor JPEG.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode in SIXTEEN_BIT:
                return np.asarray(upright, dtype=np.float32) / np.float32(65535)
            return np.asarray(_grey(upright), dtype=np.float32) / np.float32(255)
    except FileNotFoundError as error:
        raise UnreadableImage(f"There is no file {path}.") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"{path} is neither PNG nor JPEG.") from error
    except DAMAGE as error:
        raise UnreadableImage(f"{path} cannot be read as an image: {error}.") from error


def _grey(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, layer).convert("RGB")
    return image.convert("L")
