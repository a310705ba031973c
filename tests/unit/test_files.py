"""Files are there in full or not at all."""

import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest

from worker import files
from worker.files import PartFile, make_folder, remove_parts, write_durably
from worker.syncing import Sync


class FailingSync:
    def __init__(self, _descriptor: int) -> None:
        pass

    def begin(self) -> None:
        pass

    def wait(self, _seconds: float | None = None) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_chunks_are_the_file_in_order(tmp_path: Path) -> None:
    write_durably(tmp_path / "a" / "b" / "file", (b"one ", b"", b"two"))
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"one two"


def test_nobody_else_may_read_files_and_folders(tmp_path: Path) -> None:
    write_durably(tmp_path / "a" / "file", (b"x",))
    assert stat.S_IMODE((tmp_path / "a" / "file").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_a_write_that_is_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:7]))
    content = bytes(range(256)) * 3
    write_durably(tmp_path / "file", (content,))
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_durably(tmp_path / "file", (b"old",))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, failing, full)
    with pytest.raises(OSError, match="No space"):
        write_durably(tmp_path / "file", (b"new",))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made durable and named, in order."""
    happened: list[str] = []

    def noted(kind: str, call: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **options: object) -> object:
            is_folder = isinstance(arguments[0], int) and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            happened.append(f"{kind} folder" if is_folder else kind)
            return call(*arguments, **options)

        return run

    monkeypatch.setattr(files.os, "fsync", noted("sync", os.fsync))
    monkeypatch.setattr(files, "Sync", noted("sync", Sync))
    monkeypatch.setattr(files.os, "link", noted("link", os.link))
    monkeypatch.setattr(files.Path, "replace", noted("rename", Path.replace))
    return happened


def test_the_bytes_are_synced_before_the_rename_and_the_folder_after(tmp_path: Path, happened: list[str]) -> None:
    write_durably(tmp_path / "file", (b"x",))
    assert happened == ["sync", "rename", "sync folder"]


@pytest.fixture(params=["named", "unnamed"])
def keep_by_content(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path, bytes], None]:
    """Keeps a file that was written under a name of its own, or under none."""
    is_unnamed = request.param == "unnamed"
    if is_unnamed and not files.allows_unnamed(str(tmp_path)):
        pytest.skip("The file system of the temporary folder knows no files without names.")

    def keep(path: Path, content: bytes) -> None:
        part = PartFile(path.parent, unnamed=is_unnamed)
        try:
            part.write(content)
            part.name_by_content(path)
            part.make_durable()
        finally:
            part.discard()

    return keep


Keep = Callable[[Path, bytes], None]


def test_a_file_named_by_its_content_and_its_name_are_durable_together(
    tmp_path: Path, keep_by_content: Keep, happened: list[str]
) -> None:
    keep_by_content(tmp_path / "file", b"x")
    assert happened == ["link", "sync", "sync folder"]
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"x"]
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_file_that_cannot_be_made_durable_is_nobody_s_and_says_so_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "Sync", FailingSync)
    part = PartFile(tmp_path)
    part.write(b"whole")
    part.name_by_content(tmp_path / "file")
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            part.make_durable()
    part.discard()
    assert (tmp_path / "file").read_bytes() == b""


def test_a_file_that_is_given_up_is_closed_only_after_its_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    wait = Sync.wait
    monkeypatch.setattr(files.Sync, "wait", lambda *given: (wait(*given), happened.append("waited")))
    close = os.close
    monkeypatch.setattr(files.os, "close", lambda descriptor: (happened.append("closed"), close(descriptor)))
    part = PartFile(tmp_path)
    part.write(b"whole")
    part.name_by_content(tmp_path / "file")
    part.discard()
    assert happened[:2] == ["waited", "waited"]
    assert happened[-2:] == ["closed", "closed"]


def test_a_file_that_is_given_up_and_is_not_durable_is_nobody_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "Sync", FailingSync)
    part = PartFile(tmp_path)
    part.write(b"whole")
    part.name_by_content(tmp_path / "file")
    part.discard()
    assert (tmp_path / "file").read_bytes() == b""


def test_a_file_whose_folder_went_meanwhile_is_kept_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "received").mkdir()
    part = PartFile(tmp_path / "received", unnamed=True)
    part.write(b"whole")
    for path in (tmp_path / "received").iterdir():
        path.unlink()
    (tmp_path / "received").rmdir()
    if part._name is not None:  # noqa: SLF001  where it has a name it went with the folder
        pytest.skip("The file system of the temporary folder knows no files without names.")
    part.name_by_content(tmp_path / "received" / "ab" / "file")
    part.make_durable()
    part.discard()
    assert (tmp_path / "received" / "ab" / "file").read_bytes() == b"whole"


def test_of_a_file_without_a_name_a_process_that_ends_leaves_nothing(tmp_path: Path) -> None:
    if not files.allows_unnamed(str(tmp_path)):
        pytest.skip("The file system of the temporary folder knows no files without names.")
    part = PartFile(tmp_path, unnamed=True)
    part.write(b"half")
    assert list(tmp_path.iterdir()) == []
    with part.open(1) as file:
        assert file.read() == b"alf"
    part.discard()


def test_a_file_system_that_knows_no_files_without_names_gives_them_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return opened(path, flags, mode)

    monkeypatch.setattr(files.os, "open", refuse)
    part = PartFile(tmp_path, unnamed=True)
    part.write(b"x")
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    part.name_by_content(tmp_path / "file")
    part.make_durable()
    part.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_long_file_is_on_its_way_to_the_disk_while_it_still_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(files.os, "posix_fadvise", lambda _, offset, length, __: begun.append((offset, length)))
    part = PartFile(tmp_path)
    for _ in range(7):
        part.write(bytes(1024 * 1024))
    part.discard()
    assert begun == [(0, 2 << 20), (2 << 20, 2 << 20), (4 << 20, 2 << 20)]


def test_what_stands_under_a_content_s_name_is_replaced_only_by_what_is_durable(
    tmp_path: Path, keep_by_content: Keep, happened: list[str]
) -> None:
    (tmp_path / "file").write_bytes(b"half")
    keep_by_content(tmp_path / "file", b"whole")
    assert [each for each in happened if each != "link"] == ["sync", "rename", "sync folder"]
    assert happened.index("link") < happened.index("rename")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


def test_a_file_system_without_links_keeps_files_named_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", refuse)
    part = PartFile(tmp_path, unnamed=True)
    part.write(b"x")
    part.name_by_content(tmp_path / "file")
    part.make_durable()
    part.discard()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"x"]


def test_a_new_folder_is_durable_in_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]


def test_the_same_file_written_many_times_at_once_is_whole(tmp_path: Path) -> None:
    content = os.urandom(200_000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_durably(tmp_path / "file", (content,)), range(24)))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == content


def test_what_interrupted_writes_left_is_removed_and_nothing_that_is_whole_or_being_written(tmp_path: Path) -> None:
    write_durably(tmp_path / "a" / "kept.dcm", (b"x",))
    old, young = (tmp_path / "a" / f"{name}.part" for name in ("old", "young"))
    for part in (old, young):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert remove_parts(tmp_path, written_before=datetime.fromtimestamp(1, UTC)) == 1
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["kept.dcm", "young.part"]
