"""A PACS that commits to what it stores, on the association on which it is asked, or as it is told."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance, Verification

from worker.destination import Destination


@dataclass
class CommittingPacs:
    """What it was sent and asked, and how it answers."""

    port: int = 0
    status: int = 0x0000
    """Of the N-ACTION response."""
    at_once: bool = True
    """Whether the answer comes on the association of the request; else never."""
    before: list[str] = field(default_factory=list)
    """Transaction UIDs that nobody used, of which it tells first."""
    denied: dict[str, int] = field(default_factory=dict)
    """Failure reasons by SOP Instance UID."""
    received: list[str] = field(default_factory=list)
    """SOP Instance UIDs."""
    requests: list[Dataset] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    """Statuses that the worker answered N-EVENT-REPORT with."""

    def destination(self, **changes: Any) -> Destination:
        """This PACS as the worker knows it."""
        usual = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": self.port, "outputs": ("sr",)}
        return Destination.model_validate({**usual, "storage_commitment": True, **changes})

    def result(self, request: Dataset) -> Dataset:
        """The answer to a request."""
        ds = Dataset()
        ds.TransactionUID = request.TransactionUID
        ds.ReferencedSOPSequence, ds.FailedSOPSequence = [], []
        for item in request.ReferencedSOPSequence:
            reason = self.denied.get(item.ReferencedSOPInstanceUID)
            (ds.ReferencedSOPSequence if reason is None else ds.FailedSOPSequence).append(item)
            if reason is not None:
                item.FailureReason = reason
        for keyword in ("ReferencedSOPSequence", "FailedSOPSequence"):
            if not ds[keyword].value:
                del ds[keyword]
        return ds

    def report(self, assoc: Any, answer: Dataset) -> None:
        """Tell it, behind answers to what nobody asked."""
        strange = [deepcopy(answer) for _ in self.before]
        for ds, unknown in zip(strange, self.before, strict=True):
            ds.TransactionUID = unknown
        for ds in (*strange, answer):
            kind = 2 if "FailedSOPSequence" in ds else 1
            status, _ = assoc.send_n_event_report(ds, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
            self.answered.append(int(status.get("Status", -1)))


@contextmanager
def committing_pacs(*, syntaxes: Sequence[str] = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")) -> Iterator[CommittingPacs]:
    """Run one on a free port. `syntaxes` are the transfer syntaxes in which it takes objects."""
    pacs = CommittingPacs()
    threads: list[Thread] = []

    def store(event: evt.Event) -> int:
        pacs.received.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    def asked(event: evt.Event) -> tuple[int, None]:
        request = event.action_information
        pacs.requests.append(request)
        if pacs.at_once and pacs.status == 0x0000:
            threads.append(Thread(target=pacs.report, args=(event.assoc, pacs.result(request))))
        return pacs.status, None

    def responded(event: evt.Event) -> None:
        if type(event.message).__name__ == "N_ACTION_RSP" and threads and not threads[-1].is_alive():
            threads[-1].start()

    ae = AE(ae_title="PACS")
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, list(syntaxes))
    ae.add_supported_context(StorageCommitmentPushModel)
    ae.add_supported_context(Verification)
    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_N_ACTION, asked), (evt.EVT_DIMSE_SENT, responded)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        for thread in threads:
            if thread.ident is not None:
                thread.join(5)
        ae.shutdown()
