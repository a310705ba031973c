import struct
import tracemalloc
import warnings
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io import header
from dicom_io.errors import NotDicom, UndecodablePixels
from dicom_io.pixels import MAX_PIXELS, image_from, read_header, read_image
from dicom_io.quiet import quietly
from dicom_io.standing import Correction, Standing
from dicom_io.stored import Layout
from dicom_io.values import TransferSyntaxUID
from dicom_io.wrap import Encoding
from tests.factories import bare_image, make_dx, radiograph, write

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8)


def lut_item(entries: int, first: int, bits: int, data: Any, vr: str = "US") -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, first, bits])
    item.add_new("LUTData", vr, data)
    return Sequence([item])


# --- cells ---


def test_overlay_bits_above_the_stored_ones_are_stripped() -> None:
    with_overlay = RAMP | np.uint16(0xF000)
    window = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    np.testing.assert_array_equal(
        image_from(bare_image(with_overlay, **window)).pixels, image_from(bare_image(RAMP, **window)).pixels
    )


def test_values_left_aligned_in_their_cells_are_shifted() -> None:
    window = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    left = bare_image(RAMP << 4, HighBit=15, **window)
    np.testing.assert_array_equal(image_from(left).pixels, image_from(bare_image(RAMP, **window)).pixels)


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_big_endian_reads_as_little_endian_does(vr: str) -> None:
    for cells in (RAMP, RAMP.astype(np.uint8)):
        ds = bare_image(cells)
        expected = image_from(ds).pixels
        if vr == "OW":
            ds["PixelData"].value = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        ds["PixelData"].VR = vr
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        if (cells.dtype, vr) != (np.uint16, "OB"):
            np.testing.assert_array_equal(image_from(ds).pixels, expected)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"Rows": 0}, "leave no image"),
        ({"Rows": 50_000, "Columns": 50_000}, f"more than {MAX_PIXELS} pixels"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel is 3"),
        ({"NumberOfFrames": "2"}, "NumberOfFrames is 2"),
        ({"BitsAllocated": 12}, "BitsAllocated is 12"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "BitsAllocated is 32"),
        ({"BitsStored": 17}, "BitsStored 17"),
        ({"BitsStored": 12, "HighBit": 10}, "HighBit 10"),
        ({"PixelRepresentation": 2}, "PixelRepresentation is 2"),
        ({"Rows": [8, 8]}, "Rows is not one whole number"),
        ({"Rows": ""}, "Rows is missing"),
        ({"Rows": 9}, "128 bytes where Rows by Columns needs 144"),
        ({"PixelData": b""}, "There is no PixelData"),
        ({"PhotometricInterpretation": "RGB"}, "PhotometricInterpretation"),
        ({"RescaleSlope": "0"}, "RescaleSlope"),
        ({"RescaleSlope": "1e308", "RescaleIntercept": "1e308"}, "not finite"),
    ],
)
def test_a_contradictory_pixel_description_is_refused_with_its_name(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(UndecodablePixels, match=message):
        image_from(bare_image(RAMP, **attributes))


def test_a_data_set_without_transfer_syntax_is_refused() -> None:
    ds = bare_image(RAMP)
    del ds.file_meta
    with pytest.raises(UndecodablePixels, match="TransferSyntaxUID is missing"):
        image_from(ds)


# --- contrast ---


def test_without_window_dead_pixels_do_not_set_the_contrast() -> None:
    cells = np.tile(np.arange(1000, 2000, dtype=np.uint16), (20, 1))
    cells[0, 0], cells[0, 1] = 0, 65535
    image = image_from(bare_image(cells))
    assert image.notes == ("percentiles 0.1 to 99.9",)
    assert image.pixels[1, 500] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_constant_image_without_window_is_one_grey(photometric: str) -> None:
    pixels = image_from(bare_image(np.full((4, 4), 700, np.uint16), PhotometricInterpretation=photometric)).pixels
    assert np.unique(pixels).size == 1


def test_the_voi_lut_goes_before_the_window_and_the_first_window_before_the_second() -> None:
    two_windows = {"WindowCenter": [32, 5], "WindowWidth": [64, 5]}
    first = image_from(bare_image(RAMP, WindowCenter=32, WindowWidth=64))
    assert first.notes == ("window LINEAR 32/64",)
    np.testing.assert_array_equal(image_from(bare_image(RAMP, **two_windows)).pixels, first.pixels)
    with_lut = image_from(bare_image(RAMP, **two_windows, VOILUTSequence=lut_item(2, 10, 8, [0, 255])))
    assert with_lut.notes == ("VOI LUT 1",)
    np.testing.assert_array_equal(with_lut.pixels, RAMP > 10)


@pytest.mark.parametrize("width", ["0", "-5", "0.5", ""])
def test_an_impossible_window_is_noted_and_the_percentiles_used(width: str) -> None:
    image = image_from(bare_image(RAMP, WindowCenter="32", WindowWidth=width))
    assert image.notes == ("percentiles 0.1 to 99.9; WindowCenter and WindowWidth are not usable",)
    assert image.pixels.max() == 1


def test_an_exact_window_may_be_narrower_than_one() -> None:
    image = image_from(bare_image(RAMP, WindowCenter="32", WindowWidth="0.5", VOILUTFunction="LINEAR_EXACT"))
    np.testing.assert_array_equal(image.pixels, np.where(RAMP == 32, 0.5, RAMP > 32))


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize(
    "sequence",
    [
        lut_item(100, 0, 8, [1, 2, 3]),
        lut_item(3, 0, 17, [1, 2, 3]),
        lut_item(3, 0, 0, [1, 2, 3]),
        lut_item(3, 0, 8, b"", "OW"),
        Sequence([Dataset()]),
    ],
)
def test_a_lookup_table_that_is_not_what_it_says_is_refused(keyword: str, sequence: Sequence) -> None:
    with pytest.raises(UndecodablePixels, match=keyword):
        image_from(bare_image(RAMP, **{keyword: sequence}))


def test_lookup_tables_may_be_words_or_packed_bytes() -> None:
    entries = np.arange(0, 256, 4)
    expected = image_from(bare_image(RAMP, VOILUTSequence=lut_item(64, 0, 8, [int(entry) for entry in entries]))).pixels
    for data in (entries.astype("<u2").tobytes(), entries.astype(np.uint8).tobytes()):
        np.testing.assert_array_equal(
            image_from(bare_image(RAMP, VOILUTSequence=lut_item(64, 0, 8, data, "OW"))).pixels, expected
        )


def test_a_lookup_table_of_65536_entries_says_0() -> None:
    entries = np.arange(65536, dtype="<u2").tobytes()
    pixels = image_from(bare_image(RAMP, VOILUTSequence=lut_item(0, 0, 16, entries, "OW"))).pixels
    np.testing.assert_allclose(pixels, RAMP / 65535, atol=1e-7)


def test_a_signed_lookup_table_starts_below_zero() -> None:
    cells = (RAMP.astype(np.int16) - 32).view(np.uint16)
    signed = lut_item(64, 0x10000 - 32, 8, list(range(64)))
    pixels = image_from(
        bare_image(cells, PixelRepresentation=1, ModalityLUTSequence=signed, WindowCenter=32, WindowWidth=64)
    ).pixels
    np.testing.assert_allclose(pixels, RAMP / 63, atol=1e-6)


def test_contradictory_polarity_is_noted() -> None:
    image = image_from(bare_image(RAMP, PhotometricInterpretation="MONOCHROME2", PresentationLUTShape="INVERSE"))
    assert image.notes[1] == "MONOCHROME2 contradicts PresentationLUTShape INVERSE; inverted"


def test_loss_is_noted_with_its_ratio() -> None:
    image = image_from(bare_image(RAMP, LossyImageCompression="01", LossyImageCompressionRatio=[3, 10]))
    assert image.notes[1:] == ("lossy compression 10:1",)


# --- shutters and orientation ---


def test_a_circular_shutter_leaves_a_disc() -> None:
    ds = bare_image(
        np.full((21, 21), 9, np.uint16),
        WindowCenter=1,
        WindowWidth=2,
        ShutterShape="CIRCULAR",
        CenterOfCircularShutter=[11, 11],
        RadiusOfCircularShutter=5,
    )
    y, x = np.mgrid[1:22, 1:22]
    image = image_from(ds)
    np.testing.assert_array_equal(image.pixels, (y - 11) ** 2 + (x - 11) ** 2 <= 25)
    assert image.notes[1:] == ("shutter circular",)


def test_a_polygonal_shutter_leaves_its_inside() -> None:
    ds = bare_image(
        np.full((40, 40), 9, np.uint16),
        WindowCenter=1,
        WindowWidth=2,
        ShutterShape="POLYGONAL",
        VerticesOfThePolygonalShutter=[1, 1, 1, 31, 31, 1],  # row, column: a right triangle
    )
    y, x = np.mgrid[1:41, 1:41]
    pixels = image_from(ds).pixels
    well_inside, well_outside = y + x < 31, y + x > 33
    assert pixels[well_inside].all()
    assert not pixels[well_outside].any()


def test_shutter_and_collimator_leave_what_lies_in_both() -> None:
    edges = {"LeftVerticalEdge": 2, "RightVerticalEdge": 6, "UpperHorizontalEdge": 1, "LowerHorizontalEdge": 8}
    other = {"LeftVerticalEdge": 4, "RightVerticalEdge": 8, "UpperHorizontalEdge": 3, "LowerHorizontalEdge": 8}
    ds = bare_image(
        np.full((8, 8), 9, np.uint16),
        WindowCenter=1,
        WindowWidth=2,
        ShutterShape="RECTANGULAR",
        CollimatorShape="RECTANGULAR",
        **{f"Shutter{edge}": at for edge, at in edges.items()},
        **{f"Collimator{edge}": at for edge, at in other.items()},
    )
    expected = np.zeros((8, 8))
    expected[2:8, 3:6] = 1
    np.testing.assert_array_equal(image_from(ds).pixels, expected)


def test_collimator_edges_outside_the_image_are_noted_and_ignored() -> None:
    ds = bare_image(
        RAMP,
        CollimatorShape="RECTANGULAR",
        CollimatorLeftVerticalEdge=-184,
        CollimatorRightVerticalEdge=4,
        CollimatorUpperHorizontalEdge=1,
        CollimatorLowerHorizontalEdge=4,
    )
    image = image_from(ds)
    assert image.notes[1:] == ("collimator rectangular ignored: not within the image",)
    np.testing.assert_array_equal(image.pixels, image_from(bare_image(RAMP)).pixels)


@pytest.mark.parametrize(
    ("orientation", "rows", "columns"),
    [(["L", "F"], 1, 1), (["R", "F"], 1, -1), (["L", "H"], -1, 1), (["R", "H"], -1, -1), (["A", "F"], 1, 1), (["L"], 1, 1)],
)
def test_a_frontal_picture_is_turned_to_have_the_head_up_and_the_left_side_right(
    orientation: list[str], rows: int, columns: int
) -> None:
    straight = image_from(bare_image(RAMP)).pixels
    image = image_from(bare_image(RAMP, PatientOrientation=orientation))
    np.testing.assert_array_equal(image.pixels, straight[::rows, ::columns])
    assert (len(image.notes) == 2) == ((rows, columns) != (1, 1))


@pytest.mark.parametrize(
    ("orientation", "rows", "columns"), [(["F", "L"], 1, 1), (["F", "R"], 1, -1), (["H", "L"], -1, 1), (["H", "R"], -1, -1)]
)
def test_a_picture_whose_rows_run_along_the_body_is_stood_up(orientation: list[str], rows: int, columns: int) -> None:
    stored = RAMP[::rows, ::columns].T
    image = image_from(bare_image(np.ascontiguousarray(stored), PatientOrientation=orientation))
    np.testing.assert_array_equal(image.pixels, image_from(bare_image(RAMP)).pixels)


@pytest.mark.parametrize("orientation", [[a, b] for a in "LRFH" for b in "LRFH" if (a in "LR") != (b in "LR")] + [None])
@pytest.mark.parametrize("turns", range(4))
def test_what_lies_over_the_upright_picture_is_brought_back_over_the_stored_one(
    orientation: list[str] | None, turns: int
) -> None:
    ds = bare_image(RAMP, **({} if orientation is None else {"PatientOrientation": orientation}))
    standing = Standing.of(ds, Correction(quarter_turns=turns))
    np.testing.assert_array_equal(standing.as_stored(standing.upright(RAMP)), RAMP)


def test_what_the_pixels_told_is_applied_again_when_the_image_is_read_again() -> None:
    ds = bare_image(RAMP, PixelPaddingValue=int(RAMP[0, 0]))
    told = image_from(ds).pixels
    corrected = image_from(ds, Correction(quarter_turns=1, inverted=True)).pixels
    expected = np.where(RAMP[0, 0] == RAMP, 0, 1 - told)
    np.testing.assert_allclose(corrected, np.rot90(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("turns", "inverted", "code"), [(0, False, ""), (0, True, "inverted"), (3, True, "inverted turned_270")]
)
def test_a_correction_is_written_in_a_word_and_read_back(turns: int, inverted: bool, code: str) -> None:  # noqa: FBT001
    correction = Correction(quarter_turns=turns, inverted=inverted)
    assert correction.code == code
    assert Correction.read(code) == correction


def test_an_orientation_of_one_value_turns_nothing() -> None:
    straight = image_from(bare_image(RAMP)).pixels
    np.testing.assert_array_equal(image_from(bare_image(RAMP, PatientOrientation="RF")).pixels, straight)


@pytest.mark.parametrize(("vr", "shape"), [("US", 12), ("FD", 1.5), ("OB", b"RECTANGULAR ")])
def test_a_shutter_shape_that_is_no_text_is_no_shape(vr: str, shape: object) -> None:
    ds = bare_image(RAMP)
    ds[0x00181600] = DataElement(0x00181600, vr, shape, validation_mode=config.IGNORE)
    np.testing.assert_array_equal(image_from(ds).pixels, image_from(bare_image(RAMP)).pixels)


def test_a_circular_shutter_too_far_out_for_a_float_is_ignored() -> None:
    ds = bare_image(RAMP, ShutterShape="CIRCULAR", RadiusOfCircularShutter=2)
    ds[0x00181610] = DataElement(0x00181610, "US", [10**400, 1], validation_mode=config.IGNORE)
    assert "shutter circular ignored: not within the image" in image_from(ds).notes


# --- codestreams ---


def compressed(transfer_syntax: str) -> Dataset:
    return make_dx(encoding=Encoding(bits_stored=12, transfer_syntax=TransferSyntaxUID(transfer_syntax)))


@pytest.mark.parametrize("transfer_syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize(("rows", "columns"), [(65535, 1500), (320, 255), (319, 256)])
def test_a_codestream_of_another_size_is_refused(transfer_syntax: str, rows: int, columns: int) -> None:
    ds = compressed(transfer_syntax)
    ds.Rows, ds.Columns = rows, columns
    with pytest.raises(UndecodablePixels):
        image_from(ds)


@pytest.mark.parametrize("transfer_syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("kept", [2, 10, 60, 100, 3000])
def test_a_codestream_cut_short_is_refused(transfer_syntax: str, kept: int) -> None:
    ds = compressed(transfer_syntax)
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))[:kept]
    ds.PixelData = encapsulate([frame], has_bot=False)
    with pytest.raises(UndecodablePixels):
        image_from(ds)


def test_fragments_that_are_none_are_refused() -> None:
    ds = compressed(JPEGLSLossless)
    ds.PixelData = b"\x01\x02\x03\x04" * 30
    with pytest.raises(UndecodablePixels):
        image_from(ds)


def test_a_codestream_no_decoder_reads_names_those_that_tried(caplog: pytest.LogCaptureFixture) -> None:
    ds = compressed(JPEGLSLossless)
    frame = bytearray(next(generate_frames(ds.PixelData, number_of_frames=1)))
    frame[6] = 77  # a precision that JPEG-LS does not have
    ds.PixelData = encapsulate([bytes(frame)], has_bot=False)
    with pytest.raises(UndecodablePixels, match=r"tried pyjpegls \(\w+\), pylibjpeg"):
        image_from(ds)
    assert not caplog.records


def test_an_rle_image_of_too_many_segments_is_refused() -> None:
    ds = compressed(RLELossless)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    with pytest.raises(UndecodablePixels, match="2 segments where 1"):
        image_from(ds)


@pytest.mark.parametrize(
    ("signed", "cell", "value"), [(False, 4100, 4095), (False, 4095, 4095), (True, 2050, 2047), (True, 0xF000, -2048)]
)
def test_what_loss_adds_beyond_the_stored_bits_is_clipped(*, signed: bool, cell: int, value: int) -> None:
    layout = Layout(rows=1, columns=1, bits_allocated=16, bits_stored=12, high_bit=11, signed=signed, lossy=True)
    assert layout.cell_values()[cell] == value


@pytest.mark.parametrize(
    ("transfer_syntax", "message"),
    [
        ("1.2.840.10008.1.2.4.100", "No decoder"),
        ("1.2.840.10008.1.2.4.110", "No decoder|unknown"),
        ("1.2.3.4", "unknown"),
        ("1.2.840.10008.1.1", "unknown"),
    ],
)
def test_a_transfer_syntax_without_decoder_is_refused(transfer_syntax: str, message: str) -> None:
    ds = compressed(JPEGLSLossless)
    ds.file_meta.TransferSyntaxUID = transfer_syntax
    with pytest.raises(UndecodablePixels, match=message):
        image_from(ds)


def bomb(transfer_syntax: str, rows: int, columns: int) -> Dataset:
    """A kilobyte that announces a huge image, header and codestream agreeing."""
    if transfer_syntax == RLELossless:
        frame = struct.pack("<16I", 2, 64, 564, *[0] * 13) + bytes([129, 0]) * 500
    elif transfer_syntax == JPEG2000Lossless:
        size = struct.pack(">HHIIIIIIIIHBBB", 41, 0, columns, rows, 0, 0, columns, rows, 0, 0, 1, 15, 1, 1)
        frame = b"\xff\x4f\xff\x51" + size + bytes(900) + b"\xff\xd9"
    else:
        marker = {JPEGBaseline8Bit: 0xC0, JPEGExtended12Bit: 0xC1, JPEGLosslessSV1: 0xC3, JPEGLSLossless: 0xF7}[transfer_syntax]
        precision = 8 if marker == 0xC0 else 12
        frame = (
            b"\xff\xd8\xff"
            + struct.pack(">BHBHHBBBB", marker, 11, precision, rows, columns, 1, 1, 0x11, 0)
            + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
            + bytes(900)
            + b"\xff\xd9"
        )
    ds = bare_image(RAMP, Rows=rows, Columns=columns)
    ds.PixelData = encapsulate([frame], has_bot=False)
    ds.file_meta.TransferSyntaxUID = transfer_syntax
    return ds


@pytest.mark.parametrize(
    "transfer_syntax", [RLELossless, JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless]
)
def test_a_huge_image_in_a_kilobyte_costs_nothing(transfer_syntax: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UndecodablePixels, match=f"more than {MAX_PIXELS}"):
            image_from(bomb(transfer_syntax, 65535, 65535))
        huge_inside = bomb(transfer_syntax, 65535, 65535)
        huge_inside.Rows = huge_inside.Columns = 512
        with pytest.raises(UndecodablePixels, match=r"65535|too short"):
            image_from(huge_inside)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_a_12_bit_jpeg_with_a_faulty_scan_header_is_repaired() -> None:
    from dicom_io.codestream import checked_frame  # noqa: PLC0415  the only test of it alone

    frame = next(generate_frames(bomb(JPEGExtended12Bit, 8, 8).PixelData, number_of_frames=1))
    faulty = frame.replace(b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00", b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00")
    assert faulty != frame
    assert checked_frame(faulty, transfer_syntax=JPEGExtended12Bit, rows=8, columns=8) == frame


# --- files ---


def test_large_pixel_data_stays_on_disk_until_asked_for(tmp_path: Path) -> None:
    path = write(make_dx(np.zeros((2000, 2000), np.uint16)), tmp_path / "dx.dcm")
    tracemalloc.start()
    ds = read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "PixelData" in ds
    assert peak < 1_000_000
    assert image_from(ds).pixels.shape == (2000, 2000)


@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
def test_every_cut_of_a_file_gives_a_picture_or_a_reason(tmp_path: Path, transfer_syntax: str) -> None:
    whole = write(
        make_dx(radiograph(128, 128), encoding=Encoding(transfer_syntax=TransferSyntaxUID(transfer_syntax))), tmp_path / "a"
    )
    content = whole.read_bytes()
    cut = tmp_path / "cut"
    for length in [*range(0, 1600, 37), *range(1600, len(content) - 8, 997)]:
        cut.write_bytes(content[:length])
        with pytest.raises((NotDicom, UndecodablePixels)):
            read_image(cut)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"DICM" * 64, bytes(128) + b"DICM", b"\x89PNG\r\n" + bytes(500), b"\xff" * 5000]
)
def test_what_is_no_dicom_is_named_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(NotDicom):
        read_header(tmp_path / "a")


