"""The pixel chain against the formulae of PS3.3, worked out one value at a time."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence

from dicom_io.errors import DicomError
from dicom_io.pixels import image_from
from dicom_io.voi import window
from tests.factories import bare_image

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
finite = st.floats(-1e6, 1e6)
cells16 = hnp.arrays(np.uint16, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 0xFFFF))
quick = settings(max_examples=150, deadline=None)


def windowed(x: float, center: float, width: float, function: str) -> float:
    """C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2 as printed there, for an output range of 0 to 1."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(-4 * (x - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if x <= center - width / 2:
        return 0
    if x > center + width / 2:
        return 1
    return (x - center) / width + 0.5


@given(st.lists(st.integers(-70000, 70000), min_size=1, max_size=20), finite, st.floats(1, 1e5), st.sampled_from(FUNCTIONS))
@quick
def test_windows_follow_the_standard(values: list[int], center: float, width: float, function: str) -> None:
    if function == "SIGMOID":
        assume(all(abs(4 * (x - center) / width) < 700 for x in values))  # what math.exp of the reference can do
    expected = [windowed(x, center, width, function) for x in values]
    np.testing.assert_allclose(window(np.array(values, np.float64), center, width, function), expected, atol=1e-9)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("width", [1.0, 2.0, 255.0, 256.0, 4096.0])
def test_windows_follow_the_standard_at_their_edges(function: str, width: float) -> None:
    center = 2048.0
    around = [center + sign * (width / 2) + step for sign in (-1, 0, 1) for step in (-1, -0.5, 0, 0.5, 1)]
    expected = [windowed(x, center, width, function) for x in around]
    np.testing.assert_allclose(window(np.array(around), center, width, function), expected, atol=1e-12)


@given(cells16, st.integers(1, 16), st.integers(0, 1), st.tuples(st.floats(-4, 4), finite, finite, st.floats(1, 1e5)))
@quick
def test_the_chain_from_cell_to_window_follows_the_standard(
    cells: NDArray[np.uint16], bits: int, signed: int, numbers: tuple[float, ...]
) -> None:
    slope, intercept, center, width = (float(f"{number:.6g}") for number in numbers)  # a DS has 16 characters
    assume(slope != 0)
    assume(width >= 1)
    ds = bare_image(
        cells,
        BitsStored=bits,
        PixelRepresentation=signed,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=center,
        WindowWidth=width,
    )

    def displayed(cell: int) -> float:
        value = cell & ((1 << bits) - 1)
        if signed and value >> (bits - 1):
            value -= 1 << bits
        return windowed(value * slope + intercept, center, width, "LINEAR")

    expected = [[displayed(int(cell)) for cell in row] for row in cells]
    np.testing.assert_allclose(image_from(ds).pixels, expected, atol=1e-6)


