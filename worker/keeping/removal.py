"""Removal: deleting a file that nobody needs, and never one that is being received again."""

from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

YOUNG = timedelta(hours=1)
"""A file written so lately may belong to a receiver that has not committed its row yet."""


def discard(path: Path, *, now: datetime) -> bool:
    """Delete a file unless it is young; answer whether one was deleted.

    It is taken away before it is looked at: what a receiver writes to the same path meanwhile stays.
    """
    aside = path.with_name(f"{path.name}.removed")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    if is_young(aside, now=now):
        with suppress(FileExistsError):  # the receiver has written it once more, the same bytes
            path.hardlink_to(aside)
        aside.unlink()
        return False
    aside.unlink()
    return True


def is_young(path: Path, *, now: datetime) -> bool:
    """Whether a file was written so lately that somebody may still be at work on it."""
    return path.stat().st_mtime > (now - YOUNG).timestamp()
