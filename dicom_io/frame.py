"""A compressed frame on its way to the process that decodes it, and what that answers, as bytes in a pipe."""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.uint8] | NDArray[np.uint16]

READY: Final = b"\x06"
"""What the process says first, when everything is loaded."""

_FRAME: Final = Struct("<64sIIBB?Q")
"""Transfer syntax, rows, columns, bits allocated, bits stored, signed, bytes of data."""

ANSWER: Final = Struct("<??H")
"""Whether cells follow, whether the process wants to be replaced, and bytes of words, which come before the cells."""

MOST_WORDS_BYTES: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One compressed frame of a single sample, and what its data set says of it; `codestream.checked_frame` has seen it."""

    transfer_syntax: str
    rows: int
    columns: int
    bits_allocated: int
    """8 or 16."""
    bits_stored: int
    signed: bool
    data: bytes

    @property
    def header(self) -> bytes:
        """Everything but the data, which follow it."""
        return _FRAME.pack(
            self.transfer_syntax.encode(),
            self.rows,
            self.columns,
            self.bits_allocated,
            self.bits_stored,
            self.signed,
            len(self.data),
        )


def read_frame(read: Callable[[int], bytes]) -> Frame | None:
    """Read what `Frame.header` and the data are; None at the end.

    Parameters
    ----------
    read
        Answers so many bytes, or fewer at the end.
    """
    header = read(_FRAME.size)
    if len(header) < _FRAME.size:
        return None
    transfer_syntax, rows, columns, bits_allocated, bits_stored, signed, length = _FRAME.unpack(header)
    data = read(length)
    if len(data) < length:
        return None
    return Frame(
        transfer_syntax=transfer_syntax.rstrip(b"\0").decode(),
        rows=rows,
        columns=columns,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        signed=signed,
        data=data,
    )
