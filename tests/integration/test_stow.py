"""STOW-RS: Orthanc's DICOMweb takes our reports, and what every other answer means."""

import base64
import json
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from dicom_io import stow
from dicom_io.errors import (
    AssociationRejected,
    DicomError,
    ObjectRefused,
    PeerBusy,
    PeerRefused,
    PeerUnreachable,
)
from dicom_io.stow import WebPeer, greet_service, send_to_service
from tests.certificates import Authority, Pair
from tests.factories import make_dx, make_study, study_uid, write
from tests.fakes import Site, free_port, make_site
from tests.requirements import need
from tests.servers import orthanc
from tests.viewer import orthanc_plugins
from worker.cli.doctor import examine
from worker.configuration import read_settings
from worker.contact import Contact
from worker.db import delivering
from worker.db.database import Database
from worker.destination import Destination
from worker.errors import ConfigurationError
from worker.settings import Settings
from worker.steps.deliver import deliver, greet


@dataclass
class Service:
    """A DICOMweb service that answers as it is told."""

    url: str = ""
    status: int = 200
    answer: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    status_of_posts: int | None = None
    """Of what is to be stored, where it is another one."""
    refused: dict[int, int] = field(default_factory=dict)
    """Statuses of other answers, by the number of the request."""
    authorization: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)


@contextmanager
def service(*, tls: ssl.SSLContext | None = None) -> Iterator[Service]:
    """Run one, over TLS where a context is given."""
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            told.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(told.status if told.status_of_posts is None else told.status_of_posts)

        def do_GET(self) -> None:
            self._answer(told.status)

        def _answer(self, status: int) -> None:
            told.connections.add(self.client_address[1])
            told.authorization.append(self.headers.get("Authorization", ""))
            self.send_response(told.refused.get(len(told.authorization), status))
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(told.answer)))
            self.end_headers()
            self.wfile.write(told.answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    told.url = f"http{'s' * bool(tls)}://127.0.0.1:{server.server_address[1]}/dicom-web"
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def web() -> Iterator[Service]:
    with service() as running:
        yield running


def _failed(*reasons: int) -> bytes:
    items = [{"00081197": {"vr": "US", "Value": [reason]}} for reason in reasons]
    return _told(_FAILED, *items)


def _told(tag: str, *items: object) -> bytes:
    return json.dumps({tag: {"vr": "SQ", "Value": items}}).encode()


def _of(uid: str, reason: int | None = None) -> dict[str, object]:
    """An item that names an instance."""
    why = {} if reason is None else {"00081197": {"vr": "US", "Value": [reason]}}
    return {"00081155": {"vr": "UI", "Value": [uid]}, **why}


def _native(content: str) -> bytes:
    """An answer in XML (PS3.19 annex A)."""
    space = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
    return f'<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel xmlns="{space}">{content}</NativeDicomModel>'.encode()


def _item(tag: str, uid: str, reason: str = "") -> str:
    why = f'<DicomAttribute tag="00081197" vr="US"><Value number="1">{reason}</Value></DicomAttribute>' if reason else ""
    return (
        f'<DicomAttribute tag="{tag}" vr="SQ"><Item number="1">'
        f'<DicomAttribute tag="00081155" vr="UI"><Value number="1">{uid}</Value></DicomAttribute>{why}</Item></DicomAttribute>'
    )


_FAILED, _KEPT, _OTHER_FAILURES = "00081198", "00081199", "0008119A"
_OURS = str(make_dx().SOPInstanceUID)


def _meaning_of(web: Service, tmp_path: Path, status: int, answer: bytes) -> DicomError | None:
    web.status, web.answer = status, answer
    (outcome,) = send_to_service(WebPeer(url=web.url), [write(make_dx(), tmp_path / "image.dcm")])
    return outcome.error


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (200, b"{}", None),
        (200, b"", None),
        (202, b"{}", None),
        (202, _failed(0xB000), None),
        (202, _failed(0xB007), None),
        (202, _failed(0x0107), PeerRefused),
        (202, _failed(0xA700), PeerBusy),
        (400, _failed(0xA900), ObjectRefused),
        (409, _failed(0x0111), None),
        (409, _failed(0xA700), PeerBusy),
        (409, _failed(0x0110), PeerRefused),
        (409, _failed(0xA900), ObjectRefused),
        (409, _failed(0xC122), ObjectRefused),
        (200, _failed(0xC000), ObjectRefused),
        (401, b"", AssociationRejected),
        (403, b"", AssociationRejected),
        (404, b"", AssociationRejected),
        (429, b"", PeerBusy),
        (503, b"", PeerBusy),
        (507, b"", PeerBusy),
        (302, b"", PeerRefused),
        (409, _told(_KEPT), PeerRefused),
        (409, _told(_FAILED, _of("1.2.3", 0xA900)), PeerRefused),
    ],
)
def test_every_answer_has_its_meaning(
    tmp_path: Path, web: Service, status: int, answer: bytes, kind: type[DicomError] | None
) -> None:
    assert type(_meaning_of(web, tmp_path, status, answer)) is (kind or type(None))


