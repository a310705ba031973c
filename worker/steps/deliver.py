"""Deliver: send what is due to one destination, over one association, and write down what it answered."""

from collections.abc import Iterator

from dicom_io.sender import StoreOutcome, send
from dicom_io.values import Peer
from worker.settings import Destination
from worker.values import DueDelivery


def peer_of(destination: Destination) -> Peer:
    """The application entity behind a destination."""
    return Peer(ae_title=destination.ae_title, host=destination.host, port=destination.port)


def deliver(
    due: list[DueDelivery], destination: Destination, *, calling_ae_title: str
) -> Iterator[tuple[DueDelivery, StoreOutcome]]:
    """Send reports in the order given; answer what became of each as soon as it is known."""
    by_path = {delivery.path: delivery for delivery in due}
    for outcome in send(peer_of(destination), list(by_path), calling_ae_title=calling_ae_title):
        yield by_path[outcome.path], outcome
