"""Whatever comes to the port, and however it is cut: it is answered or ended, and the next caller gets in."""

import logging
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dicom_io.listener import Listener, ListenerSettings, listen
from dicom_io.negotiation import VERIFICATION
from dicom_io.sender import echo
from dicom_io.values import Peer
from dicom_io.wire import Patience
from tests.fuzz import pdu
from tests.fuzz.associations import CONVERSATION, DX, EXPLICIT, IMPLICIT
from tests.fuzz.target import attempt
from tests.integration.test_listener import Inbox

REQUEST = pdu.associate_rq([(1, VERIFICATION, [IMPLICIT]), (3, DX, [EXPLICIT, IMPLICIT])])
ECHO = next(iter(CONVERSATION.seeds()))
ACCEPTANCE, REJECTION, ABORT = 2, 3, 7
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def listener() -> Iterator[Listener]:
    patience = Patience(stall_seconds=5, idle_seconds=5)
    with listen(ListenerSettings(ae_title="CXRWORKER", host="127.0.0.1", port=0, patience=patience), keeper=Inbox()) as running:
        yield running


def said_to(port: int, data: bytes) -> bytes:
    """Everything that is answered to these bytes, until the connection is closed."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port)) as connection, suppress(ConnectionError):
        connection.settimeout(20)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while more := connection.recv(65536):
            answer += more
    return answer


def kinds(answer: bytes) -> list[int]:
    """The types of the PDUs in an answer, whole to the last byte."""
    found = []
    while answer:
        length = int.from_bytes(answer[2:6], "big")
        assert len(answer) >= 6 + length
        found.append(answer[0])
        answer = answer[6 + length :]
    return found


def call_again(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    echo(Peer(ae_title="CXRWORKER", host="127.0.0.1", port=listener.port), calling_ae_title="GOOD")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR and record.name.startswith("dicom_io")] == []


@quick
@given(data=st.binary(max_size=300))
@example(data=b"")
@example(data=b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n")
@example(data=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
@example(data=b"\x01\x00\xff\xff\xff\xff")
def test_bytes_that_are_no_association_are_answered_by_an_abort_or_by_nothing(
    listener: Listener, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    assert kinds(said_to(listener.port, data)) in ([], [ABORT])
    call_again(listener, caplog)


@quick
@given(place=st.integers(6, len(REQUEST) - 1), patch=st.binary(min_size=1, max_size=8), cut=st.integers(6, len(REQUEST)))
def test_a_damaged_request_is_accepted_rejected_or_aborted(
    listener: Listener, caplog: pytest.LogCaptureFixture, place: int, patch: bytes, cut: int
) -> None:
    damaged = (REQUEST[:place] + patch + REQUEST[place + len(patch) :])[:cut]
    damaged = damaged[:2] + (len(damaged) - 6).to_bytes(4, "big") + damaged[6:]
    assert set(kinds(said_to(listener.port, damaged))) <= {ACCEPTANCE, REJECTION, ABORT}
    call_again(listener, caplog)


@quick
@given(data=st.binary(max_size=200), place=st.integers(0, len(ECHO)))
def test_nonsense_in_an_association_ends_it(
    listener: Listener, caplog: pytest.LogCaptureFixture, data: bytes, place: int
) -> None:
    answered = kinds(said_to(listener.port, REQUEST + ECHO[:place] + data + ECHO[place:]))
    assert answered[:1] == [ACCEPTANCE]
    call_again(listener, caplog)


@quick
@given(st.data())
def test_a_conversation_of_sound_messages_and_noise_ends_as_it_may(data: st.DataObject) -> None:
    sound = st.sampled_from(list(CONVERSATION.seeds()))
    noise = st.binary(max_size=40)
    said = b"".join(data.draw(st.lists(st.one_of(sound, noise), max_size=6)))
    logging.disable(logging.CRITICAL)
    try:
        assert attempt(CONVERSATION, said).finding is None
    finally:
        logging.disable(logging.NOTSET)
