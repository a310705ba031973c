"""How much of a stranger's data set is parsed: a few megabytes of nothing but headers would take minutes, and gigabytes.

pydicom parses whatever a file holds, and converts a value however long it is. What is beyond these bounds is no radiograph.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from typing import Any, BinaryIO, Final, cast

from pydicom.charset import default_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_deferred_data_element, read_sequence
from pydicom.tag import BaseTag, Tag

from dicom_io.errors import NotDicom

MOST_READS: Final = 250_000
"""Of pydicom on a file: each element takes two, without a value one."""
MOST_ITEMS: Final = 50_000
"""Of all sequences. An item costs as much as twenty elements."""
LONGEST_VALUE_BYTES: Final = 64 * 1024
"""Of a value that is converted: what a length of 16 bits allows, and with it Explicit VR."""
MOST_CHARACTER_SET_BYTES: Final = 64 * 1024
"""Of all of them together: each term of each is looked up."""
_LONGEST_SEQUENCE_BYTES: Final = 4 * 1024 * 1024
_HEADER_BYTES: Final = 8
_ITEMS: Final = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_CHARACTER_SETS: Final = (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")
_UNDEFINED: Final = 0xFFFFFFFF
_BULK: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "OB or OW", "UN"})


@contextmanager
def bounded(file: BinaryIO, *, most_bytes: int = 128 * 1024 * 1024) -> Iterator[BinaryIO]:
    """Have a file that raises `NotDicom` when more of it is parsed than any radiograph needs.

    Parameters
    ----------
    file
        Stands where parsing begins. Afterwards it stands anywhere.
    most_bytes
        That are read, and not left on disk.
    """
    reader = _Bounded(cast("Any", file))
    reader.most_bytes = most_bytes
    try:
        yield reader
    finally:
        reader.detach()  # or its end would close the file


class _Bounded(BufferedReader):
    most_bytes: int
    _reads = _items = _bytes = _character_set_bytes = 0
    _character_set_comes = False

    def read(self, size: int | None = -1, /) -> bytes:
        encoded = super().read(size)
        self._reads += 1
        self._bytes += len(encoded)
        if size == _HEADER_BYTES:
            self._items += encoded[:4] in _ITEMS
            self._character_set_comes = encoded[:4] in _CHARACTER_SETS
        elif self._character_set_comes:
            self._character_set_bytes += len(encoded)
        if self._reads > MOST_READS or self._items > MOST_ITEMS or self._bytes > self.most_bytes:
            raise NotDicom("The data set holds more attributes, items or bytes beside its pixels than any radiograph.")
        if self._character_set_bytes > MOST_CHARACTER_SET_BYTES:
            raise NotDicom("SpecificCharacterSet is too long.")
        return encoded


def require_few_items(encoded: bytes) -> None:
    """Refuse a data set of too many items, in however many sequences and wherever they are nested.

    Raises
    ------
    NotDicom
        It has them.
    """
    if sum(encoded.count(item) for item in _ITEMS) > MOST_ITEMS:
        raise NotDicom("The data set holds too many items.")


def value_of(ds: Dataset, keyword: str) -> Any:
    """Convert and answer an attribute's value; None where it is absent.

    Raises
    ------
    NotDicom
        It is longer than any value of its kind. Whatever pydicom raises over one that is not.
    """
    require_short(ds, keyword)
    return ds.get(keyword)


def require_short(ds: Dataset, name: str | BaseTag, *, most: int = LONGEST_VALUE_BYTES) -> None:
    """Refuse a value, not converted yet, that is longer than `most` bytes; a sequence of too many items or bytes.

    Bytes that stay bytes may have any length, unless `most` is given.

    Raises
    ------
    NotDicom
        It is.
    """
    try:
        tag = Tag(name)
        element: object = ds.get_item(tag, keep_deferred=True)
    except ValueError:  # no attribute of that name
        return
    if not isinstance(element, RawDataElement) or element.length == _UNDEFINED or element.length <= most:
        return
    kind = _representation(tag, element)
    if kind in _BULK and most == LONGEST_VALUE_BYTES:
        return
    if kind != "SQ" or element.length > _LONGEST_SEQUENCE_BYTES:
        raise NotDicom(f"{keyword_for_tag(tag) or 'A private attribute'} is too long.")
    encoded = element.value
    if encoded is None and isinstance(ds, FileDataset):  # left on disk
        encoded = read_deferred_data_element(
            ds.fileobj_type, cast("Any", ds.filename or ds.buffer), ds.timestamp, element
        ).value
    encoded = encoded or b""
    with bounded(BytesIO(encoded)) as file:  # pydicom does it again, where it may
        read_sequence(file, element.is_implicit_VR, element.is_little_endian, len(encoded), default_encoding)


def _representation(tag: BaseTag, element: RawDataElement) -> str:
    """What pydicom takes it for."""
    if element.VR and element.VR != "UN":
        return element.VR
    return dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
