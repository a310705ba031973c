"""The path of a radiograph, arrow by arrow, from top to bottom.

    receive ──► store ──► complete ──► select ──► prepare ──► predict ──► record ──► report ──► deliver

The first two happen while the sender waits; the rest is found by asking the database what is due. So a crash anywhere is
mended by asking again, and every step after store may run twice with the same result.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import structlog

from cxr_models.errors import ModelError
from dicom_io.errors import DicomError, ObjectRefused, PeerBusy
from worker.db import analyses, arrivals, delivering, outcomes, reports, studies
from worker.db.arrivals import Arrival
from worker.db.database import Database
from worker.db.studies import StudyProgress
from worker.destination import Destination
from worker.errors import DatabaseUnavailable
from worker.files import sync_file
from worker.log import traceback_of
from worker.metrics import Metrics
from worker.retry import MAX_ATTEMPTS, next_attempt
from worker.settings import Settings
from worker.steps.complete import is_complete, quiet_needed, why_whole
from worker.steps.deliver import deliver
from worker.steps.record import conclude
from worker.steps.report import wanted_refusals
from worker.steps.select import PATIENT_CONFLICT, of_one_patient
from worker.steps.store import IncomingObject, is_undamaged, store
from worker.telling import refuse_study, report_study
from worker.values import (
    DueDelivery,
    ModelIdentity,
    ReadyStudy,
    StudyOutcome,
)

if TYPE_CHECKING:  # what only receives does without torch
    from worker.engine import Engine

log = structlog.get_logger()

STUDIES_AT_ONCE = 64
ANALYSED_AT_ONCE = 16
"""So few that what one batch came to is told before much more is analysed; decoding takes most of the time, not the network."""
TRIED_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the path needs from outside."""

    settings: Settings
    database: Database
    clock: Callable[[], datetime]
    engine: Callable[[], "Engine"]
    """Gives the engine with the active model."""
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def data_dir(self) -> Path:
        """Where files lie."""
        return self.settings.data_dir


def receive(incoming: IncomingObject, parts: Parts) -> None:
    """Take in an object that has arrived whole. Returning means that it is durable on disk and committed in the database.

    Raises
    ------
    dicom_io.errors.DicomError, DatabaseUnavailable, OSError
        It was not kept; `dicom_io.status.status_of` knows what the sender is told.
    """
    request, file, identity = incoming.request, incoming.describe(), incoming.identify()
    whole = parts.data_dir / file.path
    known = False
    if whole.exists():
        with parts.database.read() as connection:
            known = arrivals.is_newest(connection, sop_instance_uid=identity.sop_instance_uid, sha256=file.sha256)
        if known and is_undamaged(whole, file):
            sync_file(whole)  # another sender's may have come just now, in place of one that was lost
            return
    store(incoming, whole)
    arrival = Arrival(
        identity=identity,
        file=file,
        transfer_syntax=request.transfer_syntax,
        calling_ae_title=request.calling_ae_title,
        peer_address=request.peer_address,
        at=parts.clock(),
        restored=known,
    )
    parts.database.write_with_others(partial(arrivals.add_arrival, arrival=arrival), provided=incoming.make_durable)


def advance(parts: Parts) -> bool:
    """Take some studies as far as they can go now, short of delivery; answer whether anything moved.

    A few at a time, and what is analysed is told first, also what a process before this one analysed: neither a backlog nor
    a process that ends every other second holds a result up.
    """
    steps = (tell_studies, complete_studies, analyse_studies, tell_studies)
    return sum(step(parts) for step in steps) > 0


def complete_studies(parts: Parts) -> int:
    """Call studies complete that were quiet for long enough, by what is known of them; the longest quiet first."""
    now = parts.clock()
    due = [study for study in _arriving(parts) if is_complete(study, parts.settings.study, now=now)]
    completed = 0
    for study in due[:STUDIES_AT_ONCE]:
        with parts.database.write() as connection:
            if studies.mark_ready(connection, study, now=now, why=why_whole(study.evidence)):
                completed += 1
                log.info("study.complete", study_id=study.id)
    return completed


