"""What shutter and collimator leave visible (PS3.3 C.7.6.11, C.8.7.3)."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.attributes import Unreadable, integers, strings

Mask = NDArray[np.bool_]
Kind = Literal["Shutter", "Collimator"]


def visible_pixels(ds: Dataset, rows: int, columns: int) -> tuple[Mask | None, tuple[str, ...]]:
    """Join shutter and collimator; where several shapes are given only what lies inside all of them is visible.

    Some devices give edges in millimetres or relative to the detector. A shape that does not lie within the image,
    or leaves nothing of it, is ignored.

    Parameters
    ----------
    ds
        The image.
    rows, columns
        Of the image.

    Returns
    -------
    tuple[Mask | None, tuple[str, ...]]
        Shape ``(rows, columns)``, true where visible, None where everything is; and a note per shape applied or ignored.
    """
    visible: Mask | None = None
    notes: list[str] = []
    for kind in ("Shutter", "Collimator"):
        for shape in _shapes(ds, kind):
            try:
                inside = _SHAPES[shape](ds, kind, (rows, columns)) if shape in _SHAPES else None
            except Unreadable:
                inside = None
            if inside is None or not inside.any() or (visible is not None and not (visible & inside).any()):
                notes.append(f"{kind.lower()} {shape.lower()} ignored: not within the image" if shape in _SHAPES else "")
                continue
            if not inside.all():
                visible = inside if visible is None else visible & inside
                notes.append(f"{kind.lower()} {shape.lower()}")
    return visible, tuple(filter(None, notes))


def _shapes(ds: Dataset, kind: Kind) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(strings(ds, f"{kind}Shape")))
    except Unreadable:  # an unreadable shape is no shape
        return ()


def _rectangle(ds: Dataset, kind: Kind, size: tuple[int, int]) -> Mask | None:
    edges = ("LeftVerticalEdge", "RightVerticalEdge", "UpperHorizontalEdge", "LowerHorizontalEdge")
    left, right, upper, lower = (integers(ds, f"{kind}{edge}", count=1)[0] for edge in edges)
    rows, columns = size
    if not (0 <= left < right <= columns + 1 and 0 <= upper < lower <= rows + 1):
        return None
    inside = np.zeros(size, np.bool_)
    inside[max(upper - 1, 0) : lower, max(left - 1, 0) : right] = True  # edges count from 1 and are visible themselves
    return inside


def _circle(ds: Dataset, kind: Kind, size: tuple[int, int]) -> Mask | None:
    row, column = integers(ds, f"CenterOfCircular{kind}", count=2)
    (radius,) = integers(ds, f"RadiusOfCircular{kind}", count=1)
    longest = max(size)
    if not 1 <= radius <= 2 * longest or max(abs(row), abs(column)) > 3 * longest:  # so far out it touches no pixel
        return None
    down = np.arange(1, size[0] + 1, dtype=np.float64)[:, None] - row
    across = np.arange(1, size[1] + 1, dtype=np.float64)[None, :] - column
    return down * down + across * across <= float(radius) ** 2


def _polygon(ds: Dataset, kind: Kind, size: tuple[int, int]) -> Mask | None:
    flat = integers(ds, f"VerticesOfThePolygonal{kind}")
    rows, columns = size
    if len(flat) < 6 or len(flat) % 2:
        return None
    if min(flat) < 0 or max(flat[0::2]) > rows + 1 or max(flat[1::2]) > columns + 1:
        return None
    y, x = np.asarray(flat, np.float64).reshape(-1, 2).T
    # Each edge flips, in every row it crosses, all columns to the right of the crossing: even-odd filling.
    flips = np.zeros((rows, columns + 1), np.bool_)
    for y0, x0, y1, x1 in zip(y, x, np.roll(y, -1), np.roll(x, -1), strict=True):
        crossed = np.arange(max(int(min(y0, y1)), 1), min(int(max(y0, y1)), rows + 1))
        if len(crossed):
            at = x0 + (crossed + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            flips[crossed - 1, np.clip(np.ceil(at - 0.5).astype(np.int64) - 1, 0, columns)] ^= True
    return np.asarray(np.logical_xor.accumulate(flips, axis=1)[:, :columns])


_SHAPES = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon}
