"""Images of a bad will: few bytes that announce much, and values that nobody writes."""

import struct
from collections.abc import Iterator

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io.quiet import quietly
from dicom_io.stored import MAX_PIXELS
from tests.factories import make_dx
from tests.fuzz.pictures import SMALL, film
from tests.fuzz.pictures import part10 as file_of


def with_attribute(group: int, element: int, value: bytes) -> bytes:
    """A sound file in Implicit VR with one attribute put in its place."""
    ds = make_dx(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    if (tag := Tag(group, element)) in ds:
        del ds[tag]
    with quietly:  # without its character set it cannot be written as it is
        content = file_of(ds)
    begin = 144 + struct.unpack_from("<I", content, 140)[0]
    at = begin
    while struct.unpack_from("<HH", content, at) < (group, element):
        at += 8 + struct.unpack_from("<I", content, at + 4)[0]
    return content[:at] + struct.pack("<HHI", group, element, len(value)) + value + content[at:]


def _bomb(syntax: str, rows: int, columns: int, frame: bytes) -> bytes:
    ds = make_dx(np.zeros((8, 8), np.uint16))
    ds.Rows, ds.Columns, ds.BitsStored, ds.HighBit = rows, columns, 16, 15
    ds.PixelData = encapsulate([frame], has_bot=False)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = syntax
    return file_of(ds)


def _codestreams(rows: int, columns: int) -> Iterator[tuple[str, bytes]]:
    """Whole images of that size in as few bytes as each coding allows."""
    name = f"{rows * columns // 1_000_000} million pixels"
    blank = np.zeros((rows, columns), np.uint16)
    for syntax in (JPEGLSLossless, JPEG2000Lossless):
        ds = make_dx(np.zeros((64, 64), np.uint16))
        ds.Rows, ds.Columns = rows, columns
        ds.compress(syntax, blank, generate_instance_uid=False)
        yield f"{name} in {syntax.name}", file_of(ds)
    run = b"\x81\x00" * -(-rows * columns // 128)
    run += b"\x00" * (len(run) % 2)
    yield (
        f"{name} in {RLELossless.name}",
        _bomb(RLELossless, rows, columns, struct.pack("<16I", 2, 64, 64 + len(run), *[0] * 13) + 2 * run),
    )
    size = struct.pack(">HHIIIIIIIIHBBB", 41, 0, columns, rows, 0, 0, columns, rows, 0, 0, 1, 15, 1, 1)
    rest = b"\xff\x52\x00\x0c\x00\x00\x00\x01\x00\x05\x04\x04\x00\x01\xff\x5c\x00\x13\x40" + b"\x40" * 16
    tile = b"\xff\x90\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x01\xff\x93" + bytes(64) + b"\xff\xd9"
    yield f"{name} in an empty JPEG 2000 tile", _bomb(JPEG2000Lossless, rows, columns, b"\xff\x4f\xff\x51" + size + rest + tile)
    head = struct.pack(">BHBHHBBBB", 0xF7, 11, 16, rows, columns, 1, 1, 0x11, 0)
    yield (
        f"{name} in an empty JPEG-LS scan",
        _bomb(
            JPEGLSLossless,
            rows,
            columns,
            b"\xff\xd8\xff" + head + b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00" + b"\xff\x7f" * 9000 + b"\xff\xd9",
        ),
    )
    for marker, precision, syntax in ((0xC0, 8, JPEGBaseline8Bit), (0xC3, 16, "1.2.840.10008.1.2.4.70")):
        head = struct.pack(">BHBHHBBBB", marker, 11, precision, rows, columns, 1, 1, 0x11, 0)
        frame = b"\xff\xd8\xff" + head + b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" + bytes(500) + b"\xff\xd9"
        yield f"{name} in an empty JPEG scan, SOF{marker - 0xC0}", _bomb(syntax, rows, columns, frame)
    ds = make_dx(np.zeros((8, 8), np.uint16))
    ds.Rows, ds.Columns = rows, columns
    ds.PixelData = blank.tobytes()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    yield f"{name} deflated", file_of(ds)


def hostile_pictures() -> Iterator[tuple[str, bytes]]:
    side = int(MAX_PIXELS**0.5)
    yield from _codestreams(side, side)
    yield from _hostile_attributes()


def hostile_films() -> Iterator[tuple[str, bytes]]:
    """What is decoded twice and turned, for it lies on its side and its polarity is wrong."""
    side = int(MAX_PIXELS**0.5)
    lying = np.ascontiguousarray((240 - film(side, side))[:, ::-1].T).astype(np.uint16) * 256
    ds = make_dx(film(*SMALL).astype(np.uint16) * 256)
    ds.Rows = ds.Columns = side
    ds.PatientOrientation = ["F", "R"]
    ds.compress(JPEGLSLossless, lying, generate_instance_uid=False)
    yield f"{MAX_PIXELS // 1_000_000} million pixels, lying and inverted", file_of(ds)
    yield from _hostile_attributes()


def _hostile_attributes() -> Iterator[tuple[str, bytes]]:
    long = b"1\\" * (1 << 24)
    for keyword, group, element in (
        ("WindowCenter", 0x28, 0x1050),
        ("RescaleSlope", 0x28, 0x1053),
        ("PixelPaddingValue", 0x28, 0x120),
        ("ShutterShape", 0x18, 0x1600),
        ("VerticesOfThePolygonalShutter", 0x18, 0x1620),
        ("PatientOrientation", 0x20, 0x20),
        ("LossyImageCompressionRatio", 0x28, 0x2112),
        ("NumberOfFrames", 0x28, 0x08),
    ):
        yield f"{keyword} of 32 MB", with_attribute(group, element, long)
    several = b"".join(struct.pack("<HHI", 0x19, number, 0) for number in range(0x1000, 0x10000))
    yield "60,000 private attributes", with_attribute(0x19, 0x10, b"FUZZ" + several)
    millions = b"".join(
        struct.pack("<HHI", group, number, 0) for group in range(0x21, 0x21 + 2 * 40, 2) for number in range(0x1000, 0x10000)
    )
    whole = with_attribute(0x20, 0x20, b"L\\F ")
    cut = whole.index(struct.pack("<HHI", 0x20, 0x20, 4)) + 12
    yield "2.4 million attributes", whole[:cut] + millions + whole[cut:]
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    yield "4 million items of VOILUTSequence", with_attribute(0x28, 0x3010, item * 4_000_000)
    lut = struct.pack("<HHI", 0x28, 0x3002, 1 << 25) + bytes(1 << 25)
    yield "LUTDescriptor of 32 MB", with_attribute(0x28, 0x3010, struct.pack("<HHI", 0xFFFE, 0xE000, len(lut)) + lut)
    data = struct.pack("<HHIHHH", 0x28, 0x3002, 6, 0, 0, 16) + struct.pack("<HHI", 0x28, 0x3006, 1 << 26) + bytes(1 << 26)
    yield "LUTData of 64 MB", with_attribute(0x28, 0x3010, struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data)
    undefined = struct.pack("<HHI", 0x28, 0x3010, 0xFFFFFFFF) + item * 4_000_000 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    yield "4 million items of undefined length", whole[:cut] + undefined + whole[cut:]
    terms = struct.pack("<HHI", 8, 5, 1024) + b"A\\" * 512
    told = struct.pack("<HHI", 0xFFFE, 0xE000, len(terms)) + terms
    undefined = struct.pack("<HHI", 0x28, 0x3010, 0xFFFFFFFF) + told * 45_000 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    yield "45,000 items, each with a character set of 1 KiB", whole[:cut] + undefined + whole[cut:]
    yield "4,000 items, each with a character set of 1 KiB", with_attribute(0x28, 0x3010, told * 4000)
    undefined = struct.pack("<HHI", 0x28, 0x3010, 0xFFFFFFFF) + item * 45_000 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    yield "45,000 items of undefined length", whole[:cut] + undefined + whole[cut:]
    some = b"".join(struct.pack("<HHIH", 0x21 + 2 * (at >> 15), at & 0x7FFF, 2, 0) for at in range(120_000))
    yield "120,000 attributes", whole[:cut] + some + whole[cut:]
    yield (
        "200 MB of private attributes",
        whole[:cut] + (struct.pack("<HHI", 0x21, 0x1000, 60_000) + bytes(60_000)) * 3400 + whole[cut:],
    )
    fragments = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 4_000_001
    ds = file_of(make_dx(np.zeros((64, 64), np.uint16)))
    pixels = ds.index(b"\xe0\x7f\x10\x00")
    for syntax in (b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.90"):
        start = bytearray(ds[:pixels])
        at = start.index(b"1.2.840.10008.1.2.1\0")
        start[at - 2 : at + 20] = struct.pack("<H", 22) + syntax
        (length,) = struct.unpack_from("<I", start, 140)
        start[140:144] = struct.pack("<I", length + 2)
        yield (
            f"4 million fragments, {syntax.decode()}",
            bytes(start) + b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff" + fragments + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00",
        )


def hostile_headers() -> Iterator[tuple[str, bytes]]:
    for keyword, group, element in (
        ("PatientName", 0x10, 0x10),
        ("PatientID", 0x10, 0x20),
        ("StudyDescription", 0x08, 0x1030),
        ("PixelSpacing", 0x28, 0x30),
        ("SpecificCharacterSet", 0x08, 0x05),
    ):
        for value in (b"1\\" * (1 << 23), b"\x1b$B\\=^" * (1 << 21), b"\xc3\xa9" * (1 << 23)):
            yield f"{keyword} of 16 MB: {value[:5]!r}", with_attribute(group, element, value)
    order = struct.pack("<HHI", 0xFFFE, 0xE000, 12) + struct.pack("<HHI", 0x40, 0x1001, 4) + b"R001"
    yield "100 orders", with_attribute(0x40, 0x275, order * 100)
    yield "45,000 orders", with_attribute(0x40, 0x275, order * 45_000)
    yield "1 million orders", with_attribute(0x40, 0x275, order * 1_000_000)
