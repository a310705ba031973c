"""Who is let in, how much at once, and for how long somebody may keep others waiting."""

import errno
import os
import resource
import socket
import struct
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    DigitalXRayImageStorageForPresentation,
    PatientRootQueryRetrieveInformationModelFind,
    StorageCommitmentPushModel,
    Verification,
)

from dicom_io.errors import InvalidObject
from dicom_io.listener import ListenerSettings
from dicom_io.normalized import Command, NormalizedRequest
from dicom_io.places import Places
from dicom_io.sender import echo
from dicom_io.values import Peer
from dicom_io.wire import AbortReason, Patience
from tests.conftest import TestDatabase
from tests.factories import make_dx
from tests.fakes import make_site, request_for
from tests.integration.test_listener import SETTINGS, Inbox, associated, listening
from tests.servers import wait_for
from tests.strangers import abort_reason, connected, rejection
from worker.db import events
from worker.receivers import receiver
from worker.settings import DicomSettings


@pytest.mark.parametrize(
    ("limit", "reason", "told"),
    [
        ({"called_ae_titles": ("OTHER",)}, "called_ae", (1, 1, 7)),
        ({"calling_ae_titles": ("OTHER",)}, "calling_ae", (1, 1, 3)),
        ({"addresses": (ip_network("192.0.2.0/24"),)}, "address", (1, 1, 1)),
    ],
)
def test_who_may_not_call_is_told_what_is_wrong(limit: dict, reason: str, told: tuple[int, int, int]) -> None:
    inbox = Inbox()
    with listening(inbox, replace(SETTINGS, **limit)) as listener:
        assert rejection(listener.port) == told
    assert inbox.rejected_callers == [("MODALITY", "127.0.0.1", reason)]
    assert inbox.open_associations == 0


def test_who_may_call_gets_through() -> None:
    settings = replace(
        SETTINGS,
        called_ae_titles=("CXRWORKER",),
        calling_ae_titles=("MODALITY",),
        addresses=(ip_network("192.0.2.0/24"), ip_network("127.0.0.0/8")),
    )
    with listening(Inbox(), settings) as listener, associated(listener.port) as assoc:
        assert assoc.is_established


def test_one_caller_cannot_take_every_place() -> None:
    inbox = Inbox()
    with listening(inbox, replace(SETTINGS, places=Places(of_one_caller=1))) as listener, associated(listener.port) as first:
        assert first.is_established
        assert rejection(listener.port) == (2, 3, 2)
        with associated(listener.port, calling="OTHER") as other:
            assert other.is_established
    assert [reason for _, _, reason in inbox.rejected_callers] == ["too_many_of_caller"]


def test_ports_that_share_their_places_count_together() -> None:
    shared = replace(SETTINGS, places=Places(1))
    with listening(Inbox(), shared) as one, listening(Inbox(), shared) as other, associated(one.port) as first:
        assert first.is_established
        assert rejection(other.port) == (2, 3, 2)


@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_silent_connections_keep_nobody_waiting() -> None:
    with listening(Inbox(), replace(SETTINGS, places=Places(2))) as listener, ExitStack() as silent:
        for _ in range(1000):
            silent.enter_context(connected(listener.port))
        echo(Peer(ae_title="CXRWORKER", host="127.0.0.1", port=listener.port), calling_ae_title="GOOD")


def test_a_process_without_a_descriptor_left_says_so_and_goes_on_when_it_has_one(caplog: pytest.LogCaptureFixture) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listening(Inbox(), SETTINGS) as listener, ExitStack() as silent:
        client = silent.enter_context(socket.socket())
        first_free = os.dup(client.fileno())
        os.close(first_free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, limits[1]))
            client.connect(("127.0.0.1", listener.port))
            wait_for(lambda: "No connection can be taken for now" in caplog.text, "the lack to be told")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        echo(Peer(ae_title="CXRWORKER", host="127.0.0.1", port=listener.port), calling_ae_title="GOOD")


def test_who_is_silent_for_too_long_is_closed() -> None:
    settings = replace(SETTINGS, patience=Patience(stall_seconds=0.2))
    with listening(Inbox(), settings) as listener, connected(listener.port) as silent:
        assert silent.recv(1) == b""


