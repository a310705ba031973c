from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from dicom_io.command import Element, decode_command, encode_command
from dicom_io.errors import NotDicom

NUMBERS = st.sampled_from([Element.COMMAND_FIELD, Element.MESSAGE_ID, Element.STATUS, Element.DATA_SET_TYPE])
TEXTS = st.sampled_from([Element.AFFECTED_SOP_CLASS_UID, Element.REQUESTED_SOP_INSTANCE_UID, Element.ERROR_COMMENT])
COMMANDS = st.builds(
    lambda numbers, texts: numbers | texts,
    st.dictionaries(NUMBERS, st.integers(0, 0xFFFF)),
    st.dictionaries(TEXTS, st.from_regex(r"[0-9.A-Z]{0,64}", fullmatch=True)),
)


@given(COMMANDS)
def test_what_was_encoded_is_read_back(command: dict[Element, int | str]) -> None:
    encoded = encode_command(command)
    assert len(encoded) % 2 == 0
    assert decode_command(encoded) == command


@given(st.binary(max_size=200))
def test_any_other_bytes_are_read_or_refused(encoded: bytes) -> None:
    with suppress(NotDicom):
        decode_command(encoded)


@given(COMMANDS, st.data())
def test_a_damaged_command_is_read_or_refused(command: dict[Element, int | str], data: st.DataObject) -> None:
    encoded = bytearray(encode_command(command))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with suppress(NotDicom):
        decode_command(bytes(encoded))
