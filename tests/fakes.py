"""Small honest stand-ins for what surrounds the path: a clock, an engine, a PACS, and a worker put together from them."""

import hashlib
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification

from dicom_io.part10 import StoreRequest
from dicom_io.values import SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from worker import pipeline
from worker.db import listing
from worker.db.database import Database
from worker.destination import Destination
from worker.pipeline import Parts
from worker.reception import Reception
from worker.settings import Settings
from worker.steps.select import newest_contents, refused, select
from worker.syncing import Sync
from worker.values import Answer, ImageOutcome, InstanceId, ModelIdentity, ReadyStudy, StoredInstance, StudyOutcome, Unanswered

NOON = datetime(2031, 5, 20, 12, 0, tzinfo=UTC)
THRESHOLDS = {"COVID-19": 0.3, "Pneumonia": 0.3}


class FakeClock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def go_on(self, **duration: float) -> datetime:
        """Let time pass; `duration` as for `timedelta`."""
        self.now += timedelta(**duration)
        return self.now


def model_identity(version: str = "1.0") -> ModelIdentity:
    """A model whose weights differ from version to version."""
    return ModelIdentity(name="fake", version=version, weights_sha256=hashlib.sha256(version.encode()).hexdigest())


class FakeEngine:
    """Selects as the real one does, and answers from a table instead of a network."""

    def __init__(self) -> None:
        self.model = model_identity()
        self.labels: dict[str, str] = {}
        """By SOP Instance UID; Normal where there is none."""
        self.undetermined: set[str] = set()
        """SOP Instance UIDs of which the model is not sure."""
        self.shadows: dict[str, Answer | Unanswered] = {}
        """By SOP Instance UID, what the shadow model says, or why it says nothing."""
        self.breaks_on: dict[str, Exception] = {}
        """By Study Instance UID: raised when this study's turn comes."""
        self.silent_on: set[str] = set()
        """Study Instance UIDs that get no outcome at all."""
        self.batches: list[list[str]] = []
        """Study Instance UIDs of every call."""

    def analyse(self, studies: Sequence[ReadyStudy]) -> Iterator[StudyOutcome]:
        """See `worker.engine.Engine.analyse`."""
        self.batches.append([study.study_uid for study in studies])
        for study in studies:
            if study.study_uid in self.breaks_on:
                raise self.breaks_on[study.study_uid]
            if study.study_uid in self.silent_on:
                continue
            chosen, set_aside = newest_contents(study.instances)
            yield StudyOutcome(study=study, images=(*map(self._open, chosen), *set_aside))

    def explain(self, pixels: NDArray[np.float32], model: ModelIdentity, label: str) -> NDArray[np.float32] | None:  # noqa: ARG002
        """See `worker.engine.Engine.explain`: the upper half of every image speaks for every label."""
        if model != self.model:
            return None
        upper = np.zeros((8, 8), np.float32)
        upper[:4] = 1
        return upper

    def _open(self, instance: StoredInstance) -> ImageOutcome:
        selected = select(instance)
        if isinstance(selected, ImageOutcome):
            return selected
        if selected.verdict.doubtful:
            return refused(instance, code=selected.verdict.code, reason=selected.verdict.reason)
        uid = instance.sop_instance_uid
        answer = answer_for(self.labels.get(uid, "Normal"), model=self.model, undetermined=uid in self.undetermined)
        return ImageOutcome(
            instance=instance,
            eligible=True,
            reason_code="eligible",
            reason="",
            answer=answer,
            shadow=self.shadows.get(uid),
        )


def answer_for(label: str, *, model: ModelIdentity | None = None, undetermined: bool = False) -> Answer:
    """What a model that is sure of a label answers, or one that is not sure enough."""
    return Answer(
        model=model or model_identity(),
        temperature=1.0,
        thresholds=THRESHOLDS,
        probabilities={each: 0.8 if each == label else 0.1 for each in ("COVID-19", "Normal", "Pneumonia")},
        present={each: each == label for each in ("COVID-19", "Normal", "Pneumonia")},
        label=label,
        undetermined=undetermined,
        flagged=label != "Normal",
    )


def stored_instance(number: int = 1, **changes: Any) -> StoredInstance:
    """A row of an object that was received; each number another object."""
    usual: dict[str, Any] = {
        "id": InstanceId(number),
        "sop_instance_uid": SOPInstanceUID(f"1.2.{number}"),
        "path": Path(f"{number}.dcm"),
        "sha256": f"{number:064x}",
        "patient_id": "TEST-0001",
        "issuer_of_patient_id": "",
        "received_at": NOON,
    }
    return StoredInstance(**{**usual, **changes})


