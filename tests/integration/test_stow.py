"""STOW-RS: Orthanc's DICOMweb takes our reports, and what every other answer means."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dicom_io.errors import (
    AssociationRejected,
    DicomError,
    ObjectRefused,
    PeerBusy,
    PeerRefused,
    PeerUnreachable,
)
from dicom_io.stow import WebPeer, greet_service, send_to_service
from tests.factories import make_dx, make_study, study_uid, write
from tests.fakes import free_port, make_site
from tests.requirements import need
from tests.servers import orthanc
from tests.viewer import orthanc_plugins
from worker.commitment import resume_deliveries
from worker.configuration import read_settings
from worker.db.database import Database
from worker.errors import ConfigurationError
from worker.settings import Destination


@dataclass
class Service:
    """A DICOMweb service that answers as it is told."""

    url: str = ""
    status: int = 200
    answer: bytes = b"{}"
    authorization: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)


@contextmanager
def service() -> Iterator[Service]:
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            told.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.do_GET()

        def do_GET(self) -> None:
            told.connections.add(self.client_address[1])
            told.authorization.append(self.headers.get("Authorization", ""))
            self.send_response(told.status)
            self.send_header("Content-Length", str(len(told.answer)))
            self.end_headers()
            self.wfile.write(told.answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
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
    return json.dumps({"00081198": {"vr": "SQ", "Value": items}}).encode()


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (200, b"{}", None),
        (200, b"no JSON", None),
        (202, b"{}", None),
        (202, _failed(0xB000), None),
        (409, _failed(0x0111), None),
        (409, _failed(0xA700), PeerBusy),
        (409, _failed(0x0110), PeerRefused),
        (409, _failed(0xA900), ObjectRefused),
        (409, _failed(0xC122), ObjectRefused),
        (200, _failed(0xC000), ObjectRefused),
        (400, b"", ObjectRefused),
        (415, b"", ObjectRefused),
        (401, b"", AssociationRejected),
        (403, b"", AssociationRejected),
        (404, b"", AssociationRejected),
        (429, b"", PeerBusy),
        (503, b"", PeerBusy),
        (507, b"", PeerBusy),
        (302, b"", PeerRefused),
    ],
)
def test_every_answer_has_its_meaning(
    tmp_path: Path, web: Service, status: int, answer: bytes, kind: type[DicomError] | None
) -> None:
    web.status, web.answer = status, answer
    (outcome,) = send_to_service(WebPeer(url=web.url), [write(make_dx(), tmp_path / "image.dcm")])
    assert type(outcome.error) is (kind or type(None))


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


def test_a_service_that_lets_us_in_again_is_sent_at_once_what_waits(database: Database, tmp_path: Path, web: Service) -> None:
    known = _destination(web.url)
    site = make_site(database, tmp_path / "var", destinations=(known,))
    site.receive(make_dx())
    site.settle()
    web.status = 401
    assert site.deliver() == 0
    assert resume_deliveries(known, site.parts) == 0
    web.status = 200
    assert site.deliver() == 0, "before its time"
    assert resume_deliveries(known, site.parts) == 1
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
        ('url = "https://pacs.example:99999999"', "destinations.0"),
    ],
)
def test_a_wrong_url_is_explained(tmp_path: Path, lines: str, words: str) -> None:
    path = tmp_path / "cxr-worker.toml"
    path.write_text(f'[[destinations]]\nname = "web"\n{lines}\n')
    with pytest.raises(ConfigurationError, match=words):
        read_settings(path, environment={})
