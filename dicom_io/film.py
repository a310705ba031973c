"""The radiograph as a picture on a page, alone or under the map of what spoke for a condition."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicom_io.errors import InvalidReport
from dicom_io.values import Saliency, StudyFindings

_COLOURS: Final = ["0d0887", "4c02a1", "7e03a8", "aa2395", "cc4778", "e66c5c", "f89540", "fdc527", "f0f921"]
"""Plasma (Smith and van der Walt 2015): even steps to the eye, rising in brightness, told apart by every kind of colour vision,
and nowhere grey, as the film is everywhere."""
_STOPS: Final = np.array([[*bytes.fromhex(colour)] for colour in _COLOURS], np.float64)
_PALETTE: Final = bytes(
    np.rint([np.interp(np.arange(256), np.linspace(0, 255, len(_STOPS)), channel) for channel in _STOPS.T])
    .astype(np.uint8)
    .T.tobytes()
)
_FROM, _FULL, _MOST_COVER = 0.2, 0.7, 0.5
_COVER: Final = [round(255 * _MOST_COVER * min(1, max(0, (value / 255 - _FROM) / (_FULL - _FROM)))) for value in range(256)]
"""How opaque each value of a map is: what spoke little is not covered, and the film stays readable under what spoke most."""
_LARGEST: Final = 896, 1152
"""Columns and rows that a film has on any page, at most."""
_FINER: Final = 1.1
"""How much finer than on the page a film stays before it is drawn there by a filter that keeps edges."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """What is shown of a study."""

    number: int
    """Which image of the findings, from 0."""
    pixels: NDArray[np.float32]
    """Rows, columns; 0 (black) to 1 (white) as displayed."""
    saliency: Saliency | None = None
    """Laid over it."""

    def __post_init__(self) -> None:
        """Raise `InvalidReport` for what is no picture between 0 and 1."""
        require_shares(self.pixels)
        if self.saliency is not None:
            require_shares(self.saliency.map)


def require_image(findings: StudyFindings, number: int) -> None:
    """Refuse a number, from 0, that names no image of the findings.

    Raises
    ------
    InvalidReport
    """
    if not 0 <= number < len(findings.images):
        raise InvalidReport("The findings have no such image.")


def require_shares(values: NDArray[Any]) -> None:
    """Refuse what is not rows and columns of values from 0 to 1 (NaN compares false).

    Raises
    ------
    InvalidReport
    """
    if values.ndim != 2 or values.size == 0 or not (values.min() >= 0 and values.max() <= 1):
        raise InvalidReport("The pixels to be shown are not rows and columns between 0 and 1.")


def reduce_film(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average squares of pixels, as large as leave a film finer than any page shows it: for all pages at once.

    Parameters
    ----------
    pixels
        Rows, columns; 0..1.

    Returns
    -------
    numpy.ndarray
        Rows, columns; 0..1. The same where the film is no larger than a page shows it.
    """
    rows, columns = pixels.shape
    factor = int(max(columns / _LARGEST[0], rows / _LARGEST[1]) / _FINER)
    return pixels if factor < 2 else np.asarray(Image.fromarray(pixels).reduce(factor))


def draw_film(shown: Shown, room: tuple[int, int]) -> Image.Image:
    """Draw the radiograph in its own proportions, as large as the room allows, under its map where it has one.

    Parameters
    ----------
    room
        Width and height, in pixels.

    Returns
    -------
    Image.Image
        Grey, or RGB under a map.
    """
    rows, columns = shown.pixels.shape
    scale = min(room[0] / columns, room[1] / rows)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    film = as_picture(shown.pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=_FINER)
    return film if shown.saliency is None else _covered(film, shown.saliency.map)


def draw_scale(size: tuple[int, int]) -> Image.Image:
    """Draw the colours of a map from 0 at the left to 1 at the right, as they look over a film of middle grey.

    Parameters
    ----------
    size
        Width and height, in pixels.
    """
    return _covered(Image.new("L", size, 110), np.linspace(0, 1, 256, dtype=np.float32)[None])


def as_picture(values: NDArray[np.float32]) -> Image.Image:
    """Values of 0 to 1 as a grey picture of the same size."""
    scaled = values * np.float32(255)
    scaled += np.float32(0.5)
    return Image.fromarray(scaled.astype(np.uint8))


def _covered(film: Image.Image, values: NDArray[np.float32]) -> Image.Image:
    spread = as_picture(values).resize(film.size, Image.Resampling.BICUBIC)
    cover = spread.point(_COVER)
    spread.putpalette(_PALETTE)
    return Image.composite(spread.convert("RGB"), film.convert("RGB"), cover)
