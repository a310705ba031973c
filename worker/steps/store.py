"""Store: the bytes of an object become a durable file, named by their content."""

import hashlib
from pathlib import Path

from dicom_io.part10 import StoreRequest, file_header
from worker.files import write_durably
from worker.values import StoredFile

FOLDER = Path("received")


def describe(request: StoreRequest) -> StoredFile:
    """Where an object belongs on disk. The same data set has the same place, whoever sends it and however often."""
    sha256 = hashlib.sha256(request.dataset).hexdigest()
    return StoredFile(path=FOLDER / sha256[:2] / f"{sha256}.dcm", sha256=sha256, size=len(request.dataset))


def store(request: StoreRequest, file: StoredFile, *, data_dir: Path, receiver: str) -> None:
    """Write an object as a PS3.10 file: our file meta, then the data set exactly as received.

    Raises
    ------
    OSError
        It could not be made durable; the sender must be told 0xA700.
    """
    write_durably(data_dir / file.path, (file_header(request, receiver=receiver), request.dataset))
