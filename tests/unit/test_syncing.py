"""A sync that goes on meanwhile ends as one that is waited for: durable, or with the reason why not."""

import errno
import os
from pathlib import Path

import pytest

from worker import syncing
from worker.syncing import NotYet, Sync


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the real library answered of each sync that was over."""
    answers: list[int] = []
    assert syncing._library is not None  # noqa: SLF001  else all of this would be of the way without it
    at_once, waiting = syncing._library  # noqa: SLF001

    class Noted:
        aio_fsync, aio_error = at_once.aio_fsync, at_once.aio_error

        def aio_return(self, control: object) -> int:
            answers.append(at_once.aio_return(control))
            return answers[-1]

    monkeypatch.setattr(syncing, "_library", (Noted(), waiting))
    return answers


def test_file_and_folder_are_synced_once(tmp_path: Path, synced: list[int]) -> None:
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
    assert synced == [0, 0]


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


def test_one_that_takes_longer_than_it_may_is_not_over_and_can_be_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _Slow(answers=3)
    monkeypatch.setattr(syncing, "_library", (slow, slow))
    with (tmp_path / "file").open("wb") as file:
        sync = Sync(file.fileno())
        sync.begin()
        with pytest.raises(NotYet):
            sync.wait(0)
        sync.wait(30)
    assert slow.asked == 4
    assert slow.waited == 2


@pytest.mark.parametrize("answers", [0, 2])
def test_what_the_library_writes_to_stays_until_it_is_over(monkeypatch: pytest.MonkeyPatch, answers: int) -> None:
    slow = _Slow(answers)
    monkeypatch.setattr(syncing, "_library", (slow, slow))
    sync = Sync(0)
    sync.begin()
    assert sync in syncing._going_on  # noqa: SLF001
    sync.wait()
    assert sync not in syncing._going_on  # noqa: SLF001


def test_many_go_on_at_once(tmp_path: Path, synced: list[int]) -> None:
    files = [(tmp_path / str(number)).open("wb", buffering=0) for number in range(100)]
    for file in files:
        file.write(os.urandom(10_000))
    syncs = [Sync(file.fileno()) for file in files]
    for sync in syncs:
        sync.begin()
    for sync, file in zip(syncs, files, strict=True):
        sync.wait()
        file.close()
    assert synced == [0] * 100


class _Slow:
    """A library whose syncs go on for so many answers."""

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self.asked = self.waited = 0

    def aio_fsync(self, *_: object) -> int:
        return 0

    def aio_error(self, _: object) -> int:
        self.asked += 1
        return errno.EINPROGRESS if self.asked <= self._answers else 0

    def aio_suspend(self, *_: object) -> int:
        self.waited += 1
        return 0

    def aio_return(self, _: object) -> int:
        return 0


class _Busy:
    def aio_fsync(self, *_: object) -> int:
        return -1
