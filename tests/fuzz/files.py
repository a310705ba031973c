"""Files that inputs begin with, and the one that an input becomes."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.fuzz.pictures import SMALL, objects
from tests.fuzz.pictures import part10 as file_of
from tests.fuzz.target import ROOT

LONGEST_REAL_BYTES = 160 * 1024
HEAD_BYTES = 6 * 1024


@cache
def file_in_memory(name: str = "input") -> Path:
    """Where an input becomes a file, which goes with the process."""
    return Path(f"/proc/self/fd/{os.memfd_create(name)}")


def written(data: bytes, name: str = "input") -> Path:
    path = file_in_memory(name)
    path.write_bytes(data)
    return path


def real_files() -> Iterator[bytes]:
    """Files that nobody wrote for this project: the smaller ones whole, of the others as much as their header needs."""
    folder = (ROOT / os.environ.get("CXR_DICOM", "../shared/dicom")).resolve()
    for path in sorted(folder.glob("*.dcm")):
        content = path.read_bytes()
        yield content if len(content) <= LONGEST_REAL_BYTES else content[:HEAD_BYTES]


def sound_files() -> list[bytes]:
    return [*(file_of(ds) for ds in objects(*SMALL)), *real_files()]
