"""What the listener hands over: objects on their way to disk and database, and word of what was refused."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict

import structlog

from dicom_io.ending import IDLE
from dicom_io.keeper import Caller, StoreAnswer
from dicom_io.part10 import StoreRequest
from worker.db import events
from worker.errors import DatabaseUnavailable, DiskNearlyFull
from worker.files import make_folder
from worker.log import traceback_of, words_of
from worker.pipeline import Parts, receive
from worker.refusals import Refusals
from worker.steps.store import IncomingObject, SpareFiles

log = structlog.get_logger()


class Reception:
    """The worker's `dicom_io.keeper.Keeper`."""

    def __init__(self, parts: Parts, *, arrived: Callable[[], None]) -> None:
        self._parts = parts
        self._arrived = arrived
        self._refusals = Refusals(parts.clock)
        self._spares = SpareFiles(parts.data_dir)
        make_folder(parts.data_dir)

    def open(self, request: StoreRequest) -> "Taking":
        """See `dicom_io.keeper.Keeper`."""
        disk = os.statvfs(self._parts.data_dir)
        if disk.f_bavail * disk.f_frsize < self._parts.settings.dicom.minimum_free_bytes:
            raise DiskNearlyFull
        incoming = IncomingObject(request, self._spares, receiver=self._parts.settings.dicom.ae_title)
        return Taking(incoming, self._parts, arrived=self._arrived)

    def told(self) -> None:
        """See `dicom_io.keeper.Keeper`."""
        self._spares.prepare()

    def answered(self, request: StoreRequest, answer: StoreAnswer) -> None:
        """See `dicom_io.keeper.Keeper`."""
        size = answer.size if answer.error is None else 0
        self._parts.metrics.stored(request.calling_ae_title, answer.seconds, answer.status, size=size)
        if answer.error is None:
            return
        log.warning(
            "object.refused",
            calling_ae_title=request.calling_ae_title,
            peer_address=request.peer_address,
            status=f"0x{answer.status:04X}",
            error=type(answer.error).__name__,
            where=traceback_of(answer.error),
        )
        detail = f"0x{answer.status:04X} to {request.calling_ae_title} at {request.peer_address}: {words_of(answer.error)}"
        sender = {"ae_title": request.calling_ae_title, "address": request.peer_address}
        self._note(detail, {**sender, "status": f"0x{answer.status:04X}"})

    def accepted(self, caller: Caller) -> None:
        """See `dicom_io.keeper.Keeper`."""
        self._parts.metrics.accepted(caller.calling_ae_title)

    def closed(self, caller: Caller) -> None:  # noqa: ARG002  part of the contract
        """See `dicom_io.keeper.Keeper`."""
        self._spares.discard()
        self._parts.metrics.closed()

    def rejected(self, caller: Caller, reason: str, words: str) -> None:
        """See `dicom_io.keeper.Keeper`."""
        self._parts.metrics.rejected(caller.calling_ae_title, reason)
        log.warning("association.rejected", **asdict(caller), reason_code=reason, why=words)
        self._note(f"association of {_named(caller)}: {words}", _facts(caller))

    def aborted(self, caller: Caller, reason: str, words: str) -> None:
        """See `dicom_io.keeper.Keeper`."""
        self._parts.metrics.aborted(caller.calling_ae_title, reason)
        if reason == IDLE.reason:
            log.info("association.aborted", **asdict(caller), reason_code=reason, why=words)
            return
        log.warning("association.aborted", **asdict(caller), reason_code=reason, why=words)
        self._note(f"association of {_named(caller)} broke off: {words}", {**_facts(caller), "reason": reason}, events.ABORTED)

    def _note(self, detail: str, facts: Mapping[str, str], kind: str = events.REFUSED) -> None:
        more = self._refusals.noted(facts["address"])
        if more is None:
            return
        words = detail[:500] + more
        event = events.Event(kind=kind, at=self._parts.clock(), detail=words, facts=facts)
        with suppress(DatabaseUnavailable), self._parts.database.write() as connection:
            events.record(connection, event)


def _named(caller: Caller) -> str:
    """Who called whom: titles come from strangers, and are printable (`dicom_io.negotiation.titles_of`)."""
    called = f" to {caller.called_ae_title}" if caller.called_ae_title else ""
    return f"{caller.calling_ae_title or 'somebody'} at {caller.peer_address}{called}"


def _facts(caller: Caller) -> dict[str, str]:
    return {"ae_title": caller.calling_ae_title, "address": caller.peer_address}


class Taking:
    """One object on its way in: a `dicom_io.keeper.Sink`."""

    def __init__(self, incoming: IncomingObject, parts: Parts, *, arrived: Callable[[], None]) -> None:
        self._parts = parts
        self._arrived = arrived
        self._incoming = incoming
        self.write = incoming.write
        self.abandon = incoming.discard

    def finish(self) -> None:
        """See `dicom_io.keeper.Sink`."""
        try:
            receive(self._incoming, self._parts)
        finally:
            self._incoming.discard()
        self._arrived()
