"""What fuzzing found, each as a few bytes: hangs and gigabytes out of megabytes, errors that no caller handles."""

import os
import socket
import struct
import tracemalloc
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io import bounded
from dicom_io.availability import NOTICE, read_notice
from dicom_io.command import Element, Request
from dicom_io.commitment import read_commitment
from dicom_io.eligibility import judge
from dicom_io.errors import InvalidObject, InvalidReport, NotDicom, UndecodablePixels
from dicom_io.found import read_found
from dicom_io.header import read_header
from dicom_io.identity import read_source_image
from dicom_io.mpps import STEP, read_step
from dicom_io.negotiation import agree, decode_request
from dicom_io.normalized import Command, NormalizedRequest
from dicom_io.part10 import file_header, identify
from dicom_io.pixels import read_image
from dicom_io.reasons import ReasonCode
from dicom_io.sameness import same_content
from dicom_io.stow import WebPeer, send_to_service
from dicom_io.values import SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from tests.factories import make_dx, write
from tests.fakes import Site, encoded, request_for
from tests.fuzz import pdu, told
from tests.fuzz.answers import PEER, WEB
from tests.fuzz.hostile_images import with_attribute
from tests.fuzz.target import attempt
from worker.informants import informants

DX = "1.2.840.10008.5.1.4.1.1.1.1"
EMPTY = b"\x08\x00\x01\x00LO\x00\x00"
EMPTY_ITEM = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
SEQUENCE = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff"
LONG = b"1\\" * (bounded.LONGEST_VALUE_BYTES // 2 + 1)


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes at its true size is shown on a small one."""
    monkeypatch.setattr(bounded, "MOST_READS", 2000)
    monkeypatch.setattr(bounded, "MOST_ITEMS", 500)


@pytest.mark.parametrize(("tag", "refused"), [(0x00080016, InvalidObject), (0x00080018, InvalidObject), (0x00100020, NotDicom)])
def test_a_broken_sequence_in_the_place_of_a_uid_or_a_text_is_refused(tag: int, refused: type[Exception]) -> None:
    ds = make_dx()
    tags = sorted({tag, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E})
    data = b"".join(_broken_sequence(each) if each == tag else _uid(each, str(ds[each].value)) for each in tags)
    request = request_for(ds, dataset=data, transfer_syntax=TransferSyntaxUID(ExplicitVRLittleEndian))
    with pytest.raises(refused):
        identify(request, BytesIO(data))


def _broken_sequence(tag: int) -> bytes:
    """Explicit VR, with an item whose one value has half its length."""
    item = b"\x08\x00\x05\x01FD\x04\x00\x01\x02\x03\x04"
    items = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item
    return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, b"SQ", len(items)) + items


def _uid(tag: int, value: str) -> bytes:
    padded = value.encode() + b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"UI", len(padded)) + padded


@pytest.mark.parametrize("data", [EMPTY * 2100, SEQUENCE + EMPTY_ITEM * 600])
def test_an_object_of_nothing_but_headers_is_refused_before_it_takes_minutes(data: bytes) -> None:
    request = request_for(make_dx(), dataset=data, transfer_syntax=TransferSyntaxUID(ExplicitVRLittleEndian))
    with pytest.raises(NotDicom):
        identify(request, BytesIO(data))


def test_an_object_of_a_usual_number_of_attributes_and_items_is_taken() -> None:
    ds = make_dx()
    data = SEQUENCE + EMPTY_ITEM * 400 + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00" + encoded(ds)
    request = request_for(ds, dataset=data)
    assert identify(request, BytesIO(data)).study_uid == ds.StudyInstanceUID


def test_a_character_set_of_megabytes_is_refused_before_each_of_its_terms_is_looked_up() -> None:
    data = struct.pack("<HHI", 8, 5, len(LONG)) + LONG
    request = request_for(make_dx(), dataset=data, transfer_syntax=TransferSyntaxUID(ImplicitVRLittleEndian))
    with pytest.raises(NotDicom):
        identify(request, BytesIO(data))


@pytest.mark.parametrize(
    ("group", "element"),
    [(0x28, 0x1053), (0x28, 0x08), (0x28, 0x11), (0x28, 0x1052)],
    ids=["slope", "frames", "columns", "intercept"],
)
def test_a_number_of_megabytes_is_refused_and_not_converted(tmp_path: Path, group: int, element: int) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(with_attribute(group, element, LONG))
    with pytest.raises(UndecodablePixels):
        read_image(path)


def test_what_only_helps_is_ignored_where_it_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    for group, element in ((0x28, 0x120), (0x18, 0x1600), (0x20, 0x20), (0x28, 0x2112), (0x28, 0x1050)):
        path.write_bytes(with_attribute(group, element, LONG))
        assert read_image(path).pixels.max() > 0


def test_a_view_of_megabytes_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(with_attribute(0x18, 0x5101, LONG))
    assert judge(read_header(path)).code is ReasonCode.UNREADABLE


def test_a_sequence_of_too_many_items_is_refused_and_not_converted(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(with_attribute(0x28, 0x3010, EMPTY_ITEM * 9000))
    with pytest.raises(UndecodablePixels, match="VOILUTSequence"):
        read_image(path)


def test_a_lookup_table_that_is_long_and_left_on_disk_is_read(tmp_path: Path) -> None:
    entries = struct.pack("<65536H", *range(65536))
    item = struct.pack("<HHIHHH", 0x28, 0x3002, 6, 0, 0, 16) + struct.pack("<HHI", 0x28, 0x3006, len(entries)) + entries
    path = tmp_path / "x.dcm"
    path.write_bytes(with_attribute(0x28, 0x3010, struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item))
    assert read_image(path).notes[0] == "VOI LUT 1"


def test_a_lookup_table_of_megabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    item = struct.pack("<HHI", 0x28, 0x3002, 100) + bytes(100)
    path.write_bytes(with_attribute(0x28, 0x3010, struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item))
    with pytest.raises(UndecodablePixels, match="LUTDescriptor"):
        read_image(path)


def test_a_transfer_syntax_that_no_column_takes_is_not_quoted(tmp_path: Path) -> None:
    path = write(make_dx(), tmp_path / "x.dcm")
    syntax = str(ExplicitVRLittleEndian).encode() + b"\0"
    content = path.read_bytes()
    assert content.count(syntax) == 1
    path.write_bytes(content.replace(syntax, b"OV\2\0" + syntax[4:]))
    with pytest.raises(UndecodablePixels) as refused:
        read_image(path)
    assert "\0" not in str(refused.value)


def test_a_character_set_that_pydicom_refuses_is_left_to_pydicom() -> None:
    ds = make_dx()
    data = encoded(ds).replace(b"ISO_IR 192", b"ISO_IR\x00192")
    assert data != encoded(ds)
    with pytest.raises(NotDicom):
        identify(request_for(ds, dataset=data), BytesIO(data))


def test_a_name_of_megabytes_makes_no_report(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(with_attribute(0x10, 0x10, LONG))
    with pytest.raises(InvalidReport):
        read_source_image(path)


@pytest.mark.parametrize("read", [read_step, read_notice, read_commitment])
def test_a_message_of_nothing_but_items_is_refused_before_it_takes_minutes(read: object) -> None:
    assert callable(read)
    tags = {read_step: (0x40, 0x340), read_notice: (0x08, 0x1115), read_commitment: (0x08, 0x1199)}
    named = struct.pack("<HHI", 0x08, 0x1195, 4) + b"1.2\0" if read is read_commitment else b""
    study = struct.pack("<HHI", 0x20, 0x0D, 4) + b"1.2\0" if read is read_notice else b""
    group, element = tags[read]
    items = EMPTY_ITEM * 9000
    with pytest.raises(NotDicom):
        read(named + struct.pack("<HHI", group, element, len(items)) + items + study, ImplicitVRLittleEndian)


@pytest.mark.parametrize("uid", ["1.2.\x00.3", "1.2.a", "9" * 66])
def test_a_message_about_what_is_no_uid_names_nothing(uid: str) -> None:
    step = told.written(told.step()).replace(b"1.2.3\0", uid.encode().ljust(6, b"\0")[:6])
    if len(uid) <= 6:
        assert read_step(step, ImplicitVRLittleEndian).study_uids == frozenset()
    for read, keyword in ((read_notice, "StudyInstanceUID"), (read_commitment, "TransactionUID")):
        tag = b"\x20\x00\x0d\x00" if keyword == "StudyInstanceUID" else b"\x08\x00\x95\x11"
        with pytest.raises(InvalidObject):
            read(tag + struct.pack("<I", len(uid)) + uid.encode(), ImplicitVRLittleEndian)


@pytest.mark.parametrize(
    "syntax", ["1.2.840.\x0110008.1.2.1", "1.2\x00.3", "1.2.840.10008.1.2V", "1.2.840.10008.1.2.", "1.02.3"]
)
def test_a_transfer_syntax_that_is_no_uid_is_not_accepted(syntax: str) -> None:
    good = agree(decode_request(pdu.associate_rq([(1, DX, [syntax, ExplicitVRLittleEndian])])), ())
    assert [context.transfer_syntax for context in good.contexts.values()] == [ExplicitVRLittleEndian]
    assert agree(decode_request(pdu.associate_rq([(1, DX, [syntax])])), ()).contexts == {}


@pytest.mark.parametrize("sop_class", ["", "9" * 70_000, "\ufffd" * 30_000, "1.2 "])
def test_a_request_that_names_no_class_gets_no_file(sop_class: str) -> None:
    with pytest.raises(InvalidObject):
        file_header(request_for(make_dx(), sop_class_uid=SOPClassUID(sop_class), dataset=b""), receiver="CXRWORKER")


@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        (b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x14\x001.2.840.10008.1.2V1\0"),
        (b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x14\x001.2.840.10008.1.2..\0"),
        (b"FUZZ", b"FU\x01Z"),
    ],
)
def test_a_file_whose_meta_names_what_is_none_is_none_of_ours(tmp_path: Path, sound: bytes, broken: bytes) -> None:
    ds = make_dx()
    ds.file_meta.SourceApplicationEntityTitle = "FUZZ"
    path = write(ds, tmp_path / "x.dcm")
    assert read_found(path).source_ae_title == "FUZZ"
    content = path.read_bytes()
    assert sound in content
    path.write_bytes(content.replace(sound, broken, 1))
    with pytest.raises(NotDicom):
        read_found(path)


@pytest.mark.parametrize(
    "answer", [b"[" * 100_000, b'{"a":' * 20_000, b'{"00081198":{"Value":[{"00081197":{"Value":[1e999]}}]}}']
)
def test_a_service_that_answers_what_json_cannot_hold_is_no_error_of_ours(answer: bytes) -> None:
    assert attempt(WEB, b"\x01" + answer).ended == "returned"


def test_a_service_whose_answer_has_no_end_is_not_listened_to_for_ever(tmp_path: Path) -> None:
    taken = 0

    def talk(server: socket.socket) -> None:
        nonlocal taken
        connection = server.accept()[0]
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(64):
                connection.sendall(bytes(1 << 20))
                taken += 1

    with socket.create_server(("127.0.0.1", 0)) as server:
        talking = Thread(target=talk, args=(server,))
        talking.start()
        peer = WebPeer(url=f"http://127.0.0.1:{server.getsockname()[1]}")
        outcomes = list(send_to_service(peer, [write(make_dx(), tmp_path / "x.dcm")]))
        talking.join()
    assert len(outcomes) == 1
    assert taken < 32


def test_character_sets_within_a_sequence_are_bounded_together(tmp_path: Path) -> None:
    terms = struct.pack("<HHI", 8, 5, 1024) + b"A\\" * 512
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(terms)) + terms
    path = tmp_path / "x.dcm"
    path.write_bytes(with_attribute(0x28, 0x3010, item * 100))
    with pytest.raises(UndecodablePixels, match="VOILUTSequence"):
        read_image(path)


def test_an_image_of_more_orders_than_anybody_makes_has_no_report(tmp_path: Path) -> None:
    order = struct.pack("<HHI", 0xFFFE, 0xE000, 12) + struct.pack("<HHI", 0x40, 0x1001, 4) + b"R001"
    path = tmp_path / "x.dcm"
    path.write_bytes(with_attribute(0x40, 0x275, order * 100))
    assert len(read_source_image(path).requests) == 100
    path.write_bytes(with_attribute(0x40, 0x275, order * 101))
    with pytest.raises(InvalidReport, match="101 items"):
        read_source_image(path)


@pytest.mark.parametrize("service", [STEP, NOTICE])
@pytest.mark.parametrize("uid", ["9" * 65, "1.2\x00", "\ufffd", "step"])
def test_a_step_or_notice_that_is_no_uid_is_noted_nowhere(site: Site, service: SOPClassUID, uid: str) -> None:
    request = NormalizedRequest(
        command=Command.N_CREATE,
        sop_class_uid=service,
        sop_instance_uid=SOPInstanceUID(uid),
        type_id=None,
        dataset=told.written(told.step() if service == STEP else told.notice()),
        transfer_syntax=TransferSyntaxUID(ImplicitVRLittleEndian),
        calling_ae_title="MODALITY",
        peer_address="127.0.0.1",
    )
    with pytest.raises(InvalidObject):
        informants(site.parts, heard=lambda: None)[service](request)


def test_a_file_of_a_gigabyte_is_not_read_into_memory(tmp_path: Path) -> None:
    path = write(make_dx(), tmp_path / "x.dcm")
    content = path.read_bytes()
    pixels = content.index(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(content[: pixels + 8] + struct.pack("<I", 1 << 30))
    os.truncate(path, pixels + 12 + (1 << 30))  # nothing but a hole
    tracemalloc.start()
    try:
        with pytest.raises(UndecodablePixels, match="bytes"):
            read_image(path)
        assert not same_content(path, path)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("group", "element", "value", "same"),
    [(0x28, 0x120, LONG, False), (0x19, 0x1000, LONG, True), (0x6000, 0x3000, LONG, True), (0x10, 0x10, b"TEST^ ", True)],
)
def test_two_files_are_not_compared_by_numbers_of_megabytes(
    tmp_path: Path, group: int, element: int, value: bytes, *, same: bool
) -> None:
    path, other = tmp_path / "x.dcm", tmp_path / "y.dcm"
    for each in (path, other):
        each.write_bytes(with_attribute(group, element, value))
    assert same_content(path, other) is same


def test_two_files_of_more_attributes_than_any_image_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(make_dx(), tmp_path / "x.dcm")
    assert same_content(path, path)
    monkeypatch.setattr("dicom_io.sameness._MOST_ATTRIBUTES", 20)
    assert not same_content(path, path)


@pytest.mark.parametrize("pad", [b"", b"\0", b"\0" * 50])
def test_a_deflated_file_ends_where_its_stream_does_whatever_follows(tmp_path: Path, pad: bytes) -> None:
    ds = make_dx(np.zeros((1200, 1000), np.uint16))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = write(ds, tmp_path / "x.dcm")
    path.write_bytes(path.read_bytes().rstrip(b"\0") + b"\0" + pad)
    assert len(read_header(path).PixelData) == 2 * 1200 * 1000


@pytest.mark.parametrize("lacking", [Element.MESSAGE_ID, Element.COMMAND_FIELD])
def test_a_peer_whose_request_lacks_what_every_request_has_is_not_answered(lacking: Element) -> None:
    asked = {
        Element.COMMAND_FIELD: int(Request.N_ACTION) | 0x8000,
        Element.MESSAGE_ID_BEING_RESPONDED_TO: 1,
        Element.STATUS: 0,
    }
    event = {Element.COMMAND_FIELD: int(Request.N_EVENT_REPORT), Element.MESSAGE_ID: 9, Element.EVENT_TYPE_ID: 1}
    del event[lacking]
    said = b"\x03" + pdu.message(1, asked) + pdu.message(1, event, told.COMMITMENT)
    assert attempt(PEER, said).ended == "PeerUnavailable"


def test_a_peer_that_asks_without_end_is_not_listened_to() -> None:
    echo = pdu.message(1, {Element.COMMAND_FIELD: int(Request.C_ECHO), Element.MESSAGE_ID: 1})
    answer = pdu.message(
        1, {Element.COMMAND_FIELD: int(Request.C_ECHO) | 0x8000, Element.MESSAGE_ID_BEING_RESPONDED_TO: 1, Element.STATUS: 0}
    )
    assert attempt(PEER, b"\x00" + echo * 64 + answer).ended == "returned"
    assert attempt(PEER, b"\x00" + echo * 65 + answer).ended == "PeerUnavailable"
