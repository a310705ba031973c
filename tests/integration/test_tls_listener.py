"""Who is let in by the port of TLS, and who is turned away: with DCMTK, pynetdicom and bare sockets."""

import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pydicom
import pytest
from cryptography import x509
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from structlog.testing import capture_logs

from tests.certificates import Authority, Pair
from tests.factories import dicom_folder, make_dx, write
from tests.fakes import Site, make_site
from tests.requirements import need
from tests.servers import storescu, wait_for
from worker.db import events
from worker.db.database import Database
from worker.errors import ConfigurationError
from worker.receivers import tls_receiver
from worker.settings import DicomSettings, TlsSettings

# Who is let in is the same on every database; the two are told apart where objects are kept.
pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)

ANNOUNCED = b"\x01\x00\x00\x00\x00\xcd\x00\x01"
"""The head of an A-ASSOCIATE-RQ."""


class Port:
    """A worker that listens for TLS, with what its senders need."""

    def __init__(self, site: Site, number: int, authority: Authority, folder: Path) -> None:
        self.site = site
        self.number = number
        self.authority = authority
        self.folder = folder

    def send(self, pair: Pair, *paths: Path) -> str:
        """Send files by DCMTK; answer what it complains of."""
        done = storescu(self.number, *paths, options=self.options(pair))
        return "" if done.returncode == 0 else done.stdout + done.stderr or "refused"

    def options(self, pair: Pair) -> tuple[str, ...]:
        return ("+tls", str(pair.key), str(pair.certificate), "+cf", str(self.authority.file))

    def call(self, context: ssl.SSLContext | None) -> bytes:
        """Connect, say what an association starts with, and answer what comes back."""
        with socket.create_connection(("127.0.0.1", self.number), 10) as plain, ExitStack() as stack, suppress(OSError):
            called = plain if context is None else stack.enter_context(context.wrap_socket(plain))
            called.sendall(ANNOUNCED + bytes(205))
            return called.recv(100)
        return b""

    def turned_away(self) -> str:
        """Why the last one was."""
        with self.site.database.read() as connection:
            return events.count_since(connection, "refused", since=self.site.clock.now - timedelta(days=1))[1]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def site_for(own: Pair, ca: Path, database: Database, data_dir: Path, **dicom: Any) -> Site:
    tls = TlsSettings(certificate=own.certificate, key=own.key, ca=ca, port=0)
    return make_site(database, data_dir, dicom=DicomSettings(port=0, tls=tls, **dicom))


@pytest.fixture
def port(authority: Authority, database: Database, tmp_path: Path) -> Iterator[Port]:
    site = site_for(authority.issue("worker"), authority.file, database, tmp_path / "var")
    listener = tls_receiver(site.parts, arrived=lambda: None)
    assert listener is not None
    with listener:
        yield Port(site, listener.port, authority, tmp_path)


