"""What the value of a setting may be."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Annotated, Any

from apscheduler.triggers.cron import CronTrigger
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")


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


def _crontab(value: str) -> str:
    CronTrigger.from_crontab(value)
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=86400)]
Crontab = Annotated[str, AfterValidator(_crontab)]


class Section(BaseModel):
    """A part of the settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
