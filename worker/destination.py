"""A destination's settings: who is sent reports, which, and how."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from dicom_io.kinds import Kind
from dicom_io.wording import Language
from worker.setting_types import AETitle, CertificateSettings, Credential, Host, SecretCredential, Section, host_name

_WEB = "STOW-RS"


class Destination(Section):
    """An application entity, or with `url` a DICOMweb service, that is sent our reports."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
    ae_title: AETitle
    host: Host
    port: Annotated[int, Field(ge=1, le=65535)]
    outputs: Annotated[tuple[Kind, ...], Field(min_length=1)] = (Kind.SR, Kind.CAPTURE)
    sr_sop_class: Literal["comprehensive", "comprehensive-3d"] = "comprehensive"
    language: Language = Language.ENGLISH
    storage_commitment: bool = False
    url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """Of a DICOMweb service, which is sent to by STOW-RS; without ``/studies``."""
    token: SecretCredential = SecretStr("")
    """Bearer token for `url`."""
    username: Credential = ""
    password: SecretCredential = SecretStr("")
    """For `url`: HTTP Basic."""
    to_sender: bool = False
    """Whether it is sent only the results of studies that itself has sent an image of, under this AE title."""
    tls: bool = False
    ca: Path | None = None
    """Signed the destination's certificate; by default that of ``[dicom.tls]``, for `url` whom the system trusts."""
    client_certificate: CertificateSettings | None = None
    """By default that of ``[dicom.tls]``."""
    check_name: bool = True
    """Whether its certificate must name `host`; otherwise whatever the `ca` signed is taken for it."""

    @model_validator(mode="before")
    @classmethod
    def _address_of_the_url(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("url"), str) or not values["url"]:
            return values
        if {"ae_title", "host", "port"} & values.keys() and values.get("ae_title") != _WEB:
            raise ValueError("url stands in place of ae_title, host and port")
        if values.get("storage_commitment"):
            raise ValueError("STOW-RS has no storage commitment")
        if values.get("to_sender"):
            raise ValueError("to_sender is for an application entity, by its ae_title, and url names none")
        parts = urlsplit(values["url"])
        if parts.username is not None:  # a url is shown where something goes wrong
            raise ValueError("url names a user: set username and password")
        if not parts.hostname:
            raise ValueError("url names no host")
        try:
            host_name(parts.hostname)
        except ValueError as error:
            raise ValueError(f"url: {error}") from None
        port = parts.port or (80 if parts.scheme == "http" else 443)
        return {**values, "ae_title": _WEB, "host": parts.hostname, "port": port}


def one_for_each_caller(blocks: Any) -> Any:
    """What is configured; a block with ``to_sender`` and a table of callers becomes a destination for each, with its own queue.

    Raises
    ------
    ValueError
        The block is not one that can have callers, or has none.
    """
    if not isinstance(blocks, list | tuple):
        return blocks
    expanded: list[Any] = []
    for block in blocks:
        if not isinstance(block, dict) or "callers" not in block:
            expanded.append(block)
            continue
        shared = {key: block[key] for key in block if key != "callers"}
        if shared.get("to_sender") is not True:
            raise ValueError("callers are for a destination with to_sender = true")
        if not isinstance(block["callers"], list | tuple) or not block["callers"]:
            raise ValueError("callers is a list of tables with ae_title and host, of one at least")
        for caller in block["callers"]:
            if not isinstance(caller, dict):
                raise ValueError("a caller is a table with ae_title and host")  # noqa: TRY004  pydantic wants a ValueError
            word = re.sub("[^A-Za-z0-9_.-]", "_", str(caller.get("ae_title", "")))
            expanded.append({"port": 104, **shared, **caller, "name": f"{block.get('name', '')}-{word}"})
    return tuple(expanded)


def require_different(destinations: tuple[Destination, ...]) -> None:
    """Make sure that each has a name, and as a sender an AE title, of its own.

    A sender is known by its AE title alone, so that two of one title would each be sent the results of the other.

    Raises
    ------
    ValueError
        Two have the same; it names them.
    """
    names = [destination.name for destination in destinations]
    if len(set(names)) != len(names):
        raise ValueError("two destinations have the same name")
    known: dict[str, Destination] = {}
    for destination in destinations:
        if not destination.to_sender:
            continue
        first = known.setdefault(destination.ae_title, destination)
        if (first.host.lower(), first.port) != (destination.host.lower(), destination.port):
            raise ValueError(
                f"{first.name} and {destination.name} are both the sender {first.ae_title}, at different addresses: "
                "each would be sent the results of the other. Give one another AE title, there too, or leave it out"
            )
