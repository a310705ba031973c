"""The record of events tells who sent, what was decided by which model, where it went and who asked; and nobody changes it."""

import json
import os
import pwd
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, build_context
from pynetdicom.sop_class import Verification
from sqlalchemy import delete, update

import worker
from tests.conftest import Run
from tests.factories import make_dx, make_study, study_uid
from tests.fakes import FakePacs, Site, make_site
from tests.servers import wait_for
from worker.db import events, schema
from worker.db.database import Database
from worker.db.events import Chosen, Event
from worker.destination import Destination
from worker.receivers import receiver
from worker.settings import DicomSettings

PERSON = pwd.getpwuid(os.getuid()).pw_name


def recorded(database: Database, **chosen: Any) -> list[Event]:
    with database.read() as connection:
        return [each.event for each in events.recorded(connection, Chosen(**chosen))]


@pytest.fixture
def make(database: Database, tmp_path: Path) -> Callable[..., Site]:
    def made(*destinations: Destination) -> Site:
        return make_site(database, tmp_path / "var", destinations=destinations)

    return made


@pytest.mark.parametrize("statement", [update(schema.events).values(detail="another"), delete(schema.events)])
def test_an_event_can_neither_be_changed_nor_deleted(make: Callable[..., Site], statement: Any) -> None:
    site = make()
    site.receive(make_dx())
    before = recorded(site.database)
    with pytest.raises(Exception, match="events are append-only"), site.database.write() as connection:
        connection.execute(statement)
    assert recorded(site.database) == before != []


def test_an_event_cannot_be_replaced(make: Callable[..., Site]) -> None:
    site = make()
    site.receive(make_dx())
    before = recorded(site.database)
    replacing = {"sqlite": "REPLACE INTO events (id, at, kind) SELECT id, at, 'another' FROM events"} | {
        "postgresql": "INSERT INTO events (id, at, kind) SELECT id, at, 'another' FROM events"
        " ON CONFLICT (id) DO UPDATE SET kind = excluded.kind"
    }
    with pytest.raises(Exception, match="events are append-only"), site.database.write() as connection:
        connection.exec_driver_sql(replacing[site.database.dialect])
    assert recorded(site.database) == before != []


def test_postgresql_does_not_empty_the_table_either(make: Callable[..., Site]) -> None:
    site = make()
    site.receive(make_dx())
    before = recorded(site.database)
    if site.database.dialect == "postgresql":
        with pytest.raises(Exception, match="events are append-only"), site.database.write() as connection:
            connection.exec_driver_sql("TRUNCATE events")
    assert recorded(site.database) == before


def test_no_code_changes_events() -> None:
    folder = Path(worker.__file__).parent
    changing = re.compile(r"\b(update|delete)\((schema\.)?events\b|(UPDATE|DELETE FROM) events\b")
    assert not [path for path in folder.rglob("*.py") if changing.search(path.read_text())]


def test_a_studys_events_tell_who_sent_what_was_decided_by_which_model_and_where_it_went(
    make: Callable[..., Site], pacs: FakePacs
) -> None:
    site = make(pacs.destination())
    ds = make_dx()
    site.engine.labels[ds.SOPInstanceUID] = "COVID-19"
    site.receive(ds)
    site.settle()
    site.deliver()

    found = {event.kind: event for event in recorded(site.database, study_uid=study_uid())}
    sender = {"ae_title": "MODALITY", "address": "127.0.0.1"}
    assert found["opened"].facts == sender
    assert found["complete"].facts == {"senders": [sender | {"instances": 1}], "turn": 1}
    model = site.engine.model
    assert found["analysed"].facts == {
        "images": 1,
        "labels": {"COVID-19": 1},
        "triage": "urgent",
        "model": model.name,
        "version": model.version,
        "weights_sha256": model.weights_sha256,
    }
    sent = recorded(site.database, kind="sent")
    assert {event.facts["sop_instance_uid"] for event in sent} == {ds.SOPInstanceUID for ds in pacs.received}
    assert {(event.facts["destination"], event.facts["kind"], event.detail) for event in sent} == {
        ("pacs", "sr", "sr to pacs"),
        ("pacs", "capture", "capture to pacs"),
    }


def test_an_event_keeps_whose_study_it_was_about_and_no_list_of_events_shows_it(
    make: Callable[..., Site], cxr_worker: Run
) -> None:
    site = make()
    for ds, patient_id in zip(make_study(views=("PA", "AP")), ("TEST-77310452", "TEST-77310453"), strict=True):
        ds.PatientID, ds.AccessionNumber, ds.IssuerOfPatientID = patient_id, "ACC-5519047", "ISSUER-5519047"
        site.receive(ds)
        site.settle()
    with site.database.write() as connection:
        events.add(connection, "noise", at=site.clock())
    with site.database.read() as connection:
        found = [
            (each.event.kind, each.patient_id, each.issuer_of_patient_id, each.accession_number)
            for each in events.recorded(connection, Chosen())
        ]
    first, second = (("TEST-77310452", "ISSUER-5519047", "ACC-5519047"), ("TEST-77310453", "ISSUER-5519047", "ACC-5519047"))
    assert [whose for _, *whose in found[:4]] == [[*first]] * 4, "opened, complete, analysed, reported"
    assert ("complete", *second) in found[4:]
    assert found[-1] == ("noise", None, None, None)
    commands = (["export"], ["list", "--json"], ["list"])
    said = "".join(cxr_worker("audit", *command)[1] for command in commands) + json.dumps(site.study(study_uid())["events"])
    assert not re.search("7731045|5519047", said)


