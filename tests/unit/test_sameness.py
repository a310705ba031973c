from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io.sameness import same_content
from dicom_io.values import TransferSyntaxUID
from dicom_io.wrap import Encoding
from tests.factories import make_dx, radiograph, write


def rich_dx(transfer_syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """A DX with private elements and nested sequences, which implicit and explicit encodings tell differently."""
    ds = make_dx(encoding=Encoding(bits_stored=12, transfer_syntax=TransferSyntaxUID(transfer_syntax)))
    block = ds.private_block(0x0019, "TEST CREATOR", create=True)
    block.add_new(0x01, "LO", "odd")
    block.add_new(0x02, "US", 513)
    block.add_new(0x03, "DS", "1.50")
    ds.PixelPaddingValue = 0
    return ds


@pytest.mark.parametrize(
    "transfer_syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless]
)
def test_a_lossless_retransmission_is_the_same(tmp_path: Path, transfer_syntax: str) -> None:
    original = write(rich_dx(), tmp_path / "a")
    again = write(rich_dx(transfer_syntax), tmp_path / "b")
    assert same_content(original, again)
    assert same_content(again, original)


def test_a_retransmission_in_big_endian_is_the_same(tmp_path: Path) -> None:
    original = write(make_dx(encoding=Encoding(bits_stored=12)), tmp_path / "a")
    ds = make_dx(encoding=Encoding(bits_stored=12))
    ds.PixelData = bytes(byte for pair in zip(ds.PixelData[1::2], ds.PixelData[::2], strict=True) for byte in pair)
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert same_content(original, write(ds, tmp_path / "b"))


def test_another_preamble_and_sender_are_the_same(tmp_path: Path) -> None:
    ds = make_dx()
    ds.preamble = b"\x01" * 128
    ds.file_meta.SourceApplicationEntityTitle = "ELSEWHERE"
    assert same_content(write(make_dx(), tmp_path / "a"), write(ds, tmp_path / "b"))


def rename(ds: Dataset) -> None:
    ds.PatientName = "Somebody^Else"


def add(ds: Dataset) -> None:
    ds.ImageComments = "added"


def remove(ds: Dataset) -> None:
    del ds.StudyDescription


def change_in_a_sequence(ds: Dataset) -> None:
    ds.ViewCodeSequence[0].CodeMeaning = "another"


def lengthen_a_sequence(ds: Dataset) -> None:
    ds.AnatomicRegionSequence.append(ds.AnatomicRegionSequence[0])


def change_one_pixel(ds: Dataset) -> None:
    ds.PixelData = bytes([ds.PixelData[0] ^ 1]) + ds.PixelData[1:]


def lose_pixels(ds: Dataset) -> None:
    del ds.PixelData


def change_the_scale(ds: Dataset) -> None:
    ds.WindowCenter = "7"


@pytest.mark.parametrize(
    "change",
    [rename, add, remove, change_in_a_sequence, lengthen_a_sequence, change_one_pixel, lose_pixels, change_the_scale],
)
@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_any_change_is_a_conflict(tmp_path: Path, change: Callable[[Dataset], None], transfer_syntax: str) -> None:
    ds = make_dx(encoding=Encoding(transfer_syntax=TransferSyntaxUID(transfer_syntax)))
    change(ds)
    original, changed = write(make_dx(), tmp_path / "a"), write(ds, tmp_path / "b")
    assert not same_content(original, changed)
    assert not same_content(changed, original)


def test_other_pixels_in_another_compression_are_a_conflict(tmp_path: Path) -> None:
    other = make_dx(radiograph(seed=1), encoding=Encoding(transfer_syntax=TransferSyntaxUID(RLELossless)))
    assert not same_content(write(make_dx(), tmp_path / "a"), write(other, tmp_path / "b"))


def test_pixels_that_cannot_be_decoded_are_never_the_same_as_others(tmp_path: Path) -> None:
    damaged = make_dx(encoding=Encoding(transfer_syntax=TransferSyntaxUID(JPEGLSLossless)))
    damaged.PixelData = damaged.PixelData[:-400] + bytes(400)
    assert not same_content(write(make_dx(), tmp_path / "a"), write(damaged, tmp_path / "b"))


def test_what_is_no_dicom_is_never_the_same(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"no DICOM")
    original = write(make_dx(), tmp_path / "a")
    assert not same_content(original, tmp_path / "b")
    assert not same_content(original, tmp_path / "missing")
