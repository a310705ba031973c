"""The figures of receivers side by side, added up: each counts in files of its own, and whoever is asked reads them all.

A file outlives the process that counts in it, and is taken up by the one that replaces it: what was counted stays counted.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from prometheus_client import values

from worker.errors import ConfigurationError

_IN_MEMORY = Path("/dev/shm")  # noqa: S108  mkdtemp makes a folder that is ours alone  # nosec B108
_KINDS = ("counter", "gauge_sum", "histogram")
_BYTES = 1 << 18
"""Of one file: some hundred callers. One that needs more grows."""


@contextmanager
def tally(processes: int) -> Iterator[Path]:
    """Make the folder that so many processes count in. It goes with the one that made it, or with those that outlive that.

    Raises
    ------
    ConfigurationError
        There is no room for it.
    """
    maker = os.getpid()
    folder = Path(mkdtemp(prefix="cxr-worker-", dir=_IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None))
    try:
        _reserve(folder, processes)
        yield folder
    finally:
        if os.getppid() != maker:  # a process beside, whose maker lives, leaves it
            rmtree(folder, ignore_errors=True)


def _reserve(folder: Path, processes: int) -> None:
    """Take the room now: a file in memory that finds none later ends the process that writes in it."""
    try:
        for name in (f"{kind}_{number}.db" for kind in _KINDS for number in range(processes)):
            with (folder / name).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _BYTES)
    except OSError as error:
        raise ConfigurationError(f"dicom.receivers: no room in {folder} to count in: {error.strerror}.") from error


def count_in(folder: Path, number: int) -> None:
    """Let this process count there, as the one of that number: to be said before its `worker.metrics.Metrics` are made."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # the library asks no other
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
