"""What happened is told to the audit repository as DICOM audit messages by syslog, in order, once it is there."""

import json
import re
import socket
import ssl
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from dicom_io.audit_message import encode
from tests.audit_schema import violations
from tests.certificates import Authority
from tests.conftest import Run
from tests.factories import make_dx, make_study, study_uid
from tests.fakes import FakePacs, Site, free_port, make_site, request_for, take_in
from tests.servers import wait_for
from tests.syslog_server import SyslogServer, tls_syslog, udp_syslog
from worker import log
from worker.audit import syslog
from worker.audit.job import Auditor
from worker.audit.messages import messages_of, reporter_of
from worker.audit.presence import noted
from worker.db import audit_positions, events
from worker.db.database import Database
from worker.db.events import Chosen, Event
from worker.keeping.retention import retain
from worker.schedule import Schedule
from worker.service import utc_now
from worker.setting_types import CertificateSettings
from worker.settings import AuditSettings, KeepingSettings
from worker.tls import audit_context
from worker.values import StudyId

HEADER = re.compile(
    rb"<85>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 [!-~]{1,255} cxr-worker \d+ DICOM\+RFC3881 - \xef\xbb\xbf(?=<\?xml )"
)


@pytest.fixture
def database_kind() -> str:
    """Nothing here is another on PostgreSQL, but for the order of numbers."""
    return "sqlite"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def own(authority: Authority) -> CertificateSettings:
    pair = authority.issue("worker")
    return CertificateSettings(certificate=pair.certificate, key=pair.key)


@pytest.fixture
def repository(authority: Authority) -> Iterator[SyslogServer]:
    with tls_syslog(authority.issue("repository"), authority) as running:
        yield running


@pytest.fixture
def audit(repository: SyslogServer, own: CertificateSettings, authority: Authority) -> dict[str, Any]:
    """How the repository is told."""
    return {"port": repository.port, "client_certificate": own, "ca": authority.file}


@pytest.fixture
def site(database: Database, tmp_path: Path, pacs: FakePacs, audit: dict[str, Any]) -> Site:
    made = make_site(database, tmp_path / "var", destinations=(pacs.destination(outputs=("sr",)),))
    told(made, **audit)
    return made


def told(site: Site, **audit: Any) -> None:
    """Have a site tell another repository."""
    settings = site.parts.settings.model_copy(update={"audit": AuditSettings(host="127.0.0.1", **audit)})
    site.parts = replace(site.parts, settings=settings)


def tell(site: Site) -> None:
    auditor = Auditor(site.parts)
    while auditor.tell():
        pass


def parsed(messages: list[bytes]) -> list[ET.Element]:
    """The XML of syslog messages, each looked over."""
    found = []
    for message in messages:
        header = HEADER.match(message)
        assert header, message[:120]
        xml = message[header.end() :]
        assert violations(xml) == []
        found.append(ET.fromstring(xml))  # noqa: S314  our own
    return found


def codes(root: ET.Element) -> tuple[str, ...]:
    event = root.find("EventIdentification")
    assert event is not None
    return tuple(each.get("originalText", "") for each in event if each.tag != "EventOutcomeDescription")


def one_of_each(site: Site) -> None:
    """A study on its whole way, what operators do, and a stranger."""
    with noted(site.parts, roles=["run"]):
        site.receive(make_dx())
        site.settle()
        site.deliver()
    facts = {
        "refused": {"ae_title": "STRANGER", "address": "192.0.2.7"},
        "model_activated": {"user": "somebody", "model": "lenet5"},
        "audit_exported": {"user": "somebody", "format": "jsonl"},
        "database_backed_up": {"user": "somebody", "file": "backup.db"},
        "database_restored": {"user": "somebody", "file": "backup.db", "last_event_id": 67},
        "retry": {"user": "somebody", "deliveries": [1]},
    }
    with site.database.write() as connection:
        for kind, each in facts.items():
            events.record(connection, Event(kind=kind, at=site.clock(), detail="why", facts=each))


