"""What the receiving end asks of whoever keeps what it receives."""

from dataclasses import dataclass
from typing import Protocol

from dicom_io.part10 import StoreRequest
from dicom_io.status import StoreStatus


class Sink(Protocol):
    """Takes the data set of one object, fragment by fragment. Either `finish` or `abandon` ends it, once, and cleans up."""

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes; the memory is used again afterwards. After an error nothing more is written."""

    def finish(self) -> None:
        """Make the object durable. Returning means 0x0000; an error becomes a status by `dicom_io.status.status_of`."""

    def abandon(self) -> None:
        """Forget what was written: the rest does not come, or could not be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who opened an association, and whom they meant to call. The titles are empty where it did not come so far."""

    calling_ae_title: str = ""
    called_ae_title: str = ""
    peer_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAnswer:
    """What was answered to a C-STORE."""

    status: StoreStatus
    error: BaseException | None
    """Why the object was not kept; None where it was."""
    size: int
    """Bytes of the data set."""
    seconds: float
    """From the request to its answer."""


class Keeper(Protocol):
    """Keeps objects, and is told of everything. Called by many threads at once."""

    def open(self, request: StoreRequest) -> Sink:
        """Begin to take an object; an error becomes a status."""

    def answered(self, request: StoreRequest, answer: StoreAnswer) -> None:
        """An object was kept or refused, and its sender is about to be told."""

    def told(self) -> None:
        """The sender of an object has its answer. Until its next one comes there is time to prepare for that."""

    def accepted(self, caller: Caller) -> None:
        """An association was accepted."""

    def closed(self, caller: Caller) -> None:
        """An accepted association ended, however it did."""

    def rejected(self, caller: Caller, reason: str, words: str) -> None:
        """An association was not accepted. `reason` is one of a few short names, `words` say what is wrong and what to do."""

    def aborted(self, caller: Caller, reason: str, words: str) -> None:
        """A connection was broken off: by us, or by the peer in the middle of a message. Reason and words as of `rejected`."""
