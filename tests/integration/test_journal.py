"""Objects are durable in the journal, then get files of their own, and only then is their room free."""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import pytest

from tests.journals import AT, SEGMENT_BYTES, content, kept, nothing, small_journal, told
from tests.servers import wait_for
from worker.journal import journal as journal_module
from worker.journal import settler as settler_module
from worker.journal.journal import Journal
from worker.journal.settler import Settler, settle
from worker.steps.store import FOLDER, make_folders, place_of
from worker.syncing import Sync


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folders(tmp_path)
    return tmp_path / "journals" / "0"


@pytest.fixture
def journal(folder: Path) -> Journal:
    return small_journal(folder)


def files_in(data_dir: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (data_dir / FOLDER).rglob("*.dcm")}


class Settled:
    """A settler, and what it told."""

    def __init__(self, journal: Journal, data_dir: Path, rows: Callable[[], None] = nothing) -> None:
        self.told: list[tuple[int, float]] = []
        self.settler = Settler(journal, data_dir, make_rows_durable=rows, tell=lambda *told: self.told.append(told))


@pytest.fixture
def settling(journal: Journal, tmp_path: Path) -> Iterator[Callable[..., Settled]]:
    started: list[Settled] = []

    def start(**options: Any) -> Settled:
        started.append(Settled(journal, tmp_path, **options))
        return started[-1]

    yield start
    for each in started:
        each.settler.close()


