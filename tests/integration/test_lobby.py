"""Connections that have asked for nothing yet: they take little, keep nobody waiting, and are told of when they break off."""

import socket
import ssl
import threading
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from threading import Event

import pytest

from dicom_io.keeper import Caller
from dicom_io.places import Places
from dicom_io.sender import echo
from dicom_io.values import Peer
from dicom_io.wire import AbortReason, Patience
from tests.certificates import Authority
from tests.fuzz import pdu
from tests.integration.test_listener import SETTINGS, Inbox, listening
from tests.integration.test_tls_listener import client
from tests.servers import wait_for
from tests.strangers import REQUEST, abort_reason, connected

ACCEPTANCE, REJECTION = b"\x02", b"\x03"
OTHERS = "127.0.0.2"
HALF_A_HANDSHAKE = b"\x16\x03\x01\x02\x00\x01"

pytestmark = pytest.mark.usefixtures("many_descriptors")


def verify(port: int) -> None:
    echo(Peer(ae_title="CXRWORKER", host="127.0.0.1", port=port), calling_ae_title="GOOD")


@pytest.mark.parametrize("allowed", ["127.0.0.0/8", "127.0.0.1/32"])
def test_a_thousand_connections_of_one_byte_take_no_threads_and_keep_nobody_waiting(allowed: str) -> None:
    inbox, threads = Inbox(), threading.active_count()
    settings = replace(SETTINGS, places=Places(2), addresses=(ip_network(allowed),))
    with listening(inbox, settings) as listener, ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(connected(listener.port, OTHERS)).sendall(b"\x01")
        verify(listener.port)
        assert threading.active_count() <= threads + 3
        told = inbox.rejected_callers if allowed.endswith("/32") else inbox.aborted_callers
        wait_for(lambda: len(told) >= 1000 - 128, "those that made place are told of")


def test_a_crowd_of_one_address_makes_no_other_give_way() -> None:
    with listening(Inbox()) as listener, ExitStack() as stack, connected(listener.port, "127.0.0.3") as slow:
        slow.sendall(REQUEST[:20])
        for _ in range(300):
            stack.enter_context(connected(listener.port, OTHERS)).sendall(b"\x01")
        slow.sendall(REQUEST[20:])
        assert slow.recv(1) == ACCEPTANCE


def test_a_stranger_whose_request_is_whole_is_told_that_it_is_rejected_and_named() -> None:
    inbox, settings = Inbox(), replace(SETTINGS, addresses=(ip_network("192.0.2.0/24"),))
    with listening(inbox, settings) as listener, connected(listener.port) as stranger:
        stranger.sendall(REQUEST)
        assert stranger.recv(100) == REJECTION + b"\0\0\0\0\x04\0\x01\x01\x01"
    assert inbox.rejected_callers == [("FUZZ", "127.0.0.1", "address")]


def test_a_request_that_comes_in_pieces_is_answered() -> None:
    with listening(Inbox()) as listener, connected(listener.port) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in REQUEST:
            slow.sendall(bytes((byte,)))
        assert slow.recv(1) == ACCEPTANCE


def test_a_request_of_every_class_with_every_syntax_is_answered() -> None:
    syntaxes = [f"1.2.840.10008.1.2.4.{number}" for number in range(60)]
    request = pdu.associate_rq([(2 * place + 1, f"1.2.840.10008.5.1.4.1.1.{place}", syntaxes) for place in range(128)])
    assert len(request) > 200_000
    with listening(Inbox()) as listener, connected(listener.port) as long:
        long.sendall(request)
        assert long.recv(1) == ACCEPTANCE


def test_who_says_a_few_bytes_and_waits_is_ended_and_told_of() -> None:
    inbox, settings = Inbox(), replace(SETTINGS, patience=Patience(stall_seconds=0.2))
    with listening(inbox, settings) as listener, connected(listener.port) as half:
        half.sendall(REQUEST[:50])
        assert abort_reason(half) == AbortReason.NOT_SPECIFIED
    assert inbox.aborted_callers == [("", "stalled", "it stopped in the middle of its association request")]


def test_who_looks_whether_the_port_is_open_is_not_told_of() -> None:
    inbox = Inbox()
    with listening(inbox) as listener:
        with connected(listener.port):
            pass
        verify(listener.port)
    assert (inbox.aborted_callers, inbox.rejected_callers) == ([], [])


def test_where_no_thread_is_to_be_had_the_caller_is_told_and_the_next_one_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    inbox = Inbox()
    with listening(inbox, replace(SETTINGS, places=Places(1))) as listener, connected(listener.port) as unlucky:
        with monkeypatch.context() as short:
            short.setattr(threading.Thread, "start", start)
            unlucky.sendall(REQUEST)
            assert unlucky.recv(100) == REJECTION + b"\0\0\0\0\x04\0\x02\x03\x01"
        verify(listener.port)
    assert inbox.rejected_callers == [("FUZZ", "127.0.0.1", "no_thread")]


