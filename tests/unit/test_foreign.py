"""What foreign code raises comes out as one of our own errors, without its text."""

import errno
import warnings

import pytest

from dicom_io.errors import InvalidObject, NotDicom, PeerUnreachable
from dicom_io.foreign import any_error_as


@pytest.mark.parametrize("raised", [ValueError, AttributeError, StopIteration, RecursionError, InvalidObject])
def test_anything_raised_becomes_the_wanted_error_naming_its_type_but_not_its_text(raised: type[Exception]) -> None:
    with pytest.raises(NotDicom) as caught, any_error_as(NotDicom, "It is broken ({})."):
        raise raised("Doe^Jane")
    assert str(caught.value) == f"It is broken ({raised.__name__})."
    assert isinstance(caught.value.__cause__, raised)


def test_the_wanted_error_and_those_let_through_pass_as_they_are() -> None:
    for error in (NotDicom("Too large."), FileNotFoundError("gone")):
        with pytest.raises(type(error)) as caught, any_error_as(NotDicom, "It is broken.", but=(FileNotFoundError,)):
            raise error
        assert caught.value is error


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "the disk"), OSError(errno.ENOMEM, "no memory")], ids=str)
def test_what_may_work_later_is_not_made_an_error_for_ever(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, any_error_as(NotDicom, "It is broken."):
        raise error
    assert caught.value is error
    with pytest.raises(PeerUnreachable, match="No answer"), any_error_as(PeerUnreachable, "No answer."):
        raise error


def test_an_interrupt_is_not_held_back() -> None:
    with pytest.raises(KeyboardInterrupt), any_error_as(NotDicom, "It is broken."):
        raise KeyboardInterrupt


def test_warnings_that_may_quote_a_patient_are_silent_meanwhile() -> None:
    with any_error_as(NotDicom, "It is broken."):
        warnings.warn("Invalid value for VR PN: 'Doe^Jane'", stacklevel=1)
