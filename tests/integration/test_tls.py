"""DICOM over TLS, out of and into the worker, with real peers."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_io.errors import DicomError
from dicom_io.sender import echo
from tests.certificates import Authority, Pair
from tests.factories import make_study, study_uid
from tests.fakes import FakePacs, fake_pacs, make_site
from tests.servers import storescp
from worker.cli.doctor import Check, examine
from worker.db.database import Database
from worker.destination import Destination
from worker.settings import DicomSettings, Settings, TlsSettings
from worker.steps.deliver import peer_of
from worker.tls import client_context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def pacs_with(shown: Pair, ca: Path) -> Iterator[FakePacs]:
    """A storage SCP that shows a certificate and asks for one that a CA signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with fake_pacs(tls=context) as running:
        yield running


def dicom_with(own: Pair, ca: Path) -> DicomSettings:
    return DicomSettings(port=0, tls=TlsSettings(certificate=own.certificate, key=own.key, ca=ca, port=0))


def test_reports_reach_a_pacs_that_asks_for_a_certificate(authority: Authority, database: Database, tmp_path: Path) -> None:
    with pacs_with(authority.issue("pacs"), authority.file) as pacs:
        dicom = dicom_with(authority.issue("worker"), authority.file)
        site = make_site(database, tmp_path / "var", destinations=(pacs.destination(tls=True),), dicom=dicom)
        site.receive(*make_study())
        site.settle()
        assert site.deliver() == 2
        assert site.study(study_uid())["state"] == "delivered"
        assert len(pacs.received) == 2


def test_reports_wait_with_the_reason_while_our_own_certificate_cannot_be_used(
    authority: Authority, database: Database, tmp_path: Path
) -> None:
    with pacs_with(authority.issue("pacs"), authority.file) as pacs:
        own = authority.issue("worker")
        dicom = dicom_with(own, authority.file)
        site = make_site(database, tmp_path / "var", destinations=(pacs.destination(tls=True),), dicom=dicom)
        site.receive(*make_study())
        site.settle()
        away = own.key.rename(own.key.with_suffix(".away"))
        assert site.deliver() == 0
        waiting = site.study(study_uid())["deliveries"]
        assert {(each["state"], each["last_error"]) for each in waiting} == {
            ("pending", f"dicom.tls.key: {own.key}: no such file.")
        }
        away.rename(own.key)
        site.clock.go_on(minutes=1)
        assert site.deliver() == 2


def asked(port: int, own: Pair, authority: Authority, **changes: Any) -> str:
    """What is found when a destination is called: nothing where it answers C-ECHO."""
    destination = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, tls=True, **changes)
    settings = Settings(dicom=dicom_with(own, authority.file), destinations=(destination,))
    try:
        echo(peer_of(destination), calling_ae_title="CXRWORKER", tls=client_context(settings, destination))
    except DicomError as error:
        return str(error)
    return ""


def test_a_destination_that_is_not_who_it_should_be_is_not_called(authority: Authority, tmp_path: Path) -> None:
    own, other = authority.issue("worker"), Authority(tmp_path, "other")
    pacs, old = authority.issue("pacs"), authority.issue("old", ends=timedelta(days=-1))
    elsewhere, stranger = authority.issue("elsewhere", hosts=["pacs.example"]), other.issue("stranger")
    with storescp("--ignore", "+tls", pacs.key, pacs.certificate, "+cf", authority.file) as port:
        assert asked(port, own, authority) == ""
        assert "not in the ca" in asked(port, own, authority, ca=other.file)
        shown = {"certificate": stranger.certificate, "key": stranger.key}
        assert "know the CA of our certificate" in asked(port, own, authority, client_certificate=shown)
    with storescp("--ignore", "+tls", old.key, old.certificate, "+cf", authority.file) as port:
        assert "has expired" in asked(port, own, authority)
    with storescp("--ignore", "+tls", elsewhere.key, elsewhere.certificate, "+cf", authority.file) as port:
        assert "does not name the address" in asked(port, own, authority)
        assert asked(port, own, authority, check_name=False) == ""
    with storescp("--ignore") as port:
        assert "does it speak TLS on this port" in asked(port, own, authority)


def found(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in examine(settings)}


def test_doctor_tells_of_certificates_that_end_or_have_ended_and_calls_over_tls(authority: Authority, tmp_path: Path) -> None:
    own, soon = authority.issue("worker"), authority.issue("soon", ends=timedelta(days=20, hours=1))
    old, pacs = authority.issue("old", ends=timedelta(days=-1)), authority.issue("pacs")
    with storescp("--ignore", "+tls", pacs.key, pacs.certificate, "+cf", authority.file) as port:
        base = {"ae_title": "PACS", "host": "127.0.0.1", "port": port, "tls": True}
        destinations = [
            {"name": "good", **base},
            {"name": "soon", **base, "client_certificate": {"certificate": soon.certificate, "key": soon.key}},
            {"name": "old", **base, "client_certificate": {"certificate": old.certificate, "key": old.key}},
        ]
        settings = Settings.model_validate(
            {"data_dir": tmp_path / "var", "dicom": dicom_with(own, authority.file), "destinations": destinations}
        )
        checks = found(settings)
        assert checks["tls"].ok
        assert checks["certificate dicom.tls.certificate"].ok
        assert checks["certificate dicom.tls.ca"].ok
        warned = checks["certificate destination soon: client_certificate.certificate"]
        assert (warned.ok, warned.advisory, "in 20 days" in warned.detail) == (False, True, True)
        ended = checks["certificate destination old: client_certificate.certificate"]
        assert (ended.ok, ended.advisory, f"{old.certificate} expired on" in ended.detail) == (False, False, True)
        assert checks["destination good"].detail.endswith("answers C-ECHO over TLS")
        assert checks["destination soon"].ok
        assert not checks["destination old"].ok


def test_doctor_says_which_file_of_ours_does_not_fit(authority: Authority, tmp_path: Path) -> None:
    own, other = authority.issue("worker"), authority.issue("other")
    mixed = Pair(certificate=own.certificate, key=other.key)
    checks = found(Settings(data_dir=tmp_path / "var", dicom=dicom_with(mixed, tmp_path / "missing.pem")))
    assert (checks["tls"].ok, "does not belong to" in checks["tls"].detail) == (False, True)
    ca = checks["certificate dicom.tls.ca"]
    assert (ca.ok, ca.advisory, "missing.pem: no such file" in ca.detail) == (False, False, True)
