from importlib.metadata import version

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from dicom_io import uids
from dicom_io.uids import derived_uid


def test_a_derived_uid_is_the_same_for_ever() -> None:
    assert derived_uid("instance", "a") == "2.25.306975264899113361610647002977068451919"
    assert uids.IMPLEMENTATION_CLASS_UID == "2.25.221237093332786298024575249186266838243"
    assert uids.DEVICE_UID == "2.25.209875390726159366247712344629846925342"


@given(st.lists(st.text()))
def test_a_derived_uid_is_a_valid_uid_made_of_a_valid_uuid(parts: list[str]) -> None:
    uid = UID(derived_uid(*parts))
    assert uid.is_valid
    number = int(uid.removeprefix("2.25."))
    assert number < 2**128
    assert number >> 76 & 0xF == 8
    assert number >> 62 & 0b11 == 0b10


@given(st.lists(st.text(max_size=3)), st.lists(st.text(max_size=3)))
def test_different_parts_give_different_uids(one: list[str], other: list[str]) -> None:
    assert (derived_uid(*one) == derived_uid(*other)) == (one == other)


@pytest.mark.parametrize("other", [("a", "bc"), ("abc",), ("ab", "c", ""), ('ab", "c',)])
def test_where_a_part_ends_matters(other: tuple[str, ...]) -> None:
    assert derived_uid("ab", "c") != derived_uid(*other)


def test_our_names_fit_their_attributes() -> None:
    assert version("cxr-worker") == uids.SOFTWARE_VERSION
    assert len(uids.IMPLEMENTATION_VERSION_NAME) <= 16
    assert uids.IMPLEMENTATION_VERSION_NAME.startswith("CXRWORKER")
    for name in (uids.MANUFACTURER, uids.MODEL_NAME, uids.SOFTWARE_VERSION, uids.DEVICE_SERIAL_NUMBER):
        assert 0 < len(name) <= 64
