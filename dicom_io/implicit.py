"""A data set told once more in Implicit VR Little Endian, which every application entity must take (PS3.5 section 10.1).

By hand, value for value: pydicom passes over a file that ends in the middle of a value, and takes 30 ms over a report.
"""

import struct
from collections.abc import Iterator

from dicom_io.errors import NotDicom
from dicom_io.prefix import LONG_VRS, SHORT_VRS

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_ENDS, _SEQUENCE_ENDS = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_HEADER = struct.Struct("<HHI")


def to_implicit(encoded: bytes) -> bytes:
    """The bytes of a data set in Explicit VR Little Endian in Implicit VR Little Endian; lengths are always given.

    Retired group lengths are left out: they would be wrong.

    Raises
    ------
    NotDicom
        It is damaged, or holds what cannot be told so: encapsulated pixels, a value representation that is not known here.
    """
    try:
        return b"".join(_Reader(encoded).elements(len(encoded), delimited=False))
    except struct.error as error:
        raise NotDicom("The data set ends in the middle of an element.") from error


class _Reader:
    """Where the next byte is read."""

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded
        self._at = 0

    def elements(self, end: int, *, delimited: bool) -> Iterator[bytes]:
        """The elements of a data set up to its end, or of an item up to its delimiter."""
        while self._at < end or delimited:
            group, number, length = self._header()
            if delimited and (group, number) == _ITEM_ENDS:
                return
            vr = struct.pack("<H", length & 0xFFFF)
            if vr in LONG_VRS:
                (length,) = struct.unpack_from("<I", self._encoded, self._at)
                self._at += 4
            elif vr in SHORT_VRS:
                length >>= 16
            else:
                raise NotDicom("A value representation is not known.")
            value = b"".join(self._items(end, length)) if vr == b"SQ" else self._value(length)
            if number:
                yield _HEADER.pack(group, number, len(value)) + value
        self._require_end(end)

    def _items(self, end: int, length: int) -> Iterator[bytes]:
        delimited = length == _UNDEFINED
        end = end if delimited else self._at + length
        while self._at < end or delimited:
            group, number, length = self._header()
            if delimited and (group, number) == _SEQUENCE_ENDS:
                return
            if (group, number) != _ITEM:
                raise NotDicom("A sequence holds what is no item.")
            is_open = length == _UNDEFINED
            content = b"".join(self.elements(end if is_open else self._at + length, delimited=is_open))
            yield _HEADER.pack(*_ITEM, len(content)) + content
        self._require_end(end)

    def _value(self, length: int) -> bytes:
        start, self._at = self._at, self._at + length
        return self._encoded[start : self._at]

    def _require_end(self, end: int) -> None:
        if self._at != end:
            raise NotDicom("An element reaches over the end of what holds it.")

    def _header(self) -> tuple[int, int, int]:
        group, number, length = _HEADER.unpack_from(self._encoded, self._at)
        self._at += _HEADER.size
        return group, number, length
