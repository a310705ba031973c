"""Messages about studies, which bring no object."""

import struct
from collections.abc import Iterator
from typing import Final

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io.availability import read_notice
from dicom_io.commitment import read_commitment
from dicom_io.errors import InvalidObject, NotDicom
from dicom_io.mpps import read_step
from tests.fuzz import told
from tests.fuzz.associations import storable
from tests.fuzz.target import Target

_SYNTAXES: Final = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


def _hear(data: bytes) -> None:
    """The first byte chooses the message and its transfer syntax."""
    choice, dataset = data[0] if data else 0, data[1:]
    syntax = _SYNTAXES[choice // 3 % len(_SYNTAXES)]
    match choice % 3:
        case 0:
            step = read_step(dataset, syntax)
            storable(*step.study_uids, *(step.instances or ()))
        case 1:
            notice = read_notice(dataset, syntax)
            storable(notice.study_uid, *notice.instances)
        case _:
            commitment = read_commitment(dataset, syntax)
            storable(commitment.transaction_uid)


def _messages() -> list[bytes]:
    return [
        bytes([3 * (not implicit) + place]) + told.written(ds, implicit=implicit)
        for place, ds in enumerate((told.step(), told.notice(), told.commitment()))
        for implicit in (True, False)
    ]


_LONGEST_PAYLOAD = 16 * 1024 * 1024


def _element(group: int, number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, number, len(value)) + value


def _item(value: bytes) -> bytes:
    return _element(0xFFFE, 0xE000, value)


def _hostile_messages() -> Iterator[tuple[str, bytes]]:
    """As long as the acceptor takes."""
    items = _item(b"") * (_LONGEST_PAYLOAD // 8 - 64)
    values = b"1\\" * (_LONGEST_PAYLOAD // 2 - 100)
    study, transaction = _element(0x20, 0x0D, b"1.2.3\0"), _element(0x08, 0x1195, b"1.2.3\0")
    yield "a step of 2 million empty items", b"\x00" + _element(0x40, 0x340, items)
    yield "a notice of 2 million empty items", b"\x01" + _element(0x08, 0x1115, items) + study
    yield "a commitment of 2 million empty items", b"\x02" + transaction + _element(0x08, 0x1199, items)
    yield "a notice of 8 million studies", b"\x01" + _element(0x20, 0x0D, values)
    yield "a commitment of 8 million transactions", b"\x02" + _element(0x08, 0x1195, values)
    empty = _item(_element(0x08, 0x1140, _item(b"") * 8000)) * 250
    yield "a step of 250 series of 8,000 empty items", b"\x00" + _element(0x40, 0x340, empty)
    few = _item(b"".join(_element(0x21, number, b"") for number in range(8000))) * 250
    yield "a step of 250 series of 8,000 attributes", b"\x00" + _element(0x40, 0x340, few[: 8 * 1024 * 1024 // 64 * 64 - 64])
    reference = _item(_element(0x08, 0x1150, told.DX.encode() + b"\0") + _element(0x08, 0x1155, b"1.2.3.0\0"))
    for count in (45_000, 60_000):
        many = reference * count
        yield f"a step of {count:,} images", b"\x00" + _element(0x40, 0x340, _item(_element(0x08, 0x1140, many)))
        yield f"a notice of {count:,} images", b"\x01" + _element(0x08, 0x1115, _item(_element(0x08, 0x1199, many))) + study
        yield f"a commitment of {count:,} objects", b"\x02" + transaction + _element(0x08, 0x1199, many)


MESSAGES = Target(
    name="messages",
    says=(
        "Messages about studies: N-CREATE and N-SET of performed procedure steps (`mpps.read_step`), Instance Availability "
        "Notifications (`availability.read_notice`) and N-EVENT-REPORTs of storage commitment (`commitment.read_commitment`)."
    ),
    run=_hear,
    allowed=(NotDicom, InvalidObject),
    seeds=_messages,
    hostile=_hostile_messages,
    longest=4096,
)
