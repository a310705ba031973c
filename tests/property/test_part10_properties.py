"""Whatever a stranger sends, it is identified or refused: never another error, never a warning, never for long."""

from datetime import timedelta
from functools import cache
from io import BytesIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io import part10
from dicom_io.errors import DicomError, InvalidObject
from dicom_io.part10 import Identity
from dicom_io.values import TransferSyntaxUID
from tests.factories import SYNTAXES, make_dx
from tests.fakes import SentRequest, encoded, request_for

ANY_SYNTAX = st.sampled_from(SYNTAXES)
QUICKLY = timedelta(seconds=2)
ITEM = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
"""The start of a sequence of undefined length, and of its first item."""


@cache
def _whole() -> bytes:
    return encoded(make_dx())[:2000]


def identify(request: SentRequest) -> Identity:
    return part10.identify(request, BytesIO(request.dataset))


def _identified_or_refused(data: bytes, syntax: str) -> None:
    try:
        identity = identify(request_for(make_dx_once(), dataset=data, transfer_syntax=TransferSyntaxUID(syntax)))
    except DicomError:
        return
    assert isinstance(identity, Identity)
    assert 0 < len(identity.study_uid) <= 64
    assert set(identity.study_uid) <= set("0123456789.")
    assert len(identity.patient_id) <= 64
    assert "\x00" not in identity.patient_id + identity.accession_number
    identity.patient_id.encode("utf-8")


make_dx_once = cache(make_dx)


@settings(max_examples=150, deadline=QUICKLY)
@given(data=st.binary(max_size=600), syntax=ANY_SYNTAX)
@example(data=ITEM * 3000, syntax=ExplicitVRLittleEndian)
@example(data=b"\x08\x00\x05\x00UN\x00\x00\xff\xff\xff\xff" * 500, syntax=ExplicitVRLittleEndian)
@example(data=b"\x00" * 5000, syntax=ImplicitVRLittleEndian)
def test_any_bytes_are_identified_or_refused(data: bytes, syntax: str) -> None:
    _identified_or_refused(data, syntax)


@settings(max_examples=200, deadline=QUICKLY)
@given(
    place=st.integers(0, 1999),
    patch=st.binary(min_size=1, max_size=12),
    cut=st.integers(1, 2000),
    syntax=ANY_SYNTAX,
)
def test_a_damaged_object_is_identified_or_refused(place: int, patch: bytes, cut: int, syntax: str) -> None:
    whole = _whole()
    _identified_or_refused((whole[:place] + patch + whole[place + len(patch) :])[:cut], syntax)


@settings(max_examples=100, deadline=QUICKLY)
@given(
    character_set=st.sampled_from([b"ISO_IR 100", b"ISO_IR 192", b"ISO 2022 IR 87", b"GB18030 ", b"nonsense", b"\\ISO_IR 6"]),
    patient_id=st.binary(min_size=2, max_size=40).map(lambda text: text + b" " * (len(text) % 2)),
)
def test_any_patient_id_in_any_character_set_is_text_a_database_takes(character_set: bytes, patient_id: bytes) -> None:
    def element(tag: bytes, vr: bytes, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        return tag + vr + len(value).to_bytes(2, "little") + value

    ds = make_dx_once()
    data = (
        element(b"\x08\x00\x05\x00", b"CS", character_set)
        + element(b"\x08\x00\x16\x00", b"UI", ds.SOPClassUID.encode())
        + element(b"\x08\x00\x18\x00", b"UI", ds.SOPInstanceUID.encode())
        + element(b"\x10\x00\x20\x00", b"LO", patient_id)
        + element(b"\x20\x00\x0d\x00", b"UI", b"1.2.3")
        + element(b"\x20\x00\x0e\x00", b"UI", b"1.2.4")
    )
    _identified_or_refused(data, ExplicitVRLittleEndian)


@given(place=st.integers(0, 2000), byte=st.integers(0, 255), implicit=st.booleans())
@settings(deadline=QUICKLY)
def test_what_is_read_fast_is_what_pydicom_reads(place: int, byte: int, *, implicit: bool) -> None:
    ds = make_dx_once()
    begin = _plain_begin(implicit=implicit)
    place %= len(begin)
    data = begin[:place] + bytes([byte]) + begin[place + 1 :]
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    request = request_for(ds, dataset=data, transfer_syntax=TransferSyntaxUID(syntax))
    try:
        fast = part10.identify_plain(request, data)
    except InvalidObject:
        with pytest.raises(InvalidObject):
            _identify_by_pydicom(request)
    else:
        assert fast is None or fast == _identify_by_pydicom(request)


def _identify_by_pydicom(request: SentRequest) -> Identity:
    return part10._agreed(part10._identify_any(request, BytesIO(request.dataset)), request)  # noqa: SLF001


@cache
def _plain_begin(*, implicit: bool) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit
    write_dataset(buffer, make_dx_once())
    begin = buffer.getvalue()[:2400]
    request = request_for(make_dx_once(), dataset=begin, transfer_syntax=TransferSyntaxUID(ImplicitVRLittleEndian))
    assert not implicit or part10.identify_plain(request, begin) is not None, "it is of use"
    return begin
