"""Whatever ends without a release is told of: by whom, from where, why, in the log, the record of events and the figures."""

import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pynetdicom.association import Association
from structlog.testing import capture_logs

from dicom_io.acceptor import LONGEST_PDU_BYTES
from dicom_io.keeper import Caller
from dicom_io.listener import listen
from dicom_io.wire import Patience
from tests.conftest import TestDatabase
from tests.factories import make_dx
from tests.fakes import make_site
from tests.fuzz.pdu import RELEASE_RQ
from tests.integration.test_limits import data_pdu, send_raw, store_command
from tests.integration.test_listener import SETTINGS, Inbox, associated, listening
from tests.servers import wait_for
from tests.strangers import connected, rejection
from worker.db import events
from worker.receivers import receiver
from worker.reception import Reception
from worker.refusals import PER_MINUTE
from worker.settings import DicomSettings

HASTY = replace(SETTINGS, patience=Patience(stall_seconds=0.2), maximum_object_bytes=1000)


def vanish(assoc: Association) -> None:
    assert assoc.dul.socket is not None
    assoc.dul.socket.close()


def half_an_object(assoc: Association) -> None:
    send_raw(assoc, data_pdu(store_command(make_dx())))
    send_raw(assoc, data_pdu(bytes(100), control=0))


def half_a_pdu(assoc: Association) -> None:
    send_raw(assoc, data_pdu(store_command(make_dx()))[:20])


def half_an_object_and_an_abort(assoc: Association) -> None:
    half_an_object(assoc)
    assoc.abort()


def half_an_object_and_gone(assoc: Association) -> None:
    half_an_object(assoc)
    vanish(assoc)


def a_pdu_too_long(assoc: Association) -> None:
    send_raw(assoc, struct.pack(">BxI", 4, LONGEST_PDU_BYTES + 1))


def an_object_too_long(assoc: Association) -> None:
    half_an_object(assoc)
    send_raw(assoc, data_pdu(bytes(3000), control=0))


def nonsense(assoc: Association) -> None:
    send_raw(assoc, data_pdu(b"no command set"))


@pytest.mark.parametrize(
    ("ends", "reason", "words"),
    [
        (half_a_pdu, "stalled", "in the middle of a message"),
        (half_an_object, "stalled", "in the middle of a message"),
        (half_an_object_and_an_abort, "peer_aborted", "it broke the association off"),
        (half_an_object_and_gone, "peer_closed", "it ended the connection"),
        (a_pdu_too_long, "protocol", "a PDU of 16777217 bytes"),
        (an_object_too_long, "protocol", "far larger than dicom.maximum_object_bytes"),
        (nonsense, "protocol", "invalid parameter"),
    ],
)
def test_an_association_that_breaks_off_is_told_of_with_the_reason(
    ends: Callable[[Association], None], reason: str, words: str
) -> None:
    inbox = Inbox()
    with listening(inbox, HASTY) as listener, associated(listener.port) as assoc:
        ends(assoc)
        ((caller, why, said),) = wait_for(lambda: inbox.aborted_callers, "the word of it")
    assert (caller, why) == ("MODALITY", reason)
    assert words in said
    assert inbox.open_associations == 0


@pytest.mark.parametrize("ends", [Association.abort, vanish])
def test_a_peer_may_leave_between_two_messages_as_it_likes(ends: Callable[[Association], None]) -> None:
    inbox = Inbox()
    with listening(inbox) as listener, associated(listener.port) as assoc:
        assert assoc.send_c_store(make_dx()).Status == 0x0000
        ends(assoc)
        wait_for(lambda: inbox.open_associations == 0, "the end of the association")
    assert inbox.aborted_callers == []


def test_a_peer_that_leaves_in_the_middle_of_its_release_broke_nothing_off() -> None:
    inbox = Inbox()
    with listening(inbox) as listener, associated(listener.port) as assoc:
        send_raw(assoc, RELEASE_RQ[:6])
        vanish(assoc)
        wait_for(lambda: inbox.open_associations == 0, "the end of the association")
    assert inbox.aborted_callers == []


