"""Store: the bytes of an object become a durable file, named by their content."""

import errno
from collections import deque
from contextlib import suppress
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from dicom_io.errors import DicomError
from dicom_io.found import dataset_digest
from dicom_io.part10 import Identity, StoreRequest, file_header, identify, identify_plain
from dicom_io.prefix import PREFIX_BYTES
from worker.files import FOLDER_MODE, PartFile, allows_unnamed, make_folder, sync_folder
from worker.journal.journal import Entry, Journal
from worker.journal.segment import Content
from worker.steps.checksum import Checksum
from worker.values import StoredFile

FOLDER = Path("received")
_MOST_SPARES = 8
_LONG_BYTES = 1024 * 1024
_NOT_THE_FILE_S = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class SpareFiles:
    """Files without a name, made before they are needed: to make one takes a busy file system up to half a millisecond."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER
        self._spares: deque[PartFile] = deque()

    def take(self) -> PartFile:
        """A file for an object that comes now.

        Raises
        ------
        OSError
            None was left, and none can be made.
        """
        with suppress(IndexError):
            return self._spares.pop()
        return PartFile(self._folder, unnamed=True)

    def prepare(self) -> None:
        """Make one, while a sender makes up its mind; where it cannot be made, whoever takes it will hear why."""
        with suppress(OSError):
            if len(self._spares) < _MOST_SPARES and allows_unnamed(str(self._folder)):
                self._spares.append(PartFile(self._folder, unnamed=True))

    def discard(self) -> None:
        """Let those go that nobody took."""
        with suppress(IndexError):
            while True:
                self._spares.pop().discard()


class Storage:
    """Where what comes is kept: small objects in the journal, where there is one, all others in files of their own."""

    def __init__(self, data_dir: Path, journal: Journal | None = None) -> None:
        self.files = SpareFiles(data_dir)
        self.journal = journal

    def prepare(self) -> None:
        """Get ready for the next object, while its sender makes up its mind."""
        if self.journal is None:
            self.files.prepare()


class IncomingObject:
    """An object on its way to disk: our file meta, then the data set exactly as it comes, its checksum along the way.

    While it is small it is held in memory, for the journal; what is long, or has no journal, is written to a file as it comes.
    """

    def __init__(self, request: StoreRequest, storage: Storage, *, receiver: str) -> None:
        self.request = request
        self.size = 0
        self._head = bytearray()
        self._checksum = Checksum()
        self._file_meta = file_header(request, receiver=receiver)
        self._storage = storage
        self._held: bytearray | None = None
        self._part: PartFile | None = None
        self._entry: Entry | None = None
        if storage.journal is not None:
            self._held = bytearray()
        else:
            self._begin_file()

    def write(self, fragment: bytes | memoryview) -> None:
        """Take the next bytes of the data set."""
        self._checksum.update(fragment)
        self.size += len(fragment)
        if self._held is not None:
            self._held += fragment
            if self.size > _LONG_BYTES:
                self._spill()
            return
        self._whole_file.write(fragment)
        if len(self._head) < PREFIX_BYTES:
            self._head += fragment[: PREFIX_BYTES - len(self._head)]

    def identify(self) -> Identity:
        """Read who it is.

        Raises
        ------
        NotDicom, InvalidObject
            As of `dicom_io.part10.identify`.
        """
        identity = identify_plain(self.request, bytes(self._head if self._held is None else self._held[:PREFIX_BYTES]))
        if identity is not None:
            return identity
        with self._open() as dataset:
            return identify(self.request, dataset)

    def describe(self) -> StoredFile:
        """Where it belongs on disk. The same data set has the same place, whoever sends it and however often."""
        if self._part is not None:
            self._part.write_out()
        sha256 = self._checksum.hexdigest()
        return StoredFile(path=place_of(sha256), sha256=sha256, size=self.size)

    def keep_as(self, path: Path, *, at: datetime) -> None:
        """Write it into the journal, or give its file its name; `begin` and `wait` make it durable."""
        if self._held is not None and self._storage.journal is not None:
            content = Content(
                sha256=path.stem,
                file_meta=self._file_meta,
                dataset=memoryview(self._held),
                at=at.timestamp(),
                peer_address=self.request.peer_address,
            )
            self._entry = self._storage.journal.append(content)
        if self._entry is None:
            if self._held is not None:
                self._spill()
            self._whole_file.name_by_content(path)

    @property
    def repeats(self) -> bool:
        """See `worker.db.committer.Basis`: what is in the journal is given its row again."""
        return self._entry is not None

    def begin(self) -> None:
        """See `worker.db.committer.Basis`."""
        if self._entry is not None:
            self._entry.begin()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it is durable.

        Raises
        ------
        OSError
            It is not; the sender must be told 0xA700.
        worker.syncing.NotYet
            It is not known yet.
        """
        if self._entry is not None:
            self._entry.wait(seconds)
        else:
            self._whole_file.make_durable(seconds)

    def kept(self) -> None:
        """Its row is committed: what is in the journal shall have a file."""
        if self._entry is not None:
            self._entry.keep()
            self._entry = None

    def discard(self) -> None:
        """Leave nothing of it, unless it was kept."""
        self._checksum.close()
        if self._entry is not None:
            self._entry.void()
            self._entry = None
        if self._part is not None:
            self._part.discard()

    @property
    def _whole_file(self) -> PartFile:
        if self._part is None:
            raise AssertionError("What is not held in memory is in a file.")
        return self._part

    def _begin_file(self) -> None:
        self._part = self._storage.files.take()
        try:
            self._part.write(self._file_meta)
        except OSError:
            self.discard()
            raise

    def _spill(self) -> None:
        """Go on in a file."""
        held, self._held = self._held, None
        self._begin_file()
        if held is not None:
            self._head += held[:PREFIX_BYTES]
            self._whole_file.write(memoryview(held))

    def _open(self) -> BinaryIO:
        return self._whole_file.open(len(self._file_meta)) if self._held is None else BytesIO(self._held)


def place_of(sha256: str) -> Path:
    """Where the file of a data set belongs, relative to the data folder."""
    return Path(f"{FOLDER}/{sha256[:2]}/{sha256}.dcm")


def make_folders(data_dir: Path) -> None:
    """Make every folder that objects go to, so that no sender waits for one to become durable."""
    received = data_dir / FOLDER
    make_folder(received)
    missing = {f"{number:02x}" for number in range(256)} - {path.name for path in received.iterdir()}
    for name in missing:
        (received / name).mkdir(mode=FOLDER_MODE, exist_ok=True)
    if missing:
        sync_folder(received)


def is_undamaged(path: Path, file: StoredFile) -> bool:
    """Whether the file that lies there still holds the bytes that its name tells. Where not, those sent again replace it.

    Raises
    ------
    OSError
        It cannot be said now.
    """
    try:
        return dataset_digest(path) == (file.sha256, file.size)
    except (DicomError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _NOT_THE_FILE_S:
            raise
        return False


def store(incoming: IncomingObject, path: Path, *, at: datetime) -> None:
    """Keep an object that has arrived whole, in the journal or under the name that tells its content.

    One that is long is made durable here: where its row is to be committed, those of others would wait for it.

    Raises
    ------
    OSError
        It could not be written, or not be made durable; the sender must be told 0xA700.
    """
    incoming.keep_as(path, at=at)
    if incoming.size >= _LONG_BYTES:
        incoming.wait()