@pytest.mark.parametrize(
    "answer",
    [
        _told(_KEPT, _of(_OURS)),
        _told(_KEPT, _of("1.2.3"), _of(_OURS)),
        _told(_KEPT, {}),
        _told(_FAILED),
        b'{"00081198": {"vr": "SQ"}}',
        b" \r\n",
        b"[{}, %s]" % _told(_KEPT, _of(_OURS)),
        b'\xef\xbb\xbf{"0008119a": {"vr": "SQ", "Value": []}}',
        _native(""),
        _native(_item(_KEPT, f" {_OURS}\n")),
        _native(_item(_FAILED, _OURS, "273")),
    ],
)
def test_what_a_service_says_that_it_keeps_or_says_nothing_against_is_stored(
    tmp_path: Path, web: Service, answer: bytes
) -> None:
    assert _meaning_of(web, tmp_path, 200, answer) is None


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (_told(_FAILED, _of(_OURS)), PeerRefused, "with a failure, without a reason that can be read"),
        (b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US"}}]}}', PeerRefused, "without a reason"),
        (b'{"00081198": {"vr": "SQ", "Value": [null]}}', PeerRefused, "without a reason"),
        (_told(_FAILED, {"00081197": {"vr": "US", "Value": ["0x0110"]}}), PeerRefused, "without a reason"),
        (_failed(1 << 16), PeerRefused, "without a reason"),
        (b"[{}, %s]" % _failed(0x0110), PeerRefused, "failure reason 0x0110"),
        (_failed(0x0111, 0xA700), PeerBusy, "failure reason 0xA700"),
        (_told(_OTHER_FAILURES, {"00081197": {"vr": "US", "Value": [0x0110]}}), PeerRefused, "failure reason 0x0110"),
        (_told(_OTHER_FAILURES, {"00081197": {"vr": "US", "Value": [0x0111]}}), PeerRefused, "failure reason 0x0111"),
        (_told(_OTHER_FAILURES, {}), PeerRefused, "without a reason"),
        (_told(_FAILED, _of("1.2.3", 0x0111)), PeerRefused, "failure reason 0x0111"),
        (_told(_FAILED, _of("1.2.3", 0xC000)), PeerRefused, "failure reason 0xC000"),
        (_told(_FAILED, _of(_OURS, 0xC000)), ObjectRefused, "failure reason 0xC000"),
        (_told(_KEPT, _of("1.2.3")), PeerRefused, "naming only other instances"),
        (_native(_item(_KEPT, "1.2.3")), PeerRefused, "naming only other instances"),
        (_native(_item(_FAILED, _OURS, "272")), PeerRefused, "failure reason 0x0110"),
        (_native(_item(_FAILED, _OURS, "42752")), PeerBusy, "failure reason 0xA700"),
        (_native(_item(_FAILED, _OURS, "49152")), ObjectRefused, "failure reason 0xC000"),
        (_native(_item(_FAILED, _OURS)), PeerRefused, "without a reason"),
        (_native(_item(_OTHER_FAILURES, "", "272")).replace(b" xmlns", b" other"), PeerRefused, "failure reason 0x0110"),
    ],
)
def test_a_failure_is_one_whatever_the_status(
    tmp_path: Path, web: Service, answer: bytes, kind: type[DicomError], words: str
) -> None:
    for status in (200, 202):
        error = _meaning_of(web, tmp_path, status, answer)
        assert type(error) is kind
        assert words in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        b"no JSON",
        b"<html><title>Hospital: please log in</title></html>",
        b"<html><br></html>",
        b'{"error": "log in"}',
        b"null",
        b"[5]",
        b'"stored"',
        b'{"00081198": {"vr": "SQ", "Value": 5}}',
        b'{"00081199": []}',
        b"[" * 500_000,
        _native("<br>"),
        _native("") + b"\xff",
        b'<!DOCTYPE x [<!ENTITY a "b">]>' + _native(_item(_KEPT, _OURS)).partition(b"?>")[2],
    ],
)
def test_what_does_not_answer_as_a_service_does_is_not_believed_to_have_stored(
    tmp_path: Path, web: Service, answer: bytes
) -> None:
    error = _meaning_of(web, tmp_path, 200, answer)
    assert type(error) is PeerRefused
    assert str(error).startswith(f"{web.url} answered 200, but not as a DICOMweb service: look at the url, ")