def test_an_association_that_is_idle_for_too_long_is_aborted() -> None:
    inbox = Inbox()
    settings = replace(SETTINGS, patience=Patience(idle_seconds=0.2))
    with listening(inbox, settings) as listener, associated(listener.port) as assoc:
        wait_for(lambda: assoc.is_aborted, "the abort")
        wait_for(lambda: inbox.open_associations == 0, "its place")


def test_who_sends_by_drops_is_aborted() -> None:
    settings = replace(SETTINGS, patience=Patience(stall_seconds=0.5, minimum_bytes_per_second=1000))
    with listening(Inbox(), settings) as listener, connected(listener.port) as slow:
        slow.sendall(b"\x01\x00\x00\x00\x10\x00")
        slow.settimeout(0.02)
        answer = b""
        for _ in range(1000):  # each drop comes well within the stall, all together never
            try:
                slow.sendall(b"\0")
                answer = slow.recv(10)
            except TimeoutError:
                continue
            except OSError:
                break
            break
        assert answer[:1] in {b"", b"\x07"}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\x63\x00\x00\x00\x00\x00", AbortReason.UNRECOGNIZED_PDU),
        (b"\x04\x00\x00\x00\x00\x00", AbortReason.UNEXPECTED_PDU),
        (b"\x01\x00\x7f\xff\xff\xff", AbortReason.INVALID_PARAMETER),
        (b"\x01\x00\x00\x00\x00\x04abcd", AbortReason.INVALID_PARAMETER),
    ],
)
def test_what_begins_no_association_is_aborted_with_the_reason(said: bytes, reason: AbortReason) -> None:
    with listening(Inbox()) as listener, connected(listener.port) as strange:
        strange.sendall(said)
        assert abort_reason(strange) == reason


def send_raw(assoc: Association, pdu: bytes) -> None:
    assert assoc.dul.socket is not None
    assoc.dul.socket.send(pdu)


def data_pdu(fragment: bytes, *, context_id: int = 1, control: int = 3) -> bytes:
    return struct.pack(">BxIIBB", 4, len(fragment) + 6, len(fragment) + 2, context_id, control) + fragment


@pytest.mark.parametrize(
    "pdu",
    [
        b"\x01\x00\x00\x00\x00\x00",
        b"\x63\x00\x00\x00\x00\x00",
        data_pdu(b"", context_id=77),
        data_pdu(b"no command set"),
        data_pdu(b"a data set before any command", control=2),
        b"\x04\x00\x00\x00\x00\x06\x00\x00\xff\xff\x01\x03",
        b"\x04\x00\x00\x00\x00\x03\x00\x00\x00",
    ],
)
def test_nonsense_within_an_association_ends_it_and_no_other(pdu: bytes) -> None:
    inbox = Inbox()
    with listening(inbox) as listener, associated(listener.port) as good, associated(listener.port) as bad:
        send_raw(bad, pdu)
        wait_for(lambda: bad.is_aborted, "the abort")
        assert good.send_c_store(make_dx()).Status == 0x0000


def store_command(ds: Dataset) -> bytes:
    return b"".join(
        struct.pack("<HHI", 0, number, len(value)) + value
        for number, value in (
            (0x0002, str(ds.SOPClassUID).encode()),
            (0x0100, b"\x01\x00"),
            (0x0110, b"\x01\x00"),
            (0x0800, b"\x00\x00"),
            (0x1000, str(ds.SOPInstanceUID).encode()),
        )
    )


def test_half_an_object_and_a_dropped_connection_leave_nothing() -> None:
    inbox = Inbox()
    with listening(inbox) as listener, associated(listener.port) as assoc:
        send_raw(assoc, data_pdu(store_command(make_dx())))
        send_raw(assoc, data_pdu(bytes(1000), control=0))
        assoc.abort()
        wait_for(lambda: inbox.abandoned == 1, "the object is forgotten")
    assert inbox.stored == []
    assert inbox.refused == []


@pytest.mark.parametrize("failing", ["open", "write", "finish"])
def test_wherever_it_fails_the_rest_is_read_and_the_status_answered(failing: str) -> None:
    inbox = Inbox()
    inbox.fails_with, inbox.fails_at = OSError(errno.ENOSPC, "full"), failing
    with listening(inbox) as listener, associated(listener.port) as assoc:
        assert assoc.send_c_store(make_dx()).Status == 0xA700
        inbox.fails_with = None
        assert assoc.send_c_store(make_dx()).Status == 0x0000


