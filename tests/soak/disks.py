"""Scenarios in which the worker's files lie on a disk of their own, which is full, or loses power."""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from tests.servers import wait_for
from tests.soak.films import SIDE
from tests.soak.scenario import Course, Plain, Size
from tests.soak.system import Deployment, System, running

_BACK_SECONDS = 120.0
_REST_BYTES = 48 * 1024**2
"""What the watermark, the database and its log need, and what is left for reports."""
_IMAGE_BYTES = 4 * 1024**3
"""More than the watermark that ships (``minimum_free_bytes``)."""
_SHUTDOWN = 0x8004587D
"""``FS_IOC_SHUTDOWN`` of ext4 and xfs."""
_WITHOUT_FLUSHING = 2


def _is_allowed(*command: str) -> bool:
    """Whether such a disk can be mounted here."""
    with TemporaryDirectory(prefix="cxr-soak-") as folder:
        tried = subprocess.run(["mount", *command, folder], capture_output=True, check=False)
        if tried.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return tried.returncode == 0


def _bytes_for(size: Size) -> int:
    return size.studies * 2 * SIDE * SIDE + _REST_BYTES


class PowerCut(Plain):
    """Files and the embedded database are on two disks of their own (ext4), so that neither's syncs help the other. They lose
    power: the file systems stop at once, and what was written but not synced is gone (``FS_IOC_SHUTDOWN`` without flushing).
    Receiver and runner are killed, and started again when the disks are back.
    """

    name = "power"
    share = (0.2, 0.2)

    def __init__(self) -> None:
        self._disks: tuple[_Disk, ...] = ()

    def lacks(self) -> str:
        if not shutil.which("mkfs.ext4"):
            return "mkfs.ext4 is not installed"
        with TemporaryDirectory(prefix="cxr-soak-") as folder:
            image = Path(folder) / "disk"
            _make_image(image)
            return "" if _is_allowed("-o", "loop", str(image)) else "a disk image cannot be mounted here: that needs root"

    @contextmanager
    def system(self, folder: Path, size: Size) -> Iterator[System]:  # noqa: ARG002  part of the contract
        self._disks = (_Disk(folder / "var"), _Disk(folder / "database"))
        with ExitStack() as stack:
            for disk in self._disks:
                disk.make()
                stack.callback(disk.unmount)
            url = f"sqlite:///{folder / 'database' / 'worker.db'}"
            with running(folder, Deployment(database_url=url)) as system:
                yield system

    def disturb(self, course: Course) -> str:
        course.release()
        course.wait_for_successes(rounds=1, seconds=5)
        course.go_on(course.random.uniform(0, course.random.choice([0.02, 2])))
        for disk in self._disks:
            disk.cut_power()
        for process in course.system.processes:
            process.kill()
        for disk in self._disks:
            disk.unmount()
            disk.mount()
        for process in course.system.processes:
            process.start()
        for process in course.system.processes:
            process.await_ready()
        return "power cut"


class _Disk:
    """A file system in a file, mounted at a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._image = folder.with_suffix(".image")

    def make(self) -> None:
        self._folder.mkdir()
        _make_image(self._image)
        self.mount()
        self._folder.chmod(0o700)
        shutil.rmtree(self._folder / "lost+found")

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self._folder], check=True)

    def unmount(self) -> None:
        """Wait for whoever just looks into the database."""
        command = ["umount", self._folder]
        wait_for(lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0, "the disk is free")

    def cut_power(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("=I", _WITHOUT_FLUSHING))
        finally:
            os.close(descriptor)


def _make_image(image: Path) -> None:
    """Make a file system in a file that takes no more room than what is written to it."""
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)


class FullDisk(Plain):
    """Files and the embedded database are on a small disk of their own. It is filled in turns to under the watermark
    (``minimum_free_bytes``) and to its last byte, and freed. One receiver has the watermark; another one has none, and meets
    the end of the disk in the middle of an object.
    """

    name = "disk"
    share = (0.2, 0.1)
    _watermark: ClassVar[int] = 8 * 1024**2

    def lacks(self) -> str:
        allowed = _is_allowed("-t", "tmpfs", "-o", "size=1m", "tmpfs")
        return "" if allowed else "a small disk cannot be mounted here: that needs root"

    @contextmanager
    def system(self, folder: Path, size: Size) -> Iterator[System]:
        disk = folder / "var"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_bytes_for(size)},mode=0700", "tmpfs", disk], check=True)
        try:
            receivers = tuple({"CXR_DICOM__MINIMUM_FREE_BYTES": str(least)} for least in (self._watermark, 0))
            with running(folder, Deployment(receivers=receivers)) as system:
                yield system
        finally:
            subprocess.run(["umount", disk], check=True)

    def disturb(self, course: Course) -> str:
        random, is_full = course.random, course.done.total() % 2 == 1
        ballast = course.system.worker.folder / "var" / "ballast"
        leave = int(random.integers(0, 2 * SIDE * SIDE)) if is_full else self._watermark // 2
        refused = course.load.refused
        _fill(ballast, leave=leave)
        course.release()
        wait_for(lambda: course.load.refused > refused or course.load.is_idle, "a refusal", seconds=_BACK_SECONDS)
        course.go_on(random.uniform(0, 2))
        ballast.unlink()
        return "disk full" if is_full else "disk nearly full"


def _fill(ballast: Path, *, leave: int) -> None:
    """Take all of a disk but so many bytes."""
    with ballast.open("wb") as file:
        while True:
            disk = os.statvfs(ballast)
            try:
                os.posix_fallocate(file.fileno(), 0, max(disk.f_bavail * disk.f_frsize - leave, 1))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                continue  # somebody wrote meanwhile
            return
