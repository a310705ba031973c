"""Certificates of a made-up site, made anew for each test that asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key, as files in PEM."""

    certificate: Path
    key: Path


class Authority:
    """A CA. `file` is its certificate."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *, hosts: Sequence[str] = ("127.0.0.1",), ends: timedelta = timedelta(days=365)) -> Pair:
        """A certificate that ends at a time from now, and its key."""
        leaf = self._ca.issue_cert(*hosts, not_before=datetime(2000, 1, 1, tzinfo=UTC), not_after=datetime.now(UTC) + ends)
        pair = Pair(certificate=self._folder / f"{name}.pem", key=self._folder / f"{name}.key")
        leaf.private_key_pem.write_to_path(str(pair.key))
        pair.certificate.write_bytes(b"".join(part.bytes() for part in leaf.cert_chain_pems))
        return pair


def encrypt(key: Path, password: str) -> None:
    """Protect a key with a password, in its place."""
    loaded = load_pem_private_key(key.read_bytes(), None)
    encryption = BestAvailableEncryption(password.encode())
    key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