@pytest.mark.parametrize("status", [400, 405, 409, 413, 415, 422, 423])
@pytest.mark.parametrize("answer", [b"", b"<html>", b"{}"])
def test_a_status_alone_does_not_speak_of_the_object_for_a_wrong_url_or_a_proxy_may_explain_it(
    tmp_path: Path, web: Service, status: int, answer: bytes
) -> None:
    error = _meaning_of(web, tmp_path, status, answer)
    assert type(error) is PeerRefused
    assert str(error).startswith(f"STOW-RS was answered {status} by {web.url}, without a failure reason: look at the url, ")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "it does not know us: look at token, or username and password"),
        (403, "it knows us and lets us store nothing"),
        (404, "there is no DICOMweb service at this url"),
        (407, "a proxy before it does not let us through"),
    ],
)
def test_who_does_not_let_us_in_is_told_with_the_cure_and_asked_once(
    tmp_path: Path, web: Service, status: int, words: str
) -> None:
    web.status = status
    path = write(make_dx(), tmp_path / "image.dcm")
    first, second = send_to_service(WebPeer(url=web.url), [path, path])
    assert str(first.error) == f"STOW-RS was answered {status} by {web.url}: {words}."
    assert second.error is first.error
    assert len(web.bodies) == 1


def test_nobody_that_a_service_points_at_is_shown_our_token_or_our_objects(tmp_path: Path, web: Service) -> None:
    with service() as elsewhere:
        web.status, web.headers = 307, {"Location": f"{elsewhere.url}/studies"}
        peer = WebPeer(url=web.url, headers={"Authorization": "Bearer secret"})
        (outcome,) = send_to_service(peer, [write(make_dx(), tmp_path / "image.dcm")])
        assert str(outcome.error) == "STOW-RS was answered 307."
        greet_service(peer)
        assert (elsewhere.authorization, elsewhere.bodies) == ([], [])


def test_a_service_without_a_search_is_there_all_the_same(web: Service) -> None:
    web.status = 404
    greet_service(WebPeer(url=web.url))


def test_an_object_that_a_service_does_not_take_holds_up_no_other(tmp_path: Path, web: Service) -> None:
    web.refused = {2: 409, 3: 500}
    path = write(make_dx(), tmp_path / "image.dcm")
    outcomes = [outcome.error for outcome in send_to_service(WebPeer(url=web.url), [path] * 4)]
    assert [type(error) for error in outcomes] == [type(None), PeerRefused, PeerBusy, type(None)]