def encoded(ds: Dataset) -> bytes:
    """The data set as it travels, without file meta."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2"
    write_dataset(buffer, ds)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest(StoreRequest):
    """A C-STORE request with the data set that it brings."""

    dataset: bytes


def take_in(request: SentRequest, parts: Parts) -> None:
    """Take an object in as the listener would."""
    taking = Reception(parts, arrived=lambda: None).open(request)
    taking.write(memoryview(request.dataset))
    taking.finish()


def request_for(ds: Dataset, **changes: Any) -> SentRequest:
    """The C-STORE request that brings a data set."""
    usual: dict[str, Any] = {
        "sop_class_uid": SOPClassUID(str(ds.SOPClassUID)),
        "sop_instance_uid": SOPInstanceUID(str(ds.SOPInstanceUID)),
        "transfer_syntax": TransferSyntaxUID(str(ds.file_meta.TransferSyntaxUID)),
        "dataset": b"" if "dataset" in changes else encoded(ds),
        "calling_ae_title": "MODALITY",
        "called_ae_title": "CXRWORKER",
        "peer_address": "127.0.0.1",
    }
    return SentRequest(**{**usual, **changes})


@dataclass
class Site:
    """A worker without its threads: a clock to turn, an engine to script, and the path to walk step by step."""

    parts: Parts
    clock: FakeClock
    engine: FakeEngine

    @property
    def database(self) -> Database:
        """Its database."""
        return self.parts.database

    def receive(self, *objects: Dataset, **changes: Any) -> None:
        """Take objects in as the listener would; `changes` of the request."""
        for ds in objects:
            take_in(request_for(ds, **changes), self.parts)

    def settle(self) -> None:
        """Let the quiet time pass and take every study as far as it goes without delivery."""
        self.clock.go_on(seconds=self.parts.settings.study.quiet_seconds)
        while pipeline.advance(self.parts):
            pass

    def deliver(self) -> int:
        """Send every destination what is due there now."""
        return sum(pipeline.deliver_reports(destination, self.parts) for destination in self.parts.settings.destinations)

    def configure(self, **changes: Any) -> None:
        """Go on with these settings, as after a restart."""
        self.parts = replace(self.parts, settings=self.parts.settings.model_copy(update=changes))

    def study(self, uid: str) -> dict[str, Any]:
        """What `studies show --json` says."""
        with self.database.read() as connection:
            shown = listing.show_study(connection, uid)
        assert shown is not None
        return shown

    def events(self, uid: str) -> list[str]:
        """The kinds of a study's events, in order."""
        return [event["kind"] for event in self.study(uid)["events"]]

    def received_files(self) -> list[Path]:
        """What lies in the folder of received objects."""
        return [path for path in (self.parts.data_dir / "received").rglob("*") if path.is_file()]


def make_site(database: Database, data_dir: Path, *, destinations: tuple[Destination, ...] = (), **sections: Any) -> Site:
    """Put a worker together on an open database. `sections` of the settings as `Settings` takes them."""
    clock, engine = FakeClock(), FakeEngine()
    settings = Settings(data_dir=data_dir, destinations=destinations, **sections)
    return Site(
        parts=Parts(settings=settings, database=database, clock=clock, engine=lambda: engine), clock=clock, engine=engine
    )


def fail_syncs(patch: pytest.MonkeyPatch, number: int) -> None:
    """Have every sync of a received file end with an error, as the kernel tells of it."""
    wait = Sync.wait

    def fails(sync: Sync, seconds: float | None = None) -> NoReturn:
        wait(sync, seconds)
        raise OSError(number, os.strerror(number))

    patch.setattr(Sync, "wait", fails)


@dataclass
class FakePacs:
    """A storage SCP that keeps what it is sent, or answers as it is told."""

    port: int = 0
    status: int = 0x0000
    refused: dict[str, int] = field(default_factory=dict)
    """Statuses by Study Instance UID, where the objects of one are answered otherwise."""
    comment: str = ""
    """What is said beside a failure."""
    aborts: bool = False
    """Whether it breaks the association off at each object."""
    received: list[Dataset] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    """The data sets as they travelled."""
    proposed: list[set[tuple[str, str]]] = field(default_factory=list)
    """Abstract and transfer syntaxes of each association."""
    calling_ae_titles: list[str] = field(default_factory=list)
    abort: Callable[[], None] = lambda: None
    """Breaks every open association off."""

    def answer(self, status: int) -> Dataset:
        """What a C-STORE response says."""
        ds = Dataset()
        ds.Status = status
        if self.comment and status != 0x0000:
            ds.ErrorComment = self.comment
        return ds

    def destination(self, name: str = "pacs", **changes: Any) -> Destination:
        """This PACS as the worker knows it."""
        return Destination(**{"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": self.port, **changes})


@contextmanager
def fake_pacs(
    *,
    syntaxes: Sequence[str] = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"),
    require_called: bool = False,
    tls: ssl.SSLContext | None = None,
    port: int = 0,
    ae_title: str = "PACS",
    verification: bool = True,
) -> Iterator[FakePacs]:
    """Run one, on a free port where none is given, over TLS where a context is; without `verification` it knows no C-ECHO."""
    pacs = FakePacs()

    def store(event: evt.Event) -> Dataset:
        pacs.encoded.append(event.encoded_dataset(include_meta=False))
        if pacs.aborts:
            event.assoc.abort()
        ds = event.dataset
        status = pacs.refused.get(ds.StudyInstanceUID, pacs.status)
        if status == 0x0000 and not pacs.aborts:
            ds.file_meta = event.file_meta
            pacs.received.append(ds)
        return pacs.answer(status)

    def requested(event: evt.Event) -> None:
        requestor = event.assoc.requestor
        pacs.calling_ae_titles.append(requestor.primitive.calling_ae_title)
        pacs.proposed.append(
            {
                (str(context.abstract_syntax), str(syntax))
                for context in requestor.requested_contexts
                for syntax in context.transfer_syntax
            }
        )

    ae = AE(ae_title=ae_title)
    ae.require_called_aet = require_called
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, list(syntaxes))
    if verification:
        ae.add_supported_context(Verification)
    handlers = [(evt.EVT_REQUESTED, requested), (evt.EVT_C_STORE, store)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls)
    assert server is not None
    pacs.port = server.server_address[1]

    def abort() -> None:
        for assoc in ae.active_associations:
            assoc.abort()

    pacs.abort = abort
    try:
        yield pacs
    finally:
        server.shutdown()  # an association that is just being rejected cannot be aborted
        deadline = monotonic() + 2
        while ae.active_associations and monotonic() < deadline:
            sleep(0.01)
        ae.shutdown()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def part10(ds: Dataset) -> bytes:
    """A data set as a file's bytes."""
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
