"""``cxr-worker demo``: starts a PACS and the worker, sends studies, waits for the reports."""

import json
import os
import shutil
import subprocess  # the demo starts a worker  # nosec B404
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from rich.console import Console
from rich.progress import Progress

from cxr_models.catalogue import FOLDER_LABELS
from cxr_models.errors import ModelError
from cxr_models.images import SUFFIXES, read_radiograph
from dicom_io.errors import DicomError
from dicom_io.header import read_header
from dicom_io.sender import send
from dicom_io.uids import derived_uid
from dicom_io.values import Peer, StudyUID
from dicom_io.wrap import Exposure, Patient, dx_from_grayscale
from worker.db import listing
from worker.db.database import Database, open_database
from worker.demo.pacs import AE_TITLE, Pacs, small_pacs
from worker.demo.phantom import synthetic_radiograph
from worker.errors import ConfigurationError
from worker.values import StudyState

QUIET_SECONDS = 1.0
SYNTHETIC_STUDIES = 6
_START_SECONDS = 120.0
_PATIENCE_SECONDS = 120.0
_ENDS = {StudyState.DELIVERED, StudyState.NOT_ANALYSED, StudyState.FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStudy:
    """One image, sent as a study of its own (DICOM files as the study they belong to)."""

    uid: StudyUID
    source: str
    truth: str | None
    """The label that the folder's name gives, if it does."""
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningWorker:
    """The worker under demonstration."""

    peer: Peer
    database: Database


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What became of one study."""

    study: DemoStudy
    found: dict[str, Any] | None
    """As `listing.show_study` gives it; None where the worker has none of it."""
    seconds: float | None
    """From the last C-STORE response to the report in the PACS; None where none came."""

    @property
    def came_to_its_end(self) -> bool:
        """Whether it was delivered, not analysed, or failed: whether nothing of it is left to do."""
        return self.found is not None and self.found["state"] in _ENDS


def run_demo(images: Path | None, *, keep: bool, limit: int) -> list[DemoResult]:
    """Run the loop; answer what became of each study, in the order in which they were sent.

    Raises
    ------
    ConfigurationError
        The folder holds no radiograph, or the worker does not start.
    """
    console = Console(stderr=True)
    folder = Path(tempfile.mkdtemp(prefix="cxr-demo-"))
    try:
        with small_pacs(folder / "pacs") as pacs, Progress(console=console, transient=True) as progress:
            studies = _studies(images, folder / "outgoing", limit, progress)
            console.print(f"PACS {AE_TITLE} listens on 127.0.0.1:{pacs.port}; starting the worker …")
            with _worker(folder, pacs.port) as worker:
                console.print(f"Worker {worker.peer.ae_title} listens on 127.0.0.1:{worker.peer.port}.")
                sent_at = _send(studies, worker.peer, progress)
                _wait(studies, worker.database, pacs, progress)
                with worker.database.read() as connection:
                    shown = {study.uid: listing.show_study(connection, study.uid) for study in studies}
        if images is None:
            console.print("These pictures are synthetic: what the model says of them means nothing.")
        took = {uid: at - sent_at[uid] for uid, at in pacs.reported_at.items() if uid in sent_at}
        return [DemoResult(study=each, found=shown[each.uid], seconds=took.get(each.uid)) for each in studies]
    finally:
        if keep:
            console.print(f"Kept: {folder} (pacs/ holds the reports, var/ what the worker received).")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _studies(images: Path | None, folder: Path, limit: int, progress: Progress) -> list[DemoStudy]:
    folder.mkdir()
    if images is None:
        pictures = [
            (f"synthetic {number}", None, synthetic_radiograph(number)) for number in range(min(limit, SYNTHETIC_STUDIES))
        ]
        return [_wrapped(name, truth, picture, folder) for name, truth, picture in pictures]
    if not images.is_dir():
        raise ConfigurationError(f"--images: {images} is no folder.")
    files = sorted(path for path in images.rglob("*") if path.is_file() and not path.name.startswith("."))
    studies: dict[StudyUID, DemoStudy] = {}
    task = progress.add_task("Reading", total=len(files))
    for path in _spread(files):
        if len(studies) == limit:
            break
        study = _study_of(path, images, folder)
        progress.advance(task)
        if study is not None:
            before = studies.get(study.uid)
            studies[study.uid] = study if before is None else _with(before, study.files)
    if not studies:
        raise ConfigurationError(f"--images: {images} holds no PNG, JPEG or DICOM file.")
    return sorted(studies.values(), key=lambda study: study.source)


def _spread(files: Sequence[Path]) -> Iterator[Path]:
    """Files of the folders in turn, so that a limit takes some of each."""
    by_folder: dict[Path, list[Path]] = {}
    for path in files:
        by_folder.setdefault(path.parent, []).append(path)
    longest = max((len(group) for group in by_folder.values()), default=0)
    for place in range(longest):
        yield from (group[place] for group in by_folder.values() if place < len(group))


def _study_of(path: Path, root: Path, folder: Path) -> DemoStudy | None:
    name, truth = str(path.relative_to(root)), FOLDER_LABELS.get(path.parent.name.lower())
    try:
        if path.suffix.lower() in SUFFIXES:
            return _wrapped(name, truth, np.round(read_radiograph(path) * 255).astype(np.uint8), folder)
        ds = read_header(path)
        return DemoStudy(uid=StudyUID(str(ds.StudyInstanceUID)), source=name, truth=truth, files=(path,))
    except (ModelError, DicomError, AttributeError):
        return None


def _wrapped(name: str, truth: str | None, picture: np.ndarray[Any, np.dtype[np.uint8]], folder: Path) -> DemoStudy:
    uid = StudyUID(derived_uid("demo study", name))
    number = int(uid[-6:])
    patient = Patient(name=f"Demo^Patient {number:06}", patient_id=f"DEMO-{number:06}")
    ds: Dataset = dx_from_grayscale(picture, patient, exposure=Exposure(study_uid=uid, taken_at=datetime.now(UTC)))
    path = folder / f"{uid}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return DemoStudy(uid=uid, source=name, truth=truth, files=(path,))


def _with(study: DemoStudy, files: tuple[Path, ...]) -> DemoStudy:
    return DemoStudy(uid=study.uid, source=study.source, truth=study.truth, files=study.files + files)


@contextmanager
def _worker(folder: Path, pacs_port: int) -> Iterator[RunningWorker]:
    """`cxr-worker serve` in a process of its own, as it runs anywhere else."""
    config, log = folder / "cxr-worker.toml", folder / "worker.log"
    config.write_text(
        f'data_dir = "{folder / "var"}"\n[dicom]\nport = 0\n[web]\nport = 0\n[study]\nquiet_seconds = {QUIET_SECONDS}\n'
        f'[[destinations]]\nname = "pacs"\nae_title = "{AE_TITLE}"\nhost = "127.0.0.1"\nport = {pacs_port}\n'
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith("CXR_")}
    with log.open("wb") as output:
        command = [sys.executable, "-m", "worker", "serve", "--config", str(config)]
        process = subprocess.Popen(command, stderr=output, env=own)  # noqa: S603  our own command  # nosec B603
    try:
        port = _port_when_ready(process, log)
        database = open_database(f"sqlite:///{folder / 'var' / 'worker.db'}")
        yield RunningWorker(peer=Peer(ae_title="CXRWORKER", host="127.0.0.1", port=port), database=database)
        database.close()
    finally:
        process.terminate()
        process.wait(30)


def _port_when_ready(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = monotonic() + _START_SECONDS
    while monotonic() < deadline:
        for line in log.read_text().splitlines():
            if line.startswith("{") and (event := json.loads(line)).get("event") == "ready":
                return int(event["port"])
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        raise ConfigurationError(f"the worker ended with exit code {process.returncode}: {log.read_text()[-500:].strip()}")
    raise ConfigurationError(f"the worker was not ready after {_START_SECONDS:.0f} s.")


def _send(studies: Sequence[DemoStudy], peer: Peer, progress: Progress) -> dict[StudyUID, float]:
    """Send each study over an association of its own; answer when its last C-STORE response came."""
    sent_at = {}
    for study in progress.track(studies, description="Sending"):
        for outcome in send(peer, study.files, calling_ae_title=AE_TITLE):
            if outcome.error is not None:
                progress.console.print(f"{study.source}: {outcome.error}")
        sent_at[study.uid] = monotonic()
    return sent_at


def _wait(studies: Sequence[DemoStudy], database: Database, pacs: Pacs, progress: Progress) -> None:
    task = progress.add_task("Waiting for reports", total=len(studies))
    deadline = monotonic() + _PATIENCE_SECONDS
    done, uids = 0, {study.uid for study in studies}
    while done < len(studies) and monotonic() < deadline:
        with database.read() as connection:
            found = listing.list_studies(connection, state=None, since=None, limit=100_000)
        now_done = sum(study["state"] in _ENDS for study in found if study["study_uid"] in uids)
        if now_done > done:
            deadline = monotonic() + _PATIENCE_SECONDS
        done = now_done
        progress.update(task, completed=done)
        pacs.wait(0.2)