@given(cells16, st.integers(0, 4), st.integers(10, 16))
@quick
def test_lookup_tables_agree_with_pydicom(cells: NDArray[np.uint16], seed: int, bits: int) -> None:
    random = np.random.default_rng(seed)
    cells = cells % 4096

    def lut(first: int, bits: int, most: int) -> Sequence:
        item = Dataset()
        entries = random.integers(0, most + 1, 1000)
        entries[0] = most
        item.add_new("LUTDescriptor", "US", [1000, first, bits])
        item.add_new("LUTData", "US", [int(entry) for entry in entries])
        return Sequence([item])

    modality, voi = lut(17, 16, 1200), lut(100, bits, (1 << bits) - 1)
    ds = bare_image(cells, BitsStored=12, ModalityLUTSequence=modality, VOILUTSequence=voi)
    expected = apply_voi_lut(apply_modality_lut(cells, ds), ds) / ((1 << bits) - 1)
    np.testing.assert_allclose(image_from(ds).pixels, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME2", None, False),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
@given(cells=cells16)
@quick
def test_the_picture_is_inverted_once_or_not_at_all(
    photometric: str,
    shape: str | None,
    inverted: bool,  # noqa: FBT001  a column of the table
    cells: NDArray[np.uint16],
) -> None:
    ds = bare_image(cells, PhotometricInterpretation=photometric, WindowCenter=32768, WindowWidth=65536)
    if shape is not None:
        ds.PresentationLUTShape = shape
    straight = cells / 65535
    np.testing.assert_allclose(image_from(ds).pixels, 1 - straight if inverted else straight, atol=1e-6)


numbers = st.one_of(
    st.none(),
    st.sampled_from(["", "0", "-1", "1e308", "-1e308", "1e-308", "5e-324", "nan", "inf", "x"]),
    st.floats(-1e9, 1e9).map(lambda number: f"{number:.6g}"),
    st.lists(st.floats(-1e9, 1e9).map(lambda number: f"{number:.6g}"), min_size=2, max_size=3),
)
attributes = st.fixed_dictionaries(
    {},
    optional={
        "BitsStored": st.integers(0, 20),
        "HighBit": st.integers(0, 20),
        "PixelRepresentation": st.integers(0, 2),
        "RescaleSlope": numbers,
        "RescaleIntercept": numbers,
        "WindowCenter": numbers,
        "WindowWidth": numbers,
        "VOILUTFunction": st.sampled_from([*FUNCTIONS, "OTHER", ""]),
        "PixelPaddingValue": st.integers(0, 0xFFFF),
        "PixelPaddingRangeLimit": st.integers(0, 0xFFFF),
        "PhotometricInterpretation": st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
        "ShutterShape": st.sampled_from(["RECTANGULAR", "CIRCULAR", "POLYGONAL", "OTHER"]),
        "ShutterLeftVerticalEdge": st.integers(-2, 8),
        "ShutterRightVerticalEdge": st.integers(-2, 8),
        "ShutterUpperHorizontalEdge": st.integers(-2, 8),
        "ShutterLowerHorizontalEdge": st.integers(-2, 8),
        "CenterOfCircularShutter": st.lists(st.integers(-2, 8), min_size=1, max_size=3),
        "RadiusOfCircularShutter": st.integers(-2, 8),
        "VerticesOfThePolygonalShutter": st.lists(st.integers(-1, 8), min_size=1, max_size=10),
        "PatientOrientation": st.lists(st.sampled_from(["L", "R", "F", "H", "A", ""]), min_size=1, max_size=3),
    },
)


def with_raw_numbers(ds: Dataset, changes: dict[str, Any]) -> Dataset:
    """Set attributes as a file would bring them: as text that nobody has looked at."""
    for keyword, value in changes.items():
        ds.add_new(keyword, "IS", None) if keyword not in ds else None
        ds[keyword]._value = value  # noqa: SLF001
    return ds


@given(cells16, attributes)
@settings(max_examples=600, deadline=None)
def test_every_picture_is_finite_and_within_0_and_1(cells: NDArray[np.uint16], changes: dict[str, Any]) -> None:
    try:
        pixels = image_from(with_raw_numbers(bare_image(cells), changes)).pixels
    except DicomError:
        return
    assert pixels.dtype == np.float32
    assert sorted(pixels.shape) == sorted(cells.shape)
    assert np.isfinite(pixels).all()
    assert ((pixels >= 0) & (pixels <= 1)).all()


@given(
    hnp.arrays(np.uint16, (5, 4), elements=st.integers(10, 4000)),
    hnp.arrays(np.bool_, (5, 4)),
    st.sampled_from([(0, None), (4095, None), (4090, 4095), (3, 0)]),
    st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
)
@quick
def test_padding_is_black_and_changes_no_other_pixel(
    cells: NDArray[np.uint16], padded: NDArray[np.bool_], padding: tuple[int, int | None], photometric: str
) -> None:
    assume(not padded.all())
    value, limit = padding
    with_padding = np.where(padded, np.uint16(value), cells)
    ds = bare_image(with_padding, BitsStored=12, PixelPaddingValue=value, PhotometricInterpretation=photometric)
    if limit is not None:
        ds.PixelPaddingRangeLimit = limit
    kept = cells[~padded]
    alone = image_from(bare_image(kept.reshape(1, -1), BitsStored=12, PhotometricInterpretation=photometric)).pixels
    pixels = image_from(ds).pixels
    np.testing.assert_array_equal(pixels[~padded], alone.ravel())
    assert not pixels[padded].any()


@given(hnp.arrays(np.uint16, (8, 8)), st.integers(1, 7), st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))
@quick
def test_a_shutter_is_black_outside_and_changes_nothing_inside(
    cells: NDArray[np.uint16], left: int, upper: int, width: int, height: int
) -> None:
    right, lower = min(left + width, 8), min(upper + height, 8)
    ds = bare_image(
        cells,
        ShutterShape="RECTANGULAR",
        ShutterLeftVerticalEdge=left,
        ShutterRightVerticalEdge=right,
        ShutterUpperHorizontalEdge=upper,
        ShutterLowerHorizontalEdge=lower,
    )
    inside = (slice(upper - 1, lower), slice(left - 1, right))
    pixels = image_from(ds).pixels
    np.testing.assert_array_equal(pixels[inside], image_from(bare_image(np.ascontiguousarray(cells[inside]))).pixels)
    outside = pixels.copy()
    outside[inside] = 0
    assert not outside.any()
