"""How fast objects are taken in, durable and committed, beside `storescp --fork` and Orthanc, which sync nothing to disk."""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import psutil
from pydicom.dataset import Dataset

from dicom_io.uids import derived_uid
from dicom_io.values import StudyUID
from dicom_io.wrap import Exposure
from tests.factories import TAKEN_AT, make_dx, radiograph, write
from tests.servers import free_port, orthanc, wait_for, worker

ROUNDS = 3
SENDERS = 8
_MANY, _MANY_AT_ONCE = 10_000, 1_000
_MOST_GROWTH_MIB = 10
MOST_MEMORY_MIB = 300
_ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent in one go, and which share of the others' time it may take."""

    name: str
    objects: int
    rows: int
    columns: int
    senders: int
    to_storescp: float
    to_orthanc: float


LOADS = (
    Load(name="60 of 10 MB, one association", objects=60, rows=2500, columns=2048, senders=1, to_storescp=1.2, to_orthanc=0.35),
    Load(
        name="500 of 256 KB, one association", objects=500, rows=400, columns=320, senders=1, to_storescp=2.2, to_orthanc=0.45
    ),
    Load(name="the same by 8 senders", objects=500, rows=400, columns=320, senders=SENDERS, to_storescp=1.7, to_orthanc=0.5),
)


def run(folder: Path) -> None:
    """Send every load to each, in turns; print the medians and their ratios."""
    print(f"receiving, medians of {ROUNDS} rounds in turn, the sender is DCMTK's storescu")
    for load in LOADS:
        files = folder / "files"
        files.mkdir()
        paths = [_image(number, load, files) for number in range(load.objects)]
        seconds: dict[str, list[float]] = {"cxr-worker": [], "storescp": [], "Orthanc": []}
        memory = 0.0
        for number in range(ROUNDS):
            kept = folder / f"round-{number}"
            kept.mkdir()
            with _storescp(kept / "scp") as port:
                seconds["storescp"].append(_send(port, paths, senders=load.senders))
            with _orthanc(kept / "pacs") as port:
                seconds["Orthanc"].append(_send(port, paths, senders=load.senders))
            with _receiver(kept / "worker") as (port, process):
                seconds["cxr-worker"].append(_send(port, paths, senders=load.senders))
                memory = max(memory, _peak_mib(process))
        _print(load, seconds, memory)
        for path in (files, *folder.glob("round-*")):  # not before: the disk forgets while the next one writes
            rmtree(path)
    _flat(folder)


def _print(load: Load, seconds: dict[str, list[float]], memory: float) -> None:
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    ours = medians["cxr-worker"]
    told = ", ".join(f"{name} {median:.2f} s" for name, median in medians.items())
    print(f"  {load.name}: {told}; peak memory {memory:.0f} MiB")
    for name, most in (("storescp", load.to_storescp), ("Orthanc", load.to_orthanc)):
        ratio = ours / medians[name]
        print(f"    {ratio:.2f} of {name}'s time, must be at most {most}: {'yes' if ratio <= most else 'NO'}")
    print(f"    memory must be under {MOST_MEMORY_MIB} MiB: {'yes' if memory < MOST_MEMORY_MIB else 'NO'}")


def _flat(folder: Path) -> None:
    """Send many small objects; print the memory at the beginning and at the end."""
    template = write(_small(_MANY), folder / "template.dcm").read_bytes()
    with _receiver(folder / "many") as (port, process):
        resident = []
        for begin in range(0, _MANY, _MANY_AT_ONCE):
            paths = []
            for number in range(begin, begin + _MANY_AT_ONCE):
                paths.append(folder / f"{number}.dcm")
                paths[-1].write_bytes(template.replace(_many_uid(_MANY).encode(), _many_uid(number).encode()))
            _send(port, paths, senders=SENDERS)
            resident.append(process.memory_info().rss / 1024**2)
            for path in paths:
                path.unlink()
    first, last = resident[0], resident[-1]
    verdict = "yes" if last - first < _MOST_GROWTH_MIB else "NO"
    print(f"  {_MANY} small objects by {SENDERS} senders: {first:.0f} MiB after {_MANY_AT_ONCE}, {last:.0f} MiB in the end")
    print(f"    memory must grow by less than {_MOST_GROWTH_MIB} MiB: {verdict}")


def _small(number: int) -> Dataset:
    exposure = Exposure(study_uid=StudyUID(derived_uid("bench", "many")), taken_at=TAKEN_AT)
    ds = make_dx(radiograph(64, 64, seed=0), exposure=exposure)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = _many_uid(number)
    return ds


def _many_uid(number: int) -> str:
    """Of equal length for every number."""
    return f"2.25.{10**30 + number}"


def _image(number: int, load: Load, folder: Path) -> Path:
    exposure = Exposure(study_uid=StudyUID(derived_uid("bench", str(number // 4))), taken_at=TAKEN_AT)
    picture = radiograph(load.rows, load.columns, seed=0).astype("uint16") * 16
    picture[0, :8] = number
    ds: Dataset = make_dx(picture, exposure=exposure)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = derived_uid("bench", load.name, str(number))
    return write(ds, folder / f"{number}.dcm")


def _send(port: int, paths: Sequence[Path], *, senders: int) -> float:
    """Seconds that storescu takes, each sender with its share."""
    command = ["storescu", "-R", "-aet", "BENCH", "-aec", "ANY", "127.0.0.1", str(port)]
    os.sync()  # what others left to be written is not ours to wait for
    shares = [[str(path) for path in paths[place::senders]] for place in range(senders)]
    began = time.perf_counter()
    processes = [subprocess.Popen([*command, *share], env=_ENVIRONMENT) for share in shares]
    codes = [process.wait() for process in processes]  # with a limit it would look every 50 ms alone
    taken = time.perf_counter() - began
    assert codes == [0] * senders, codes
    return taken


@contextmanager
def _storescp(folder: Path) -> Iterator[int]:
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen(["storescp", "--fork", "-od", str(folder), str(port)], env=_ENVIRONMENT)
    try:
        wait_for(lambda: _echoes(port), "storescp answers")
        yield port
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _orthanc(folder: Path) -> Iterator[int]:
    folder.mkdir()
    with orthanc(folder) as pacs:
        yield pacs.dicom_port


@contextmanager
def _receiver(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    folder.mkdir()
    with ExitStack() as stack:
        made = stack.enter_context(worker(folder, ""))
        with made.log.open("ab") as log:
            command = [sys.executable, "-m", "worker", "receive", "--config", str(made.config)]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=made.environment)
        try:
            wait_for(lambda: _echoes(made.port), "the receiver answers", seconds=60)
            yield made.port, psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _echoes(port: int) -> bool:
    return subprocess.run(["echoscu", "127.0.0.1", str(port)], capture_output=True, check=False).returncode == 0


def _peak_mib(process: psutil.Process) -> float:
    """The highest resident memory so far."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
