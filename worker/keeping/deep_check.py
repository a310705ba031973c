"""The deep check: every stored file read again, its checksum, its permissions and its row compared."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from dicom_io.errors import DicomError
from dicom_io.found import dataset_digest
from worker.db import files
from worker.db.database import Database, files_of
from worker.errors import FilesInDisorder
from worker.files import is_changed
from worker.keeping.orphans import ASIDE
from worker.steps import report, store

_NAMED = 10
_OTHERS = 0o077

Progress = Callable[[int, int], None]
"""Told how many bytes were read, and of how many."""


def check_files(database: Database, data_dir: Path, *, progress: Progress) -> str:
    """Read every stored file and compare it with its row; answer what was found in words.

    Raises
    ------
    FilesInDisorder
        Something is not as it should be: its message counts each kind of trouble and names the first files.
    """
    lying = [*_below(store.FOLDER, data_dir), *_below(report.FOLDER, data_dir)]
    with database.read() as connection:
        expected = [kept for kept in files.received(connection) if not kept.gone]
        made = files.made(connection)
    total, read = sum(kept.size for kept in expected), 0
    trouble: list[str] = []
    for kept in expected:
        trouble += _compared(kept, data_dir)
        read += kept.size
        progress(read, total)
    for path, sha256 in made.items():
        trouble += _compared_report(path, sha256, data_dir)
    known = {kept.path for kept in expected} | made.keys()
    trouble += [f"without a row: {path}" for path in lying if path not in known]
    trouble += [f"set aside: {path}" for path in _below(ASIDE, data_dir)]
    trouble += _open_to_others(data_dir)
    trouble += [f"open to others: {path}" for path in files_of(database) if path.stat().st_mode & _OTHERS]
    if trouble:
        more = f"; and {len(trouble) - _NAMED} more" if len(trouble) > _NAMED else ""
        raise FilesInDisorder("; ".join(trouble[:_NAMED]) + more)
    return f"{len(expected)} received files and {len(made)} reports as they should be, {total / 1024**3:.1f} GiB read"


def _compared(kept: files.KeptFile, data_dir: Path) -> list[str]:
    try:
        found = dataset_digest(data_dir / kept.path)
    except FileNotFoundError:
        return [f"missing: {kept.path}"]
    except (DicomError, OSError):
        return [f"unreadable: {kept.path}"]
    return [] if found == (kept.sha256, kept.size) else [f"changed: {kept.path}"]


def _compared_report(path: Path, sha256: str | None, data_dir: Path) -> list[str]:
    try:
        with (data_dir / path).open("rb"):
            return [f"changed: {path}"] if is_changed(data_dir / path, sha256) else []
    except FileNotFoundError:
        return [f"missing: {path}"]
    except OSError:
        return [f"unreadable: {path}"]


def _below(folder: Path, data_dir: Path) -> Iterator[Path]:
    return (path.relative_to(data_dir) for path in sorted((data_dir / folder).rglob("*.dcm")))


def _open_to_others(data_dir: Path) -> Iterator[str]:
    if data_dir.stat().st_mode & _OTHERS:
        yield f"open to others: {data_dir}"
    for folder in (store.FOLDER, report.FOLDER, ASIDE):
        for path in (data_dir / folder, *sorted((data_dir / folder).rglob("*"))):
            with suppress(FileNotFoundError):  # a part that has its name by now, or a folder that nothing needed yet
                if path.stat().st_mode & _OTHERS:
                    yield f"open to others: {path.relative_to(data_dir)}"
