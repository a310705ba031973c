"""Objects: who they are when they come, and when their files are read again."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO

import numpy as np
from pydicom.dataset import Dataset

from dicom_io import part10
from dicom_io.errors import InvalidObject, NotDicom
from dicom_io.found import dataset_digest, read_found
from dicom_io.part10 import StoreRequest, identify
from dicom_io.values import SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from tests.factories import SYNTAXES, make_dx
from tests.fuzz.associations import storable
from tests.fuzz.files import HEAD_BYTES, LONGEST_REAL_BYTES, real_files, sound_files, written
from tests.fuzz.pictures import part10 as file_of
from tests.fuzz.target import Broken, Target


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
    request, dataset = _request(SYNTAXES[data[0] % len(SYNTAXES)] if data else ""), data[1:]
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
        bytes([place]) + _encoded(make_dx(np.zeros((8, 8), np.uint8)), syntax) for place, syntax in enumerate(SYNTAXES[:4])
    ]
    for content in real_files():
        meta = content[128:132] == b"DICM" and content[132:136] == b"\x02\x00\x00\x00"
        begin = 144 + struct.unpack_from("<I", content, 140)[0] if meta else 0
        found += [bytes([place]) + content[begin : begin + HEAD_BYTES] for place in range(2)]
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


def _find(data: bytes) -> None:
    path = written(data)
    found = read_found(path)
    dataset_digest(path)
    storable(found.transfer_syntax)
    storable(found.source_ae_title, most=16)


def _hostile_files() -> Iterator[tuple[str, bytes]]:
    whole = file_of(_one())
    for length in (0, 0xFFFFFFFF, 0x7FFFFFFF):
        yield f"a file meta of {length} bytes", whole[:140] + struct.pack("<I", length) + whole[144:]


FOUND = Target(
    name="found",
    says="Received files read again: `found.read_found` and `dataset_digest`.",
    run=_find,
    allowed=(NotDicom, InvalidObject),
    seeds=sound_files,
    hostile=_hostile_files,
    longest=LONGEST_REAL_BYTES,
)
