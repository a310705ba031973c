import errno

import pytest

from dicom_io.errors import InvalidObject, NotDicom, PeerBusy, UndecodablePixels
from dicom_io.status import StoreStatus, means_later, means_never, means_stored, status_of
from worker.errors import DatabaseUnavailable


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, ""), 0xA700),
        (OSError(errno.EDQUOT, ""), 0xA700),
        (OSError(errno.EIO, ""), 0xA700),
        (OSError(errno.EROFS, ""), 0xA700),
        (OSError(errno.EMFILE, ""), 0xA700),
        (MemoryError(), 0xA700),
        (DatabaseUnavailable(), 0xA700),
        (PeerBusy(), 0xA700),
        (InvalidObject(), 0xA900),
        (NotDicom(), 0xC000),
        (OSError(errno.EACCES, ""), 0x0110),
        (UndecodablePixels(), 0x0110),
        (RuntimeError(), 0x0110),
        (KeyError(), 0x0110),
    ],
)
def test_every_error_has_its_status(error: BaseException, status: int) -> None:
    assert status_of(error) == status


def test_no_error_means_success() -> None:
    assert StoreStatus.SUCCESS not in {
        status_of(error()) for error in (Exception, OSError, ValueError, NotDicom, InvalidObject)
    }


def test_only_success_the_warnings_and_a_duplicate_mean_stored() -> None:
    stored = [status for status in range(0x10000) if means_stored(status)]
    assert stored == [0x0000, 0x0001, 0x0107, 0x0111, 0x0116, *range(0xB000, 0xC000)]


def test_only_the_a7_range_means_later() -> None:
    assert [status for status in range(0x10000) if means_later(status)] == list(range(0xA700, 0xA800))


def test_what_the_object_itself_is_blamed_for_means_never() -> None:
    never = [0x0122, *range(0xA900, 0xAA00), *range(0xC000, 0xD000)]
    assert [status for status in range(0x10000) if means_never(status)] == never
