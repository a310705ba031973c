"""Reads single attributes of a stranger's data set: one kind of answer, or `Unreadable`."""

import re
from collections.abc import Iterable
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from dicom_io.bounded import value_of
from dicom_io.errors import InvalidObject
from dicom_io.foreign import any_error_as

_CODED = re.compile(r"[A-Z0-9 _/.,+-]{1,16}")
_NOT_A_LETTER = re.compile(r"[^A-Z]+")


class Unreadable(InvalidObject):
    """An attribute cannot be read as what the standard makes it."""


def strings(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """Values of a text attribute, trimmed, in capitals; empty where it is absent or holds nothing.

    Raises
    ------
    Unreadable
        It holds something else than text.
    """
    values = _values(ds, keyword)
    if not all(isinstance(one, str) for one in values):
        raise Unreadable(f"{keyword} is not text; text is expected.")
    trimmed = tuple(one.strip(" \t\r\n\x00").upper() for one in values)
    return trimmed if any(trimmed) else ()


def integer(ds: Dataset, keyword: str) -> int | None:
    """A whole number; None where it is absent or empty.

    Raises
    ------
    Unreadable
        It holds several, or something else.
    """
    value = _value(ds, keyword)
    if value is None or value == "":
        return None
    if isinstance(value, int):
        return int(value)
    raise Unreadable(f"{keyword} is not one whole number; one is expected.")


def integers(ds: Dataset, keyword: str, *, count: int | None = None) -> tuple[int, ...]:
    """Values as whole numbers, however they were written; empty where the attribute is absent or empty.

    Raises
    ------
    Unreadable
        One of them is no number, or there are not `count` of them.
    """
    with any_error_as(Unreadable, f"{keyword} does not hold whole numbers; they are expected."):
        values = tuple(int(value) for value in _values(ds, keyword))
    if count not in (None, len(values)):
        raise Unreadable(f"{keyword} has {len(values)} values; {count} are expected.")
    return values


def numbers(ds: Dataset, keyword: str, *, at_most: int | None = None) -> tuple[float, ...]:
    """The first `at_most` values as numbers, perhaps not finite; empty where the attribute is absent or empty.

    Raises
    ------
    Unreadable
        One of them is no number.
    """
    with any_error_as(Unreadable, f"{keyword} does not hold numbers; they are expected."):
        return tuple(float(value) for value in _values(ds, keyword)[:at_most])


def items(ds: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Items of a sequence; empty where it is absent.

    Raises
    ------
    Unreadable
        It is no sequence.
    """
    value = _value(ds, keyword)
    if value is None or value == "":
        return ()
    if not isinstance(value, Sequence):
        raise Unreadable(f"{keyword} is not a sequence; one is expected.")
    return tuple(value)


def code_of(item: Dataset) -> str:
    """Code Value of a coded item, whatever its scheme: those compared here are unique across SCT, SRT and SNM3."""
    return next(iter(strings(item, "CodeValue")), "")


def words(text: str) -> list[str]:
    """The words of a text in capitals, digits and punctuation dropped."""
    return [word for word in _NOT_A_LETTER.split(text.upper()) if word]


def shown(values: Iterable[str]) -> str:
    r"""Coded values fit for a log line or a page: ``CT``, ``L\P``, ``missing``, or ``not a code`` for anything else."""
    text = list(values)
    if not any(text):
        return "missing"
    return "\\".join(text) if len(text) <= 3 and all(_CODED.fullmatch(one) or not one for one in text) else "not a code"


def _value(ds: Dataset, keyword: str) -> object:
    with any_error_as(Unreadable, f"{keyword} cannot be read; a valid value is expected."):
        return value_of(ds, keyword)


def _values(ds: Dataset, keyword: str) -> tuple[Any, ...]:
    value = _value(ds, keyword)
    if isinstance(value, MultiValue | list | tuple):
        return tuple(value)
    return () if value is None or value == "" else (value,)
