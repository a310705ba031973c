"""Small radiographs in every transfer syntax that is decoded, made in memory."""

import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io.values import TransferSyntaxUID
from dicom_io.wrap import Encoding
from tests.factories import make_dx

SMALL = 40, 32
"""Rows and columns: the least that JPEG 2000 is made of."""
EXAMINED = 144, 128
"""The least that is analysed."""


def film(rows: int, columns: int) -> NDArray[np.uint8]:
    """Two dark ovals in a bright one, of few grey values, so that little is left when it is compressed."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    body = 3.0 * ((x / 0.95) ** 2 + (y / 1.3) ** 4 < 1)
    for side in (-1, 1):
        body -= 2.0 * (((x - 0.42 * side) / 0.3) ** 2 + (y / 0.65) ** 2 < 1)
    return (body * 80).astype(np.uint8)


def objects(rows: int, columns: int) -> Iterator[Dataset]:
    """One object in each way to encode it."""
    pixels = film(rows, columns)
    wide = pixels.astype(np.uint16) * 256
    twelve = wide // 16
    for syntax in (ExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless, RLELossless):
        yield make_dx(pixels, encoding=Encoding(transfer_syntax=TransferSyntaxUID(syntax)))
        yield make_dx(wide, encoding=Encoding(transfer_syntax=TransferSyntaxUID(syntax), photometric="MONOCHROME1"))
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        ds = make_dx(wide)
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = wide.byteswap().tobytes()
        yield ds
    yield _compressed(JPEGBaseline8Bit, _baseline(pixels), make_dx(pixels))
    for syntax, frame in (
        (JPEGLosslessSV1, lossless_jpeg(twelve)),
        (JPEGLossless, lossless_jpeg(twelve)),
        (JPEGExtended12Bit, flat_jpeg(rows, columns, precision=12)),
    ):
        yield _compressed(syntax, frame, make_dx(wide, encoding=Encoding(bits_stored=12)))
    yield _described(make_dx(wide))


def part10(ds: Dataset) -> bytes:
    """A file's bytes."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _compressed(syntax: str, frame: bytes, ds: Dataset) -> Dataset:
    ds.PixelData = encapsulate([frame], has_bot=False)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


def _described(ds: Dataset) -> Dataset:
    """With everything that the pixel chain looks at."""
    item: Any = Dataset()
    item.add_new("LUTDescriptor", "US", [16, 0, 12])
    item.add_new("LUTData", "US", [256 * place for place in range(16)])
    ds.VOILUTSequence = Items([item])
    ds.RescaleSlope, ds.RescaleIntercept = 2, -10
    ds.ShutterShape = ["RECTANGULAR", "CIRCULAR", "POLYGONAL"]
    rows, columns = ds.Rows, ds.Columns
    ds.ShutterLeftVerticalEdge, ds.ShutterRightVerticalEdge = 2, columns - 1
    ds.ShutterUpperHorizontalEdge, ds.ShutterLowerHorizontalEdge = 2, rows - 2
    ds.CenterOfCircularShutter, ds.RadiusOfCircularShutter = [rows // 2, columns // 2], rows
    ds.VerticesOfThePolygonalShutter = [1, 1, 1, columns, rows, columns // 2]
    ds.PixelPaddingValue, ds.PixelPaddingRangeLimit = 0, 3
    ds.PatientOrientation = ["F", "R"]
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", "10"
    ds.PatientAge = "061Y"
    return ds


def _baseline(pixels: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def lossless_jpeg(pixels: NDArray[np.uint16]) -> bytes:
    """JPEG process 14, selection value 1, of 12 bits (ISO/IEC 10918-1 annex H)."""
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[0, 0] = 1 << 11
    predicted[1:, 0] = values[:-1, 0]
    predicted[:, 1:] = values[:, :-1]
    bits = "".join(_difference(int(one)) for one in (values - predicted).ravel())
    return _jpeg(0xC3, 12, pixels.shape, [_huffman(0x00, range(15))], bits, selection=(1, 0))


def flat_jpeg(rows: int, columns: int, *, precision: int) -> bytes:
    """A sequential JPEG in which every block is of one grey (ISO/IEC 10918-1 annex F)."""
    blocks = -(-rows // 8) * -(-columns // 8)
    bits = "".join(_difference(40 * (place % 5 - 2)) + "0" for place in range(blocks))
    quantisation = b"\xff\xdb" + struct.pack(">HB", 67, 0) + b"\x10" * 64
    tables = [quantisation, _huffman(0x00, range(15)), _huffman(0x10, range(1))]
    return _jpeg(0xC1, precision, (rows, columns), tables, bits, selection=(0, 63))


def _huffman(kind: int, symbols: Sequence[int]) -> bytes:
    """One code of one bit for the first symbol, five bits for the others."""
    counts = [1, 0, 0, 0, len(symbols) - 1, *[0] * 11]
    return b"\xff\xc4" + struct.pack(">HB", 19 + len(symbols), kind) + bytes(counts) + bytes(symbols)


def _difference(value: int) -> str:
    """Category and value of a difference (ISO/IEC 10918-1 table F.1)."""
    category = abs(value).bit_length()
    if category == 0:
        return "0"
    low = value if value > 0 else value + (1 << category) - 1
    return f"{15 + category:05b}{low:0{category}b}"


def _jpeg(
    marker: int, precision: int, shape: tuple[int, ...], tables: Sequence[bytes], bits: str, *, selection: tuple[int, int]
) -> bytes:
    frame_header = b"\xff" + struct.pack(">BHBHHBBBB", marker, 11, precision, *shape, 1, 1, 0x11, 0)
    scan_header = b"\xff\xda\x00\x08\x01\x01\x00" + bytes(selection) + b"\x00"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    return b"\xff\xd8" + b"".join(tables) + frame_header + scan_header + scan + b"\xff\xd9"
