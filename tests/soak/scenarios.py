"""The scenarios, each the trouble that it makes. Their docstrings stand in docs/reliability.md."""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import text

from tests.postgres import Cluster, cluster
from tests.servers import wait_for
from tests.soak.disks import FullDisk, PowerCut
from tests.soak.scenario import Course, Plain, Size
from tests.soak.system import Deployment, System, running
from worker.db.database import open_database

_BACK_SECONDS = 120.0


class Kills(Plain):
    """Receiver or runner is killed with ``kill -9`` and started again at once: the receiver after a random number of successes,
    mostly while the next object is on its way, the runner at any moment of its work, and one in ten while it still starts.
    """

    name = "kills"
    share = (1.0, 1.0)

    def disturb(self, course: Course) -> str:
        course.release()
        system, random = course.system, course.random
        victim = system.processes[random.integers(len(system.processes))]
        if random.random() < 0.1:
            course.go_on(random.uniform(0, 2))
        elif victim is system.runner:
            victim.await_ready()
            course.go_on(random.uniform(0, 6))
        else:
            victim.await_ready()
            course.wait_for_successes(rounds=2, seconds=2)
            course.go_on(random.uniform(0, 0.02))
        victim.kill()
        victim.start()
        return f"{'runner' if victim is system.runner else 'receiver'} killed"


class Postgres(Plain):
    """The database is PostgreSQL, and is broken off (``pg_ctl -m immediate``) and started again under load."""

    name = "postgres"
    share = (0.2, 0.2)

    def __init__(self) -> None:
        self._cluster: Cluster | None = None

    def lacks(self) -> str:
        found = shutil.which("pg_ctl") or any(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        return "" if found else "PostgreSQL is not installed"

    @contextmanager
    def system(self, folder: Path, size: Size) -> Iterator[System]:  # noqa: ARG002  part of the contract
        with cluster(durable=True) as self._cluster:
            url = self._cluster.url(self._cluster.create())
            with running(folder, Deployment(database_url=url)) as system:
                yield system

    def disturb(self, course: Course) -> str:
        assert self._cluster is not None
        course.release()
        course.wait_for_successes(rounds=1, seconds=5)
        course.go_on(course.random.uniform(0, course.random.choice([0.05, 4])))
        self._cluster.restart()
        return "database broken off"


class PacsAway(Plain):
    """Orthanc is killed with ``kill -9`` while it is sent reports, stays away until one could not be sent, and comes back."""

    name = "pacs"
    share = (0.2, 0.05)

    def disturb(self, course: Course) -> str:
        course.release()
        _await_delivery(course)
        course.go_on(course.random.uniform(0, 0.5))
        course.system.pacs.kill()
        wait_for(lambda: _unsent(course.system), "a report that could not be sent", seconds=_BACK_SECONDS)
        course.go_on(course.random.uniform(0, 5))
        course.system.pacs.start()
        return "PACS killed"


def _await_delivery(course: Course) -> None:
    """Wait until one more report has arrived."""
    before = _delivered(course.system)
    wait_for(lambda: _delivered(course.system) > before, "a report in the PACS", seconds=_BACK_SECONDS)


def _delivered(system: System) -> int:
    standing = system.standing()
    return 0 if standing is None else standing.delivered


def _unsent(system: System) -> bool:
    with closing(open_database(system.worker.database_url)) as database, database.read() as connection:
        waiting = connection.execute(text("SELECT count(*) FROM deliveries WHERE state = 'pending' AND attempts > 0"))
        return bool(waiting.scalar_one())


class SteppingClock(Plain):
    """The wall clock of receiver and runner steps by hours, forward and back; the clock that only counts seconds does not."""

    name = "clock"
    share = (0.2, 0.1)
    _hours = 6.0

    def __init__(self) -> None:
        self._offset = Path()

    def lacks(self) -> str:
        return "" if _faketime() else "libfaketime (Debian: faketime) is not installed"

    @contextmanager
    def system(self, folder: Path, size: Size) -> Iterator[System]:  # noqa: ARG002  part of the contract
        self._offset = folder / "offset"
        self._step(0)
        (folder / "sitecustomize.py").write_text(_SLEEP)
        environment = {
            "LD_PRELOAD": _faketime(),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else threads that wait for each other spin
            "NO_FAKE_STAT": "1",
            "PYTHONPATH": str(folder),
        }
        with running(folder, Deployment(environment=environment)) as system:
            yield system

    def disturb(self, course: Course) -> str:
        random = course.random
        before = float(self._offset.read_text())
        course.release()
        course.wait_for_successes(rounds=1, seconds=5)
        course.go_on(random.uniform(0, 3))
        after = round(random.uniform(-1, 1) * self._hours * 3600)
        self._step(after)
        return "clock forward" if after > before else "clock back"

    def calm(self, course: Course) -> None:  # noqa: ARG002  part of the contract
        self._step(0)

    def _step(self, seconds: int) -> None:
        new = self._offset.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.replace(self._offset)


_SLEEP = """import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
"""Python sleeps until a moment of the clock that only counts, which libfaketime 0.9.10 takes for one of the other clock."""


def _faketime() -> str:
    """The library for programs with threads, or nothing."""
    return next(map(str, Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), "")


SCENARIOS = (Kills, PowerCut, Postgres, PacsAway, FullDisk, SteppingClock)