def test_a_studys_way_is_told_in_order(site: Site, repository: SyslogServer) -> None:
    one_of_each(site)
    tell(site)
    roots = parsed(repository.received)
    assert [codes(root) for root in roots] == [
        ("Application Activity", "Application Start"),
        ("DICOM Instances Transferred",),
        ("DICOM Instances Accessed",),
        ("DICOM Instances Transferred",),
        ("Application Activity", "Application Stop"),
        ("Security Alert", "Node Authentication"),
        ("Security Alert", "Software Configuration"),
        ("Audit Log Used",),
        ("Audit Log Used",),
        ("Security Alert", "Software Configuration"),
    ]
    received, decided, sent = roots[1:4]
    assert [root.find("EventIdentification").get("EventActionCode") for root in (received, decided, sent)] == ["C", "R", "R"]  # type: ignore[union-attr]
    assert [each.get("UserID") for each in received.findall("ActiveParticipant")] == ["MODALITY", "CXRWORKER"]
    assert [each.get("UserID") for each in sent.findall("ActiveParticipant")] == ["CXRWORKER", "PACS"]
    for root in (received, decided, sent):
        study, patient = (each.get("ParticipantObjectID") for each in root.findall("ParticipantObjectIdentification"))
        assert (study, patient) == (study_uid(), "TEST-0001")
    details = {each.get("type"): b64decode(each.get("value", "")).decode() for each in decided.iter("ParticipantObjectDetail")}
    assert (details["model"], details["version"], details["triage"]) == ("fake", "1.0", "routine")
    assert details["weights_sha256"] == site.engine.model.weights_sha256
    assert [each.get("UID") for each in sent.iter("Instance")], "the report that was sent"
    alert = roots[5].findall("ActiveParticipant")[1]
    assert (alert.get("UserID"), alert.get("NetworkAccessPointID")) == ("STRANGER", "192.0.2.7")


def test_what_happened_before_an_image_of_another_patient_came_is_told_of_the_patient_it_happened_to(
    site: Site, repository: SyslogServer, cxr_worker: Run
) -> None:
    first, second = make_study(views=("PA", "AP"))
    first.PatientID, first.AccessionNumber, first.IssuerOfPatientID = "TEST-A", "ACC-A", "HOSPITAL"
    second.PatientID, second.AccessionNumber = "TEST-B", "ACC-B"
    site.receive(first)
    site.settle()
    site.deliver()
    site.receive(second)
    site.settle()
    tell(site)

    def whose(roots: list[ET.Element]) -> list[tuple[str | None, ...]]:
        return [
            (
                root.findall("ParticipantObjectIdentification")[1].get("ParticipantObjectID"),
                *(each.get("Number") for each in root.iter("Accession")),
            )
            for root in roots
        ]

    before, after = ("TEST-A", "ACC-A"), ("TEST-B", "ACC-B")
    roots = parsed(repository.received)
    assert whose(roots) == [before, before, before, after, after], "received, decided, sent; received, decided"
    issuers = [
        b64decode(each.get("value", ""))
        for root in roots
        for each in root.iter("ParticipantObjectDetail")
        if each.get("type") == "IssuerOfPatientID"
    ]
    assert issuers == [b"HOSPITAL"] * 3
    _, exported, _ = cxr_worker("audit", "export", "--study", study_uid(), "--format", "dicom")
    assert whose([ET.fromstring(line) for line in exported.splitlines()]) == whose(roots)  # noqa: S314  our own


def test_a_study_that_was_received_is_told_once_for_each_who_sent_of_it_since_it_was_told_last(
    site: Site, repository: SyslogServer
) -> None:
    first, second, third = make_study(views=("PA", "AP", "PA"))
    site.receive(first, calling_ae_title="MOD1", peer_address="192.0.2.1")
    site.receive(second, calling_ae_title="MOD2", peer_address="192.0.2.2")
    site.settle()
    tell(site)

    def sources() -> list[list[str]]:
        named = [[each.get("UserID", "") for each in root.findall("ActiveParticipant")] for root in parsed(repository.received)]
        return [each for each in named if len(each) == 2]

    assert sources() == [["MOD1", "CXRWORKER"], ["MOD2", "CXRWORKER"]]
    repository.received.clear()
    site.receive(third, calling_ae_title="MOD1", peer_address="192.0.2.1")
    site.settle()
    tell(site)
    assert sources() == [["MOD1", "CXRWORKER"]]


