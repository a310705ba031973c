"""The first few attributes of an ordinary data set, read fast; whatever is out of the ordinary is left to pydicom.

Every object waits for this: for one in plain encoding, with plain values, it takes a tenth of what pydicom does.
"""

import re
import struct
from collections.abc import Mapping
from typing import Final

PREFIX_BYTES: Final = 64 * 1024
"""As much of a data set as is looked at."""
_LAST_GROUP: Final = 0x0020
LONG_VRS: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations with a length of 32 bits (PS3.5 table 7.1-1)."""
SHORT_VRS: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS"}
    | {b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
"""Those with one of 16 bits (PS3.5 table 7.1-2)."""
_UNDEFINED: Final = 0xFFFFFFFF
_PLAIN: Final = {
    b"UI": re.compile(rb"[0-9.]{1,64}"),
    # Printable, and the same in every character set of PS3.3 C.12.1.1.2: no backslash, no tilde, no escape.
    b"": re.compile(rb"[ -\[\]-}]*"),
}


def read_plain(encoded: bytes, wanted: Mapping[int, bytes], *, implicit: bool) -> dict[int, str] | None:
    """Values of top-level attributes up to group 0020 in little endian.

    Parameters
    ----------
    encoded
        The beginning of a data set.
    wanted
        Tags, and the VR that each must have.
    implicit
        Whether the VRs are implicit.

    Returns
    -------
    dict[int, str] | None
        By tag, without padding; None where anything is not plain, which says nothing of whether it is right.
    """
    found: dict[int, str] = {}
    at, last = 0, 0x00080000
    while at + 8 <= len(encoded):
        group, element = struct.unpack_from("<HH", encoded, at)
        tag = group << 16 | element
        if tag <= last:
            return None
        if group > _LAST_GROUP:
            return found
        last = tag
        vr = wanted.get(tag, b"") if implicit else encoded[at + 4 : at + 6]
        if implicit:
            (length,) = struct.unpack_from("<I", encoded, at + 4)
            at += 8
        elif vr in SHORT_VRS:
            (length,) = struct.unpack_from("<H", encoded, at + 6)
            at += 8
        elif vr in LONG_VRS and at + 12 <= len(encoded):
            (length,) = struct.unpack_from("<I", encoded, at + 8)
            at += 12
        else:
            return None
        if length == _UNDEFINED or at + length > len(encoded):
            return None
        if tag in wanted:
            value = encoded[at : at + length]
            plain = value.removesuffix(b"\0") if vr == b"UI" else value
            if vr != wanted[tag] or not _PLAIN.get(vr, _PLAIN[b""]).fullmatch(plain):
                return None
            found[tag] = plain.decode("ascii").strip()
        at += length
    return None
