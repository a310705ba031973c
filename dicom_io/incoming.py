"""Messages whose data set is still to come: what becomes of it, and which status answers it."""

from contextlib import suppress
from dataclasses import replace
from logging import getLogger
from time import monotonic
from typing import Protocol

from dicom_io.errors import DicomError, ObjectTooLarge
from dicom_io.keeper import Keeper, Sink, StoreAnswer
from dicom_io.normalized import NormalizedRequest, NormalizedService
from dicom_io.part10 import StoreRequest
from dicom_io.status import GeneralStatus, StoreStatus, normalized_status_of, status_of
from dicom_io.wire import AbortReason, ProtocolError

_LONGEST_PAYLOAD_BYTES = 8 * 1024 * 1024
_PATIENCE = 2
"""How many times as large as allowed an object may be for its sender to be told why; a longer one is broken off."""

log = getLogger(__name__)


class Incoming(Protocol):
    """A message on its way."""

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes of its data set."""

    def finish(self) -> tuple[int, str]:
        """Answer the status, and a comment on it for the sender."""

    def abandon(self) -> None:
        """The rest does not come."""


class Nothing:
    """A request that needs no data set; one that comes is passed over."""

    def __init__(self, status: int) -> None:
        self._status = status

    def write(self, fragment: memoryview) -> None:
        """See `Incoming`."""

    def finish(self) -> tuple[int, str]:
        """See `Incoming`."""
        return self._status, ""

    def abandon(self) -> None:
        """See `Incoming`."""


class Object:
    """An object on its way to its sink. After the first error the rest is read and forgotten, then answered."""

    def __init__(self, request: StoreRequest, keeper: Keeper, *, most_bytes: int) -> None:
        self._request = request
        self._keeper = keeper
        self._most_bytes = most_bytes
        self._size = 0
        self._began = monotonic()
        self._error: BaseException | None = None
        self._sink: Sink | None = None
        try:
            self._sink = keeper.open(request)
        except Exception as error:  # noqa: BLE001  the C-STORE boundary: the sender always gets a status
            self._error = error

    def write(self, fragment: memoryview) -> None:
        """See `Incoming`.

        Raises
        ------
        ProtocolError
            It is so much larger than allowed that its end is not waited for.
        """
        self._size += len(fragment)
        if self._size > _PATIENCE * self._most_bytes:
            self._answer()
            raise ProtocolError(AbortReason.NOT_SPECIFIED, "an object far larger than dicom.maximum_object_bytes")
        if self._sink is None:
            return
        if self._size > self._most_bytes:
            self._fail(ObjectTooLarge())
            return
        try:
            self._sink.write(fragment)
        except Exception as error:  # noqa: BLE001  the C-STORE boundary
            self._fail(error)

    def finish(self) -> tuple[int, str]:
        """See `Incoming`."""
        sink, self._sink = self._sink, None
        if sink is not None:
            try:
                sink.finish()
            except Exception as error:  # noqa: BLE001  the C-STORE boundary
                self._error = error
        return self._answer(), _comment(self._error)

    def _answer(self) -> StoreStatus:
        status = StoreStatus.SUCCESS if self._error is None else status_of(self._error)
        answer = StoreAnswer(status=status, error=self._error, size=self._size, seconds=monotonic() - self._began)
        self._keeper.answered(self._request, answer)
        return status

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self.abandon()

    def abandon(self) -> None:
        """See `Incoming`."""
        sink, self._sink = self._sink, None
        if sink is not None:
            with suppress(Exception):  # what it leaves is removed at the next start
                sink.abandon()


class Payload:
    """A request of a normalized service: its data set is small and waits in memory until it is whole."""

    def __init__(self, request: NormalizedRequest, service: NormalizedService) -> None:
        self._request = request
        self._service = service
        self._dataset = bytearray()
        self._is_too_long = False

    def write(self, fragment: memoryview) -> None:
        """See `Incoming`."""
        self._is_too_long = self._is_too_long or len(self._dataset) + len(fragment) > _LONGEST_PAYLOAD_BYTES
        if not self._is_too_long:
            self._dataset += fragment

    def finish(self) -> tuple[int, str]:
        """See `Incoming`."""
        if self._is_too_long:
            return GeneralStatus.RESOURCE_LIMITATION, ""
        try:
            self._service(replace(self._request, dataset=bytes(self._dataset)))
        except DicomError as error:
            log.warning("A normalized service refused a message: %s.", type(error).__name__)
            return normalized_status_of(error), _comment(error)
        except Exception as error:
            log.exception("A normalized service failed.")
            return normalized_status_of(error), _comment(error)
        return StoreStatus.SUCCESS, ""

    def abandon(self) -> None:
        """See `Incoming`."""


def _comment(error: BaseException | None) -> str:
    """Our own words alone: they quote nothing of a data set or of this machine."""
    return str(error) if isinstance(error, DicomError) else ""
