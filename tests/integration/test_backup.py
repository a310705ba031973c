"""The embedded database, copied while it is written to, and put back."""

import os
import pwd
import resource
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import pytest
from alembic import command
from alembic.config import Config

import migrations
from tests.conftest import Run, TestDatabase
from tests.factories import make_study, study_uid
from tests.fakes import NOON, Site, make_site
from worker.db import events
from worker.db.database import open_database
from worker.db.events import Chosen
from worker.errors import DatabaseUnavailable
from worker.keeping.backup import require_usable
from worker.keeping.orphans import Fate, mend
from worker.leader import leadership

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "var"


def _studies(path: Path) -> int:
    with closing(sqlite3.connect(path)) as found:
        return int(found.execute("SELECT count(*) FROM studies").fetchone()[0])


def test_a_backup_is_one_whole_file_readable_to_nobody_else(cxr_worker: Run, site: Site, tmp_path: Path) -> None:
    site.receive(*make_study())
    file = tmp_path / "backup.db"
    code, out, _ = cxr_worker("db", "backup", str(file))
    assert code == 0
    assert out.startswith(f"Wrote {file}: {file.stat().st_size} bytes, whole.")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert _studies(file) == 1
    assert {path.name for path in tmp_path.glob("backup*")} == {"backup.db"}


def test_a_backup_made_while_rows_are_written_is_consistent(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path
) -> None:
    stop = Event()
    writer = open_database(test_database.url)

    def write() -> None:
        while not stop.is_set():
            with writer.write() as connection:  # two rows at a time: a copy has an even number of them
                events.add(connection, "one", at=NOON)
                events.add(connection, "other", at=NOON)

    thread = Thread(target=write)
    thread.start()
    try:
        for number in range(5):
            assert cxr_worker("db", "backup", str(tmp_path / f"{number}.db"))[0] == 0
    finally:
        stop.set()
        thread.join()
        writer.close()
    for number in range(5):
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as found:
            assert found.execute("SELECT count(*) FROM events WHERE kind <> 'database_backed_up'").fetchone()[0] % 2 == 0


def test_a_backup_replaces_no_file(cxr_worker: Run, test_database: TestDatabase, tmp_path: Path) -> None:  # noqa: ARG001
    (tmp_path / "backup.db").write_text("precious")
    code, _, said = cxr_worker("db", "backup", str(tmp_path / "backup.db"))
    assert code == 2
    assert "already" in said
    assert (tmp_path / "backup.db").read_text() == "precious"


@pytest.fixture
def backup(cxr_worker: Run, test_database: TestDatabase, site: Site, tmp_path: Path) -> Iterator[Path]:
    """A backup of a database with one study; another came since, and nobody has the database open."""
    site.receive(*make_study("before", views=("PA",)))
    assert cxr_worker("db", "backup", str(tmp_path / "backup.db"))[0] == 0
    site.receive(*make_study("since", views=("PA",)))
    test_database.opened.close()
    return tmp_path / "backup.db"


def test_a_restored_database_is_the_one_of_the_backup_and_the_one_before_is_kept(
    cxr_worker: Run, backup: Path, test_database: TestDatabase, site: Site, tmp_path: Path
) -> None:
    code, out, said = cxr_worker("db", "restore", str(backup))
    assert code == 0, said
    (before,) = tmp_path.glob("worker.db.before-*")
    assert str(before) in out
    assert (_studies(tmp_path / "worker.db"), _studies(before)) == (1, 2)
    assert stat.S_IMODE((tmp_path / "worker.db").stat().st_mode) == 0o600
    restored = make_site(open_database(test_database.url), site.parts.data_dir)
    assert mend(restored.parts) == {Fate.ENTERED: 1}, "what was received since the backup"
    restored.settle()
    assert restored.study(study_uid("since"))["state"] == "reported"
    restored.database.close()


def test_who_copied_the_database_and_who_put_a_copy_back_is_in_the_record(
    cxr_worker: Run, backup: Path, test_database: TestDatabase
) -> None:
    person = pwd.getpwuid(os.getuid()).pw_name
    with closing(open_database(test_database.url)) as database, database.read() as connection:
        (copied,) = events.recorded(connection, Chosen(kind="database_backed_up"))
        last = events.newest_id(connection)
    assert copied.event.facts == {"user": person, "file": "backup.db"}
    begin = datetime.now(UTC)
    assert cxr_worker("db", "restore", str(backup))[0] == 0
    with closing(open_database(test_database.url)) as database, database.read() as connection:
        *_, restored = events.recorded(connection, Chosen())
    assert restored.event.kind == "database_restored"
    assert restored.event.facts == {"user": person, "file": "backup.db", "last_event_id": last}
    assert begin <= restored.event.at <= datetime.now(UTC)


