"""Ballast: a file that is given up where the disk is full, for who deletes others must first write down that they go."""

import os
import shutil
from pathlib import Path

_FILE = "ballast"
_FILE_MODE = 0o600
BYTES = 16 * 1024**2
"""What the marks of some thousand studies take in the embedded database and its log."""


def give_up(data_dir: Path) -> None:
    """Delete it where less than it takes is free."""
    if shutil.disk_usage(data_dir).free < BYTES:
        (data_dir / _FILE).unlink(missing_ok=True)


def take_in(data_dir: Path, *, spare_bytes: int) -> None:
    """Make it, unless it is there or would leave less than so much, and itself once more, free.

    Raises
    ------
    OSError
        The disk does not give the room.
    """
    path = data_dir / _FILE
    if path.exists() and path.stat().st_size >= BYTES:
        return
    if shutil.disk_usage(data_dir).free < spare_bytes + 2 * BYTES:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, _FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, BYTES)  # blocks of its own, where a file of zeros may have none
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