def test_what_a_stopping_listener_breaks_off_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_io.listener._GRACE_SECONDS", 0.1)
    inbox = Inbox()
    listener = listen(SETTINGS, keeper=inbox)
    with associated(listener.port) as assoc:
        half_an_object(assoc)
        listener.close()
        wait_for(lambda: inbox.aborted_callers, "the word of it")
    assert [reason for _, reason, _ in inbox.aborted_callers] == ["stopped"]


def test_an_error_of_ours_ends_one_association_with_an_abort_and_a_word(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Inbox):
        def accepted(self, caller: Caller) -> None:
            super().accepted(caller)
            if caller.calling_ae_title == "UNLUCKY":
                raise ZeroDivisionError

    inbox = Broken()
    with listening(inbox) as listener:
        with associated(listener.port, calling="UNLUCKY") as assoc:
            assert assoc.is_aborted
        with associated(listener.port) as good:
            assert good.is_established
    assert [reason for _, reason, _ in inbox.aborted_callers] == ["error"]
    assert "An association ended by an error of ours." in caplog.text


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_who_broke_off_stands_in_the_log_the_record_and_the_figures(test_database: TestDatabase, tmp_path: Path) -> None:
    site = make_site(test_database.opened, tmp_path, dicom=DicomSettings(port=0))
    with capture_logs() as said, receiver(site.parts, arrived=lambda: None) as listener:
        with connected(listener.port) as strange:
            strange.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert strange.recv(1) == b"\x07"
        with associated(listener.port) as assoc:
            half_an_object_and_an_abort(assoc)
    told = [line for line in said if line["event"] == "association.aborted"]
    assert [(line["calling_ae_title"], line["peer_address"], line["reason_code"]) for line in told] == [
        ("", "127.0.0.1", "protocol"),
        ("MODALITY", "127.0.0.1", "peer_aborted"),
    ]
    assert "is that DICOM, and without TLS?" in told[0]["why"]
    with test_database.opened.read() as connection:
        count, newest = events.count_since(connection, "aborted", since=site.clock() - timedelta(minutes=1))
    assert count == 2
    assert newest == (
        "association of MODALITY at 127.0.0.1 to CXRWORKER broke off: it broke the association off in the middle of a message"
    )
    figures = site.parts.metrics.registry
    for caller, reason in (("other", "protocol"), ("MODALITY", "peer_aborted")):
        assert figures.get_sample_value("cxr_associations_aborted_total", {"caller": caller, "reason": reason}) == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_who_is_idle_is_no_event_and_who_breaks_off_all_day_fills_no_record(
    test_database: TestDatabase, tmp_path: Path
) -> None:
    site = make_site(test_database.opened, tmp_path)
    reception = Reception(site.parts, arrived=lambda: None)
    caller = Caller(calling_ae_title="XRAY1", called_ae_title="CXRWORKER", peer_address="192.0.2.7")
    with capture_logs() as said:
        reception.aborted(caller, "idle", "it asked for nothing more")
        for _ in range(PER_MINUTE + 5):
            reception.aborted(caller, "stalled", "it stopped")
    assert [line["log_level"] for line in said] == ["info", *["warning"] * (PER_MINUTE + 5)]
    with test_database.opened.read() as connection:
        assert events.count_since(connection, "aborted", since=site.clock())[0] == PER_MINUTE
    figures = site.parts.metrics.registry
    assert figures.get_sample_value("cxr_associations_aborted_total", {"caller": "other", "reason": "idle"}) == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_which_title_was_called_stands_in_the_log_and_the_record(test_database: TestDatabase, tmp_path: Path) -> None:
    site = make_site(test_database.opened, tmp_path, dicom=DicomSettings(port=0, called_ae_titles=("CXRWORKER",)))
    with capture_logs() as said, receiver(site.parts, arrived=lambda: None) as listener:
        assert rejection(listener.port, called="CXRWORK") == (1, 1, 7)
    (line,) = [line for line in said if line["event"] == "association.rejected"]
    assert (line["called_ae_title"], line["reason_code"]) == ("CXRWORK", "called_ae")
    assert "its called AE title is not ours" in line["why"]
    with test_database.opened.read() as connection:
        newest = events.count_since(connection, "refused", since=site.clock())[1]
    assert newest.startswith("association of MODALITY at 127.0.0.1 to CXRWORK: its called AE title is not ours")