@pytest.mark.parametrize("who", ["a runner", "a receiver", "one that asked nothing yet"])
def test_no_database_is_restored_under_a_running_worker(
    cxr_worker: Run, backup: Path, test_database: TestDatabase, tmp_path: Path, who: str
) -> None:
    other = open_database(test_database.url)
    with ExitStack() as stack:
        stack.callback(other.close)
        if who == "a runner":
            stack.enter_context(leadership(other, data_dir=tmp_path / "var"))
        elif who == "a receiver":
            with other.read() as connection:
                events.count_since(connection, "opened", since=NOON)
        code, _, said = cxr_worker("db", "restore", str(backup))
    assert code == 1
    assert "Another runner works" in said or "stop 'serve', 'receive'" in said
    assert _studies(tmp_path / "worker.db") == 2


def test_nobody_opens_the_database_while_another_is_put_in_its_place(
    cxr_worker: Run, backup: Path, test_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def look(path: Path) -> None:
        require_usable(path)
        read.append(path.name)
        if len(read) > 1:  # of the backup alone nobody is kept from the database
            with pytest.raises(DatabaseUnavailable, match="'cxr-worker db restore' puts another"):
                open_database(test_database.url)

    monkeypatch.setattr("worker.keeping.backup.require_usable", look)
    code, _, said = cxr_worker("db", "restore", str(backup))
    assert code == 0, said
    assert read == ["backup.db", "worker.db.part", "worker.db"]
    open_database(test_database.url).close()


def test_where_no_file_can_be_locked_the_database_is_opened_and_restored_all_the_same(
    cxr_worker: Run, backup: Path, tmp_path: Path
) -> None:
    (tmp_path / "worker.db.lock").unlink()
    (tmp_path / "worker.db.lock").mkdir()
    assert cxr_worker("db", "check")[0] == 0
    assert cxr_worker("db", "restore", str(backup))[0] == 0


def test_a_backup_of_a_newer_version_is_refused(cxr_worker: Run, backup: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(backup)) as found, found:
        found.execute("UPDATE alembic_version SET version_num = '9999'")
    code, _, said = cxr_worker("db", "restore", str(backup))
    assert code == 1
    assert "at migration 9999, which this version does not know" in said
    assert _studies(tmp_path / "worker.db") == 2


@pytest.mark.parametrize(
    ("statements", "missing"),
    [
        (("DROP TRIGGER events_no_delete", "DELETE FROM events"), "trigger events_no_delete"),
        (("DROP TABLE activations",), "table activations"),
    ],
)
def test_a_backup_that_lacks_what_a_worker_made_is_refused(
    cxr_worker: Run, backup: Path, tmp_path: Path, statements: tuple[str, ...], missing: str
) -> None:
    with closing(sqlite3.connect(backup)) as found, found:
        for statement in statements:
            found.execute(statement)
    code, _, said = cxr_worker("db", "restore", str(backup))
    assert code == 1
    assert f"not as a worker left it: {missing} is missing or changed" in said
    assert _studies(tmp_path / "worker.db") == 2


@pytest.mark.parametrize("revision", ["0001", "0010", "0014"])
def test_a_backup_of_an_older_version_is_restored_as_it_was(
    cxr_worker: Run, tmp_path: Path, test_database: TestDatabase, revision: str
) -> None:
    test_database.opened.close()
    for file in tmp_path.glob("worker.db*"):
        file.unlink()
    with closing(open_database(test_database.url)) as old, old.write() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    code, _, said = cxr_worker("db", "backup", str(tmp_path / "old.db"))
    assert code == 0, said
    code, _, said = cxr_worker("db", "restore", str(tmp_path / "old.db"))
    assert code == 0, said
    with closing(sqlite3.connect(tmp_path / "worker.db")) as found:
        assert found.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]
    assert cxr_worker("db", "upgrade")[0] == 0
    assert cxr_worker("db", "check")[0] == 0


def test_a_damaged_backup_is_refused(cxr_worker: Run, backup: Path, tmp_path: Path) -> None:
    content = bytearray(backup.read_bytes())
    content[8192:20480] = bytes(12288)
    backup.write_bytes(content)
    code, _, said = cxr_worker("db", "restore", str(backup))
    assert code == 1
    assert "Traceback" not in said
    assert _studies(tmp_path / "worker.db") == 2


