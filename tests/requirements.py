"""Programs that tests start and that are not Python packages: here, or skipped with a word; in CI a failure."""

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

_FROM_PYPI = {"dciodvfy"}
"""Installed beside this Python. pynetdicom puts a storescu there too, which is not DCMTK's."""


def need(program: str) -> str:
    """The path of an installed program, beside this Python or among PostgreSQL's too."""
    found = (
        shutil.which(program)
        or (shutil.which(program, path=Path(sys.executable).parent) if program in _FROM_PYPI else None)
        or next((str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True)), None)
    )
    return found if found is not None else lacking(program)


def lacking(what: str) -> NoReturn:
    """Skip for want of something, or fail where a skip would hide it."""
    words = f"{what} is not here"
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)
