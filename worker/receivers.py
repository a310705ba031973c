"""The ports that objects come in by, plain and secure, and who listens there."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dicom_io.listener import Listener, ListenerSettings, listen, open_port
from dicom_io.places import Places
from worker.commitment import committers
from worker.errors import ConfigurationError
from worker.informants import informants
from worker.pipeline import Parts
from worker.reception import Reception
from worker.renewal import Renewing
from worker.settings import DicomSettings, TlsSettings
from worker.steps.store import make_folders
from worker.tls import server_context


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What the ports of one process share, and the ports themselves where several processes share them."""

    plain: socket.socket | None = None
    secure: socket.socket | None = None
    places: Places = field(default_factory=Places)


def open_doors(dicom: DicomSettings) -> Doors:
    """Open the ports before the processes that share them part: a caller waits for whichever of them is free.

    Raises
    ------
    ConfigurationError
        One of them cannot be bound.
    """
    with _named(dicom):
        plain = open_port(dicom.host, dicom.port)
    if dicom.tls is None:
        return Doors(plain=plain, places=_places(dicom))
    with _named(dicom.tls):
        secure = open_port(dicom.tls.host, dicom.tls.port)
    return Doors(plain=plain, secure=secure, places=_places(dicom))


def receiver(parts: Parts, *, arrived: Callable[[], None], doors: Doors | None = None) -> Listener:
    """Start to accept associations and make what they bring durable.

    Raises
    ------
    ConfigurationError
        The port cannot be bound.
    """
    dicom = parts.settings.dicom
    doors = doors or Doors(places=_places(dicom))
    with _named(dicom):
        return _listen(parts, _settings(dicom, dicom, doors.places, doors.plain), arrived=arrived)


def tls_receiver(parts: Parts, *, arrived: Callable[[], None], doors: Doors | None = None) -> Listener | None:
    """The same over TLS, on a port of its own, where one is configured.

    Raises
    ------
    ConfigurationError
        The port cannot be bound, or its certificates cannot be used.
    """
    dicom, context = parts.settings.dicom, server_context(parts.settings)
    if dicom.tls is None or context is None:
        return None
    doors = doors or Doors(places=_places(dicom))
    with _named(dicom.tls):
        settings = _settings(dicom, dicom.tls, doors.places, doors.secure)
        return _listen(parts, settings, arrived=arrived, tls=Renewing(parts.settings, context))


def _places(dicom: DicomSettings) -> Places:
    return Places(dicom.maximum_associations, dicom.maximum_associations_per_caller)


def _settings(
    dicom: DicomSettings, where: DicomSettings | TlsSettings, places: Places, listening: socket.socket | None
) -> ListenerSettings:
    return ListenerSettings(
        ae_title=dicom.ae_title,
        host=where.host,
        port=where.port,
        called_ae_titles=dicom.called_ae_titles,
        calling_ae_titles=dicom.calling_ae_titles,
        addresses=dicom.addresses,
        places=places,
        listening=listening,
        maximum_object_bytes=dicom.maximum_object_bytes,
    )


def _listen(
    parts: Parts, settings: ListenerSettings, *, arrived: Callable[[], None], tls: Callable[[], ssl.SSLContext] | None = None
) -> Listener:
    make_folders(parts.data_dir)
    services = {**informants(parts, heard=arrived), **committers(parts)}
    return listen(settings, keeper=Reception(parts, arrived=arrived), services=services, tls=tls)


@contextmanager
def _named(where: DicomSettings | TlsSettings) -> Iterator[None]:
    """Name the key of a port that cannot be bound."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"dicom{'.tls' if isinstance(where, TlsSettings) else ''}.port: cannot listen on {where.host}:{where.port}:"
            f" {error.strerror}. Is another worker running?"
        ) from error
