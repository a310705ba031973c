"""Deliver: send what is due to one destination, over one association, and write down what it answered."""

from collections.abc import Iterator

from dicom_io.errors import PeerUnavailable
from dicom_io.sender import StoreOutcome, send
from dicom_io.values import Peer
from worker.errors import ConfigurationError
from worker.settings import Destination, Settings
from worker.tls import client_context
from worker.values import DueDelivery


def peer_of(destination: Destination) -> Peer:
    """The application entity behind a destination."""
    return Peer(ae_title=destination.ae_title, host=destination.host, port=destination.port)


def deliver(due: list[DueDelivery], destination: Destination, settings: Settings) -> Iterator[tuple[DueDelivery, StoreOutcome]]:
    """Send reports in the order given; answer what became of each as soon as it is known."""
    by_path = {delivery.path: delivery for delivery in due}
    try:
        tls = client_context(settings, destination)
    except ConfigurationError as error:  # a certificate that cannot be used is seen where the others' troubles are
        for path, delivery in by_path.items():
            yield delivery, StoreOutcome(path=path, error=PeerUnavailable(str(error)))
        return
    for outcome in send(peer_of(destination), list(by_path), calling_ae_title=settings.dicom.ae_title, tls=tls):
        yield by_path[outcome.path], outcome
