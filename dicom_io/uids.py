"""Who we are in DICOM, and the UIDs of what we make."""

import json
from hashlib import sha256
from importlib.metadata import version
from typing import Final
from uuid import UUID


def derived_uid(*parts: str) -> str:
    """One UID for one list of parts, the same on every machine and for ever.

    It is a UUID written as a UID under the root 2.25 (PS3.5 B.2), so no registered root is needed; the UUID is of version 8
    (RFC 9562 section 5.8), its bits taken from SHA-256 of the parts.

    Parameters
    ----------
    *parts
        What the object is derived from, the kind of object first. ``("a", "bc")`` and ``("ab", "c")`` are different.

    Returns
    -------
    str
        At most 44 characters.
    """
    digest = int.from_bytes(sha256(json.dumps(parts).encode("ascii")).digest()[:16])
    version_8 = digest & ~(0xF << 76) | 0x8 << 76
    variant = version_8 & ~(0x3 << 62) | 0x2 << 62
    return f"2.25.{UUID(int=variant).int}"


MANUFACTURER: Final = "cxr-worker project"
MODEL_NAME: Final = "cxr-worker"
SOFTWARE_VERSION: Final = version("cxr-worker")

DEVICE_UID: Final = derived_uid("device", MODEL_NAME)
"""Device UID (0018,1002) of our equipment, and the device observer of our reports (TID 1004)."""
DEVICE_SERIAL_NUMBER: Final = SOFTWARE_VERSION
"""Of software, its version."""
IMPLEMENTATION_CLASS_UID: Final = derived_uid("implementation class", MODEL_NAME)
"""(0002,0012), the same for every version: a version is told by `IMPLEMENTATION_VERSION_NAME`."""
IMPLEMENTATION_VERSION_NAME: Final = f"CXRWORKER_{SOFTWARE_VERSION}"[:16]
"""(0002,0013), at most 16 characters (PS3.10 section 7.1)."""