def next_completion(parts: Parts) -> datetime | None:
    """When the next study will be complete, if no image comes and nothing more is said of it."""
    return min((study.last_received_at + quiet_needed(study, parts.settings.study) for study in _arriving(parts)), default=None)


def _arriving(parts: Parts) -> list[StudyProgress]:
    with parts.database.read() as connection:
        return studies.arriving(connection, with_senders=bool(parts.settings.study.senders))


def analyse_studies(parts: Parts) -> int:
    """Select, prepare and predict what is ready, and record the outcome of each study."""
    with parts.database.write() as connection:
        fresh = analyses.claim_ready(connection, now=parts.clock(), limit=ANALYSED_AT_ONCE, data_dir=parts.data_dir)
    analysed = _analyse(fresh, parts) if fresh else 0
    # What was tried before is tried alone: a study that breaks the engine, or ends the process, takes no other with it.
    for _ in range(TRIED_AT_ONCE):
        with parts.database.write() as connection:
            study = analyses.claim_tried(connection, now=parts.clock(), data_dir=parts.data_dir)
        if study is None:
            break
        if study.attempts > MAX_ATTEMPTS:
            failure = f"The worker stopped during every attempt. Given up after {MAX_ATTEMPTS} attempts."
            record(StudyOutcome(study=study, images=(), failure=failure), parts)
        else:
            analysed += _analyse([study], parts)
    return analysed


def _analyse(batch: list[ReadyStudy], parts: Parts) -> int:
    started = perf_counter()
    unanswered = {study.id: study for study in batch if of_one_patient(study.instances)}
    for study in batch:
        if study.id not in unanswered:
            record(StudyOutcome(study=study, images=(), failure=PATIENT_CONFLICT), parts)
    try:
        for outcome in parts.engine().analyse(list(unanswered.values())):
            record(outcome, parts)
            del unanswered[outcome.study.id]
        reason = "The engine gave no answer."
    except DatabaseUnavailable:
        raise
    except Exception as error:  # noqa: BLE001  the step's boundary: an engine may fail in any way, and the studies must go on
        where = traceback_of(error)
        log.error("analysis.failed", error=type(error).__name__, where=where, count=len(unanswered))  # noqa: TRY400  no values
        reason = str(error) if isinstance(error, ModelError) else f"Internal error: {type(error).__name__} at {where}"
    for study in unanswered.values():
        try_later(study, reason, parts)
    seconds = perf_counter() - started
    parts.metrics.analysed(len(batch) - len(unanswered), seconds)
    log.info("studies.analysed", count=len(batch) - len(unanswered), seconds=round(seconds, 3))
    return len(batch) - len(unanswered)


def try_later(study: ReadyStudy, reason: str, parts: Parts) -> None:
    """Put a study off that could not be analysed, or give it up after the last attempt."""
    now = parts.clock()
    again_at = next_attempt(study.attempts, now=now)
    if again_at is None:
        record(StudyOutcome(study=study, images=(), failure=f"{reason} Given up after {study.attempts} attempts."), parts)
        return
    with parts.database.write() as connection:
        analyses.postpone(connection, study, until=again_at, reason=reason)


def record(outcome: StudyOutcome, parts: Parts) -> None:
    """Write down what became of a study; nothing is written when new images reopened it meanwhile."""
    conclusion = conclude(outcome)
    with parts.database.write() as connection:
        recorded = outcomes.record(connection, outcome, conclusion, now=parts.clock())
    if recorded:
        parts.metrics.shadowed([image.shadow for image in outcome.images if image.shadow is not None])
        log.info(
            "study.concluded",
            state=conclusion.state,
            study_id=outcome.study.id,
            images=len(outcome.images),
            eligible=sum(image.eligible for image in outcome.images),
            triage=conclusion.triage,
        )


def tell_studies(parts: Parts) -> int:
    """Make the reports of studies that were analysed, then of those that were not."""
    return report_studies(parts) + report_refusals(parts)


def report_studies(parts: Parts) -> int:
    """Make the reports of analysed studies and queue them for every destination."""
    with parts.database.read() as connection:
        due = analyses.analysed(connection, now=parts.clock(), limit=STUDIES_AT_ONCE, data_dir=parts.data_dir)
    return sum(report_study(study, parts) for study in due)


