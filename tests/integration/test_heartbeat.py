"""A runner that hangs is noticed: by whoever asks, by Prometheus, and by systemd."""

import json
import os
import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest
from structlog.testing import capture_logs

from tests.conftest import TestDatabase
from tests.factories import make_study
from tests.fakes import FakeEngine, request_for, take_in
from tests.servers import wait_for, worker
from worker import service
from worker.heartbeat import LONGEST_TURN, Heartbeat, pet_watchdog
from worker.metrics import Metrics
from worker.pipeline import Parts
from worker.settings import MetricsSettings, Settings, WebSettings
from worker.values import ReadyStudy, StudyOutcome
from worker.web.server import figures, page

ON_ONE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
MOMENT = datetime(2031, 5, 20, 8, 0, tzinfo=UTC)
INTERVAL = timedelta(seconds=10)
TOO_LONG = (INTERVAL + LONGEST_TURN).total_seconds() + 1


class Systemd:
    """The socket that systemd would listen on, and who wrote there."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[tuple[bytes, int]]:
        """What was said since the last time, and the process ids of who said it."""
        said = []
        while True:
            try:
                word, credentials, *_ = self.socket.recvmsg(100, socket.CMSG_SPACE(12))
            except BlockingIOError:
                return said
            said.append((word, struct.unpack("iII", credentials[0][2])[0]))


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@cxr-worker-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    monkeypatch.setenv("WATCHDOG_USEC", "900000000")
    listening = Systemd(name.replace("@", "\0"))
    with closing(listening.socket):
        yield listening


@pytest.fixture
def heartbeat() -> Heartbeat:
    return Heartbeat(INTERVAL, clock=lambda: MOMENT)


def readyz(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["reason"]


@contextmanager
def leading(parts: Parts, heartbeat: Heartbeat) -> Iterator[service.Waker]:
    """A runner on threads of its own."""
    stop, wake = Event(), service.Waker()
    thread = Thread(target=service.lead_until, args=(stop, parts, wake, heartbeat))
    thread.start()
    try:
        wait_for(lambda: wake.schedule is not None, "it leads")
        yield wake
    finally:
        stop.set()
        thread.join(30)


class Stuck(FakeEngine):
    """Takes a study and does not come back until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.let_go = Event(), Event()

    def analyse(self, studies: Sequence[ReadyStudy]) -> Iterator[StudyOutcome]:
        self.began.set()
        assert self.let_go.wait(60)
        return super().analyse(studies)


def stuck_parts(test_database: TestDatabase, data_dir: Path, engine: Stuck) -> Parts:
    quick = {"study": {"quiet_seconds": 0}, "schedule": {"interval_seconds": 0.05}}
    settings = Settings.model_validate({"data_dir": data_dir} | quick)
    return Parts(settings=settings, database=test_database.opened, clock=service.utc_now, engine=lambda: engine)


@ON_ONE
def test_readyz_says_that_the_runner_hangs_and_that_it_goes_on(
    test_database: TestDatabase, tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_STANDBY_SECONDS", 0.02)
    now, engine = [0.0], Stuck()
    heartbeat = Heartbeat(INTERVAL, clock=service.utc_now, elapsed=lambda: now[0])
    parts = stuck_parts(test_database, tmp_path, engine)
    with (
        capture_logs() as said,
        page(test_database.opened, Metrics(), WebSettings(port=0), trouble=heartbeat.trouble),
        figures(test_database.opened, Metrics(), MetricsSettings(port=0), trouble=heartbeat.trouble),
        leading(parts, heartbeat) as wake,
        ExitStack() as at_last,
    ):
        at_last.callback(engine.let_go.set)
        ports = [line["port"] for line in said if line["event"] in {"web.ready", "metrics.ready"}]
        wait_for(systemd.heard, "systemd hears of a runner that turns")
        for ds in make_study(views=("PA",)):
            take_in(request_for(ds), parts)
        wake()
        assert engine.began.wait(30)
        assert [readyz(port)[0] for port in ports] == [200, 200]
        now[0] = TOO_LONG
        wait_for(lambda: [line for line in said if line["event"] == "runner.hangs"], "the log says so")
        assert readyz(ports[0]) == readyz(ports[1]) == (503, "The runner has not finished a turn for 15 minutes.")
        systemd.heard()
        mark = len(said)
        wait_for(_turns(wake, 5), "some looks at it")
        assert systemd.heard() == []
        assert not [line for line in said[mark:] if line["event"] == "runner.hangs"]
        engine.let_go.set()
        wait_for(lambda: readyz(ports[0])[0] == 200, "it goes on")
        wait_for(systemd.heard, "systemd hears of it again")


def _turns(wake: service.Waker, count: int) -> Callable[[], bool]:
    """Whether the loop that keeps the runner's time came round so often."""
    schedule, seen = wake.schedule, [0]
    assert schedule is not None
    keep_time = schedule.keep_time

    def counted() -> None:
        seen[0] += 1
        keep_time()

    schedule.keep_time = counted  # type: ignore[method-assign]
    return lambda: seen[0] >= count


def test_who_does_not_lead_is_in_no_trouble() -> None:
    now = [0.0]
    heartbeat = Heartbeat(INTERVAL, clock=lambda: MOMENT, elapsed=lambda: now[0])
    now[0] = TOO_LONG
    assert heartbeat.trouble() is None
    heartbeat.lead()
    assert heartbeat.trouble() is None
    now[0] *= 2
    assert heartbeat.trouble() is not None
    heartbeat.rest()
    assert heartbeat.trouble() is None


def test_the_moment_of_the_last_turn_is_told_once_there_was_one(heartbeat: Heartbeat) -> None:
    metrics = Metrics()
    metrics.registry.register(heartbeat)
    name = "cxr_runner_last_turn_timestamp_seconds"
    assert metrics.registry.get_sample_value(name) is None
    heartbeat.turned()
    assert metrics.registry.get_sample_value(name) == MOMENT.timestamp()


@ON_ONE
def test_a_turn_that_fails_is_a_turn(test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_parts: Parts) -> bool:
        raise RuntimeError

    monkeypatch.setattr("worker.pipeline.advance", broken)
    turned = Event()
    heartbeat = Heartbeat(INTERVAL, clock=service.utc_now)
    monkeypatch.setattr(heartbeat, "turned", turned.set)
    with leading(stuck_parts(test_database, tmp_path, Stuck()), heartbeat):
        assert turned.wait(30)


def test_nothing_is_said_where_systemd_keeps_no_watchdog_or_is_not_there(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    pet_watchdog()
    assert systemd.heard() == [(b"WATCHDOG=1", os.getpid())]
    monkeypatch.delenv("WATCHDOG_USEC")
    pet_watchdog()
    assert systemd.heard() == []
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    systemd.socket.close()
    pet_watchdog()


@pytest.mark.parametrize("role", ["serve", "receive"])
def test_of_several_processes_only_the_first_answers_for_the_worker(tmp_path: Path, role: str) -> None:
    listening = Systemd(str(tmp_path / "notify"))
    with closing(listening.socket), worker(tmp_path, "", dicom="receivers = 2\n") as running:
        running.environment |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000000"}
        running.start(role=role)
        assert running.process is not None
        heard: list[tuple[bytes, int]] = []
        wait_for(lambda: heard.extend(listening.heard()) or len(heard) > 1, "systemd hears of it twice")  # type: ignore[func-returns-value]
        children = psutil.Process(running.process.pid).children()
        assert set(heard) == {(b"WATCHDOG=1", min(child.pid for child in children))}
        assert running.stop() == 0
