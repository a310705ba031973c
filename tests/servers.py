"""Real peers for tests and benchmarks: an Orthanc and a worker, each a process on free loopback ports, ended by its own id."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.requirements import need
from worker.db import listing
from worker.db.database import Database, open_database

START_SECONDS = 60.0
T = TypeVar("T")


def wait_for(look: Callable[[], T | None], what: str, *, seconds: float = 30.0) -> T:
    """Look again and again until there is an answer, and fail naming what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = look()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthanc:
    """A running Orthanc."""

    dicom_port: int
    http_port: int
    process: subprocess.Popen[bytes] | None = None

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            body: bytes = answer.read()
        return body if path.endswith("/file") else json.loads(body)

    def delete(self, path: str) -> None:
        """Delete what is there."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", method="DELETE")
        urllib.request.urlopen(request, timeout=10).close()

    def instances_of(self, study_uid: str, modality: str) -> list[str]:
        """Orthanc's ids of the instances of a study that have a modality."""
        body = json.dumps({"Level": "Instance", "Query": {"StudyInstanceUID": study_uid, "Modality": modality}}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}/tools/find", data=body)
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: list[str] = json.loads(answer.read())
        return found


@contextmanager
def orthanc(
    folder: Path,
    *,
    dicom_port: int | None = None,
    http_port: int | None = None,
    plugins: Sequence[str] = (),
    callers: Mapping[str, int] | None = None,
) -> Iterator[Orthanc]:
    """Run an Orthanc that keeps its storage in a folder. `callers` are AE titles that it may call, and their ports."""
    settings = {
        "Name": "TESTPACS",
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "DicomAet": "ORTHANC",
        "DicomPort": dicom_port or free_port(),
        "HttpPort": http_port or free_port(),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowFind": True,
        "DicomModalities": {title: [title, "127.0.0.1", port] for title, port in (callers or {}).items()},
        "Plugins": list(plugins),
    }
    (folder / "orthanc").mkdir(exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("ab") as log:
        command, environment = ["Orthanc", str(folder / "orthanc.json")], os.environ | {"TCP_NODELAY": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    running = Orthanc(dicom_port=settings["DicomPort"], http_port=settings["HttpPort"], process=process)  # type: ignore[arg-type]
    try:
        wait_for(lambda: _answers(running), "Orthanc answers", seconds=START_SECONDS)
        yield running
    finally:
        process.terminate()
        process.wait(30)


def _answers(running: Orthanc) -> bool:
    try:
        return bool(running.get("/system"))
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


class Worker:
    """`cxr-worker` over one data folder; `start` and `kill` may follow each other."""

    def __init__(self, folder: Path, config: str, *, dicom: str = "", database_url: str | None = None) -> None:
        self.folder = folder
        self.log = folder / "worker.log"
        self.config = folder / "cxr-worker.toml"
        self.port = free_port()
        self.database_url = database_url or f"sqlite:///{folder / 'var' / 'worker.db'}"
        self.config.write_text(
            f'data_dir = "{folder / "var"}"\ndatabase_url = "{self.database_url}"\n'
            f"[dicom]\nport = {self.port}\n{dicom}[web]\nport = 0\n{config}"
        )
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CXR_")}
        self.environment = inherited | {"TCP_NODELAY": "1"}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, program: Sequence[str] = ("-m", "worker"), role: str = "serve") -> None:
        """Start `serve`, or another that receives, and wait until it accepts associations."""
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            command = [sys.executable, *program, role, "--config", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        wait_for(self._ready_or_ended, f"the worker is ready; its log is {self.log}", seconds=START_SECONDS)
        assert self.process.poll() is None, self.log.read_text()

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is said."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        """SIGTERM; answer the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def events(self) -> list[dict[str, Any]]:
        """The log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]

    def command(self, *arguments: str) -> str:
        """Run a subcommand and answer its stdout."""
        done = self._run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def complaint(self, *arguments: str, code: int) -> str:
        """Run a subcommand that must fail with an exit code, and answer its stderr."""
        done = self._run(*arguments)
        assert done.returncode == code, done.stderr
        return done.stderr

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "worker", *arguments, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)

    def study(self, study_uid: str) -> dict[str, Any] | None:
        """What `studies show --json` says, without the second that the command takes to start; None where it is unknown."""
        with self._database() as database, database.read() as connection:
            return listing.show_study(connection, study_uid)

    def studies(self) -> list[dict[str, Any]]:
        """What `studies list --json` says."""
        with self._database() as database, database.read() as connection:
            return listing.list_studies(connection, state=None, since=None, limit=100_000)

    def _database(self) -> closing[Database]:
        return closing(open_database(self.database_url))

    def _ready_or_ended(self) -> bool:
        ended = self.process is not None and self.process.poll() is not None
        return ended or any(event["event"] == "ready" for event in self.events())


@contextmanager
def worker(folder: Path, config: str, *, dicom: str = "", database_url: str | None = None) -> Iterator[Worker]:
    """A worker that is not started yet, and ends with the test."""
    made = Worker(folder, config, dicom=dicom, database_url=database_url)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.kill()


def destination(pacs: Orthanc, *, outputs: Sequence[str] = ("sr", "capture"), name: str = "pacs") -> str:
    """The configuration block that makes an Orthanc a destination."""
    return (
        f'[[destinations]]\nname = "{name}"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {pacs.dicom_port}\n'
        f"outputs = {json.dumps(list(outputs))}\n"
    )


@contextmanager
def storescp(*options: str | Path) -> Iterator[int]:
    """DCMTK's acceptor on a free port."""
    need("storescp")
    port = free_port()
    process = subprocess.Popen(["storescp", "--fork", *map(str, options), str(port)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _listens(port), "storescp listens")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def storescu(port: int, *paths: Path, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Send files with DCMTK, one association."""
    return subprocess.run(
        ["storescu", "-aet", "MODALITY1", "-aec", "CXRWORKER", *options, "127.0.0.1", str(port), *map(str, paths)],
        capture_output=True,
        text=True,
        env=os.environ | {"TCP_NODELAY": "1"},
        check=False,
        timeout=120,
    )
