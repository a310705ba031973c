"""Files that survive a power cut, and only whole."""

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


def write_durably(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file so that it is there in full or not at all, and still there after a power cut.

    The bytes go to a ``.part`` file of their own, are synced and renamed, and the folder is synced: once this returns, a crash
    loses nothing. Writing the same path twice at once is safe; the later rename wins.

    Raises
    ------
    OSError
        The disk is full, broken or read-only; no ``.part`` file stays behind unless the process is killed.
    """
    make_folder(path.parent)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123  a descriptor, not a path
            for chunk in chunks:
                _write_whole(file.fileno(), chunk)
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, durably, readable to nobody else."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable: a rename is not until then."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_parts(folder: Path, *, written_before: datetime) -> int:
    """Delete what interrupted writes left behind; answer how many. Younger ones may belong to a writer at work."""
    removed = 0
    for part in folder.rglob("*.part"):
        with suppress(FileNotFoundError):  # its writer has renamed it
            if part.stat().st_mtime < written_before.timestamp():
                part.unlink()
                removed += 1
    return removed


def _write_whole(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