@pytest.mark.parametrize("content", [b"", b"no database at all, whatever its name says"])
def test_what_is_no_database_of_ours_is_refused(cxr_worker: Run, backup: Path, content: bytes) -> None:
    backup.write_bytes(content)
    assert cxr_worker("db", "restore", str(backup))[0] == 1


def test_a_damaged_database_is_replaced_and_kept(cxr_worker: Run, backup: Path, tmp_path: Path) -> None:
    (tmp_path / "worker.db").write_bytes(b"damaged")
    code, _, said = cxr_worker("db", "restore", str(backup))
    assert code == 0, said
    assert _studies(tmp_path / "worker.db") == 1
    assert next(tmp_path.glob("worker.db.before-*")).read_bytes() == b"damaged"


def test_the_log_of_another_database_is_not_played_into_the_restored_one(
    cxr_worker: Run, backup: Path, test_database: TestDatabase, tmp_path: Path
) -> None:
    log = tmp_path / "worker.db-wal"
    other = open_database(test_database.url)
    with other.write() as connection:
        for _ in range(200):
            events.add(connection, "opened", at=NOON, detail="word " * 100)
    left = log.read_bytes()
    other.close()
    log.write_bytes(left)  # as a worker that was killed leaves it
    (tmp_path / "worker.db").rename(tmp_path / "worker.db.broken")
    code, out, said = cxr_worker("db", "restore", str(backup))
    assert code == 0, said
    (kept,) = tmp_path.glob("worker.db.before-*-wal")
    assert kept.read_bytes() == left
    assert str(kept) in out
    with closing(sqlite3.connect(tmp_path / "worker.db")) as found:
        assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert found.execute("SELECT count(*) FROM events WHERE detail LIKE 'word%'").fetchone() == (0,)


@pytest.mark.parametrize("command", [("db", "check"), ("doctor", "--deep")])
def test_a_damaged_database_is_told(cxr_worker: Run, site: Site, test_database: TestDatabase, command: tuple[str, ...]) -> None:
    site.receive(*make_study())
    test_database.opened.close()
    place = Path(test_database.url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(place)) as found:
        page, size = found.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_events_at'").fetchone()[0], 4096
    content = bytearray(place.read_bytes())
    content[(page - 1) * size : page * size] = b"\xff" * size
    place.write_bytes(content)
    code, out, said = cxr_worker(*command)
    assert code == 1
    assert "The database is damaged: " in out + said
    assert "cxr-worker db restore FILE" in out + said
    assert "Traceback" not in said


def test_where_there_is_no_database_a_backup_makes_one(cxr_worker: Run, backup: Path, tmp_path: Path) -> None:
    (tmp_path / "worker.db").unlink()
    assert "There was none before." in cxr_worker("db", "restore", str(backup))[1]
    assert _studies(tmp_path / "worker.db") == 1


def test_a_second_restore_right_after_the_first_keeps_both(cxr_worker: Run, backup: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert cxr_worker("db", "restore", str(backup))[0] == 0
    assert len([*tmp_path.glob("worker.db.before-*")]) == 2


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_disk_without_room_is_told_and_leaves_nothing(cxr_worker: Run, backup: Path, tmp_path: Path, command: str) -> None:
    file = tmp_path / "another.db" if command == "backup" else backup
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        code, _, said = cxr_worker("db", command, str(file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1
    assert "Look whether there is room on its disk." in said
    assert not [*tmp_path.glob("*.part*"), *tmp_path.glob("another.db")]
    assert _studies(tmp_path / "worker.db") == 2


@pytest.mark.usefixtures("test_database")
@pytest.mark.parametrize("url", ["postgresql+psycopg://cxr@db.example:port/cxr", "nonsense"])
def test_what_is_no_url_is_a_configuration_error(cxr_worker: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CXR_DATABASE_URL", url)
    code, _, said = cxr_worker("db", "backup", "backup.db")
    assert code == 2
    assert "database_url: not a database URL" in said


@pytest.mark.usefixtures("test_database")
@pytest.mark.parametrize(("command", "tool"), [("backup", "pg_dump"), ("restore", "pg_restore")])
def test_for_postgresql_the_line_to_run_is_said_without_the_password(
    cxr_worker: Run, monkeypatch: pytest.MonkeyPatch, command: str, tool: str
) -> None:
    monkeypatch.setenv("CXR_DATABASE_URL", "postgresql+psycopg://cxr:hunter2@db.example/cxr")
    code, _, said = cxr_worker("db", command, "cxr.dump")
    assert code == 2
    assert f"run: {tool} --" in said
    assert "--dbname=postgresql://cxr@db.example/cxr" in said
    assert "hunter2" not in said
