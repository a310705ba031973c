"""Bytes of association requests, of their acceptance and of messages, with nothing checked (PS3.8 section 9.3, PS3.7)."""

import struct
from collections.abc import Mapping, Sequence

from dicom_io.command import NO_DATA_SET, CommandValue, Element, encode_command
from dicom_io.wire import Pdu

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
IS_COMMAND, IS_LAST = 1, 2
RELEASE_RQ = struct.pack(">BxI4x", Pdu.RELEASE_RQ, 4)

Contexts = Sequence[tuple[int, str, Sequence[str]]]
"""Number, abstract syntax, transfer syntaxes."""


def item(kind: int, content: bytes) -> bytes:
    """An item of an association request or of its answer."""
    return struct.pack(">BxH", kind, len(content) & 0xFFFF) + content


def user_information(*more: bytes) -> bytes:
    """Maximum length and implementation class UID, and more sub-items."""
    return item(0x50, item(0x51, struct.pack(">I", 16382)) + item(0x52, b"1.2.3.4") + b"".join(more))


def associate_rq(contexts: Contexts, *more: bytes, called: bytes = b"CXRWORKER", calling: bytes = b"FUZZ") -> bytes:
    """An A-ASSOCIATE-RQ; `more` are sub-items of its user information."""
    proposed = b"".join(
        item(
            0x20, bytes((number, 0, 0, 0)) + item(0x30, abstract.encode()) + b"".join(item(0x40, s.encode()) for s in syntaxes)
        )
        for number, abstract, syntaxes in contexts
    )
    return _associate(Pdu.ASSOCIATE_RQ, proposed + user_information(*more), called=called, calling=calling)


def associate_ac(accepted: Sequence[tuple[int, str]], *, result: int = 0) -> bytes:
    """An A-ASSOCIATE-AC for numbers of contexts, each with its transfer syntax."""
    answered = b"".join(item(0x21, bytes((number, 0, result, 0)) + item(0x40, syntax.encode())) for number, syntax in accepted)
    return _associate(Pdu.ASSOCIATE_AC, answered + user_information(), called=b"PACS", calling=b"CXRWORKER")


def _associate(kind: Pdu, items: bytes, *, called: bytes, calling: bytes) -> bytes:
    fixed = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16), calling.ljust(16))
    content = fixed + item(0x10, APPLICATION_CONTEXT) + items
    return struct.pack(">BxI", kind, len(content)) + content


def data_pdu(context_id: int, control: int, fragment: bytes) -> bytes:
    """A P-DATA-TF of one value."""
    return struct.pack(">BxIIBB", Pdu.DATA, len(fragment) + 6, len(fragment) + 2, context_id, control) + fragment


def message(context_id: int, command: Mapping[Element, CommandValue], dataset: bytes = b"") -> bytes:
    """A command and the data set that it brings, in two PDUs."""
    kind = 0 if dataset else NO_DATA_SET
    encoded = data_pdu(context_id, IS_COMMAND | IS_LAST, encode_command({**command, Element.DATA_SET_TYPE: kind}))
    return encoded + data_pdu(context_id, IS_LAST, dataset) if dataset else encoded
