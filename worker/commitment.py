"""What follows a report that was sent: its destination is asked to commit to it."""

from functools import partial

import structlog
from pydicom.uid import generate_uid

from dicom_io.commitment import STORAGE_COMMITMENT, Commitment, read_commitment
from dicom_io.errors import DicomError, InvalidObject
from dicom_io.normalized import NormalizedRequest, NormalizedService
from worker.db import commitments, delivering
from worker.destination import Destination
from worker.errors import DatabaseUnavailable
from worker.pipeline import Parts, deliver_later
from worker.steps.deliver import ask
from worker.values import DeliveryState

log = structlog.get_logger()


def request_commitment(destination: Destination, parts: Parts) -> int:
    """Ask a destination to vouch for what it stored; answer of how many reports it was asked. It may answer at any time."""
    with parts.database.read() as connection:
        due = delivering.due(
            connection,
            destination.name,
            now=parts.clock(),
            data_dir=parts.data_dir,
            state=DeliveryState.STORED,
        )
    if not due:
        return 0
    if destination.url or not destination.storage_commitment:
        with parts.database.write() as connection:
            for delivery in due:  # it was to be asked when it stored them, and is not any more
                delivering.mark_delivered(connection, delivery, now=parts.clock())
        return len(due)
    transaction_uid = generate_uid(prefix=None)
    with parts.database.write() as connection:  # the answer may come before the request returns
        commitments.add(connection, transaction_uid, destination.name, now=parts.clock())
    try:
        ask(due, destination, parts.settings, transaction_uid=transaction_uid, settle=partial(settle_commitment, parts=parts))
    except DatabaseUnavailable:
        raise  # it is not the destination's fault
    except DicomError as error:
        for delivery in due:
            deliver_later(delivery, error, destination, parts)
        return 0
    with parts.database.write() as connection:
        for delivery in due:
            commitments.was_asked(connection, delivery, now=parts.clock())
    return len(due)


def settle_commitment(answer: Commitment, *, parts: Parts) -> None:
    """Write down for which reports a destination vouches; the others are sent again.

    Raises
    ------
    dicom_io.errors.InvalidObject
        Nobody was asked under this transaction.
    """
    with parts.database.write() as connection:
        destination = commitments.settle(connection, answer, now=parts.clock())
    if destination is None:
        log.warning("commitment.unknown")
        raise InvalidObject("Nobody was asked to commit under this transaction UID.")
    log.info("commitment.answered", destination=destination, count=len(answer.committed))
    if answer.failed:
        log.warning("commitment.failed", destination=destination, count=len(answer.failed))


def committers(parts: Parts) -> dict[str, NormalizedService]:
    """The service by which destinations answer on associations of their own, by SOP class."""

    def on_result(request: NormalizedRequest) -> None:
        settle_commitment(read_commitment(request.dataset, request.transfer_syntax), parts=parts)

    return {STORAGE_COMMITMENT: on_result}
