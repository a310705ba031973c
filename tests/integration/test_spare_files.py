"""Files that are made before an object needs them hold little, and nothing of them stays."""

import errno
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from tests.conftest import TestDatabase
from tests.factories import make_dx, radiograph
from tests.fakes import make_site
from tests.integration.test_listener import associated
from tests.servers import wait_for
from worker import files
from worker.receivers import receiver
from worker.settings import DicomSettings
from worker.steps.store import FOLDER, SpareFiles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if not files.allows_unnamed(str(tmp_path)):
        pytest.skip("The file system of the temporary folder knows no files without names.")
    (tmp_path / FOLDER).mkdir()
    return tmp_path / FOLDER


def spares_open(folder: Path) -> int:
    """How many files of that folder this process holds that have no name."""
    found = 0
    for held in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found += str(held.readlink()).startswith(f"{folder}/#")
    return found


def test_an_object_takes_the_file_that_was_made_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spares = SpareFiles(folder.parent)
    spares.prepare()
    with monkeypatch.context() as later:
        later.setattr(files.os, "open", _none)
        part = spares.take()
    part.write(b"whole")
    part.name_by_content(folder / "file")
    part.discard()
    assert [path.read_bytes() for path in folder.iterdir()] == [b"whole"]


def test_two_objects_never_get_the_same_file(folder: Path) -> None:
    spares = SpareFiles(folder.parent)
    spares.prepare()
    parts = [spares.take(), spares.take()]
    for number, part in enumerate(parts):
        part.write(b"%d" % number)
        part.name_by_content(folder / str(number))
        part.discard()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"0": b"0", "1": b"1"}


def test_they_are_few_and_let_go(folder: Path) -> None:
    spares = SpareFiles(folder.parent)
    for _ in range(20):
        spares.prepare()
    assert spares_open(folder) == 8
    spares.discard()
    assert spares_open(folder) == 0


def test_none_is_made_where_it_would_need_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.steps.store.allows_unnamed", lambda _: False)
    SpareFiles(folder.parent).prepare()
    assert (list(folder.iterdir()), spares_open(folder)) == ([], 0)


def test_a_disk_that_gives_none_is_told_of_when_an_object_comes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spares = SpareFiles(folder.parent)
    monkeypatch.setattr(files.os, "open", _none)
    spares.prepare()
    with pytest.raises(OSError, match="No space"):
        spares.take()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_next_object_s_file_is_there_as_long_as_its_sender_is(test_database: TestDatabase, folder: Path) -> None:
    site = make_site(test_database.opened, folder.parent, dicom=DicomSettings(port=0))
    with receiver(site.parts, arrived=lambda: None) as listener:
        with associated(listener.port) as assoc:
            assert spares_open(folder) == 0
            for number in range(3):
                assert assoc.send_c_store(make_dx(radiograph(32, 32, seed=number))).Status == 0x0000
                wait_for(lambda: spares_open(folder) == 1, "a file for the next object")
        wait_for(lambda: spares_open(folder) == 0, "none without a sender")
    assert len(site.received_files()) == 3


def _none(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")
