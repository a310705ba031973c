"""The migrations make the tables that the code expects, from nothing, and take them away again; on both databases."""

from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import insert, inspect, select, update

import migrations
from tests.factories import make_dx, make_study, study_uid
from tests.fakes import NOON, FakePacs, make_site
from worker.db import events
from worker.db.database import Database
from worker.db.events import Chosen, Event
from worker.db.migrate import current_revision, differences, newest_revision, require_newest, upgrade
from worker.db.schema import events as events_table
from worker.db.schema import instances, metadata, predictions, studies
from worker.db.soundness import require_guarded
from worker.errors import DatabaseDamaged, DatabaseOutdated
from worker.values import StudyId


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


def _migrate(database: Database, revision: str) -> None:
    config, back = _config(), revision in {"base", "-1"} or revision < (current_revision(database) or "")
    with database.write() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if back else command.upgrade)(config, revision)


def _tables(database: Database) -> set[str]:
    with database.read() as connection:
        return set(inspect(connection).get_table_names()) - {"alembic_version"}


def test_an_empty_database_is_at_no_migration_and_refused(empty_database: Database) -> None:
    assert current_revision(empty_database) is None
    with pytest.raises(DatabaseOutdated, match=r"is at migration none, .*'cxr-worker db upgrade'"):
        require_newest(empty_database)


def test_the_migrations_make_exactly_the_schema(empty_database: Database) -> None:
    upgrade(empty_database)
    assert current_revision(empty_database) == newest_revision()
    require_newest(empty_database)
    assert _tables(empty_database) == set(metadata.tables)
    assert differences(empty_database) == []


def test_constraints_are_those_of_the_schema(empty_database: Database) -> None:
    upgrade(empty_database)
    with empty_database.read() as connection:
        found = {
            constraint["name"] for table in metadata.tables for constraint in inspect(connection).get_check_constraints(table)
        }
    wanted = {
        constraint.name
        for table in metadata.tables.values()
        for constraint in table.constraints
        if type(constraint).__name__ == "CheckConstraint"
    }
    assert found == wanted


def test_upgrading_twice_changes_nothing(empty_database: Database) -> None:
    upgrade(empty_database)
    upgrade(empty_database)
    assert differences(empty_database) == []


def test_every_migration_can_be_taken_back_and_made_again(empty_database: Database) -> None:
    revisions = list(ScriptDirectory.from_config(_config()).walk_revisions())
    upgrade(empty_database)
    for _ in revisions:
        _migrate(empty_database, "-1")
    assert _tables(empty_database) == set()
    for revision in reversed(revisions):
        _migrate(empty_database, revision.revision)
    assert differences(empty_database) == []


def test_answers_of_the_first_release_are_the_active_models_and_sure(empty_database: Database) -> None:
    _migrate(empty_database, "0001")
    words = dict.fromkeys(("patient_id", "issuer_of_patient_id", "sha256", "path", "transfer_syntax", "modality"), "")
    rows = {
        studies: {"study_uid": "1.2", "accession_number": "", "state": "reported", "last_received_at": NOON},
        instances: {"study_id": 1, "sop_instance_uid": "1.2.3", "sop_class_uid": "", "series_uid": "", "size": 0, "turn": 1}
        | {"calling_ae_title": "", "peer_address": ""},
        predictions: {"study_id": 1, "instance_id": 1, "generation": 1, "model": "lenet5", "version": "1.0.0"}
        | {"weights_sha256": "ab", "temperature": 1.0, "thresholds": {}, "probabilities": {}, "present": {}, "label": "Normal"}
        | {"flagged": False, "predicted_at": NOON},
    }
    with empty_database.write() as connection:
        for table, row in rows.items():
            usual = {name: value for name, value in {**words, "received_at": NOON}.items() if name in table.c}
            connection.execute(insert(table).values({**usual, **row}))
    upgrade(empty_database)
    with empty_database.write() as connection:
        found = connection.execute(select(predictions.c.role, predictions.c.undetermined, predictions.c.model)).one()
        assert tuple(found) == ("active", False, "lenet5")
        row = connection.execute(select(predictions)).mappings().one()
        connection.execute(insert(predictions).values({**row, "id": 2, "role": "shadow"}))
    for _ in list(ScriptDirectory.from_config(_config()).walk_revisions())[:-1]:
        _migrate(empty_database, "-1")
    with empty_database.read() as connection:
        assert connection.exec_driver_sql("SELECT model FROM predictions").scalars().all() == ["lenet5"]


