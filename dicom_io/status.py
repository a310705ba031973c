"""C-STORE statuses and what they mean for the one who receives them (PS3.4 B.2.3, PS3.7 C)."""

import errno
from enum import IntEnum

from dicom_io.errors import InvalidObject, NotDicom, ObjectTooLarge, Retryable


class StoreStatus(IntEnum):
    """Statuses this worker answers."""

    SUCCESS = 0x0000
    """The object is durable and indexed."""
    PROCESSING_FAILURE = 0x0110
    """Something on our side is wrong that waiting may not cure (PS3.7 C.5.21)."""
    OUT_OF_RESOURCES = 0xA700
    """No space, or no database: send it again later."""
    MISMATCH = 0xA900
    """The data set contradicts the request, or lacks its UIDs."""
    CANNOT_UNDERSTAND = 0xC000
    """The bytes are not a data set."""
    TOO_LARGE = 0xC001
    """The object is larger than dicom.maximum_object_bytes: it will not be taken later either."""


class GeneralStatus(IntEnum):
    """Statuses of any service (PS3.7 annex C)."""

    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    UNRECOGNIZED_OPERATION = 0x0211
    RESOURCE_LIMITATION = 0x0213


_TRANSIENT_ERRNO = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.EXDEV, errno.ESTALE}
)


def is_transient(error: BaseException) -> bool:
    """Whether the same thing may work later: no space, no memory, no descriptor, a disk that fails to read."""
    return isinstance(error, Retryable | MemoryError) or (isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO)


def status_of(error: BaseException) -> StoreStatus:
    """From error to status: the one table."""
    match error:
        case _ if is_transient(error):
            return StoreStatus.OUT_OF_RESOURCES
        case InvalidObject():
            return StoreStatus.MISMATCH
        case NotDicom():
            return StoreStatus.CANNOT_UNDERSTAND
        case ObjectTooLarge():
            return StoreStatus.TOO_LARGE
        case _:
            return StoreStatus.PROCESSING_FAILURE


def normalized_status_of(error: BaseException) -> GeneralStatus:
    """From the error of a normalized service to its status."""
    match error:
        case _ if is_transient(error):
            return GeneralStatus.RESOURCE_LIMITATION
        case InvalidObject():
            return GeneralStatus.INVALID_ATTRIBUTE_VALUE
        case _:
            return GeneralStatus.PROCESSING_FAILURE


def means_stored(status: int) -> bool:
    """Whether the peer keeps the object: success, or a status of the class Warning (PS3.7 C.4; PS3.4 table B.2-1 has three).

    0x0111, duplicate SOP Instance (PS3.7 C.5.6), means so too: the UIDs of what we send are derived from its content, so what
    the peer has under this UID is the object itself, sent before a crash.
    """
    is_warning = 0xB000 <= status <= 0xBFFF or status in {0x0001, 0x0107, 0x0116}
    return status == StoreStatus.SUCCESS or is_warning or status == 0x0111


def means_later(status: int) -> bool:
    """Whether the peer is out of resources, so that the same object may be taken later (0xA7xx)."""
    return 0xA700 <= status <= 0xA7FF


def means_never(status: int) -> bool:
    """Whether the peer will not take the same object later either.

    It finds that the data set does not match its SOP class (0xA9xx) or cannot understand it (0xCxxx; PS3.4 table B.2-1), or
    does not take its SOP class (0x0122; PS3.7 C.5.9).
    """
    return 0xA900 <= status <= 0xA9FF or 0xC000 <= status <= 0xCFFF or status == 0x0122
