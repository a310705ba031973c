"""Changes to inputs that know what DICOM looks like: lengths, tags, representations, items, markers."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

_NUMBERS: Final = (
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0x80,
    0xFE,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFE,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
_REPRESENTATIONS: Final = (
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV XX"
).split()
_LONG: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_TOKENS: Final = (
    *_REPRESENTATIONS,
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
    b"\xfe\xff\x00\xe0\x00\x00\x00\x00",
    b"\xfe\xff\x0d\xe0\x00\x00\x00\x00",
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00",
    b"\xe0\x7f\x10\x00",
    b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",
    b"\x08\x00\x05\x00CS\x0e\x00ISO 2022 IR 87",
    b"\x1b$B",
    b"\x1b(J",
    b"\\",
    b"\\\\\\\\\\\\\\\\",
    b"^=^=^",
    b"nan",
    b"inf",
    b"1e999",
    b"-1",
    b"99999999999999999999",
    b"\xff\xd8",
    b"\xff\xd9",
    b"\xff\xda",
    b"\xff\xc0",
    b"\xff\xc4",
    b"\xff\xf7",
    b"\xff\xf8",
    b"\xff\x4f\xff\x51",
    b"\xff\x52",
    b"\xff\x5c",
    b"\xff\x90",
    b"\xff\x93",
    b"1.2.840.10008.1.2.1",
    b"1.2.840.10008.1.2.4.50",
    b"[[[[[[[[",
    b'{"Value":[',
    b"null",
)


def mutate(data: bytes, others: Sequence[bytes], random: Random, *, longest: int) -> bytes:
    """One to four changes to an input; `others` lend parts of theirs."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 2, 4))):
        elements = _elements(bytes(changed)) if random.random() < 0.6 else []
        if elements:
            _change_element(changed, elements, random)
        else:
            _change_bytes(changed, others, random)
    return bytes(changed[:longest])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Element:
    """Where an element in Explicit VR Little Endian stands."""

    at: int
    value_at: int
    end: int


def _elements(data: bytes) -> list[_Element]:
    """Elements that follow each other from the first that looks like one, those of sequences too."""
    found: list[_Element] = []
    at = 132 if data[128:132] == b"DICM" else 0
    if not found and data[at + 4 : at + 6] not in _REPRESENTATIONS:
        at += 1  # behind a byte that selects
    while at + 8 <= len(data) and len(found) < 400:
        vr = data[at + 4 : at + 6]
        if vr in _LONG and at + 12 <= len(data):
            value_at, length = at + 12, struct.unpack_from("<I", data, at + 8)[0]
        elif vr in _REPRESENTATIONS:
            value_at, length = at + 8, struct.unpack_from("<H", data, at + 6)[0]
        elif data[at : at + 2] == b"\xfe\xff":
            value_at, length = at + 8, 0
        else:
            break
        nested = vr == b"SQ" or length == 0xFFFFFFFF
        end = value_at if nested else min(value_at + length, len(data))
        found.append(_Element(at=at, value_at=value_at, end=end))
        at = end
    return found


def _change_element(changed: bytearray, elements: Sequence[_Element], random: Random) -> None:
    one, other = random.choice(elements), random.choice(elements)
    match random.randrange(8):
        case 0:
            changed[one.at + 4 : one.at + 6] = random.choice(_REPRESENTATIONS)
        case 1:
            _overwrite(changed, one.value_at - random.choice((2, 4)), random)
        case 2:
            changed[one.value_at : one.end] = changed[other.value_at : other.end]
        case 3:
            del changed[one.at : one.end]
        case 4:
            changed[one.at : one.at] = changed[other.at : other.end]
        case 5:
            changed[one.at : one.at + 4] = changed[other.at : other.at + 4]
        case 6:
            changed[one.value_at : one.end] = random.choice(_TOKENS) * random.choice((1, 1, 2, 40))
        case _:
            if one.end > one.value_at:
                changed[random.randrange(one.value_at, one.end)] = random.randrange(256)


def _change_bytes(changed: bytearray, others: Sequence[bytes], random: Random) -> None:
    at = random.randrange(len(changed) + 1)
    length = random.choice((1, 2, 4, 8, 16, 64, 512))
    match random.randrange(8):
        case 0:
            if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
        case 1:
            changed[at : at + 1] = bytes([random.randrange(256)])
        case 2:
            _overwrite(changed, at, random)
        case 3:
            del changed[at : at + length]
        case 4:
            changed[at:at] = changed[at : at + length]
        case 5:
            changed[at:at] = random.choice(_TOKENS)
        case 6:
            other = random.choice(others) if others else b""
            start = random.randrange(len(other) + 1)
            changed[at : at + length] = other[start : start + length]
        case _:
            del changed[at:]


def _overwrite(changed: bytearray, at: int, random: Random) -> None:
    """Put a number at the edge of what is allowed somewhere."""
    number, form = random.choice(_NUMBERS), random.choice(("<H", ">H", "<I", ">I", "<B"))
    written = struct.pack(form, number & ((1 << (8 * struct.calcsize(form))) - 1))
    at = max(at, 0)
    changed[at : at + len(written)] = written