def test_an_object_that_is_too_large_is_refused_for_good_with_the_reason() -> None:
    inbox = Inbox()
    settings = replace(SETTINGS, maximum_object_bytes=len(request_for(make_dx()).dataset) - 1)
    with listening(inbox, settings) as listener, associated(listener.port) as assoc:
        answer = assoc.send_c_store(make_dx())
        assert (answer.Status, answer.ErrorComment) == (0xC001, "The object is larger than dicom.maximum_object_bytes.")
        assert assoc.is_established
    assert (inbox.abandoned, len(inbox.refused)) == (1, 1)


def test_the_end_of_an_object_that_is_far_too_large_is_not_waited_for() -> None:
    inbox = Inbox()
    with (
        listening(inbox, replace(SETTINGS, maximum_object_bytes=1000)) as listener,
        associated(listener.port) as assoc,
    ):
        send_raw(assoc, data_pdu(store_command(make_dx())))
        for _ in range(3):
            send_raw(assoc, data_pdu(bytes(1000), control=0))
        wait_for(lambda: assoc.is_aborted, "the abort")
    assert (inbox.abandoned, len(inbox.refused)) == (1, 1)


def test_only_storage_and_what_is_offered_is_accepted() -> None:
    contexts = (
        (PatientRootQueryRetrieveInformationModelFind, [ImplicitVRLittleEndian]),
        (StorageCommitmentPushModel, [ImplicitVRLittleEndian]),
        (Verification, [ImplicitVRLittleEndian]),
        (DigitalXRayImageStorageForPresentation, [ImplicitVRLittleEndian]),
    )
    with listening(Inbox()) as listener, associated(listener.port, contexts=contexts) as assoc:
        accepted = {str(context.abstract_syntax) for context in assoc.accepted_contexts}
    assert accepted == {str(Verification), str(DigitalXRayImageStorageForPresentation)}


def test_a_normalized_service_gets_its_request_and_its_error_is_answered() -> None:
    asked: list[NormalizedRequest] = []

    def serve(request: NormalizedRequest) -> None:
        asked.append(request)
        if request.type_id == 2:
            raise InvalidObject("wrong")

    ae = AE(ae_title="PACS")
    ae.add_requested_context(StorageCommitmentPushModel, ExplicitVRLittleEndian)
    ds = Dataset()
    ds.TransactionUID = "1.2.3"
    with listening(Inbox(), services={str(StorageCommitmentPushModel): serve}) as listener:
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        assoc = ae.associate("127.0.0.1", listener.port, ae_title="CXRWORKER", ext_neg=[role])
        assert assoc.accepted_contexts[0].as_scp
        statuses = [
            assoc.send_n_event_report(ds, event_type, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")[0].Status
            for event_type in (1, 2)
        ]
        assoc.release()
    assert statuses == [0x0000, 0x0106]
    first = asked[0]
    assert (first.command, first.sop_instance_uid, first.type_id) == (Command.N_EVENT_REPORT, "1.2.840.10008.1.20.1.1", 1)
    assert (first.calling_ae_title, first.transfer_syntax) == ("PACS", ExplicitVRLittleEndian)
    assert b"1.2.3" in first.dataset


def test_little_room_on_the_disk_answers_out_of_resources_until_there_is_more(
    test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(test_database.opened, tmp_path, dicom=DicomSettings(port=0, minimum_free_bytes=2**62))
    with receiver(site.parts, arrived=lambda: None) as listener, associated(listener.port) as assoc:
        answer = assoc.send_c_store(make_dx())
        assert (answer.Status, answer.ErrorComment) == (0xA700, "Less than dicom.minimum_free_bytes are free on the disk.")
        assert site.received_files() == []
        with test_database.opened.read() as connection:
            assert events.count_since(connection, "refused", since=site.clock())[0] == 1
        monkeypatch.setattr("worker.reception.os.statvfs", lambda _folder: FullOfRoom)
        assert assoc.send_c_store(make_dx()).Status == 0x0000


class FullOfRoom:
    f_bavail = 2**62
    f_frsize = 4096


def test_the_defaults_let_in_whoever_comes() -> None:
    settings = ListenerSettings(ae_title="CXRWORKER", host="127.0.0.1", port=0)
    with listening(Inbox(), settings) as listener, associated(listener.port, called="ANYTHING", calling="ANYBODY") as assoc:
        assert assoc.is_established
