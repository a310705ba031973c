"""From stored values to display values: Modality LUT, VOI LUT, polarity (PS3.3 C.11.1, C.11.2, C.7.6.3.1.2).

Everything is worked out once per possible value, not once per pixel: a table of at most 65,536 entries.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.attributes import Unreadable, numbers
from dicom_io.bounded import require_short, value_of
from dicom_io.errors import UndecodablePixels
from dicom_io.foreign import any_error_as
from dicom_io.stored import Layout

Floats = NDArray[np.float64]

_LONGEST_DESCRIPTOR_BYTES: Final = 64
_LONGEST_TABLE_BYTES: Final = 1024 * 1024
"""65,536 entries have an eighth of it."""

_PERCENTILES: Final = (0.1, 99.9)
"""Where a file has no VOI: dead and saturated pixels, a per mille at each end, must not set the contrast."""


def modality_values(ds: Dataset, stored: NDArray[np.int32], layout: Layout) -> Floats:
    """Apply Modality LUT Sequence, else Rescale Slope and Intercept, else nothing (PS3.3 C.11.1).

    Parameters
    ----------
    ds
        The image.
    stored
        Stored values, any shape.
    layout
        Says whether the first value mapped of a LUT is signed.

    Returns
    -------
    Floats
        Same shape, finite.

    Raises
    ------
    UndecodablePixels
        A LUT that does not hold what its descriptor says; a slope of 0; a result that is not finite.
    """
    item = _first_item(ds, "ModalityLUTSequence")
    if item is not None:
        data, first, _ = lookup_table(item, signed=layout.signed, name="ModalityLUTSequence")
        return data[np.clip(stored - first, 0, len(data) - 1)]
    slope = finite_number(ds, "RescaleSlope", default=1.0)
    intercept = finite_number(ds, "RescaleIntercept", default=0.0)
    if slope is None or intercept is None or slope == 0:
        raise UndecodablePixels("RescaleSlope and RescaleIntercept are not a usable pair of numbers.")
    with np.errstate(over="ignore", invalid="ignore"):
        values: Floats = stored.astype(np.float64) * slope + intercept
    if not np.isfinite(values).all():
        raise UndecodablePixels("RescaleSlope and RescaleIntercept lead to values that are not finite.")
    return values


def display_values(ds: Dataset, values: Floats, counts: Callable[[], NDArray[np.int64]], layout: Layout) -> tuple[Floats, str]:
    """Apply the first VOI LUT, else the first window, else the percentiles of what is visible (PS3.3 C.11.2).

    LUT and window are alternatives of equal rank in the standard. The LUT is taken because a vendor who wrote both
    approximates the shaped curve by the window, not the other way round.

    Parameters
    ----------
    ds
        The image.
    values
        Modality values, one per cell content.
    counts
        Gives how many visible pixels have each of them; asked only where there is neither LUT nor window.
    layout
        Signedness for the LUT's first value mapped.

    Returns
    -------
    tuple[Floats, str]
        Same shape in 0..1, before inversion; and which transformation it was, in words.

    Raises
    ------
    UndecodablePixels
        A VOI LUT that does not hold what its descriptor says.
    """
    item = _first_item(ds, "VOILUTSequence")
    if item is not None:
        data, first, bits = lookup_table(item, signed=bool(layout.signed or values.min() < 0), name="VOILUTSequence")
        index = np.clip(np.rint(values) - first, 0, len(data) - 1).astype(np.int64)
        return np.minimum(data[index] / ((1 << bits) - 1), 1.0), "VOI LUT 1"
    center, width = finite_number(ds, "WindowCenter"), finite_number(ds, "WindowWidth")
    function = _text(ds, "VOILUTFunction") or "LINEAR"
    if function not in _FUNCTIONS:
        function = "LINEAR"
    if center is not None and width is not None and width >= _LEAST_WIDTH[function]:
        return window(values, center, width, function), f"window {function} {center:g}/{width:g}"
    unusable = ("WindowCenter" in ds or "WindowWidth" in ds) and "; WindowCenter and WindowWidth are not usable"
    return _stretched(values, counts()), f"percentiles {_PERCENTILES[0]:g} to {_PERCENTILES[1]:g}{unusable or ''}"


def window(values: Floats, center: float, width: float, function: str = "LINEAR") -> Floats:
    """Windowing of PS3.3 C.11.2.1.2 and C.11.2.1.3 onto 0..1.

    Parameters
    ----------
    values
        Any shape.
    center, width
        Finite. Width at least 1 for LINEAR, above 0 for LINEAR_EXACT and SIGMOID.
    function
        LINEAR, LINEAR_EXACT or SIGMOID.
    """
    with np.errstate(over="ignore"):
        return _FUNCTIONS[function](values, center, width)


def is_inverted(ds: Dataset) -> tuple[bool, str | None]:
    """Whether the smallest display value is white, told once by either of two attributes.

    In DX both say the same: MONOCHROME1 goes with INVERSE (PS3.3 C.8.11.3.1.2). CR has only Photometric Interpretation.

    Returns
    -------
    tuple[bool, str | None]
        Whether to invert, once; and a note where the two contradict each other.
    """
    photometric, shape = _text(ds, "PhotometricInterpretation"), _text(ds, "PresentationLUTShape")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise UndecodablePixels("PhotometricInterpretation is neither MONOCHROME1 nor MONOCHROME2.")
    contradiction = (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE"))
    note = f"{photometric} contradicts PresentationLUTShape {shape}; inverted" if contradiction else None
    return photometric == "MONOCHROME1" or shape == "INVERSE", note


def _linear(values: Floats, center: float, width: float) -> Floats:
    low = center - 0.5 - (width - 1) / 2
    if width == 1:
        return (values > low).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def _linear_exact(values: Floats, center: float, width: float) -> Floats:
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def _sigmoid(values: Floats, center: float, width: float) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-4.0 * ((values - center) / width)))
    return result


_FUNCTIONS: Final = {"LINEAR": _linear, "LINEAR_EXACT": _linear_exact, "SIGMOID": _sigmoid}
_LEAST_WIDTH: Final = {"LINEAR": 1.0, "LINEAR_EXACT": math.ulp(0.0), "SIGMOID": math.ulp(0.0)}


def _stretched(values: Floats, counts: NDArray[np.int64]) -> Floats:
    used = np.flatnonzero(counts)
    if len(used) == 0:
        return np.zeros_like(values)
    order = used[np.argsort(values[used], kind="stable")]
    share = np.cumsum(counts[order]) / counts.sum()
    low, high = (float(values[order[min(int(np.searchsorted(share, p / 100)), len(order) - 1)]]) for p in _PERCENTILES)
    if low == high:
        low, high = float(values[order[0]]), float(values[order[-1]])
    if low == high:
        return np.zeros_like(values)
    scale = max(abs(low), abs(high), 1.0)  # keeps the difference finite at the ends of float64
    return np.clip((values / scale - low / scale) / (high / scale - low / scale), 0.0, 1.0)


def lookup_table(item: Dataset, *, signed: bool, name: str) -> tuple[Floats, int, int]:
    """LUT Data, first value mapped and bits per entry (PS3.3 C.11.1.1, C.11.2.1.1).

    Raises
    ------
    UndecodablePixels
        The item does not hold what its descriptor says.
    """
    with any_error_as(UndecodablePixels, f"{name} has no readable LUTDescriptor and LUTData."):
        require_short(item, "LUTDescriptor", most=_LONGEST_DESCRIPTOR_BYTES)
        require_short(item, "LUTData", most=_LONGEST_TABLE_BYTES)
        descriptor = [int(part) for part in item["LUTDescriptor"].value]
        raw = item["LUTData"].value
        little_endian = item.original_encoding[1] is not False
    if len(descriptor) != 3:
        raise UndecodablePixels(f"{name}: LUTDescriptor has {len(descriptor)} values, 3 are expected.")
    entries, first, bits = descriptor[0] % 0x10000 or 0x10000, descriptor[1], descriptor[2]
    if signed and first >= 0x8000:
        first -= 0x10000
    if not signed and first < 0:
        first += 0x10000
    data = _entries(raw, entries, little_endian=little_endian)
    if len(data) < entries or not 1 <= bits <= 16:
        raise UndecodablePixels(f"{name}: LUTData holds {len(data)} entries of {bits} bits, LUTDescriptor says {entries}.")
    data = data[:entries]
    return data, first, max(bits, int(data.max()).bit_length())


def _entries(raw: Any, entries: int, *, little_endian: bool) -> Floats:
    if isinstance(raw, bytes | bytearray):
        packed = len(raw) in (entries, entries + 1)  # two 8-bit entries to a word
        return np.frombuffer(
            raw, np.uint8 if packed else ("<u2" if little_endian else ">u2"), len(raw) // (1 if packed else 2)
        ).astype(np.float64)
    try:
        values = np.atleast_1d(np.asarray(raw, np.float64))
    except (TypeError, ValueError):
        return np.empty(0)
    return np.where(values < 0, values + 0x10000, values)  # SS where the value representation was guessed wrongly


def _first_item(ds: Dataset, keyword: str) -> Dataset | None:
    sequence = _value(ds, keyword)
    if not sequence:
        return None
    if not isinstance(sequence, Sequence) or not isinstance(sequence[0], Dataset):
        raise UndecodablePixels(f"{keyword} is not a sequence.")
    return sequence[0]


def finite_number(ds: Dataset, keyword: str, default: float | None = None) -> float | None:
    """First value as a finite number; `default` where the attribute is absent or empty, None where it is not a number."""
    try:
        number = next(iter(numbers(ds, keyword, at_most=1)), default)
    except Unreadable:
        return None
    return number if number is not None and math.isfinite(number) else None


def _text(ds: Dataset, keyword: str) -> str:
    value = _value(ds, keyword)
    return value.strip().upper() if isinstance(value, str) else ""


def _value(ds: Dataset, keyword: str) -> Any:
    with any_error_as(UndecodablePixels, f"{keyword} cannot be read."):
        return value_of(ds, keyword)