def report_refusals(parts: Parts) -> int:
    """Say why studies were not analysed, to the destinations that want to be told."""
    refusals = wanted_refusals(parts.settings.destinations)
    with parts.database.read() as connection:
        if not analyses.some_untold(connection):
            return 0
        due = analyses.unanswered(connection, refusals, now=parts.clock(), limit=STUDIES_AT_ONCE, data_dir=parts.data_dir)
    told = sum(refuse_study(study, *refusal, parts) for study in due for refusal in refusals.items())
    with parts.database.write() as connection:
        analyses.mark_told(connection, refusals)
    return told


def deliver_reports(destination: Destination, parts: Parts) -> int:
    """Send a destination what is due there; answer how many reports it now keeps.

    Where nothing is, and it answered and took nothing for long, one of what is on hold: if it is taken, the rest is due too.
    """
    with parts.database.read() as connection:
        due = delivering.due(connection, destination.name, now=parts.clock(), data_dir=parts.data_dir)
        probing = not due
        if probing:
            due = delivering.probe(connection, destination.name, now=parts.clock(), data_dir=parts.data_dir)
    if destination.to_sender:
        due = _sent_by_it(due, destination, parts)
    if not due:
        return 0
    kept = 0
    for delivery, outcome in deliver(due, destination, parts.settings, is_wanted=partial(is_wanted, parts=parts)):
        now = parts.clock()
        parts.metrics.sent(destination.name, outcome.error)
        if outcome.error is not None:
            deliver_later(delivery, outcome.error, destination, parts)
            continue
        kept += 1
        with parts.database.write() as connection:
            mark = delivering.mark_stored if destination.storage_commitment else delivering.mark_delivered
            mark(connection, delivery, now=now)
            if probing:
                released = delivering.release(connection, destination.name, now=now)
                log.info("destination.takes", destination=destination.name, count=released)
    log.info("reports.delivered", destination=destination.name, count=kept)
    return kept


def _sent_by_it(due: list[DueDelivery], destination: Destination, parts: Parts) -> list[DueDelivery]:
    """Those of studies that this sender sent. It may be another one now than when they were made."""
    kept = []
    for delivery in due:
        with parts.database.read() as connection:
            senders = reports.senders(connection, delivery.study_id)
        if destination.ae_title in senders:
            kept.append(delivery)
        else:
            words = (
                f"{destination.ae_title} did not send this study: another sender was '{destination.name}' when it was reported."
            )
            deliver_later(delivery, ObjectRefused(words), destination, parts)
    return kept


def is_wanted(delivery: DueDelivery, parts: Parts) -> bool:
    """Whether nothing took a report back while it waited for those before it."""
    with parts.database.read() as connection:
        return delivering.is_wanted(connection, delivery)


def deliver_later(delivery: DueDelivery, error: DicomError, destination: Destination, parts: Parts) -> None:
    """Put a delivery off; on hold after the last attempt; given up where the object itself is refused."""
    now = parts.clock()
    at_least = timedelta(seconds=error.retry_after_seconds if isinstance(error, PeerBusy) else 0)
    again_at = None if isinstance(error, ObjectRefused) else next_attempt(delivery.attempts + 1, now=now, at_least=at_least)
    with parts.database.write() as connection:
        state = delivering.mark_undelivered(connection, delivery, error, next_attempt_at=again_at, now=now)
    log.warning(
        "delivery.failed",
        study_id=delivery.study_id,
        destination=destination.name,
        attempts=delivery.attempts + 1,
        error=type(error).__name__,
        state=state,
    )


def reprocess_outdated(parts: Parts, model: ModelIdentity) -> int:
    """Make studies due again whose newest predictions are by another model, version or weights; answer how many."""
    count = 0
    while True:  # some at a time: a sender must not wait for a long transaction
        with parts.database.write() as connection:
            outdated = studies.answered_by_another_model(connection, model, limit=STUDIES_AT_ONCE)
            why = f"active model {model.name} {model.version}"
            again = studies.analyse_again(connection, outdated, now=parts.clock(), why=why)
        count += again
        if again == 0:
            return count
