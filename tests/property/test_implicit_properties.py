"""Data sets in Implicit VR Little Endian: what pydicom writes of the whole ones, and damage is passed on or refused."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicom_io.errors import NotDicom
from dicom_io.implicit import to_implicit
from dicom_io.payload import encode_payload

TEXT = st.from_regex(r"[A-Z0-9 ]{0,16}", fullmatch=True)
WORDS = st.lists(st.integers(0, 0xFFFF), max_size=8).map(lambda words: b"".join(word.to_bytes(2, "little") for word in words))
LEAVES = st.fixed_dictionaries(
    {},
    optional={
        (0x00080060, "CS"): TEXT,
        (0x00091010, "UN"): WORDS,
        (0x00100010, "PN"): TEXT,
        (0x00280010, "US"): st.integers(0, 0xFFFF),
        (0x0040A160, "UT"): TEXT,
        (0x7FE00010, "OW"): WORDS,
    },
)


def _dataset(leaves: dict[tuple[int, str], object], items: list[Dataset]) -> Dataset:
    ds = Dataset()
    for (tag, vr), value in leaves.items():
        ds.add_new(tag, vr, value)
    if items:
        ds.add_new(0x0040A730, "SQ", items)
    return ds


DATASETS = st.recursive(
    st.builds(_dataset, LEAVES, st.just([])),
    lambda inner: st.builds(_dataset, LEAVES, st.lists(inner, max_size=3)),
    max_leaves=8,
)


def explicit(ds: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    return buffer.getvalue()


@given(DATASETS)
def test_it_is_what_pydicom_writes(ds: Dataset) -> None:
    assert to_implicit(explicit(ds)) == encode_payload(ds)


@given(DATASETS, st.data())
def test_one_that_is_cut_short_is_refused_or_ends_between_two_elements(ds: Dataset, data: st.DataObject) -> None:
    encoded = explicit(ds)
    cut = data.draw(st.integers(0, len(encoded)))
    with suppress(NotDicom):
        assert encode_payload(ds).startswith(to_implicit(encoded[:cut]))


@given(DATASETS, st.data())
def test_a_damaged_one_is_told_or_refused(ds: Dataset, data: st.DataObject) -> None:
    encoded = bytearray(explicit(ds) + b"\0\0")
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with suppress(NotDicom):
        to_implicit(bytes(encoded))
