"""Files that survive a power cut, and only whole."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from worker.syncing import Sync

FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_WRITE_OUT_BYTES = 2 * 1024 * 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_UNNAMED = os.O_WRONLY | os.O_TMPFILE
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_DISK_FAILED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})


def write_durably(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file so that it is there in full or not at all, and still there after a power cut.

    The bytes go to a ``.part`` file of their own, are synced and renamed, and the folder is synced: once this returns, a crash
    loses nothing. Writing the same path twice at once is safe; the later rename wins.

    Raises
    ------
    OSError
        The disk is full, broken or read-only; no ``.part`` file stays behind unless the process is killed.
    """
    make_folder(path.parent)
    part = PartFile(path.parent)
    try:
        for chunk in chunks:
            part.write(chunk)
        part.keep_as(path)
    finally:
        part.discard()


class PartFile:
    """A file that is being written, until it is whole and gets its name. `discard` in the end, whatever happened.

    Every object waits for this, so paths are text here: `pathlib` took a tenth of a millisecond.

    Parameters
    ----------
    folder
        Where it is written; made if it is missing.
    unnamed
        Whether it is better without any name meanwhile, where the file system allows it: that is quicker, and of a process
        that ends nothing is left.
    """

    def __init__(self, folder: Path, *, unnamed: bool = False) -> None:
        self._folder = str(folder)
        self._name: str | None = None
        try:
            self._create(unnamed=unnamed)
        except FileNotFoundError:
            make_folder(folder)
            self._create(unnamed=unnamed)
        self._is_open = True
        self._size = self._on_its_way = 0
        self._syncs: tuple[Sync, ...] = ()
        self._folder_descriptor: int | None = None

    def write(self, chunk: bytes | memoryview) -> None:
        """Append."""
        written = os.write(self._descriptor, chunk)
        while written < len(chunk):
            written += os.write(self._descriptor, memoryview(chunk)[written:])
        self._size += written
        if self._size - self._on_its_way >= _WRITE_OUT_BYTES:
            self.write_out()

    def write_out(self) -> None:
        """Have the disk begin with what was written: the sync in the end has less to wait for."""
        os.posix_fadvise(self._descriptor, self._on_its_way, self._size - self._on_its_way, os.POSIX_FADV_DONTNEED)
        self._on_its_way = self._size

    def open(self, begin: int) -> BinaryIO:
        """What was written so far, from so many bytes on."""
        file = Path(self._name or f"/proc/self/fd/{self._descriptor}").open("rb")  # noqa: SIM115  the caller closes it
        file.seek(begin)
        return file

    def keep_as(self, path: Path) -> None:
        """Make it durable, and then its name: after a crash there is the whole file or none."""
        os.fsync(self._descriptor)
        if self._name is None:
            make_folder(Path(self._folder))  # it may have gone since the file was made
            name = _part_name(self._folder)
            _give_name(self._descriptor, name)
            self._name = name
        self._close()
        make_folder(path.parent)
        Path(self._name).replace(path)
        self._name = None
        sync_folder(path.parent)

    def name_by_content(self, path: Path) -> None:
        """Give it a name that tells its content, and have both made durable at once; `make_durable` waits for that.

        Until it returned, a power cut may leave a broken file under the name. Whoever trusts one that nobody vouches for
        compares its content with its name, and syncs it. What stands there already is replaced by a durable file only.
        """
        try:
            self._link(name := str(path))
        except OSError:  # there is one, or no folder, or the file system knows no links
            self.keep_as(path)
            return
        self._folder_descriptor = os.open(os.path.dirname(name), _FOLDER)  # noqa: PTH120  as text, see above
        self._syncs = (Sync(self._descriptor), Sync(self._folder_descriptor))
        for sync in self._syncs:
            sync.begin()

    def make_durable(self, seconds: float | None = None) -> None:
        """Wait until what has a name is durable, and the name. An error says so each time, and leaves an empty file.

        Parameters
        ----------
        seconds
            How long to wait for the disk; None: for as long as it takes.

        Raises
        ------
        OSError
            It is not durable.
        worker.syncing.NotYet
            It is not known yet. Ask again.
        """
        try:
            for sync in self._syncs:
                sync.wait(seconds)
        except OSError:
            os.ftruncate(self._descriptor, 0)  # nobody may take it for whole; by now another's may stand under the name
            raise

    def discard(self) -> None:
        """Remove what was not kept."""
        with suppress(OSError):  # also where nobody waited for it: what is not durable must not be taken for whole
            self.make_durable()
        for sync in self._syncs:
            with suppress(OSError):
                sync.wait()
        if self._folder_descriptor is not None:
            os.close(self._folder_descriptor)
            self._folder_descriptor = None
        if self._is_open:
            self._close()
        if self._name is not None:
            with suppress(FileNotFoundError):
                Path(self._name).unlink()
            self._name = None

    def _create(self, *, unnamed: bool) -> None:
        if unnamed and allows_unnamed(self._folder):
            self._descriptor = os.open(self._folder, _UNNAMED, _FILE_MODE)
        else:
            name = _part_name(self._folder)
            self._descriptor = os.open(name, _NEW, _FILE_MODE)
            self._name = name

    def _link(self, path: str) -> None:
        if self._name is None:
            _give_name(self._descriptor, path)
        else:
            os.link(self._name, path)

    def _close(self) -> None:
        self._is_open = False
        os.close(self._descriptor)


@lru_cache(maxsize=16)
def allows_unnamed(folder: str) -> bool:
    """Whether files can be without a name there and get one later (open(2), O_TMPFILE; it takes /proc)."""
    name = _part_name(folder)
    try:
        descriptor = os.open(folder, _UNNAMED, _FILE_MODE)
        try:
            _give_name(descriptor, name)
        finally:
            os.close(descriptor)
        Path(name).unlink()
    except FileNotFoundError:
        if Path(folder).is_dir():
            return False
        raise
    except OSError as error:
        if error.errno in _DISK_FAILED:
            raise
        return False
    return True


def _give_name(descriptor: int, path: str) -> None:
    # Python calls linkat(2), which follows such a link, only where it is given a descriptor beside it.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def _part_name(folder: str) -> str:
    return f"{folder}/{secrets.token_hex(8)}.part"


def is_changed(path: Path, sha256: str | None) -> bool:
    """Whether a file's bytes are others than those of a checksum, where there is one.

    Raises
    ------
    OSError
        The disk did not give it.
    """
    if sha256 is None:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() != sha256


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, durably, readable to nobody else."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    sync_folder(folder.parent)


def sync_file(path: Path) -> None:
    """Make a file that somebody else wrote, and its name, durable."""
    with path.open("rb") as file:
        os.fsync(file)
    sync_folder(path.parent)


def sync_folder(folder: Path | str) -> None:
    """Make a folder's entries durable: a rename is not until then."""
    descriptor = os.open(folder, _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_parts(folder: Path, *, written_before: datetime) -> int:
    """Delete what interrupted writes left behind; answer how many. Younger ones may belong to a writer at work."""
    removed = 0
    for part in folder.rglob("*.part"):
        with suppress(FileNotFoundError):  # its writer has renamed it
            if part.stat().st_mtime < written_before.timestamp():
                part.unlink()
                removed += 1
    return removed