def test_a_report_that_is_given_up_tells_where_it_did_not_get(make: Callable[..., Site], pacs: FakePacs) -> None:
    site = make(pacs.destination(outputs=("sr",)))
    pacs.status = 0xC123
    site.receive(make_dx())
    site.settle()
    for _ in range(12):
        site.deliver()
        site.clock.go_on(hours=1)
    (given_up,) = recorded(site.database, kind=events.DELIVERY_FAILED)
    assert given_up.detail == "sr to pacs: C-STORE was answered 0xC123."
    assert given_up.facts["destination"] == "pacs"
    assert not recorded(site.database, kind="sent")


def test_who_was_refused_is_in_the_record(make: Callable[..., Site]) -> None:
    site = make()
    settings = site.parts.settings.model_copy(update={"dicom": DicomSettings(port=0, calling_ae_titles=("MODALITY",))})
    with receiver(replace(site.parts, settings=settings), arrived=lambda: None) as listener:
        contexts = [build_context(Verification)]
        assert not AE("STRANGER").associate("127.0.0.1", listener.port, contexts=contexts).is_established
        wait_for(lambda: recorded(site.database), "the refusal is noted")
    (event,) = recorded(site.database, kind=events.REFUSED)
    assert event.facts == {"ae_title": "STRANGER", "address": "127.0.0.1"}


def test_whoever_asks_for_something_is_in_the_record(make: Callable[..., Site], cxr_worker: Run) -> None:
    site = make()
    site.receive(make_dx())
    site.settle()
    assert cxr_worker("reprocess", study_uid())[0] == 0
    assert cxr_worker("models", "activate", "lenet5")[0] == 0
    assert cxr_worker("models", "activate", "lenet5", "--shadow")[0] == 0
    assert cxr_worker("models", "deactivate-shadow")[0] == 0
    assert cxr_worker("deliveries", "retry", "--all-failed")[0] == 0
    asked = [(event.kind, event.facts) for event in recorded(site.database) if "user" in event.facts]
    assert asked == [
        ("reprocess", {"user": PERSON}),
        ("model_activated", {"user": PERSON, "model": "lenet5"}),
        ("shadow_activated", {"user": PERSON, "model": "lenet5"}),
        ("shadow_activated", {"user": PERSON, "model": None}),
        ("retry", {"user": PERSON, "deliveries": []}),
    ]


def test_whoever_has_files_deleted_is_in_the_record(
    make: Callable[..., Site], pacs: FakePacs, cxr_worker: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make(pacs.destination())
    site.clock.go_on(days=-4000)  # long before today
    site.receive(make_dx())
    site.settle()
    site.deliver()
    monkeypatch.setenv("CXR_KEEPING__DAYS", "1")
    assert cxr_worker("db", "clean")[0] == 0
    (event,) = recorded(site.database, kind="files_removed")
    assert event.facts == {"user": PERSON}


def test_the_one_behind_sudo_is_named(cxr_worker: Run, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "somebody")
    cxr_worker("deliveries", "retry", "--all-failed")
    (event,) = recorded(database)
    assert event.facts["user"] == f"{PERSON} for somebody"


def test_events_are_listed_by_study_kind_and_age(make: Callable[..., Site], cxr_worker: Run) -> None:
    site = make()
    site.receive(make_dx())
    site.clock.go_on(days=1)
    site.settle()
    assert [row["kind"] for row in json.loads(cxr_worker("audit", "list", "--json")[1])] == [
        "opened",
        "complete",
        "analysed",
        "reported",
    ]
    since = site.clock().isoformat()
    later = json.loads(cxr_worker("audit", "list", "--json", "--since", since)[1])
    assert [row["kind"] for row in later] == ["complete", "analysed", "reported"]
    (opened,) = json.loads(cxr_worker("audit", "list", "--json", "--study", study_uid(), "--kind", "opened")[1])
    assert opened["study_uid"] == study_uid()
    assert opened["facts"] == {"ae_title": "MODALITY", "address": "127.0.0.1"}
    assert json.loads(cxr_worker("audit", "list", "--json", "--study", "1.2.3")[1]) == []
    code, out, _ = cxr_worker("audit", "list", "--kind", "opened")
    assert code == 0
    assert "ae_title MODALITY, address 127.0.0.1" in out


def test_events_are_exported_one_on_each_line_and_that_is_an_event_too(make: Callable[..., Site], cxr_worker: Run) -> None:
    site = make()
    site.receive(make_dx())
    site.settle()
    code, out, _ = cxr_worker("audit", "export", "--since", "2000-01-01")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["kind"] for line in lines] == ["opened", "complete", "analysed", "reported", "audit_exported"]
    assert lines[-1]["facts"] == {"user": PERSON, "format": "jsonl"}
    assert "TEST-0001" not in out, "no patient's ID stands in it"


def test_more_events_than_fit_in_memory_at_once_all_come(database: Database, make: Callable[..., Site]) -> None:
    now = make().clock()
    with database.write() as connection:
        for number in range(1100):
            events.record(connection, Event(kind="numbered", at=now, facts={"number": number}))
    assert [event.facts["number"] for event in recorded(database)] == list(range(1100))
