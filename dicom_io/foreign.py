"""Keeps whatever foreign code raises over a stranger's bytes within our own error tree."""

from collections.abc import Iterator
from contextlib import contextmanager

from dicom_io.errors import DicomError, Retryable
from dicom_io.quiet import quietly
from dicom_io.status import is_transient


@contextmanager
def any_error_as(wanted: type[DicomError], message: str, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Stand around every call that makes pydicom or a decoder work on what a stranger sent; it is silent meanwhile.

    Parameters
    ----------
    wanted
        Raised in place of anything else, with that as its cause.
    message
        Its message; ``{}`` in it becomes the type of what was raised, whose own text may quote a patient's values.
    but
        Errors that pass as they are, beside `wanted` itself and what is not the bytes' fault, such as a failing disk or
        memory that is short now: that may work later, which an error that is not `Retryable` would deny.
    """
    try:
        with quietly:
            yield
    except (wanted, *but):
        raise
    except Exception as error:  # parsers, conversions and decoders raise whatever a stranger's bytes provoke
        if is_transient(error) and not issubclass(wanted, Retryable):
            raise
        raise wanted(message.replace("{}", type(error).__name__)) from error
