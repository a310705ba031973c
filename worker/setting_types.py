"""What the value of a setting may be."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from pathlib import Path
from typing import Annotated, Any

from apscheduler.triggers.cron import CronTrigger
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")

_IN_NO_HOST = re.compile(r"[\s/\x00-\x1f\x7f]")
_SENDABLE = re.compile(r"[\x20-\x7e\xa0-\xff]*")
"""What the header of an HTTP request can hold."""


def _ae_title(value: str) -> str:
    if not _AE_TITLE.fullmatch(value) or not value.strip() or value != value.strip():
        raise ValueError("an AE title has 1 to 16 printable ASCII characters, no backslash, no space at either end")
    return value


def _network(value: Any) -> IPv4Network | IPv6Network:
    text = str(value)
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        inside = ip_interface(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no address: write one such as 192.0.2.5, or a network such as 192.0.2.0/24; names are not looked up"
        ) from None
    raise ValueError(f"{text!r} is an address within a network: write {inside.network} for all of it, or {inside.ip} for one")


def host_name(value: str) -> str:
    """Answer the value, or raise `ValueError` where it is neither an address nor a name that can be looked up."""
    try:
        value.encode("idna")
        well = not _IN_NO_HOST.search(value)
    except UnicodeError:
        well = False
    if not well:
        raise ValueError(
            "no host has this name: write one such as pacs.example, of parts of at most 63 characters with one dot between, "
            "or an address such as 192.0.2.5"
        )
    return value


def _sendable(value: str) -> str:
    value = value.strip()
    if not _SENDABLE.fullmatch(value):  # never quoted: it is secret
        raise ValueError(
            "holds what a service cannot be sent: write it anew, in one line of printable Latin-1 characters; "
            "a dash or a quotation mark that came from a text document is none of them"
        )
    return value


def _sendable_secret(value: SecretStr) -> SecretStr:
    return SecretStr(_sendable(value.get_secret_value()))


def _folder(value: Any) -> Any:
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    if not text.strip() or "\0" in text:
        raise ValueError("names no folder: write its path, or . for the working folder")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{text!r} begins with a home folder that is not known") from None


def _crontab(value: str) -> str:
    CronTrigger.from_crontab(value)
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Host = Annotated[str, Field(min_length=1), AfterValidator(host_name)]
Credential = Annotated[str, AfterValidator(_sendable)]
SecretCredential = Annotated[SecretStr, AfterValidator(_sendable_secret)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=86400)]
Folder = Annotated[Path, BeforeValidator(_folder)]
Crontab = Annotated[str, AfterValidator(_crontab)]


class Section(BaseModel):
    """A part of the settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes true for 1, and what is asked for one day, or one byte, is deleted
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError(f"takes neither true nor false, and it is {str(value).lower()}")
        return value


class CertificateSettings(Section):
    """A certificate of ours, with the chain up to its CA where there is one, and its key: files in PEM."""

    certificate: Path
    key: Path
    key_password: SecretStr = SecretStr("")
    key_password_file: Path | None = None
