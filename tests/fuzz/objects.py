"""Objects: who they are when they come, and what is made of the files that they become."""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import gettempdir
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from cxr_models.gate import FrontalGate
from cxr_models.prepare import prepare as to_tensor
from cxr_models.values import Preparation
from dicom_io import part10
from dicom_io.errors import InvalidObject, InvalidReport, NotDicom, UndecodablePixels
from dicom_io.errors import Permanent as PermanentDicomError
from dicom_io.found import dataset_digest, read_found
from dicom_io.header import read_header
from dicom_io.identity import read_source_image, shared_identity
from dicom_io.not_analysed import build_not_analysed_report
from dicom_io.part10 import StoreRequest, identify
from dicom_io.pixels import image_from
from dicom_io.presentation_state import build_presentation_state
from dicom_io.quiet import quietly
from dicom_io.report import build_structured_report
from dicom_io.sameness import same_content
from dicom_io.stored import MAX_PIXELS
from dicom_io.values import SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from tests import fakes, studies
from tests.factories import make_dx
from tests.fuzz.associations import storable
from tests.fuzz.pictures import EXAMINED, SMALL, film, objects
from tests.fuzz.pictures import part10 as file_of
from tests.fuzz.target import ROOT, Broken, Target
from worker.steps.prepare import PreparedImage, prepare
from worker.steps.select import SelectedImage, select
from worker.values import ImageOutcome

_SYNTAXES: Final = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    "1.2.3",
    "",
)
_LONGEST_REAL_BYTES = 160 * 1024
_HEAD_BYTES = 6 * 1024
_TO_TENSOR: Final = Preparation(side=32)


@cache
def file_in_memory(name: str = "input") -> Path:
    """Where an input becomes a file: in memory where there is such a place."""
    shared = Path("/dev/shm")  # noqa: S108
    return (shared if os.access(shared, os.W_OK) else Path(gettempdir())) / f"cxr-fuzz-{os.getpid()}-{name}.dcm"


def _written(data: bytes, name: str = "input") -> Path:
    path = file_in_memory(name)
    path.write_bytes(data)
    return path


def real_files() -> Iterator[bytes]:
    """Files that nobody wrote for this project: the smaller ones whole, of the others as much as their header needs."""
    folder = (ROOT / os.environ.get("CXR_DICOM", "../shared/dicom")).resolve()
    for path in sorted(folder.glob("*.dcm")):
        content = path.read_bytes()
        yield content if len(content) <= _LONGEST_REAL_BYTES else content[:_HEAD_BYTES]


# --- who they are ---


@cache
def _one() -> Dataset:
    return make_dx(np.zeros((8, 8), np.uint8))


def _request(syntax: str) -> StoreRequest:
    ds = _one()
    return StoreRequest(
        sop_class_uid=SOPClassUID(str(ds.SOPClassUID)),
        sop_instance_uid=SOPInstanceUID(str(ds.SOPInstanceUID)),
        transfer_syntax=TransferSyntaxUID(syntax),
        calling_ae_title="FUZZ",
        called_ae_title="CXRWORKER",
        peer_address="::1",
    )


def _identify(data: bytes) -> None:
    """The first byte chooses the transfer syntax."""
    request, dataset = _request(_SYNTAXES[data[0] % len(_SYNTAXES)] if data else ""), data[1:]
    try:
        slowly = part10._identify_any(request, BytesIO(dataset))  # noqa: SLF001  compared with the other way
    except (NotDicom, InvalidObject):
        slowly = None
    else:
        request = replace(request, sop_class_uid=slowly.sop_class_uid, sop_instance_uid=slowly.sop_instance_uid)
    identity = identify(request, BytesIO(dataset))
    if identity != slowly:
        raise Broken("what is read fast is not what pydicom reads")
    storable(identity.study_uid, identity.series_uid, identity.sop_class_uid, identity.sop_instance_uid)
    for text in (identity.patient_id, identity.issuer_of_patient_id, identity.accession_number, identity.modality):
        if len(text) > 64 or "\0" in text:
            raise Broken("a text that no column takes")
        text.encode()


def _encoded(ds: Dataset, syntax: str) -> bytes:
    changed = Dataset()
    changed.update(ds)
    changed.file_meta = ds.file_meta
    whole = BytesIO()
    changed.file_meta.TransferSyntaxUID = syntax
    changed.save_as(whole, enforce_file_format=True)
    content = whole.getvalue()
    return content[144 + struct.unpack_from("<I", content, 140)[0] :]


def _identities() -> list[bytes]:
    found = [
        bytes([place]) + _encoded(make_dx(np.zeros((8, 8), np.uint8)), syntax) for place, syntax in enumerate(_SYNTAXES[:4])
    ]
    for content in real_files():
        meta = content[128:132] == b"DICM" and content[132:136] == b"\x02\x00\x00\x00"
        begin = 144 + struct.unpack_from("<I", content, 140)[0] if meta else 0
        found += [bytes([place]) + content[begin : begin + _HEAD_BYTES] for place in range(2)]
    return found


def _hostile_identities() -> Iterator[tuple[str, bytes]]:
    explicit, implicit, _, deflated = (bytes([place]) for place in range(4))
    yield "4 million empty attributes", explicit + b"\x08\x00\x01\x00LO\x00\x00" * 4_000_000
    several = b"".join(struct.pack("<HHI", 8, number, 0) for number in range(0x20, 0x10000))
    yield "the same, all of group 0008, 40 times", implicit + several * 40
    yield "a Patient ID of 64 MB", implicit + _sound_begin() + struct.pack("<HHI", 0x10, 0x20, 1 << 26) + b"A\\" * (1 << 25)
    yield "a Modality of 64 MB", implicit + struct.pack("<HHI", 8, 0x60, 1 << 26) + b"A\\" * (1 << 25) + _sound_begin()
    yield "a character set of 64 MB", implicit + struct.pack("<HHI", 8, 5, 1 << 26) + b"A\\" * (1 << 25) + _sound_begin()
    nested = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    yield "100,000 sequences in each other", explicit + nested * 100_000
    yield "4 million items", explicit + nested[:12] + b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 4_000_000
    yield "a deflated gigabyte", deflated + _deflated(b"\x08\x00\x01\x00LO\x00\x00" * 4096, 32768)


