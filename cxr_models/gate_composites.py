"""Pictures made of chest films that are no frontal chest radiographs themselves. Only training needs them."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_models.gate_drawings import SIDE, oval, texture

Floats = NDArray[np.floating[Any]]

FILM_SIDE: Final = 256
"""At which films are kept, so that a quarter of one is still sharp."""


def composed(kind: str, film: Floats, other: Floats, draw: np.random.Generator) -> Floats:
    """Compose a picture of a kind from a film, and perhaps another one.

    Parameters
    ----------
    kind
        One of `COMPOSITES`.
    film, other
        Frontal films, shape (256, 256), 0..1.
    draw
        Decides everything that differs between two pictures of a kind.

    Returns
    -------
    numpy.ndarray
        Shape (128, 128), 0..1.
    """
    return _COMPOSE[kind](film, other, draw).clip(0, 1).astype(np.float32)


def _resized(film: Floats, size: tuple[int, int], box: tuple[float, float, float, float] | None = None) -> Floats:
    image = Image.fromarray(np.ascontiguousarray(film, np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0), np.float32)


def _part(film: Floats, _: Floats, draw: np.random.Generator) -> Floats:
    """A piece too small to be a chest: one side of it, what lies below the lungs, the neck, a detail."""
    kind = draw.choice(["side", "below", "above", "detail"])
    span = draw.uniform(0.3, 0.45)
    if kind == "side":
        top, height = draw.uniform(0, 0.2), draw.uniform(0.6, 1)
        left = draw.choice([draw.uniform(0, 0.12), 1 - span - draw.uniform(0, 0.12)])
        box = (left, top, left + span, min(top + height, 1))
    elif kind == "below":
        box = (draw.uniform(0, 0.2), 1 - draw.uniform(0.15, 0.3), 1 - draw.uniform(0, 0.2), 1.0)
    elif kind == "above":
        box = (draw.uniform(0, 0.3), 0.0, 1 - draw.uniform(0, 0.3), draw.uniform(0.15, 0.28))
    else:
        span = draw.uniform(0.15, 0.4)
        left, top = draw.uniform(0, 1 - span, 2)
        box = (left, top, left + span, top + span)
    left, top, right, bottom = (float(each) * FILM_SIDE for each in box)
    return _resized(film, (SIDE, SIDE), (left, top, right, bottom))


def _several(film: Floats, other: Floats, draw: np.random.Generator) -> Floats:
    """Several pictures on one: two side by side or one above the other, a sheet of them, a film within a page."""
    half = SIDE // 2
    kind = draw.choice(["beside", "beside", "above", "sheet", "page"])
    if kind == "beside":
        gap = int(draw.integers(0, 8))
        picture = np.full((SIDE, SIDE), draw.choice([0.0, 1.0]), np.float32)
        picture[:, : half - gap] = _resized(film, (half - gap, SIDE))
        picture[:, half + gap :] = _resized(other, (half - gap, SIDE))
        return picture
    if kind == "above":
        return np.vstack([_resized(film, (SIDE, half)), _resized(other, (SIDE, half))])
    if kind == "sheet":
        size = SIDE // int(draw.integers(2, 5))
        row = np.hstack([_resized(each, (size, size)) for each in (film, other)])
        return np.tile(row, (SIDE // row.shape[0] + 1, SIDE // row.shape[1] + 1))[:SIDE, :SIDE]
    size = int(draw.uniform(0.25, 0.45) * SIDE)
    page = np.full((SIDE, SIDE), draw.choice([0.0, 0.1, 0.9, 1.0]), np.float32)
    y, x = draw.integers(0, SIDE - size, 2)
    page[y : y + size, x : x + size] = _resized(film, (size, size))
    for line in range(0, SIDE, int(draw.integers(5, 12))):
        blank = page[line : line + 2, : int(draw.integers(20, SIDE))]
        blank[:] = np.where(np.arange(blank.shape[1]) % 5 < 3, 1 - page[0, 0], blank)
    return page


def _scout(film: Floats, _: Floats, draw: np.random.Generator) -> Floats:
    """A scout of a scanner: the chest is the upper middle of a trunk that goes on, arms beside it, black around."""
    is_near = draw.random() < 0.35  # cut off at the hips and the chin: what looks most like a film
    width, height = (
        (draw.uniform(0.5, 0.68), draw.uniform(0.55, 0.8)) if is_near else (draw.uniform(0.42, 0.7), draw.uniform(0.3, 0.6))
    )
    top = draw.uniform(0, 0.1) if is_near else draw.uniform(0.02, 0.3)
    side, rows = int(width * SIDE), int(height * SIDE)
    left, first = (SIDE - side) // 2 + int(draw.integers(-6, 7)), int(top * SIDE)
    chest = _resized(film, (side, rows))
    level = float(np.quantile(chest, 0.8))
    trunk = oval(draw, at=(0, draw.uniform(0.2, 0.6)), size=(width * draw.uniform(0.95, 1.25), draw.uniform(0.9, 1.4)), power=4)
    picture = trunk * level * draw.uniform(0.7, 1)
    picture = picture + 0.15 * trunk * np.exp(-(((np.linspace(-1, 1, SIDE)[None, :]) / 0.1) ** 2))
    for hip in (-1, 1):
        wing = oval(draw, at=(hip * width * 0.5, draw.uniform(0.7, 1)), size=(width * 0.3, 0.2))
        picture = picture + (not is_near) * draw.uniform(0.05, 0.2) * wing
        away = oval(draw, at=(hip * (width + draw.uniform(0.1, 0.2)), draw.uniform(-0.6, 0.5)), size=(0.1, 0.7))
        picture = picture + (is_near or draw.random() < 0.5) * level * 0.7 * away
    fade = np.minimum(np.minimum(np.arange(rows), np.arange(rows)[::-1])[:, None], 12.0) / 12
    fade = fade * np.minimum(np.minimum(np.arange(side), np.arange(side)[::-1])[None, :], 6.0) / 6
    window = picture[first : first + rows, left : left + side]
    fade, chest = fade[: window.shape[0], : window.shape[1]], chest[: window.shape[0], : window.shape[1]]
    window[:] = (1 - fade) * window + fade * chest
    stripes = draw.normal(0, 0.02, (SIDE, 1)).astype(np.float32)
    return (picture + stripes + 0.03 * texture(draw, slope=0.3)) * draw.uniform(0.6, 1) + draw.uniform(0, 0.1)


_COMPOSE: Final[Mapping[str, Callable[[Floats, Floats, np.random.Generator], Floats]]] = {
    "part of a film": _part,
    "several films": _several,
    "scout": _scout,
}
COMPOSITES: Final = tuple(_COMPOSE)
"""The kinds of pictures that `composed` knows."""