@pytest.mark.parametrize("value", ["soon", "-5", "9" * 5000, "Wed, 32 Foo 2031 25:61:00 GMT", ""])
def test_a_retry_after_that_says_nothing_asks_for_nothing(tmp_path: Path, web: Service, value: str) -> None:
    web.status, web.headers = 503, {"Retry-After": value}
    path = write(make_dx(), tmp_path / "image.dcm")
    outcomes = list(send_to_service(WebPeer(url=web.url), [path, path]))
    assert [type(outcome.error) for outcome in outcomes] == [PeerBusy, PeerBusy]
    assert len(web.bodies) == 2


def test_a_service_that_asks_for_time_is_given_it(database: Database, tmp_path: Path, web: Service) -> None:
    known = _destination(web.url, outputs=("sr", "text_sr"))
    site = make_site(database, tmp_path / "var", destinations=(known,))
    site.receive(make_dx())
    site.settle()
    web.status, web.headers = 503, {"Retry-After": "120"}
    assert site.deliver() == 0
    assert len(web.bodies) == 1, "the second is not tried"
    web.status = 200
    site.clock.go_on(seconds=119)
    assert site.deliver() == 0
    assert Contact(known, site.parts).ask() == 0, "it answers, and has asked for time"
    site.clock.go_on(seconds=1)
    assert site.deliver() == 2


@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_waits_for_a_service_goes_on_waiting_while_a_proxy_answers_in_its_place(
    database: Database, tmp_path: Path, web: Service, status: int
) -> None:
    known = _destination(web.url)
    site = make_site(database, tmp_path / "var", destinations=(known,))
    site.receive(make_dx())
    site.settle()
    web.status = status
    for _ in range(10):
        site.deliver()
        site.clock.go_on(minutes=10)
    (delivery,) = site.study(study_uid())["deliveries"]
    assert (delivery["state"], delivery["attempts"]) == ("on_hold", 10)
    assert site.deliver() == 0, "one more, to see"
    web.status = 200
    assert site.deliver() == 0
    site.clock.go_on(minutes=10)
    assert site.deliver() == 1