def _sound_begin() -> bytes:
    return struct.pack("<HHI", 8, 0x16, 4) + b"1.2\0" + struct.pack("<HHI", 8, 0x18, 4) + b"1.2\0"


def _deflated(block: bytes, times: int) -> bytes:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return b"".join([*(packer.compress(block) for _ in range(times)), packer.flush()])


IDENTITY = Target(
    name="identity",
    says=(
        "Who an object is when it comes: `part10.identify` in seven transfer syntaxes, deflated and big endian among them. "
        "Where `prefix.read_plain` answers, pydicom must answer the same; every text must fit its column."
    ),
    run=_identify,
    allowed=(NotDicom, InvalidObject),
    seeds=_identities,
    hostile=_hostile_identities,
)


# --- the files they become ---


def _find(data: bytes) -> None:
    path = _written(data)
    found = read_found(path)
    dataset_digest(path)
    storable(found.transfer_syntax)
    storable(found.source_ae_title, most=16)


def _files() -> list[bytes]:
    return [*(file_of(ds) for ds in objects(*SMALL)), *real_files()]


def _hostile_files() -> Iterator[tuple[str, bytes]]:
    whole = file_of(_one())
    for length in (0, 0xFFFFFFFF, 0x7FFFFFFF):
        yield f"a file meta of {length} bytes", whole[:140] + struct.pack("<I", length) + whole[144:]


FOUND = Target(
    name="found",
    says="Received files read again: `found.read_found` and `dataset_digest`.",
    run=_find,
    allowed=(NotDicom, InvalidObject),
    seeds=_files,
    hostile=_hostile_files,
    longest=_LONGEST_REAL_BYTES,
)


# --- their pixels ---


def _decode(data: bytes) -> None:
    pixels = image_from(read_header(_written(data))).pixels
    if pixels.dtype != np.float32 or not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
        raise Broken("a picture that is not finite and within 0 and 1")


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


def _hostile_pictures() -> Iterator[tuple[str, bytes]]:
    side = int(MAX_PIXELS**0.5)
    yield from _codestreams(side, side)
    yield from _hostile_attributes()


def _hostile_films() -> Iterator[tuple[str, bytes]]:
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


PIXELS = Target(
    name="pixels",
    says=(
        "Files to pictures: `header.read_header` and `pixels.image_from`, small images in every transfer syntax that is "
        "decoded; a picture must be finite and within 0 and 1. The decoders run in this process, as they do in the worker."
    ),
    run=_decode,
    allowed=(NotDicom, UndecodablePixels),
    seeds=_files,
    hostile=_hostile_pictures,
    longest=_LONGEST_REAL_BYTES,
)


_gate = cache(FrontalGate.load)


def _analyse(data: bytes) -> None:
    path = _written(data)
    selected = select(fakes.stored_instance(path=path))
    if isinstance(selected, SelectedImage):
        prepared = prepare(selected, lambda pixels: to_tensor(pixels, _TO_TENSOR), gate=_gate())
        if isinstance(prepared, PreparedImage) and prepared.tensor.shape != (1, 32, 32):
            raise Broken("a tensor of another shape")
        reason = "" if isinstance(prepared, PreparedImage) else prepared.reason
    else:
        reason = selected.reason
    if "\0" in reason or not isinstance(reason, str):
        raise Broken("a reason that no column takes")
    same_content(path, file_in_memory("other"))
    same_content(path, path)
    assert isinstance(selected, SelectedImage | ImageOutcome)


def _analysed_files() -> Iterable[bytes]:
    files = [file_of(ds) for ds in objects(*EXAMINED)]
    file_in_memory("other").write_bytes(files[1])
    return [*files, *(content for content in real_files() if len(content) < 64 * 1024)]


ANALYSIS = Target(
    name="analysis",
    says=(
        "Received files as the pipeline takes them: `select`, then decode, examine by the gate, and `prepare`; and whether one "
        "says the same as another (`sameness.same_content`). Nothing may be raised: every end is a reason."
    ),
    run=_analyse,
    allowed=(),
    seeds=_analysed_files,
    hostile=_hostile_films,
    longest=64 * 1024,
)


# --- what is told of them ---


def _tell(data: bytes) -> None:
    path = _written(data)
    source = read_source_image(path)
    storable(source.reference.sop_instance_uid, source.study_uid)
    shared_identity([source])
    findings = studies.findings_on(path)
    for build in (build_structured_report, build_presentation_state):
        try:
            file_of(build(findings))
        except PermanentDicomError:
            continue
    file_of(build_not_analysed_report(studies.refusal_of(path)))


def _told_files() -> list[bytes]:
    plain = [file_of(ds) for ds in objects(*SMALL)]
    return [*(plain[place] for place in (0, 8, 9, 10, -1)), *(content[:_HEAD_BYTES] for content in real_files())]


def _hostile_headers() -> Iterator[tuple[str, bytes]]:
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


OUTPUTS = Target(
    name="outputs",
    says=(
        "What reports copy from a received header: `identity.read_source_image`, and a Structured Report, a presentation "
        "state and a refusal made and written from it."
    ),
    run=_tell,
    allowed=(InvalidReport, PermanentDicomError),
    seeds=_told_files,
    hostile=_hostile_headers,
)
