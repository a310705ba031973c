"""How much of a stranger's data set is parsed: a few megabytes of nothing but headers would take minutes, and gigabytes.

pydicom parses whatever a file holds, and converts a value however long it is. What is beyond these bounds is no radiograph.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, BinaryIO, Final, cast

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_deferred_data_element

from dicom_io.errors import NotDicom

MOST_READS: Final = 500_000
"""Of pydicom on a file: each element takes two, without a value one."""
MOST_ITEMS: Final = 50_000
"""Of all sequences. An item costs as much as twenty elements."""
LONGEST_VALUE_BYTES: Final = 64 * 1024
"""Of a value that is converted: what a length of 16 bits allows, and with it Explicit VR."""
_LONGEST_SEQUENCE_BYTES: Final = 8 * 1024 * 1024
_LONGEST_CHARACTER_SET_BYTES: Final = 1024
_HEADER_BYTES: Final = 8
_ITEMS: Final = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_CHARACTER_SETS: Final = (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")
_UNDEFINED: Final = 0xFFFFFFFF


@contextmanager
def bounded(file: BinaryIO, *, most_value_bytes: int = 64 * 1024 * 1024) -> Iterator[BinaryIO]:
    """Have a file that raises `NotDicom` when more of it is parsed than any radiograph needs.

    Parameters
    ----------
    file
        Stands where parsing begins. Afterwards it stands anywhere.
    most_value_bytes
        Of all long values that are read at once, not left on disk.
    """
    reader = _Bounded(cast("Any", file))
    reader.most_value_bytes = most_value_bytes
    try:
        yield reader
    finally:
        reader.detach()  # or its end would close the file


class _Bounded(BufferedReader):
    most_value_bytes: int
    _reads = _items = _value_bytes = 0
    _character_set_comes = False

    def read(self, size: int | None = -1, /) -> bytes:
        encoded = super().read(size)
        self._reads += 1
        if size == _HEADER_BYTES:
            self._items += encoded[:4] in _ITEMS
            self._character_set_comes = encoded[:4] in _CHARACTER_SETS
        elif len(encoded) > LONGEST_VALUE_BYTES:
            self._value_bytes += len(encoded)
        if self._reads > MOST_READS or self._items > MOST_ITEMS or self._value_bytes > self.most_value_bytes:
            raise NotDicom("The data set holds more attributes, items or bytes beside its pixels than any radiograph.")
        if self._character_set_comes and len(encoded) > _LONGEST_CHARACTER_SET_BYTES:
            raise NotDicom("SpecificCharacterSet is too long.")
        return encoded


def value_of(ds: Dataset, keyword: str) -> Any:
    """Convert and answer an attribute's value; None where it is absent.

    Raises
    ------
    NotDicom
        It is longer than any value of its kind. Whatever pydicom raises over one that is not.
    """
    require_short(ds, keyword)
    return ds.get(keyword)


def require_short(ds: Dataset, keyword: str, *, most: int = LONGEST_VALUE_BYTES) -> None:
    """Refuse a value, not converted yet, that is longer than `most` bytes; a sequence of too many items or bytes.

    Raises
    ------
    NotDicom
        It is.
    """
    tag = tag_for_keyword(keyword)
    element: object = None if tag is None else ds.get_item(tag, keep_deferred=True)
    if not isinstance(element, RawDataElement) or element.length == _UNDEFINED or element.length <= most:
        return
    if dictionary_VR(keyword) != "SQ" or element.length > _LONGEST_SEQUENCE_BYTES:
        raise NotDicom(f"{keyword} is too long.")
    encoded = element.value
    if encoded is None and isinstance(ds, FileDataset):  # left on disk
        encoded = read_deferred_data_element(ds.fileobj_type, cast("Any", ds.filename or ds.buffer), ds.timestamp, element).value
    if sum((encoded or b"").count(item) for item in _ITEMS) > MOST_ITEMS:
        raise NotDicom(f"{keyword} has too many items.")
