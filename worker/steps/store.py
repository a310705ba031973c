"""Store: the bytes of an object become a durable file, named by their content."""

import errno
from collections import deque
from contextlib import suppress
from pathlib import Path

from dicom_io.errors import DicomError
from dicom_io.found import dataset_digest
from dicom_io.part10 import Identity, StoreRequest, file_header, identify, identify_plain
from dicom_io.prefix import PREFIX_BYTES
from worker.files import FOLDER_MODE, PartFile, allows_unnamed, make_folder, sync_folder
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


class IncomingObject:
    """An object on its way to disk: our file meta, then the data set exactly as it comes, its checksum along the way."""

    def __init__(self, request: StoreRequest, files: SpareFiles, *, receiver: str) -> None:
        self.request = request
        self.size = 0
        self._head = bytearray()
        self._checksum = Checksum()
        header = file_header(request, receiver=receiver)
        self._begin = len(header)
        self._part = files.take()
        try:
            self._part.write(header)
        except OSError:
            self.discard()
            raise

    def write(self, fragment: bytes | memoryview) -> None:
        """Take the next bytes of the data set."""
        self._checksum.update(fragment)
        self._part.write(fragment)
        self.size += len(fragment)
        if len(self._head) < PREFIX_BYTES:
            self._head += fragment[: PREFIX_BYTES - len(self._head)]

    def identify(self) -> Identity:
        """Read who it is.

        Raises
        ------
        NotDicom, InvalidObject
            As of `dicom_io.part10.identify`.
        """
        identity = identify_plain(self.request, bytes(self._head))
        if identity is not None:
            return identity
        with self._part.open(self._begin) as dataset:
            return identify(self.request, dataset)

    def describe(self) -> StoredFile:
        """Where it belongs on disk. The same data set has the same place, whoever sends it and however often."""
        self._part.write_out()
        sha256 = self._checksum.hexdigest()
        return StoredFile(path=Path(f"{FOLDER}/{sha256[:2]}/{sha256}.dcm"), sha256=sha256, size=self.size)

    def keep_as(self, path: Path) -> None:
        """Give it its name, and begin to make it durable."""
        self._part.name_by_content(path)

    def make_durable(self, seconds: float | None = None) -> None:
        """Wait until it is durable under its name, as `worker.files.PartFile.make_durable`.

        Raises
        ------
        OSError
            It is not; the sender must be told 0xA700.
        worker.syncing.NotYet
            It is not known yet.
        """
        self._part.make_durable(seconds)

    def discard(self) -> None:
        """Leave nothing of it, unless it was kept."""
        self._checksum.close()
        self._part.discard()


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


def store(incoming: IncomingObject, path: Path) -> None:
    """Give an object that has arrived whole the name that tells its content, and begin to make it durable.

    Of one that is long the end is waited for here: where its row is to be committed, those of others wait with it.

    Raises
    ------
    OSError
        It could not be named, or not be made durable; the sender must be told 0xA700.
    """
    incoming.keep_as(path)
    if incoming.size >= _LONG_BYTES:
        incoming.make_durable()
