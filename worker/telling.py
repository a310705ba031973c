"""Telling: the reports of one study are made and queued, each once, or put off or given up with the reason."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dicom_io.errors import Permanent as PermanentDicomError
from worker.db import analyses, events, reports, studies
from worker.destination import Destination
from worker.errors import DatabaseUnavailable
from worker.files import is_changed
from worker.findings import told_as
from worker.log import traceback_of
from worker.retry import next_attempt
from worker.steps.report import Maker, Pictures, build, keep, refuse, towards, unknown_senders, wanted
from worker.values import AnalysedStudy, KnownReport, Output, StudyState, ToldStudy, UnansweredStudy

if TYPE_CHECKING:
    from worker.pipeline import Parts

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Why the reports of a study were not made."""

    reason: str
    again_at: datetime | None = None
    """None: they are given up."""


def report_study(study: AnalysedStudy, parts: "Parts") -> bool:
    """Make and queue every report of a study that was analysed; answer whether the study moved on."""
    destinations = _destinations_of(study, parts)
    outputs = wanted(destinations, study)

    def make() -> None:
        pictures = Pictures(study, parts.engine)
        for output, receivers in outputs.items():
            report(study, output, receivers, partial(build, study, output, pictures), parts)

    failure = _attempt(study, make, parts)
    if failure is None:
        none_wanted = bool(destinations) and not any(outputs.values())
        return _conclude(study, StudyState.REPORTED, None, parts, none_wanted=none_wanted)
    if failure.again_at is None:
        return _conclude(study, StudyState.FAILED, failure.reason, parts)
    _put_off(study, failure, parts)
    return False


def refuse_study(study: UnansweredStudy, output: Output, receivers: tuple[str, ...], parts: "Parts") -> bool:
    """Make and queue the report that a study was not analysed; answer whether that was done."""

    def make() -> None:
        allowed = {destination.name for destination in _destinations_of(study, parts)}
        told = tuple(name for name in receivers if name in allowed)
        report(study, output, told, partial(refuse, study, output), parts)

    failure = _attempt(study, make, parts)
    if failure is None:
        return True
    if failure.again_at is None:  # the study's end stands, with its reason; only nobody is sent a report of it
        _skip(study, f"No {output.kind}: {failure.reason}", output, parts)
    _put_off(study, failure, parts)
    return False


def _attempt(study: ToldStudy, make: Callable[[], None], parts: "Parts") -> _Failure | None:
    """Make a study's reports; answer why they were not made, a full disk for one."""
    try:
        make()
    except DatabaseUnavailable:
        raise
    except PermanentDicomError as error:
        return _Failure(reason=f"The report cannot be made: {error}")
    except Exception as error:  # noqa: BLE001  the step's boundary: one study's report must not hold up the others
        where, attempts = traceback_of(error), study.attempts + 1
        log.error("report.failed", study_id=study.id, error=type(error).__name__, where=where)  # noqa: TRY400  no values
        reason = f"The report could not be made: {type(error).__name__} at {where}."
        again_at = next_attempt(attempts, now=parts.clock())
        return _Failure(reason=reason if again_at else f"{reason} Given up after {attempts} attempts.", again_at=again_at)
    return None


def _put_off(study: ToldStudy, failure: _Failure, parts: "Parts") -> None:
    with parts.database.write() as connection:
        analyses.postpone_report(connection, study, until=failure.again_at, reason=failure.reason)


def _conclude(
    study: AnalysedStudy, state: StudyState, reason: str | None, parts: "Parts", *, none_wanted: bool = False
) -> bool:
    with parts.database.write() as connection:
        studies.hold(connection, study.id)
        moved = studies.advance_state(connection, study, state, reason=reason, now=parts.clock())
        if moved and reports.all_delivered(connection, study.id, none_wanted=none_wanted):
            studies.mark_delivered(connection, study.id, now=parts.clock())
    if moved:
        log.info("study.concluded", state=state, study_id=study.id, triage=study.triage)
    return moved


def _destinations_of(study: ToldStudy, parts: "Parts") -> tuple[Destination, ...]:
    """Where a study's results go; a sender that cannot be sent them back is noted."""
    with parts.database.read() as connection:
        senders = reports.senders(connection, study.id)
    for ae_title in sorted(unknown_senders(parts.settings.destinations, senders)):
        with parts.database.write() as connection:
            why = f"{ae_title} sent images and is in no table of callers ([[destinations.callers]]): it is sent no results."
            facts = {"ae_title": ae_title}
            event = events.Event(kind=events.NO_WAY_BACK, at=parts.clock(), study_id=study.id, detail=why, facts=facts)
            events.record(connection, event)
        log.warning("sender.unknown", study_id=study.id, calling_ae_title=ae_title)
    return towards(parts.settings.destinations, senders)


def report(study: ToldStudy, output: Output, receivers: tuple[str, ...], make: Maker, parts: "Parts") -> None:
    """Make one object of a study, once: the newest report that tells this very result is not made again.

    A result that comes back after another one was reported (a model changed and changed back, a film corrected and sent as
    before) is told again, by a report that names the one in between: what the PACS has last is what the database says.
    """
    key, state = told_as(study)
    with parts.database.read() as connection:
        newest = reports.newest(connection, study.id, output)
        told_before = reports.was_made(connection, study.id, output, key)
    made = None
    if newest is None or newest.result_key != key or _is_lost(newest, parts):
        name = f"{key} after {newest.reference.sop_instance_uid}" if newest is not None and told_before else key
        ds = make(name=name, predecessor=newest.reference if newest is not None else None)
        if ds is None:
            _skip(study, f"No {output.kind}: another model is active by now than the one that answered.", output, parts)
            return
        made = keep(ds, output, result_key=key, data_dir=parts.data_dir)
    with parts.database.write() as connection:
        if studies.hold(connection, study.id) != (state, study.generation):
            return  # an image came meanwhile: this result is not sent
        if made is not None:
            reports.queue(connection, reports.add(connection, study, made, now=parts.clock()), receivers, now=parts.clock())
        elif newest is not None:
            reports.keep_current(connection, newest, study)
            reports.queue(connection, newest.id, receivers, now=parts.clock())


def _is_lost(known: KnownReport, parts: "Parts") -> bool:
    """Whether a report cannot be sent any more to who is to have it: its file was deleted, or is not what was made."""
    if not known.awaited:
        return False
    if known.gone or not (parts.data_dir / known.path).exists():
        return True
    return is_changed(parts.data_dir / known.path, known.sha256)


def _skip(study: ToldStudy, why: str, output: Output, parts: "Parts") -> None:
    """Note that an output was not made: the others are not held up by it."""
    with parts.database.write() as connection:
        events.add(connection, events.OUTPUT_SKIPPED, at=parts.clock(), study_id=study.id, detail=why)
    log.warning("output.skipped", study_id=study.id, kind=output.kind)
