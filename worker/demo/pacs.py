"""A small PACS on loopback: keeps what it is sent in a folder, and remembers when each study's report came."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Condition
from time import monotonic

from dicom_io.keeper import Caller, StoreAnswer
from dicom_io.listener import ListenerSettings, listen
from dicom_io.part10 import StoreRequest, file_header, identify
from dicom_io.values import StudyUID

AE_TITLE = "DEMOPACS"


class Pacs:
    """What came, and when (seconds of the monotonic clock)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = Condition()
        self.reported_at: dict[StudyUID, float] = {}
        self.port = 0

    def open(self, request: StoreRequest) -> "Received":
        """See `dicom_io.keeper.Keeper`."""
        return Received(request, self)

    def answered(self, request: StoreRequest, answer: StoreAnswer) -> None:
        """See `dicom_io.keeper.Keeper`. The worker hears the status and shows it."""

    def told(self) -> None:
        """See `dicom_io.keeper.Keeper`."""

    def accepted(self, caller: Caller) -> None:
        """See `dicom_io.keeper.Keeper`."""

    def closed(self, caller: Caller) -> None:
        """See `dicom_io.keeper.Keeper`."""

    def rejected(self, caller: Caller, reason: str, words: str) -> None:
        """See `dicom_io.keeper.Keeper`."""

    def aborted(self, caller: Caller, reason: str, words: str) -> None:
        """See `dicom_io.keeper.Keeper`."""

    def keep(self, request: StoreRequest, dataset: BytesIO) -> None:
        """Take an object in."""
        identity = identify(request, dataset)
        content = file_header(request, receiver=AE_TITLE) + dataset.getvalue()
        (self._folder / f"{identity.sop_instance_uid}.dcm").write_bytes(content)
        if identity.modality == "SR":
            with self._changed:
                self.reported_at.setdefault(identity.study_uid, monotonic())
                self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait for the next report, for so long at most."""
        with self._changed:
            self._changed.wait(seconds)


class Received:
    """A report on its way in, in memory: reports are small."""

    def __init__(self, request: StoreRequest, pacs: Pacs) -> None:
        self._request = request
        self._pacs = pacs
        self._dataset = BytesIO()

    def write(self, fragment: memoryview) -> None:
        """See `dicom_io.keeper.Sink`."""
        self._dataset.write(fragment)

    def finish(self) -> None:
        """See `dicom_io.keeper.Sink`."""
        self._dataset.seek(0)
        self._pacs.keep(self._request, self._dataset)

    def abandon(self) -> None:
        """See `dicom_io.keeper.Sink`."""


@contextmanager
def small_pacs(folder: Path) -> Iterator[Pacs]:
    """Run it on a free port of the loopback interface."""
    folder.mkdir()
    pacs = Pacs(folder)
    settings = ListenerSettings(ae_title=AE_TITLE, host="127.0.0.1", port=0)
    with listen(settings, keeper=pacs) as listener:
        pacs.port = listener.port
        yield pacs