def test_a_missing_file_is_not_called_broken(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "missing")


def test_a_deflated_file_reads_as_any_other(tmp_path: Path) -> None:
    ds = make_dx()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    np.testing.assert_array_equal(read_image(write(ds, tmp_path / "a")).pixels, image_from(make_dx()).pixels)


def test_a_deflated_file_may_not_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = make_dx()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = write(ds, tmp_path / "a")
    monkeypatch.setattr(header, "MAX_INFLATED_BYTES", 80_000)
    with pytest.raises(NotDicom, match="larger than 80000"):
        read_header(path)


def test_no_value_of_a_patient_reaches_warnings_or_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ds = make_dx()
    with quietly:
        ds.PatientBirthDate = "no date: Jane Doe"
        ds.WindowCenter = 1
        path = write(ds, tmp_path / "a")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_image(path)
    assert not caught
    assert not caplog.records


def test_silence_ends_when_the_last_of_several_threads_leaves() -> None:
    inside, leave = Event(), Event()

    def stay() -> None:
        with quietly:
            inside.set()
            leave.wait(10)

    before = list(warnings.filters)
    thread = Thread(target=stay)
    thread.start()
    assert inside.wait(10)
    with quietly:
        pass
    warnings.warn("unheard", stacklevel=1)
    leave.set()
    thread.join()
    assert warnings.filters == before
    with pytest.raises(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)
