"""A sync that goes on meanwhile ends as one that is waited for: durable, or with the reason why not."""

import errno
import os
from pathlib import Path

import pytest

from worker import syncing
from worker.syncing import Sync


def test_file_and_folder_are_synced(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(b"whole")
        file.flush()
        folder = os.open(tmp_path, os.O_RDONLY)
        syncs = [Sync(file.fileno()), Sync(folder)]
        for sync in syncs:
            sync.begin()
        for sync in syncs * 2:
            sync.wait()
        os.close(folder)


def test_what_the_kernel_answers_is_raised_each_time_it_is_asked_for() -> None:
    reading, writing = os.pipe()  # which cannot be synced
    sync = Sync(writing)
    sync.begin()
    for _ in range(3):
        with pytest.raises(OSError, match="Invalid argument") as caught:
            sync.wait()
        assert caught.value.errno == errno.EINVAL
    os.close(reading)
    os.close(writing)


def test_the_c_library_here_has_it() -> None:
    assert syncing._library is not None  # noqa: SLF001  else all else here would be of the way without it


def test_a_library_that_is_not_there_is_passed_over() -> None:
    assert syncing._find(("libnothing.so.7",)) is None  # noqa: SLF001  no function for it alone
    assert syncing._find(("libnothing.so.7", None)) is not None  # noqa: SLF001


def test_a_library_without_it_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncing.ctypes, "PyDLL", lambda _: object())
    assert syncing._find((None,)) is None  # noqa: SLF001


@pytest.mark.parametrize("library", ["busy", "none"])
def test_where_the_library_takes_no_more_it_is_done_when_it_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(syncing.os, "fsync", synced.append)
    with (tmp_path / "file").open("wb") as file:
        monkeypatch.setattr(syncing, "_library", (_Busy(), None) if library == "busy" else None)
        sync = Sync(file.fileno())
        sync.begin()
        assert synced == []
        sync.wait()
        sync.wait()
        assert synced == [file.fileno()]


def test_many_go_on_at_once(tmp_path: Path) -> None:
    files = [(tmp_path / str(number)).open("wb", buffering=0) for number in range(100)]
    for file in files:
        file.write(os.urandom(10_000))
    syncs = [Sync(file.fileno()) for file in files]
    for sync in syncs:
        sync.begin()
    for sync, file in zip(syncs, files, strict=True):
        sync.wait()
        file.close()


class _Busy:
    def aio_fsync(self, *_: object) -> int:
        return -1