def client(pair: Pair | None = None, version: str = "TLSv1_3") -> ssl.SSLContext:
    """A sender that takes any certificate of ours, shows one or none, and speaks this version only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def test_dcmtk_sends_a_real_file_over_tls(port: Port) -> None:
    need("storescu")
    real = next(path for path in sorted(dicom_folder().rglob("*.dcm")) if "PixelData" in pydicom.dcmread(path))
    assert port.send(port.authority.issue("modality"), real) == ""
    assert len(port.site.received_files()) == 1


def test_pynetdicom_is_answered_over_tls(port: Port) -> None:
    ae = AE(ae_title="MODALITY1")
    ae.add_requested_context(Verification)
    context = client(port.authority.issue("modality"))
    assoc = ae.associate("127.0.0.1", port.number, tls_args=(context, "127.0.0.1"))
    assert assoc.is_established
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()


def no_certificate(_authority: Authority, _other: Authority) -> ssl.SSLContext | None:
    return client()


def another_ca(_authority: Authority, other: Authority) -> ssl.SSLContext | None:
    return client(other.issue("stranger"))


def expired(authority: Authority, _other: Authority) -> ssl.SSLContext | None:
    return client(authority.issue("old", ends=timedelta(days=-1)))


def tls_1_1(authority: Authority, _other: Authority) -> ssl.SSLContext | None:
    return client(authority.issue("modality"), "TLSv1_1")


def plain_dicom(_authority: Authority, _other: Authority) -> ssl.SSLContext | None:
    return None


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (no_certificate, "it shows no certificate"),
        (another_ca, "not in the ca"),
        (expired, "its certificate has expired"),
        (tls_1_1, "it speaks no TLS 1.2 or 1.3"),
        (plain_dicom, "it speaks no TLS on this port"),
    ],
)
def test_who_must_not_come_in_is_turned_away_with_an_event_and_a_good_sender_gets_through(
    port: Port, shown: Callable[[Authority, Authority], ssl.SSLContext | None], words: str
) -> None:
    need("storescu")
    with capture_logs() as lines:
        said = port.call(shown(port.authority, Authority(port.folder, "other")))
        assert not said.startswith(b"\x02")  # no A-ASSOCIATE-AC
        assert words in wait_for(port.turned_away, "the event of who was turned away")
    assert [words in line["why"] for line in lines if line["event"] == "association.rejected"] == [True]
    assert port.site.received_files() == []
    metrics = port.site.parts.metrics.registry
    assert metrics.get_sample_value("cxr_associations_rejected_total", {"caller": "other", "reason": "tls"}) == 1
    film = write(make_dx(), port.folder / "film.dcm")
    assert port.send(port.authority.issue("good"), film) == ""
    assert len(port.site.received_files()) == 1
    assert metrics.get_sample_value("cxr_associations_accepted_total", {"caller": "MODALITY1"}) == 1
    assert metrics.get_sample_value("cxr_objects_total", {"caller": "MODALITY1", "status": "0x0000"}) == 1
    assert metrics.get_sample_value("cxr_store_seconds_count", {"caller": "MODALITY1"}) == 1
    assert (metrics.get_sample_value("cxr_received_bytes_total", {"caller": "MODALITY1"}) or 0) > 1000
    wait_for(lambda: metrics.get_sample_value("cxr_associations_open") == 0, "the association is closed")


def test_a_stranger_s_address_gets_no_handshake(authority: Authority, database: Database, tmp_path: Path) -> None:
    own = authority.issue("worker")
    site = site_for(own, authority.file, database, tmp_path / "var", addresses=(ip_network("192.0.2.0/24"),))
    listener = tls_receiver(site.parts, arrived=lambda: None)
    assert listener is not None
    with listener:
        port = Port(site, listener.port, authority, tmp_path)
        assert port.call(client(authority.issue("modality"))) == b""
        assert "dicom.addresses" in wait_for(port.turned_away, "the event of who was turned away")


def shown(port: Port) -> int:
    """The serial number of the certificate that the port shows."""
    context = client(port.authority.issue("modality"))
    with socket.create_connection(("127.0.0.1", port.number), 10) as plain, context.wrap_socket(plain) as called:
        certificate = called.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


def test_a_renewed_certificate_is_shown_without_a_restart_once_its_key_is_there_too(port: Port) -> None:
    before = shown(port)
    own = port.site.parts.settings.dicom.tls
    assert own is not None
    renewed = port.authority.issue("renewed")
    own.certificate.write_bytes(renewed.certificate.read_bytes())
    assert shown(port) == before, "the key is still the old one"
    own.key.write_bytes(renewed.key.read_bytes())
    assert shown(port) == x509.load_pem_x509_certificate(renewed.certificate.read_bytes()).serial_number != before


def test_senders_that_stop_in_the_middle_of_a_handshake_keep_nobody_waiting(port: Port) -> None:
    need("storescu")
    film = write(make_dx(), port.folder / "film.dcm")
    with ExitStack() as stack:
        for _ in range(50):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", port.number), 10))
            half.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert port.send(port.authority.issue("good"), film) == ""


def test_without_the_section_no_second_port_is_opened(site: Site) -> None:
    assert tls_receiver(site.parts, arrived=lambda: None) is None


def test_a_port_of_tls_that_is_taken_is_named(authority: Authority, database: Database, tmp_path: Path) -> None:
    own = authority.issue("worker")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        tls = TlsSettings(certificate=own.certificate, key=own.key, ca=authority.file, port=number)
        site = make_site(database, tmp_path / "var", dicom=DicomSettings(tls=tls))
        with pytest.raises(ConfigurationError, match=rf"dicom\.tls\.port: cannot listen on 127\.0\.0\.1:{number}"):
            tls_receiver(site.parts, arrived=lambda: None)
