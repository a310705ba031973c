"""A small PACS on loopback: keeps what it is sent in a folder, and remembers when each study's report came."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from time import monotonic

from dicom_io.listener import ListenerSettings, listen
from dicom_io.part10 import StoreRequest, file_header, identify
from dicom_io.status import StoreStatus
from dicom_io.values import StudyUID

AE_TITLE = "DEMOPACS"


class Pacs:
    """What came, and when (seconds of the monotonic clock)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = Condition()
        self.reported_at: dict[StudyUID, float] = {}
        self.port = 0

    def keep(self, request: StoreRequest) -> None:
        """Take an object in."""
        identity = identify(request)
        content = file_header(request, receiver=AE_TITLE) + request.dataset
        (self._folder / f"{identity.sop_instance_uid}.dcm").write_bytes(content)
        if identity.modality == "SR":
            with self._changed:
                self.reported_at.setdefault(identity.study_uid, monotonic())
                self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait for the next report, for so long at most."""
        with self._changed:
            self._changed.wait(seconds)


@contextmanager
def small_pacs(folder: Path) -> Iterator[Pacs]:
    """Run it on a free port of the loopback interface."""
    folder.mkdir()
    pacs = Pacs(folder)
    settings = ListenerSettings(ae_title=AE_TITLE, host="127.0.0.1", port=0)
    with listen(settings, on_store=pacs.keep, on_refused=_refuse) as listener:
        pacs.port = listener.port
        yield pacs


def _refuse(_request: StoreRequest, _status: StoreStatus, _error: BaseException) -> None:
    """Nothing to do: the worker hears the status and shows it."""