@contextmanager
def secured(shown: Pair, *, callers: Path | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Iterator[Service]:
    """A service that shows a certificate and, where a CA of callers is given, asks for one that it signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(shown.certificate, shown.key)
    if callers is not None:
        context.load_verify_locations(callers)
        context.verify_mode = ssl.CERT_REQUIRED
    with service(tls=context) as running:
        yield running


def _sent(site: Site, url: str, **changes: object) -> DicomError | None:
    """What becomes of a study's report at a service."""
    with site.database.read() as connection:
        waiting = delivering.due(connection, "web", now=site.clock(), data_dir=site.parts.data_dir)
    ((_, outcome),) = deliver(waiting, _destination(url, **changes), site.parts.settings, is_wanted=lambda _: True)
    return outcome.error


@pytest.fixture
def waiting(database: Database, tmp_path: Path) -> Site:
    """A worker with a report for a DICOMweb service."""
    site = make_site(database, tmp_path / "var", destinations=(_destination("https://pacs.example"),))
    site.receive(make_dx())
    site.settle()
    return site


def test_a_service_is_sent_nothing_before_it_is_seen_to_be_who_it_should_be(waiting: Site, tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pacs, old = authority.issue("pacs"), authority.issue("old", ends=timedelta(days=-1))
    elsewhere = authority.issue("elsewhere", hosts=["pacs.example"])

    def complaint(web: Service, **changes: object) -> str:
        error = _sent(waiting, web.url, **changes)
        assert isinstance(error, AssociationRejected)
        with pytest.raises(AssociationRejected, match=re.escape(str(error))):
            greet(_destination(web.url, **changes), waiting.parts.settings)
        assert web.bodies == []
        return str(error)

    with secured(pacs) as web:
        assert f"TLS with {web.url} failed: its certificate is signed by a CA that is not in the ca" in complaint(web)
        assert "not in the ca" in complaint(web, ca=other.file)
        assert _sent(waiting, web.url, ca=authority.file) is None
    with secured(old) as web:
        assert "its certificate has expired: renew it there" in complaint(web, ca=authority.file)
    with secured(elsewhere) as web:
        assert "does not name the address" in complaint(web, ca=authority.file)
        assert _sent(waiting, web.url, ca=authority.file, check_name=False) is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_service_that_asks_for_our_certificate_is_shown_it(waiting: Site, tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority(tmp_path)
    own, ended = authority.issue("own"), authority.issue("ended", ends=timedelta(days=-1))
    strange = Authority(tmp_path, "other").issue("strange")
    # What TLS 1.3 says comes after the handshake, and is lost where the service has closed the connection by then.
    or_ended = "" if version is ssl.TLSVersion.TLSv1_2 else "|ended the connection: does it want a certificate of ours"
    with secured(authority.issue("pacs"), callers=authority.file, version=version) as web:
        for shown, words in (
            (None, "it asks for our certificate|or it wants a certificate of ours"),
            (strange, "it does not know the CA of our certificate: add it there"),
            (ended, "it says that our certificate has expired: renew it"),
        ):
            certificate = None if shown is None else _as_settings(shown)
            error = _sent(waiting, web.url, ca=authority.file, client_certificate=certificate)
            assert isinstance(error, AssociationRejected | PeerUnreachable)
            assert re.search(words + or_ended, str(error)), error
        assert web.bodies == []
        assert _sent(waiting, web.url, ca=authority.file, client_certificate=_as_settings(own)) is None


def test_a_service_that_breaks_off_without_a_word_may_not_know_us(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pacs = authority.issue("pacs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pacs.certificate, pacs.key)

    def break_off() -> None:
        connection = context.wrap_socket(server.accept()[0], server_side=True)
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # a reset

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=break_off)
        thread.start()
        known = _destination(f"https://127.0.0.1:{server.getsockname()[1]}/dicom-web", ca=authority.file)
        with pytest.raises(PeerUnreachable, match="does it want a certificate of ours"):
            greet(known, Settings())
        thread.join(10)


def _as_settings(pair: Pair) -> dict[str, Path]:
    return {"certificate": pair.certificate, "key": pair.key}


def test_a_service_that_speaks_no_tls_is_told(tmp_path: Path, web: Service) -> None:
    authority = Authority(tmp_path)
    known = _destination(web.url.replace("http:", "https:"), ca=authority.file)
    with pytest.raises(AssociationRejected, match="it speaks no TLS on this port"):
        greet(known, Settings())


def test_doctor_looks_at_the_certificates_of_a_service(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ended = authority.issue("ended", ends=timedelta(days=-1))
    known = _destination("https://127.0.0.1:1/dicom-web", ca=authority.file, client_certificate=_as_settings(ended))
    checks = {check.name: check for check in examine(Settings(data_dir=tmp_path / "var", destinations=(known,)))}
    assert checks["certificate destination web: ca"].ok
    assert "expired on" in checks["certificate destination web: client_certificate.certificate"].detail
    assert not checks["destination web"].ok


def test_a_report_waits_with_the_reason_while_a_file_for_its_service_is_away(database: Database, tmp_path: Path) -> None:
    known = _destination("https://127.0.0.1:1/dicom-web", ca=tmp_path / "away.pem")
    site = make_site(database, tmp_path / "var", destinations=(known,))
    site.receive(make_dx())
    site.settle()
    assert site.deliver() == 0
    (delivery,) = site.study(study_uid())["deliveries"]
    assert (delivery["state"], delivery["last_error"]) == (
        "pending",
        f"destination web: ca: {tmp_path / 'away.pem'}: no such file.",
    )


@pytest.mark.parametrize("what", ["a header", "a body", "a body without a length", "a handshake"])
def test_a_service_that_answers_a_byte_at_a_time_is_not_waited_for_without_end(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "EXCHANGE_SECONDS", 0.5)
    begins = {
        "a header": b"HTTP/1.1 200 OK\r\nX-Word: ",
        "a body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        "a body without a length": b"HTTP/1.1 200 OK\r\n\r\n",
        "a handshake": b"\x16\x03\x03\x40\x00",  # a record of 16 KiB
    }

    def dribble() -> None:
        connection = server.accept()[0]
        with connection, suppress(OSError):
            connection.sendall(begins[what])
            while not ended.wait(0.01):
                connection.sendall(b"\x16" if what == "a handshake" else b"x")

    ended, path = Event(), write(make_dx(), tmp_path / "image.dcm")
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=dribble)
        thread.start()
        url = f"http{'s' * (what == 'a handshake')}://127.0.0.1:{server.getsockname()[1]}"
        try:
            first, second = send_to_service(WebPeer(url=url), [path, path])
        finally:
            ended.set()
            thread.join(10)
    assert isinstance(first.error, PeerUnreachable)
    assert str(first.error) == f"{url} takes more than 0.5 seconds to answer."
    assert second.error is first.error, "the rest is not kept waiting for as long each"


def test_a_large_object_is_sent_over_a_slow_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stow, "CONNECT_SECONDS", 0.5)
    path, never, took = write(make_dx(), tmp_path / "large.dcm"), Event(), list[int]()
    path.write_bytes(path.read_bytes() + bytes(16 * 1024**2))

    def take_slowly() -> None:
        connection = server.accept()[0]
        with connection:
            while sum(took) < path.stat().st_size:
                took.append(len(connection.recv(64 * 1024)))
                never.wait(0.005)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            while connection.recv(64 * 1024):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        thread = Thread(target=take_slowly, daemon=True)
        thread.start()
        (outcome,) = send_to_service(WebPeer(url=f"http://127.0.0.1:{server.getsockname()[1]}"), [path])
        thread.join(10)
    assert outcome.error is None


def test_files_travel_as_they_lie_on_disk_over_one_connection(tmp_path: Path, web: Service) -> None:
    paths = [write(ds, tmp_path / f"{number}.dcm") for number, ds in enumerate(make_study(views=("PA", "AP", "LL")))]
    assert [outcome.error for outcome in send_to_service(WebPeer(url=web.url), paths)] == [None] * 3
    for path, body in zip(paths, web.bodies, strict=True):
        assert path.read_bytes() in body
    assert len(web.connections) == 1


def test_a_service_that_is_not_there_is_unreachable_for_every_file(tmp_path: Path) -> None:
    peer = WebPeer(url=f"http://127.0.0.1:{free_port()}")
    path = write(make_dx(), tmp_path / "image.dcm")
    first, second = send_to_service(peer, [path, path])
    assert isinstance(first.error, PeerUnreachable)
    assert second.error is first.error
    with pytest.raises(PeerUnreachable):
        greet_service(peer)


def _destination(url: str, **changes: object) -> Destination:
    return Destination.model_validate({"name": "web", "url": url, "outputs": ("sr",), **changes})


def test_we_say_who_we_are_by_token_or_by_password(database: Database, tmp_path: Path, web: Service) -> None:
    known = (
        _destination(web.url, token="secret"),  # noqa: S106  the test's own
        _destination(web.url, name="basic", username="cxr", password="worker"),  # noqa: S106  the test's own
    )
    assert "secret" not in repr(known)
    assert "worker" not in repr(known)
    site = make_site(database, tmp_path / "var", destinations=known)
    site.receive(make_dx())
    site.settle()
    assert site.deliver() == 2
    assert web.authorization == ["Bearer secret", f"Basic {base64.b64encode(b'cxr:worker').decode()}"]


def test_what_surrounds_a_token_in_its_file_is_no_part_of_it() -> None:
    known = _destination("https://pacs.example", token=" secret\n", username="cxr ", password="worker\r\n")  # noqa: S106
    told = known.token.get_secret_value(), known.username, known.password.get_secret_value()
    assert told == ("secret", "cxr", "worker")


@pytest.mark.parametrize("key", ["token", "username", "password"])
@pytest.mark.parametrize("value", ["se\ncret", "se\u2013cret", "Łsecret", "secret€", "se\0cret", "se\x7fcret"])
def test_what_no_header_can_carry_is_refused_by_its_key_and_never_shown(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "cxr-worker.toml"
    path.write_text(f'[[destinations]]\nname = "web"\nurl = "https://pacs.example"\n{key} = {json.dumps(value)}\n', "utf-8")
    with pytest.raises(ConfigurationError) as caught:
        read_settings(path, environment={})
    assert str(caught.value).startswith(f"{path}: destinations.0.{key}: holds what a service cannot be sent: write it anew, ")
    assert "cret" not in f"{caught.value} {caught.value.__cause__}"


def test_a_request_that_cannot_be_made_is_a_trouble_that_does_not_quote_it(tmp_path: Path) -> None:
    path = write(make_dx(), tmp_path / "image.dcm")
    for header in ("Bearer secret\n", "Bearer secret\u2013"):
        peer = WebPeer(url=f"http://127.0.0.1:{free_port()}", headers={"Authorization": header})
        (outcome,) = send_to_service(peer, [path])
        assert str(outcome.error) == f"No request can be made to {peer.url}: look at its url, token, username and password."
        with pytest.raises(PeerUnreachable, match="No request can be made to "):
            greet_service(peer)


def test_a_service_that_lets_us_in_again_is_sent_at_once_what_waits(database: Database, tmp_path: Path, web: Service) -> None:
    known = _destination(web.url)
    site = make_site(database, tmp_path / "var", destinations=(known,))
    site.receive(make_dx())
    site.settle()
    web.status = 401
    assert site.deliver() == 0
    assert Contact(known, site.parts).ask() == 0
    web.status = 200
    assert site.deliver() == 0, "before its time"
    assert Contact(known, site.parts).ask() == 1
    assert site.deliver() == 1
    assert site.study(study_uid())["state"] == "delivered"


def test_orthanc_takes_our_reports(database: Database, tmp_path: Path) -> None:
    need("Orthanc")
    with orthanc(tmp_path, plugins=orthanc_plugins()) as pacs:
        site = make_site(
            database, tmp_path / "var", destinations=(_destination(f"http://127.0.0.1:{pacs.http_port}/dicom-web"),)
        )
        site.receive(make_dx())
        site.settle()
        assert site.deliver() == 1
        (sent,) = site.study(study_uid())["reports"]
        (kept,) = pacs.instances_of(study_uid(), "SR")
        assert pacs.get(f"/instances/{kept}/simplified-tags")["SOPInstanceUID"] == sent["sop_instance_uid"]
        (report,) = (site.parts.data_dir / "reports").iterdir()
        (outcome,) = send_to_service(WebPeer(url=f"http://127.0.0.1:{pacs.http_port}/dicom-web"), [report])
        assert outcome.error is None, "what it has already it keeps"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('url = "https://pacs.example/dicom-web"\nport = 104', "url stands in place of"),
        ('url = "https://pacs.example/dicom-web"\nstorage_commitment = true', "no storage commitment"),
        ('url = "ftp://pacs.example"', "url"),
        ('url = "https://cxr:secret@pacs.example/dicom-web"', "set username and password"),
        ('url = "https://pacs.example:99999999"', "destinations.0"),
        ('url = "https://pacs.example"\nto_sender = true', "to_sender is for an application entity"),
        ('url = "https:///dicom-web"', "url names no host"),
        ('url = "https://pacs..example/dicom-web"', "url: no host has this name: write"),
    ],
)
def test_a_wrong_url_is_explained(tmp_path: Path, lines: str, words: str) -> None:
    path = tmp_path / "cxr-worker.toml"
    path.write_text(f'[[destinations]]\nname = "web"\n{lines}\n')
    with pytest.raises(ConfigurationError, match=words):
        read_settings(path, environment={})