def test_who_sent_an_image_again_whose_file_was_damaged_is_told(site: Site, repository: SyslogServer) -> None:
    ds = make_dx()
    site.receive(ds, calling_ae_title="MOD1")
    site.settle()
    tell(site)
    (file,) = site.received_files()
    file.write_bytes(b"damaged")
    repository.received.clear()
    site.receive(ds, calling_ae_title="MOD2")
    site.settle()
    tell(site)
    root, *_ = parsed(repository.received)
    assert [each.get("UserID") for each in root.findall("ActiveParticipant")] == ["MOD2", "CXRWORKER"]


def test_a_study_that_was_received_before_senders_were_noted_is_told_all_the_same(site: Site, repository: SyslogServer) -> None:
    site.receive(make_dx())
    with site.database.write() as connection:
        events.record(connection, Event(kind=events.COMPLETE, at=site.clock(), study_id=StudyId(1)))
    tell(site)
    (root,) = parsed(repository.received)
    assert [each.get("UserID") for each in root.findall("ActiveParticipant")] == ["unknown", "CXRWORKER"]


@pytest.mark.parametrize(
    ("by", "requestors"), [({}, {"CXRWORKER": "true"}), ({"user": "somebody"}, {"somebody": "true", "CXRWORKER": "false"})]
)
def test_files_that_are_deleted_are_told_with_who_asked_for_it(
    site: Site, repository: SyslogServer, by: dict[str, str], requestors: dict[str, str]
) -> None:
    site.receive(make_dx())
    site.settle()
    site.deliver()
    settings = site.parts.settings.model_copy(update={"keeping": KeepingSettings(days=1)})
    site.clock.go_on(days=2)
    assert retain(site.database, settings, clock=site.clock, **by) == 1
    tell(site)
    deleted = parsed(repository.received)[-1]
    assert codes(deleted) == ("DICOM Study Deleted",)
    assert {each.get("UserID"): each.get("UserIsRequestor") for each in deleted.findall("ActiveParticipant")} == requestors
    study, patient = (each.get("ParticipantObjectID") for each in deleted.findall("ParticipantObjectIdentification"))
    assert (study, patient) == (study_uid(), "TEST-0001")


def test_nothing_is_told_twice(site: Site, repository: SyslogServer) -> None:
    site.receive(make_dx())
    site.settle()
    tell(site)
    before = list(repository.received)
    tell(site)
    assert repository.received == before
    assert repository.connections == 1
    site.deliver()
    tell(site)
    assert [codes(root) for root in parsed(repository.received[len(before) :])] == [("DICOM Instances Transferred",)]


def test_while_the_repository_is_away_studies_go_on_and_it_is_told_afterwards(
    site: Site, repository: SyslogServer, pacs: FakePacs
) -> None:
    here, audit = repository.port, site.parts.settings.audit
    assert audit is not None
    away = audit.model_copy(update={"port": free_port()})
    site.configure(audit=away)
    site.receive(make_dx())
    tell(site)
    site.settle()
    tell(site)
    assert site.deliver() == 1
    assert len(pacs.received) == 1
    assert repository.received == []

    back = audit.model_copy(update={"port": here})
    site.configure(audit=back)
    tell(site)
    assert len(repository.received) == 3, "received, decided, sent"


def test_what_a_broken_connection_may_have_lost_is_told_again(site: Site, repository: SyslogServer) -> None:
    one_of_each(site)
    repository.breaks_after = 2
    assert Auditor(site.parts).tell() is False
    with site.database.read() as connection:
        assert audit_positions.told(connection, site.parts.settings.audit.address) == 0  # type: ignore[union-attr]
    repository.breaks_after = None
    repository.received.clear()
    tell(site)
    assert len(repository.received) == 10


def test_a_repository_that_always_breaks_off_after_two_messages_is_told_all(site: Site, repository: SyslogServer) -> None:
    one_of_each(site)
    repository.breaks_after = 2
    auditor = Auditor(site.parts)
    for _ in range(40):
        auditor.tell()
    with site.database.read() as connection:
        recorded = list(events.recorded(connection, Chosen()))
        assert audit_positions.told(connection, "tls://127.0.0.1:" + str(repository.port)) == recorded[-1].id
    reporter = reporter_of(site.parts.settings)
    to_tell = {encode(message) for each in recorded for message in messages_of(each, reporter)}
    assert len(set(repository.received)) == len(to_tell)