def full(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_object_is_given_the_file_that_its_content_names_dated_when_it_came(journal: Journal, tmp_path: Path) -> None:
    entry = kept(journal, b"dataset")
    assert files_in(tmp_path) == {}
    settle([entry], tmp_path)
    path = tmp_path / place_of(entry.record.sha256)
    assert path.read_bytes() == b"metadataset"
    assert path.stat().st_mtime == AT
    assert entry.is_settled


def test_objects_that_come_together_share_a_sync(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Sync] = []
    begin = Sync.begin
    monkeypatch.setattr(Sync, "begin", lambda sync: (begun.append(sync), begin(sync))[1])
    first, second = (journal.append(content(b"%d" % number)) for number in range(2))
    assert first is not None
    assert second is not None
    first.begin()
    third = journal.append(content(b"3"))
    assert third is not None
    for entry in (first, second, third):
        entry.wait()
    assert len(begun) == 2, "what was written after the first sync had begun needs another"
    assert first.flush is second.flush is not third.flush


def test_several_threads_may_wait_for_one_sync(journal: Journal) -> None:
    entries = [journal.append(content(b"%d" % number)) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(entry.wait) for entry in entries if entry is not None]
        assert [each.result(timeout=30) for each in waiting] == [None] * 4


def test_what_finds_no_room_is_told_so_and_room_comes_back_once_files_are_made(journal: Journal, tmp_path: Path) -> None:
    dataset = bytes(SEGMENT_BYTES // 2)
    entries = [kept(journal, dataset + b"%d" % number) for number in range(2)]
    assert journal.append(content(dataset)) is None
    settle(entries, tmp_path)
    journal.recycle(nothing)
    assert journal.append(content(dataset)) is not None


def test_a_segment_is_written_over_only_when_files_and_rows_are_durable(journal: Journal, folder: Path, tmp_path: Path) -> None:
    dataset = bytes(SEGMENT_BYTES // 2)
    one, two = (kept(journal, dataset + b"%d" % number) for number in range(2))
    journal.recycle(nothing)
    assert len(told(folder)) == 2, "neither has a file"
    settle([one], tmp_path)
    with pytest.raises(OSError, match="No space"):
        journal.recycle(full)
    assert len(told(folder)) == 2, "its row is not durable"
    asked: list[int] = []
    journal.recycle(lambda: asked.append(len(told(folder))))
    assert asked == [2], "the rows are made durable first"
    assert told(folder) == [b"meta" + dataset + b"1"]
    settle([two], tmp_path)


def test_a_disk_that_failed_a_sync_is_written_to_in_another_segment(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = journal.append(content(b"x"))
    assert entry is not None

    def fails(_: Sync, _seconds: float | None = None) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Sync, "wait", fails)
        with pytest.raises(OSError, match="Input/output"):
            entry.wait()
    entry.void()
    after = kept(journal, b"y")
    assert after.segment is not entry.segment
    journal.recycle(nothing)
    journal.extend()
    names = sorted(path.name for path in folder.glob("*.segment"))
    assert names == ["000001.segment", "000002.segment"], "the failed one is deleted, and another made"


def test_a_disk_that_takes_no_write_is_told_of_and_holds_up_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("worker.journal.segment.os.pwritev", full)
        with pytest.raises(OSError, match="No space"):
            journal.append(content(b"x"))
    kept(journal, b"y")
    journal.recycle(nothing)


def test_what_was_taken_back_is_not_there_at_the_next_start(journal: Journal, folder: Path) -> None:
    entry = journal.append(content(b"x"))
    assert entry is not None
    entry.begin()
    entry.void()
    assert told(folder) == []
    journal.recycle(nothing)
    assert journal.append(content(bytes(SEGMENT_BYTES // 2))) is not None


def test_it_grows_as_far_as_it_may_and_as_the_disk_has_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = small_journal(folder, segments=3)
    dataset = bytes(SEGMENT_BYTES // 2)
    assert len(list(folder.glob("*.segment"))) == 2
    for number in range(2):
        kept(journal, dataset + b"%d" % number)
    monkeypatch.setattr(journal_module.os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 99, 9, 9, 0, 0, 0, 0, 255)))
    assert not journal.extend(), "there is too little room"
    monkeypatch.undo()
    assert journal.extend()
    assert not journal.extend(), "it is as large as it may be"
    assert len(list(folder.glob("*.segment"))) == 3


def test_the_settler_gives_everything_a_file_and_tells_how_much_waits(
    journal: Journal, settling: Callable[..., Settled], tmp_path: Path
) -> None:
    started = settling()
    for number in range(5):
        kept(journal, b"%d" % number)
    wait_for(lambda: len(files_in(tmp_path)) == 5, "files")
    wait_for(lambda: started.told[-1:] == [(0, 0.0)], "nothing waits")


def test_a_busy_journal_is_emptied_within_seconds_though_more_comes(
    journal: Journal, settling: Callable[..., Settled], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_QUIET_SECONDS", 3600.0)
    monkeypatch.setattr(journal_module, "_LONGEST_SECONDS", 0.5)
    settling()
    kept(journal, b"first")
    wait_for(lambda: len(files_in(tmp_path)) == 1, "a file, though it was never quiet")


def test_a_full_disk_keeps_everything_in_the_journal_until_it_is_freed(
    journal: Journal, settling: Callable[..., Settled], tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settler_module, "_PAUSE_SECONDS", 0.01)
    failed = Event()

    def fails(*_: object) -> NoReturn:
        failed.set()
        full()

    with monkeypatch.context() as patched:
        patched.setattr(settler_module, "settle", fails)
        started = settling()
        kept(journal, b"x")
        assert failed.wait(30)
        wait_for(lambda: started.told[-1:] and started.told[-1][1] > 0.1, "it was put back, and is told to wait ever longer")
        assert (started.told[-1][0], told(folder)) == (1, [b"metax"])
    wait_for(lambda: len(files_in(tmp_path)) == 1, "a file, now that there is room")


def test_closed_it_is_empty_and_leaves_nothing_on_the_disk(
    journal: Journal, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_QUIET_SECONDS", 3600.0)
    monkeypatch.setattr(journal_module, "_LONGEST_SECONDS", 3600.0)
    settler = Settler(journal, tmp_path, make_rows_durable=nothing, tell=lambda *_: None)
    fit = SEGMENT_BYTES // 4096 - 1
    monkeypatch.setattr(settler_module, "_AT_ONCE", fit // 2)
    for number in range(fit):
        kept(journal, b"%d" % number)
    settler.close()
    journal.remove()
    assert len(files_in(tmp_path)) == fit
    assert list(folder.glob("*.segment")) == []
    assert journal.append(content(b"late")) is None


def test_closed_on_a_full_disk_it_stays_for_the_next_start(
    journal: Journal, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settler_module, "settle", full)
    settler = Settler(journal, tmp_path, make_rows_durable=nothing, tell=lambda *_: None)
    kept(journal, b"x")
    settler.close()
    journal.remove()
    assert told(folder) == [b"metax"]
    assert len(list(folder.glob("*.segment"))) == 1
