"""One runner for one database: on SQLite by a file's lock, on PostgreSQL by an advisory lock."""

import stat
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest
from structlog.testing import capture_logs

from tests.conftest import TestDatabase
from tests.fakes import FakeEngine
from tests.servers import wait_for
from worker import service
from worker.db.database import open_database
from worker.errors import AnotherRunner, DatabaseUnavailable
from worker.heartbeat import Heartbeat
from worker.leader import leadership
from worker.pipeline import Parts
from worker.settings import Settings


def test_a_second_runner_is_told_of_the_first_and_follows_when_it_has_gone(test_database: TestDatabase, tmp_path: Path) -> None:
    other = open_database(test_database.url)
    with leadership(test_database.opened, data_dir=tmp_path) as still_leading:
        assert still_leading()
        with pytest.raises(AnotherRunner), leadership(other, data_dir=tmp_path):
            pass
    with leadership(other, data_dir=tmp_path) as still_leading:
        assert still_leading()
    other.close()


def test_a_runner_that_ends_in_an_error_gives_the_lead_back(test_database: TestDatabase, tmp_path: Path) -> None:
    def lead_and_fail() -> None:
        with leadership(test_database.opened, data_dir=tmp_path):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lead_and_fail()
    other = open_database(test_database.url)
    with leadership(other, data_dir=tmp_path) as still_leading:
        assert still_leading()
    other.close()


def test_the_lead_goes_with_the_process(test_database: TestDatabase, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from worker.db.database import open_database\n"
        "from worker.leader import leadership\n"
        "with leadership(open_database(sys.argv[1]), data_dir=pathlib.Path(sys.argv[2])):\n"
        "    print('leads', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, test_database.url, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "leads\n"
        with pytest.raises(AnotherRunner), leadership(test_database.opened, data_dir=tmp_path):
            pass
        holder.kill()
        holder.wait()

    def lead() -> bool:
        try:
            with leadership(test_database.opened, data_dir=tmp_path):
                return True
        except AnotherRunner:  # the server needs a moment to see that the connection is gone
            return False

    wait_for(lead, "the lead")


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_nobody_else_can_take_the_lock_of_the_one_runner(test_database: TestDatabase, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    lock = tmp_path / "runner.lock"
    lock.touch(0o644)  # as an earlier version left it
    for _ in range(2):
        with leadership(test_database.opened, data_dir=tmp_path):
            assert stat.S_IMODE(lock.stat().st_mode) == 0o600
        lock.unlink()


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_runner_whose_connection_broke_knows_that_it_leads_no_more(test_database: TestDatabase, tmp_path: Path) -> None:
    other = open_database(test_database.url)
    with leadership(test_database.opened, data_dir=tmp_path) as still_leading:
        test_database.break_connections()
        assert not still_leading()
        assert not still_leading(), "asking again takes nobody else's place"
        with leadership(other, data_dir=tmp_path) as other_leads:
            assert other_leads()
    other.close()


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_no_lead_can_be_taken_while_the_database_is_away(test_database: TestDatabase, tmp_path: Path) -> None:
    with (
        test_database.away(),
        pytest.raises(DatabaseUnavailable),
        leadership(test_database.opened, data_dir=tmp_path),
    ):
        pass
    with leadership(test_database.opened, data_dir=tmp_path) as still_leading:
        assert still_leading()


class _Runner:
    """`worker.service.lead_until` in a thread."""

    def __init__(self, test_database: TestDatabase, data_dir: Path) -> None:
        self.database = open_database(test_database.url)
        self.waker = service.Waker()
        self.stop = Event()
        self.heartbeat = Heartbeat(timedelta(seconds=1), clock=service.utc_now)
        parts = Parts(
            settings=Settings(data_dir=data_dir),
            database=self.database,
            clock=lambda: datetime.now(UTC),
            engine=FakeEngine,
        )
        self.thread = Thread(target=service.lead_until, args=(self.stop, parts, self.waker, self.heartbeat))
        self.thread.start()

    @property
    def leads(self) -> bool:
        return self.waker.schedule is not None

    def end(self) -> None:
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.database.close()


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_STANDBY_SECONDS", 0.02)


@pytest.mark.usefixtures("_hasty")
def test_a_standby_takes_over_when_the_runner_goes(test_database: TestDatabase, tmp_path: Path) -> None:
    def standing_by() -> bool:
        return any(line["event"] == "runner.standby" for line in said)

    first = _Runner(test_database, tmp_path)
    with ExitStack() as stack, capture_logs() as said:
        stack.callback(first.end)
        wait_for(lambda: first.leads, "the first to lead")
        second = _Runner(test_database, tmp_path)
        stack.callback(second.end)
        wait_for(standing_by, "the second to stand by")
        assert not second.leads
        first.end()
        wait_for(lambda: second.leads, "the second to take over")


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_runner_outlives_its_database(test_database: TestDatabase, tmp_path: Path) -> None:
    runner = _Runner(test_database, tmp_path)
    with ExitStack() as stack:
        stack.callback(runner.end)
        wait_for(lambda: runner.leads, "the lead")
        with test_database.away():
            wait_for(lambda: not runner.leads, "the lead to be lost")
            assert runner.thread.is_alive()
        wait_for(lambda: runner.leads, "the lead again")
