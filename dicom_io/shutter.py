"""What shutter and collimator leave visible (PS3.3 C.7.6.11, C.8.7.3)."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.quiet import quietly

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
                with quietly:
                    inside = _SHAPES[shape](ds, kind, (rows, columns)) if shape in _SHAPES else None
            except Exception:  # noqa: BLE001  a stranger's numbers may be missing, many or no numbers
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
        with quietly:
            value = ds.get(f"{kind}Shape")
    except Exception:  # noqa: BLE001  an unreadable shape is no shape
        return ()
    values = (value,) if isinstance(value, str) else tuple(value or ())
    return tuple(dict.fromkeys(str(shape).strip().upper() for shape in values))


def _rectangle(ds: Dataset, kind: Kind, size: tuple[int, int]) -> Mask | None:
    left, right = int(ds[f"{kind}LeftVerticalEdge"].value), int(ds[f"{kind}RightVerticalEdge"].value)
    upper, lower = int(ds[f"{kind}UpperHorizontalEdge"].value), int(ds[f"{kind}LowerHorizontalEdge"].value)
    rows, columns = size
    if not (0 <= left < right <= columns + 1 and 0 <= upper < lower <= rows + 1):
        return None
    inside = np.zeros(size, np.bool_)
    inside[max(upper - 1, 0) : lower, max(left - 1, 0) : right] = True  # edges count from 1 and are visible themselves
    return inside


def _circle(ds: Dataset, kind: Kind, size: tuple[int, int]) -> Mask | None:
    row, column = (int(part) for part in ds[f"CenterOfCircular{kind}"].value)
    radius = int(ds[f"RadiusOfCircular{kind}"].value)
    if radius < 1 or radius > 2 * max(size):
        return None
    down = np.arange(1, size[0] + 1, dtype=np.float64)[:, None] - row
    across = np.arange(1, size[1] + 1, dtype=np.float64)[None, :] - column
    return down * down + across * across <= float(radius) ** 2


def _polygon(ds: Dataset, kind: Kind, size: tuple[int, int]) -> Mask | None:
    flat = np.asarray([int(part) for part in ds[f"VerticesOfThePolygonal{kind}"].value], np.float64)
    rows, columns = size
    if len(flat) < 6 or len(flat) % 2:
        return None
    y, x = flat[0::2], flat[1::2]
    if y.min() < 0 or x.min() < 0 or y.max() > rows + 1 or x.max() > columns + 1:
        return None
    # Each edge flips, in every row it crosses, all columns to the right of the crossing: even-odd filling.
    flips = np.zeros((rows, columns + 1), np.bool_)
    for y0, x0, y1, x1 in zip(y, x, np.roll(y, -1), np.roll(x, -1), strict=True):
        crossed = np.arange(max(int(min(y0, y1)), 1), min(int(max(y0, y1)), rows + 1))
        if len(crossed):
            at = x0 + (crossed + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            flips[crossed - 1, np.clip(np.ceil(at - 0.5).astype(np.int64) - 1, 0, columns)] ^= True
    return np.asarray(np.logical_xor.accumulate(flips, axis=1)[:, :columns])


_SHAPES = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon}