@pytest.mark.parametrize(("short_of", "caller"), [("dicom_io.guests.Guest.missing", ""), ("dicom_io.listener.Wire", "FUZZ")])
def test_where_no_memory_is_to_be_had_the_caller_is_aborted_the_operator_told_and_the_next_one_gets_in(
    monkeypatch: pytest.MonkeyPatch, short_of: str, caller: str
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    inbox = Inbox()
    with listening(inbox, replace(SETTINGS, places=Places(1))) as listener, connected(listener.port) as unlucky:
        with monkeypatch.context() as short:
            short.setattr(short_of, no_memory)
            unlucky.sendall(REQUEST)
            assert abort_reason(unlucky) == AbortReason.NOT_SPECIFIED
        wait_for(lambda: inbox.aborted_callers, "the word of it")
        verify(listener.port)
    assert inbox.aborted_callers == [(caller, "error", "an error of ours, which the log has")]


@pytest.mark.parametrize(
    ("said", "short_of"), [(REQUEST, "dicom_io.guests.Guest.missing"), (REQUEST[:20], "dicom_io.lobby.Lobby._ending_of")]
)
def test_where_there_is_no_memory_even_to_tell_of_it_the_next_one_gets_in(
    monkeypatch: pytest.MonkeyPatch, said: bytes, short_of: str
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    settings = replace(SETTINGS, patience=Patience(stall_seconds=1))
    with listening(Inbox(), settings) as listener:
        with monkeypatch.context() as short, connected(listener.port) as unlucky:
            short.setattr(short_of, no_memory)
            short.setattr("dicom_io.listener.Listener.lost", no_memory)
            unlucky.sendall(said)
            unlucky.settimeout(20)
            assert b"".join(iter(lambda: unlucky.recv(100), b""))[:1] in {b"", b"\x07"}
        verify(listener.port)


def test_an_error_over_one_connection_ends_no_other(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_request: bytes) -> None:
        raise ZeroDivisionError

    with listening(Inbox()) as listener:
        with monkeypatch.context() as short, connected(listener.port) as unlucky:
            short.setattr("dicom_io.listener.titles_of", broken)
            unlucky.sendall(REQUEST)
            assert unlucky.recv(1) == b""
        verify(listener.port)
    assert "A connection ended by an error of ours." in caplog.text


class Slow(Inbox):
    """Takes its time to note who was rejected, as one does whose database is away."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = Event()

    def rejected(self, caller: Caller, reason: str, words: str) -> None:
        self.may_go_on.wait(20)
        super().rejected(caller, reason, words)


def test_a_keeper_that_takes_its_time_over_the_rejected_keeps_nobody_waiting() -> None:
    inbox, settings = Slow(), replace(SETTINGS, calling_ae_titles=("GOOD",))
    with listening(inbox, settings) as listener, connected(listener.port) as stranger:
        stranger.sendall(REQUEST)
        assert stranger.recv(1) == REJECTION
        verify(listener.port)
        assert inbox.rejected_callers == []
        inbox.may_go_on.set()
    assert inbox.rejected_callers == [("FUZZ", "127.0.0.1", "calling_ae")]


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a port and its caller speak TLS with."""
    authority = Authority(tmp_path)
    own = authority.issue("worker")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    return context, client()


def test_half_a_thousand_halves_of_a_handshake_take_no_threads_and_keep_nobody_waiting(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    inbox, threads = Inbox(), threading.active_count()
    with listening(inbox, tls=lambda: tls[0]) as listener, ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(connected(listener.port, OTHERS)).sendall(HALF_A_HANDSHAKE)
        plain = stack.enter_context(connected(listener.port))
        secured = stack.enter_context(tls[1].wrap_socket(plain))
        for start in range(0, len(REQUEST), 50):  # each piece is a record of its own
            secured.sendall(REQUEST[start : start + 50])
        assert secured.recv(1) == ACCEPTANCE
        assert threading.active_count() <= threads + 3
        wait_for(lambda: len(inbox.aborted_callers) >= 500 - 128, "those that made place are told of")


def test_half_a_handshake_is_ended_and_told_of(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    inbox, settings = Inbox(), replace(SETTINGS, patience=Patience(stall_seconds=0.2))
    with listening(inbox, settings, tls=lambda: tls[0]) as listener, connected(listener.port) as half:
        half.sendall(HALF_A_HANDSHAKE)
        assert half.recv(1) == b""
    assert inbox.rejected_callers == [("", "127.0.0.1", "tls")]


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return socket.has_dualstack_ipv6()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_on_every_address_hears_both_families_and_names_them_as_they_are(address: str) -> None:
    if not _has_ipv6():
        pytest.skip("This system has no IPv6.")
    inbox = Inbox()
    settings = replace(SETTINGS, host="::", calling_ae_titles=("GOOD",), addresses=(ip_network(address),))
    with listening(inbox, settings) as listener, socket.create_connection((address, listener.port), timeout=20) as caller:
        caller.sendall(REQUEST)
        assert caller.recv(1) == REJECTION
    assert inbox.rejected_callers == [("FUZZ", address, "calling_ae")]
