"""The page and the two questions of a load balancer, asked over HTTP."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from tests.conftest import TestDatabase
from tests.factories import make_study, study_uid
from tests.fakes import Site, answer_for, model_identity
from worker.errors import ConfigurationError
from worker.metrics import Metrics
from worker.settings import WebSettings
from worker.web import server
from worker.web.server import page


@pytest.fixture
def base(test_database: TestDatabase) -> Iterator[str]:
    with capture_logs() as said, page(test_database.opened, Metrics(), WebSettings(port=0, names=("cxr.example",))):
        (ready,) = [line for line in said if line["event"] == "web.ready"]
        yield f"http://127.0.0.1:{ready['port']}"


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_page_says_that_nothing_was_received_yet(base: str) -> None:
    status, html = fetch(base)
    assert status == 200
    assert "Nothing was received yet" in html
    assert "Not for primary diagnosis" in html


def test_the_page_shows_a_study_with_its_triage_level_and_why_an_image_is_left_out(base: str, site: Site) -> None:
    site.engine.labels = {str(make_study()[0].SOPInstanceUID): "COVID-19"}
    site.receive(*make_study())
    site.settle()
    _, html = fetch(base)
    assert study_uid() in html
    assert '<span class="triage urgent">urgent</span>' in html
    assert "flagged: COVID-19 80" in html
    assert "TEST-0001" in html


def test_the_page_says_that_the_model_is_not_sure(base: str, site: Site) -> None:
    site.engine.undetermined = {str(make_study()[0].SOPInstanceUID)}
    site.receive(*make_study())
    site.settle()
    assert "undetermined, the model is not sure: Normal 80" in fetch(base)[1]


def test_the_page_shows_no_shadow(base: str, site: Site) -> None:
    site.engine.shadows = {str(make_study()[0].SOPInstanceUID): answer_for("COVID-19", model=model_identity("shadow"))}
    site.receive(*make_study())
    site.settle()
    _, html = fetch(base)
    assert "Normal 80" in html
    assert "COVID-19" not in html


def test_what_a_stranger_sent_is_no_markup_on_the_page(base: str, site: Site) -> None:
    frontal, _ = make_study()
    frontal.PatientID = "<script>alert(1)</script>"
    site.receive(frontal)
    _, html = fetch(base)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_healthz_is_ok_and_readyz_says_when_the_database_is_away_and_back(base: str, test_database: TestDatabase) -> None:
    assert fetch(f"{base}/healthz")[0] == 200
    assert fetch(f"{base}/readyz")[0] == 200
    with test_database.away():
        assert fetch(f"{base}/healthz")[0] == 200
        status, body = fetch(f"{base}/readyz")
        assert status == 503
        assert json.loads(body)["reason"]
    assert fetch(f"{base}/readyz")[0] == 200


def asked_as(base: str, host: str) -> tuple[int, str | None]:
    """What the page answers to somebody who calls it so, and whether it may be kept."""
    connection = HTTPConnection("127.0.0.1", urlsplit(base).port, timeout=10)
    with closing(connection):
        connection.request("GET", "/", headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.headers["cache-control"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:8080", "LocalHost", "[::1]:8080", "192.0.2.7:8080", socket.gethostname(), "cxr.example"]
)
def test_the_page_is_shown_under_its_names_and_addresses_and_kept_by_nobody(base: str, host: str) -> None:
    assert asked_as(base, host) == (200, "no-store")


@pytest.mark.parametrize(
    "host", ["", "attacker.example", "127.0.0.1.attacker.example:8080", "[", "::1", "a:b:c", "cxr.example.org"]
)
def test_the_page_is_not_shown_under_a_name_that_somebody_else_gave_it(base: str, host: str) -> None:
    assert asked_as(base, host)[0] == 400


HALF_A_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-a: "


def call(base: str, says: bytes) -> socket.socket:
    called = socket.create_connection(("127.0.0.1", urlsplit(base).port or 0), timeout=10)
    called.sendall(says)
    return called


def is_ended(called: socket.socket, *, within_seconds: float) -> bool:
    called.settimeout(within_seconds)
    try:
        while called.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def test_connections_beyond_so_many_are_ended_at_once_and_the_others_are_answered(base: str) -> None:
    with ExitStack() as stack:
        kept = [stack.enter_context(call(base, HALF_A_REQUEST)) for _ in range(server.CONNECTIONS_AT_ONCE)]
        for _ in range(5):
            with call(base, b"") as more:
                assert is_ended(more, within_seconds=5)
        for each in kept:
            each.sendall(b"b\r\nConnection: close\r\n\r\n")
        for each in kept:
            assert each.recv(12) == b"HTTP/1.1 200"
    assert fetch(f"{base}/healthz")[0] == 200


@pytest.mark.parametrize(
    "says",
    [
        b"",
        HALF_A_REQUEST,
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n1",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + HALF_A_REQUEST,
    ],
    ids=["nothing", "half a head", "half a body", "half a second request"],
)
def test_a_request_that_does_not_arrive_whole_in_its_time_is_ended(
    base: str, monkeypatch: pytest.MonkeyPatch, says: bytes
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.3)
    with call(base, says) as called:
        assert is_ended(called, within_seconds=5)


def test_a_port_that_is_taken_is_named(test_database: TestDatabase) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match=rf"web\.port: .*:{port}"),
            page(test_database.opened, Metrics(), WebSettings(port=port)),
        ):
            pass
