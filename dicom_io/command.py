"""Command sets: what a DIMSE message says of itself, always Implicit VR Little Endian (PS3.7 6.3.1 and annex E)."""

import struct
from collections.abc import Mapping
from enum import IntEnum

from dicom_io.errors import NotDicom

CommandValue = int | str
NO_DATA_SET = 0x0101


class Element(IntEnum):
    """Elements of group 0000, by their element number (PS3.7 table E.1-1)."""

    AFFECTED_SOP_CLASS_UID = 0x0002
    REQUESTED_SOP_CLASS_UID = 0x0003
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    PRIORITY = 0x0700
    DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    ERROR_COMMENT = 0x0902
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    REQUESTED_SOP_INSTANCE_UID = 0x1001
    EVENT_TYPE_ID = 0x1002
    ACTION_TYPE_ID = 0x1008


class Request(IntEnum):
    """Command fields of requests; that of the response has the highest bit set (PS3.7 E.1)."""

    C_STORE = 0x0001
    C_FIND = 0x0020
    C_ECHO = 0x0030
    N_EVENT_REPORT = 0x0100
    N_ACTION = 0x0130


_NUMBERS = frozenset(
    {
        Element.COMMAND_FIELD,
        Element.MESSAGE_ID,
        Element.MESSAGE_ID_BEING_RESPONDED_TO,
        Element.PRIORITY,
        Element.DATA_SET_TYPE,
        Element.STATUS,
        Element.EVENT_TYPE_ID,
        Element.ACTION_TYPE_ID,
    }
)
_TEXTS = frozenset(Element) - _NUMBERS


def encode_command(values: Mapping[Element, CommandValue]) -> bytes:
    """The bytes of a command set, its group length before it."""
    encoded = b"".join(_encode(element, values[element]) for element in sorted(values))
    return struct.pack("<HHII", 0, 0, 4, len(encoded)) + encoded


def decode_command(encoded: bytes) -> dict[Element, CommandValue]:
    """The elements that are known here; others are passed over.

    Raises
    ------
    NotDicom
        It is no command set.
    """
    values: dict[Element, CommandValue] = {}
    at = 0
    try:
        while at < len(encoded):
            group, number, length = struct.unpack_from("<HHI", encoded, at)
            value = encoded[at + 8 : at + 8 + length]
            if group != 0 or len(value) != length:
                raise NotDicom("A command set is damaged.")
            at += 8 + length
            if number in _NUMBERS:
                (values[Element(number)],) = struct.unpack("<H", value)
            elif number in _TEXTS:
                values[Element(number)] = _printable(value.decode("ascii", "replace").strip(" \0"))
    except struct.error as error:
        raise NotDicom("A command set is damaged.") from error
    return values


def _printable(text: str) -> str:
    """Without control characters: some peers send the whole of a buffer, and a database or a terminal does not take them."""
    return text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text).strip()


def _encode(element: Element, value: CommandValue) -> bytes:
    if isinstance(value, int):
        return struct.pack("<HHIH", 0, element, 2, value)
    text = value.encode("ascii")
    text += b"\0" * (len(text) % 2)
    return struct.pack("<HHI", 0, element, len(text)) + text
