"""The system as it is deployed: a process that receives, one that does the rest, a database and a PACS, each on its own."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom

from sqlalchemy import text

from tests.servers import Orthanc, Worker, destination, orthanc, wait_for
from worker.cli.doctor import examine
from worker.configuration import read_settings
from worker.db.database import open_database
from worker.db.migrate import upgrade
from worker.errors import DatabaseUnavailable

OUTPUTS = ("sr", "text_sr")
START_SECONDS = 120.0
_STEADY_PORTS = range(20_000, 32_000)
"""Below those that outgoing connections take: a port must still be free when its process is started again."""


def steady_port() -> int:
    """Find a free port that stays free."""
    while True:
        port = SystemRandom().choice(_STEADY_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Process:
    """One ``cxr-worker`` process, which may be killed and started again and again."""

    def __init__(self, worker: Worker, name: str, *, ready: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._worker = worker
        self._ready = ready.encode()
        self._environment = {**worker.environment, "OMP_NUM_THREADS": "1", **(environment or {})}
        self._log = worker.folder / f"{name.replace(' ', '-')}.log"
        self._begin = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.died = 0
        """How often it ended by itself."""

    def start(self) -> None:
        """Start it; it is not ready yet."""
        with self._log.open("ab") as log:
            self._begin = log.tell()
            command = [sys.executable, "-m", "worker", self.name.split()[0], "--config", str(self._worker.config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)

    @property
    def is_ready(self) -> bool:
        """Whether it has said so since it was started. If it has ended by itself, it is started again, which is counted."""
        if self._process is not None and self._process.poll() is not None:
            self.died += 1
            self.start()
        with self._log.open("rb") as log:
            log.seek(self._begin)
            return self._ready in log.read()

    def await_ready(self) -> None:
        """Wait until it works."""
        wait_for(lambda: self.is_ready, f"{self.name} is ready; its log is {self._log}", seconds=START_SECONDS)

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is said."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def stop(self) -> int:
        """SIGTERM; answer the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        code, self._process = self._process.wait(60), None
        return code


class Pacs:
    """An Orthanc that may be killed and started again over the same storage."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ports = {"dicom_port": steady_port(), "http_port": steady_port()}
        self._life = ExitStack()
        self.running = self._start()

    def _start(self) -> Orthanc:
        return self._life.enter_context(orthanc(self._folder, **self._ports))

    def kill(self) -> None:
        """SIGKILL."""
        if self.running.process is not None:
            self.running.process.kill()
        self._life.close()

    def start(self) -> None:
        """Start it again."""
        self.running = self._start()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the database says of its studies."""

    studies: Mapping[str, int] = field(default_factory=dict)
    """By state."""
    delivered: int = 0

    @property
    def analysed(self) -> int:
        """Studies with an answer."""
        return sum(self.studies.get(state, 0) for state in ("analysed", "reported", "delivered"))


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """All of it, running."""

    worker: Worker
    pacs: Pacs
    receivers: Mapping[int, Process]
    """By port."""
    runner: Process

    @property
    def processes(self) -> tuple[Process, ...]:
        """Those of ours."""
        return (*self.receivers.values(), self.runner)

    def standing(self) -> Standing | None:
        """How far everything is; None while the database is away."""
        try:
            with closing(open_database(self.worker.database_url)) as database, database.read() as connection:
                states = connection.execute(text("SELECT state, count(*) FROM studies GROUP BY state"))
                sent = connection.execute(text("SELECT count(*) FROM deliveries WHERE state = 'delivered'"))
                return Standing(studies={row[0]: row[1] for row in states}, delivered=sent.scalar_one())
        except DatabaseUnavailable:
            return None

    def doctor(self) -> list[str]:
        """What ``cxr-worker doctor --deep`` finds wrong; how much of the disk is free does not count here."""
        checks = examine(read_settings(self.worker.config), deep=True)
        return [f"doctor, {check.name}: {check.detail}" for check in checks if not check.ok and check.name != "disk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What a scenario wants otherwise."""

    database_url: str | None = None
    """None: SQLite in the data folder."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of every process."""
    receivers: tuple[Mapping[str, str], ...] = ({},)
    """One for each, with its environment."""


@contextmanager
def running(folder: Path, deployment: Deployment) -> Iterator[System]:
    """Start everything; end it by its own process ids. A data folder that is mounted there may be there already."""
    with ExitStack() as stack:
        pacs = Pacs(folder / "pacs")
        stack.callback(pacs.kill)
        config = f"[study]\nquiet_seconds = 1\n{destination(pacs.running, outputs=OUTPUTS)}"
        worker = Worker(folder, config, database_url=deployment.database_url)
        with closing(open_database(worker.database_url)) as database:
            upgrade(database)
        receivers = {}
        for number, wanted in enumerate(deployment.receivers, start=1):
            port = steady_port()
            environment = {**deployment.environment, "CXR_DICOM__PORT": str(port), **wanted}
            receivers[port] = Process(worker, f"receive {number}", ready='"event": "ready"', environment=environment)
        runner = Process(worker, "run", ready='"event": "runner.leads"', environment=deployment.environment)
        system = System(worker=worker, pacs=pacs, receivers=receivers, runner=runner)
        for process in system.processes:
            stack.callback(process.kill)
            process.start()
        for process in system.processes:
            process.await_ready()
        yield system
