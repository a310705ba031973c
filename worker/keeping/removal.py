"""Removal: deleting a file that nobody needs, and never one that is being received again."""

from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

_ASIDE = ".removed"
YOUNG = timedelta(hours=1)
"""A file written so lately may belong to a receiver that has not committed its row yet."""


def discard(path: Path, *, now: datetime) -> bool:
    """Delete a file unless it is young; answer whether one was deleted.

    It is taken away before it is looked at: what a receiver writes to the same path meanwhile stays.
    """
    aside = path.with_name(path.name + _ASIDE)
    try:
        path.rename(aside)
        young = is_young(aside, now=now)
    except FileNotFoundError:  # or it was put back, by who thought that its remover had ended
        return False
    if young:
        _put_back(aside)
    aside.unlink(missing_ok=True)
    return not young


def put_back(folder: Path) -> None:
    """Give what a crash left half deleted its name again: whether it is needed is then asked anew."""
    for aside in folder.rglob(f"*{_ASIDE}"):
        _put_back(aside)
        aside.unlink(missing_ok=True)


def _put_back(aside: Path) -> None:
    with suppress(FileExistsError, FileNotFoundError):  # a receiver has written it once more, the same bytes
        aside.with_name(aside.name.removesuffix(_ASIDE)).hardlink_to(aside)


def is_young(path: Path, *, now: datetime) -> bool:
    """Whether a file was written so lately that somebody may still be at work on it."""
    return path.stat().st_mtime > (now - YOUNG).timestamp()