def test_of_what_was_not_analysed_before_it_was_marked_nobody_is_told_twice(
    empty_database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    upgrade(empty_database)
    site = make_site(empty_database, tmp_path / "var", destinations=(pacs.destination(outputs=("not_analysed",)),))
    for name, views in (("told", ("LL",)), ("untold", ("LL",)), ("analysed", ("PA",))):
        if name == "untold":
            site.configure(destinations=())
        site.receive(*make_study(name, views=views))  # type: ignore[arg-type]
        site.settle()
    _migrate(empty_database, "0013")
    upgrade(empty_database)
    assert differences(empty_database) == []
    with empty_database.read() as connection:
        found = {row.study_uid: row.untold for row in connection.execute(select(studies))}
    assert found == {study_uid("told"): True, study_uid("untold"): True, study_uid("analysed"): False}
    site.parts = replace(
        site.parts,
        settings=site.parts.settings.model_copy(update={"destinations": (pacs.destination(outputs=("not_analysed",)),)}),
    )
    site.settle()
    assert site.deliver() == 2
    assert sorted(ds.StudyInstanceUID for ds in pacs.received) == sorted([study_uid("told"), study_uid("untold")])
    with empty_database.read() as connection:
        assert not connection.execute(select(studies.c.id).where(studies.c.untold)).all()


def test_events_that_were_recorded_before_they_kept_whose_study_it_was_go_on_naming_whose_it_is(
    empty_database: Database,
) -> None:
    _migrate(empty_database, "0014")
    with empty_database.write() as connection:
        study = {"study_uid": "1.2", "patient_id": "TEST-A", "issuer_of_patient_id": "", "accession_number": "ACC-A"}
        moments = {"received_at": NOON, "last_received_at": NOON}
        connection.execute(insert(studies).values(state="ready", **study, **moments))
        event = {"study_id": 1, "kind": "complete", "detail": "", "facts": {}, "at": NOON}
        connection.execute(insert(events_table).values(event))
    upgrade(empty_database)
    with empty_database.write() as connection:
        events.record(connection, Event(kind="reported", study_id=StudyId(1), at=NOON))
        connection.execute(update(studies).values(patient_id="TEST-B"))
        found = [(each.event.kind, each.patient_id) for each in events.recorded(connection, Chosen())]
    assert found == [("complete", "TEST-B"), ("reported", "TEST-A")]


def test_a_migration_that_fails_leaves_the_database_as_it_was(empty_database: Database) -> None:
    with empty_database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE deliveries (id INTEGER)")
    with pytest.raises(Exception, match="deliveries"):
        upgrade(empty_database)
    assert _tables(empty_database) == {"deliveries"}
    assert current_revision(empty_database) is None


def test_a_table_that_is_not_as_it_should_be_is_told(empty_database: Database) -> None:
    upgrade(empty_database)
    with empty_database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE events ADD COLUMN surprise INTEGER")
        connection.exec_driver_sql("DROP INDEX ix_events_at")
    found = " ".join(differences(empty_database))
    assert "surprise" in found
    assert "ix_events_at" in found


def test_triggers_that_keep_events_are_missed(empty_database: Database) -> None:
    upgrade(empty_database)
    require_guarded(empty_database)
    with empty_database.write() as connection:
        if empty_database.dialect == "postgresql":
            connection.exec_driver_sql("ALTER TABLE events DISABLE TRIGGER events_append_only")
        else:
            connection.exec_driver_sql("DROP TRIGGER events_no_delete")
            connection.exec_driver_sql("CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT 1; END")
    with pytest.raises(DatabaseDamaged, match=r"trigger events_(append_only|no_delete) is missing or changed"):
        require_guarded(empty_database)


def test_a_database_of_a_newer_version_is_refused(empty_database: Database) -> None:
    upgrade(empty_database)
    with empty_database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseOutdated, match=r"is at migration 9999, this version needs"):
        require_newest(empty_database)


def test_the_worker_runs_on_a_migrated_database(empty_database: Database, tmp_path: Path) -> None:
    upgrade(empty_database)
    site = make_site(empty_database, tmp_path / "var")
    site.receive(make_dx())
    site.settle()
    assert site.study(study_uid())["state"] == "reported"


def test_every_migration_begins_with_a_sentence() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    for revision in scripts.walk_revisions():
        assert revision.doc
        assert revision.doc[0].isupper()
        assert revision.doc.endswith(".")