@pytest.mark.parametrize("reads", [False, True], ids=["a repository that hangs", "a repository that never says that TLS ends"])
def test_only_who_closes_the_connection_having_read_all_of_it_was_told(
    site: Site, authority: Authority, monkeypatch: pytest.MonkeyPatch, *, reads: bool
) -> None:
    monkeypatch.setattr(syslog, "_SECONDS", 0.5)
    pair, context = authority.issue("mute"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    one_of_each(site)
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor() as threads:
        told(site, port=listening.getsockname()[1], ca=authority.file)

        def serve() -> ssl.SSLSocket:
            connection = context.wrap_socket(listening.accept()[0], server_side=True, suppress_ragged_eofs=False)
            while reads and connection.recv(65536):
                pass
            if reads:  # TLS has ended; it waits for TCP to end, and closes without a word
                plain = socket.socket(fileno=connection.detach())
                assert plain.recv(1) == b""
                plain.close()
            return connection

        serving = threads.submit(serve)
        Auditor(site.parts).tell()
        with serving.result(), site.database.read() as connection:
            position = audit_positions.told(connection, site.parts.settings.audit.address)  # type: ignore[union-attr]
            assert position == (events.newest_id(connection) if reads else 0)


def test_more_than_one_connection_carries_all_come(site: Site, repository: SyslogServer) -> None:
    with site.database.write() as connection:
        for number in range(450):
            facts = {"ae_title": f"CALLER{number}", "address": "192.0.2.7"}
            events.record(connection, Event(kind=events.REFUSED, at=site.clock(), facts=facts))
    tell(site)
    names = [root.findall("ActiveParticipant")[1].get("UserID") for root in parsed(repository.received)]
    assert names == [f"CALLER{number}" for number in range(450)]


def test_a_repository_that_is_not_who_it_should_be_is_told_nothing(
    site: Site, repository: SyslogServer, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    told(site, port=repository.port, ca=other.file)
    one_of_each(site)
    tell(site)
    assert repository.received == []


def test_a_repository_named_otherwise_is_told_nothing_unless_its_name_does_not_matter(
    site: Site, authority: Authority, own: CertificateSettings
) -> None:
    with tls_syslog(authority.issue("elsewhere", hosts=["elsewhere.test"]), authority) as running:
        one_of_each(site)
        told(site, port=running.port, ca=authority.file, client_certificate=own)
        tell(site)
        assert running.received == []
        told(site, port=running.port, ca=authority.file, client_certificate=own, check_name=False)
        tell(site)
        assert len(running.received) == 10


def test_tls_1_1_is_not_spoken(site: Site) -> None:
    audit = site.parts.settings.audit
    assert audit is not None
    assert audit_context(site.parts.settings, audit).minimum_version == ssl.TLSVersion.TLSv1_2


def test_over_udp_each_message_is_a_datagram(site: Site) -> None:
    with udp_syslog() as (port, listening):
        told(site, port=port, transport="udp")
        one_of_each(site)
        tell(site)
        messages = [listening.recv(65536) for _ in range(10)]
    assert codes(parsed(messages)[0]) == ("Application Activity", "Application Start")


def test_a_study_of_more_senders_than_a_datagram_could_name_is_told_over_udp(site: Site) -> None:
    for number, ds in enumerate(make_study(views=("PA",) * 260)):
        site.receive(ds, calling_ae_title=f"MOD{number:013d}", peer_address="192.0.2.7")
    site.settle()
    with udp_syslog() as (port, listening):
        told(site, port=port, transport="udp")
        auditor = Auditor(site.parts)
        assert auditor.tell() is False
        named = {parsed([listening.recv(65536)])[0].findall("ActiveParticipant")[0].get("UserID") for _ in range(20)}
    assert len(named) == 20
    with site.database.read() as connection:
        assert audit_positions.told(connection, site.parts.settings.audit.address) == events.newest_id(connection)  # type: ignore[union-attr]


def test_a_message_that_fits_into_no_datagram_is_shortened_and_the_next_ones_follow(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure(json_lines=True)
    with site.database.write() as connection:
        for words in ("before", "long " * 20_000, "after"):
            events.record(connection, Event(kind=events.REFUSED, at=site.clock(), detail=words))
    with udp_syslog() as (port, listening):
        told(site, port=port, transport="udp")
        tell(site)
        roots = parsed([listening.recv(65536) for _ in range(3)])
    assert [root.findtext(".//EventOutcomeDescription") for root in roots] == ["before", "long " * 40, "after"]
    assert [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()].count("audit.shortened") == 1
    with site.database.read() as connection:
        assert audit_positions.told(connection, site.parts.settings.audit.address) == 3  # type: ignore[union-attr]


def test_the_schedule_tells_by_itself(site: Site, repository: SyslogServer) -> None:
    site.receive(make_dx())
    site.settle()
    schedule = Schedule(replace(site.parts, clock=utc_now))
    schedule.start()
    try:
        wait_for(lambda: len(repository.received) >= 1, "the repository is told")
    finally:
        schedule.close()


def test_a_repository_that_is_mute_holds_up_no_study(site: Site, pacs: FakePacs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings = site.parts.settings
        audit = settings.audit.model_copy(update={"port": mute.getsockname()[1]})  # type: ignore[union-attr]
        study = settings.study.model_copy(update={"quiet_seconds": 0.1})
        settings = settings.model_copy(update={"audit": audit, "study": study})
        parts = replace(site.parts, clock=utc_now, settings=settings)
        with site.database.write() as connection:
            events.record(connection, Event(kind=events.REFUSED, at=utc_now()))
        take_in(request_for(make_dx()), parts)
        schedule = Schedule(parts)
        schedule.start()
        try:
            caller, _ = mute.accept()
            wait_for(lambda: pacs.received, "the report is delivered while the repository says nothing")
            caller.close()
        finally:
            schedule.close()


def test_the_log_says_once_that_the_repository_is_away_and_once_that_it_is_back(
    site: Site, repository: SyslogServer, capfd: pytest.CaptureFixture[str]
) -> None:
    log.configure(json_lines=True)
    auditor = Auditor(site.parts)
    one_of_each(site)
    repository.breaks_after = 1
    for _ in range(3):
        auditor.tell()
    repository.breaks_after = None
    auditor.tell()
    said = [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()]
    assert [event for event in said if event.startswith("audit.")] == ["audit.waits", "audit.goes_on"]


def test_doctor_says_how_long_the_repository_was_not_told(
    site: Site, audit: dict[str, Any], cxr_worker: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {"host": "127.0.0.1", "port": audit["port"], "ca": audit["ca"]}.items():
        monkeypatch.setenv(f"CXR_AUDIT__{key.upper()}", str(value))

    def found() -> dict[str, Any]:
        checks = json.loads(cxr_worker("doctor", "--json")[1])
        return next(check for check in checks if check["name"] == "audit")

    assert found()["ok"]
    with site.database.write() as connection:
        long_ago = utc_now() - timedelta(hours=2)
        events.record(connection, Event(kind=events.REFUSED, at=long_ago))
    assert not found()["ok"]
    assert "was not told what happened since" in found()["detail"]
    tell(site)
    assert found()["ok"]


def test_without_a_repository_nothing_is_noted(site: Site) -> None:
    site.configure(audit=None)
    one_of_each(site)
    assert Auditor(site.parts).tell() is False


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_an_event_that_is_numbered_first_and_committed_last_is_waited_for(site: Site, repository: SyslogServer) -> None:
    event = Event(kind=events.REFUSED, at=site.clock(), facts={"ae_title": "LATE", "address": "192.0.2.7"})
    thread = Thread(target=tell, args=(site,))
    with site.database.write() as slow:
        events.record(slow, event)
        with site.database.write() as quick:
            events.record(quick, replace(event, facts={"ae_title": "EARLY", "address": "192.0.2.7"}))
        thread.start()
        with site.database.hold() as looking:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass"
            wait_for(lambda: looking.exec_driver_sql(waiting).scalar_one() > 0, "the auditor waits for the writer")
    thread.join()
    names = [root.findall("ActiveParticipant")[1].get("UserID") for root in parsed(repository.received)]
    assert names == ["LATE", "EARLY"]


def test_audit_messages_are_exported_one_on_each_line(site: Site, cxr_worker: Run) -> None:
    one_of_each(site)
    code, out, _ = cxr_worker("audit", "export", "--format", "dicom")
    assert code == 0
    lines = out.splitlines()
    assert [violations(line.encode()) for line in lines] == [[]] * 11
    assert "Audit Log Used" in lines[-1], "that somebody did is told too"
