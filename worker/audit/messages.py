"""From an event of ours to the audit message that PS3.15 A.5.3 has for it."""

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dicom_io.audit_message import (
    Action,
    AuditedStudy,
    AuditMessage,
    AuditSource,
    EventId,
    EventType,
    Outcome,
    Participant,
    Role,
)
from worker.db import events
from worker.db.events import Recorded
from worker.db.retention import FILES_REMOVED
from worker.settings import Settings
from worker.values import StudyState

LOG_URI = "urn:cxr-worker:events"
"""Names our record of events, where somebody exported it."""

_WORDS = 200
_DECISION = ("model", "version", "weights_sha256", "labels", "triage", "images")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Who we are to an auditor, and whom we send to."""

    ae_title: str
    host: str
    source: AuditSource
    destinations: Mapping[str, tuple[str, str]]
    """AE title and host by name."""

    def participant(self, *, requestor: bool, role: Role | None = None) -> Participant:
        """Ourselves as a participant."""
        return Participant(user_id=self.ae_title, requestor=requestor, role=role, ae_title=self.ae_title, address=self.host)


def reporter_of(settings: Settings) -> Reporter:
    """Who the settings say that we are."""
    audit = settings.audit
    return Reporter(
        ae_title=settings.dicom.ae_title,
        host=socket.gethostname(),
        source=AuditSource(
            source_id=(audit.source if audit else "") or settings.dicom.ae_title, site_id=audit.site if audit else ""
        ),
        destinations={each.name: (each.ae_title, each.host) for each in settings.destinations},
    )


def messages_of(recorded: Recorded, reporter: Reporter) -> list[AuditMessage]:
    """The audit messages of an event; none where the standard has none for it, or where a study is missing that it wants.

    Of a study that was received one for each sender: a message has one (PS3.15 A.5.3.7), and strangers cannot make it long.
    """
    if recorded.event.kind == events.COMPLETE:
        return _received(recorded, reporter)
    make = _MAKERS.get(recorded.event.kind)
    message = None if make is None else make(recorded, reporter)
    return [] if message is None else [message]


def in_short(message: AuditMessage) -> AuditMessage:
    """A message without what may be long: who did what with whose study stays."""
    study = None if message.study is None else replace(message.study, instances={}, details={})
    return replace(message, description=message.description[:_WORDS], study=study)


def _activity(recorded: Recorded, reporter: Reporter) -> AuditMessage:
    started = recorded.event.kind == events.STARTED
    return AuditMessage(
        event_id=EventId.APPLICATION_ACTIVITY,
        event_type=EventType.APPLICATION_START if started else EventType.APPLICATION_STOP,
        action=Action.EXECUTE,
        at=recorded.event.at,
        source=reporter.source,
        participants=(reporter.participant(requestor=False, role=Role.APPLICATION),),
    )


def _received(recorded: Recorded, reporter: Reporter) -> list[AuditMessage]:
    study = _study(recorded)
    if study is None:
        return []
    senders: Sequence[Mapping[str, str]] = recorded.event.facts.get("senders") or ({},)
    return [
        AuditMessage(
            event_id=EventId.INSTANCES_TRANSFERRED,
            action=Action.CREATE,
            at=recorded.event.at,
            source=reporter.source,
            participants=(_sender(each), reporter.participant(requestor=False, role=Role.DESTINATION)),
            study=study,
        )
        for each in senders
    ]


def _sender(facts: Mapping[str, str]) -> Participant:
    ae_title, address = facts.get("ae_title", ""), facts.get("address", "")
    return Participant(
        user_id=ae_title or address or "unknown", requestor=True, role=Role.SOURCE, ae_title=ae_title, address=address
    )


def _decided(recorded: Recorded, reporter: Reporter) -> AuditMessage | None:
    study = _study(recorded)
    if study is None:
        return None
    event = recorded.event
    return AuditMessage(
        event_id=EventId.INSTANCES_ACCESSED,
        action=Action.READ,
        at=event.at,
        source=reporter.source,
        participants=(reporter.participant(requestor=True),),
        outcome=Outcome.SERIOUS_FAILURE if event.kind == StudyState.FAILED else Outcome.SUCCESS,
        description=event.detail,
        study=study,
    )


def _asked_again(recorded: Recorded, reporter: Reporter) -> AuditMessage | None:
    study, user = _study(recorded), recorded.event.facts.get("user")
    if study is None or user is None:
        return None  # the worker asked itself: what comes of it is told
    return AuditMessage(
        event_id=EventId.INSTANCES_ACCESSED,
        action=Action.READ,
        at=recorded.event.at,
        source=reporter.source,
        participants=(Participant(user_id=user, requestor=True), reporter.participant(requestor=False)),
        description=recorded.event.detail,
        study=study,
    )


def _deleted(recorded: Recorded, reporter: Reporter) -> AuditMessage | None:
    study = _study(recorded)
    if study is None:
        return None
    user = str(recorded.event.facts.get("user", ""))
    asking = (Participant(user_id=user, requestor=True),) if user else ()
    return AuditMessage(
        event_id=EventId.STUDY_DELETED,
        action=Action.DELETE,
        at=recorded.event.at,
        source=reporter.source,
        participants=(*asking, reporter.participant(requestor=not user)),
        description=recorded.event.detail,
        study=study,
    )


def _sent(recorded: Recorded, reporter: Reporter) -> AuditMessage | None:
    study, event = _study(recorded), recorded.event
    if study is None:
        return None
    name = str(event.facts.get("destination", ""))
    ae_title, host = reporter.destinations.get(name, ("", ""))
    failed = event.kind != events.SENT
    return AuditMessage(
        event_id=EventId.INSTANCES_TRANSFERRED,
        action=Action.READ,  # who does not receive cannot know whether they were held before (PS3.15 A.5.3.7)
        at=event.at,
        source=reporter.source,
        participants=(
            reporter.participant(requestor=True, role=Role.SOURCE),
            Participant(user_id=ae_title or name, requestor=False, role=Role.DESTINATION, ae_title=ae_title, address=host),
        ),
        outcome=Outcome.SERIOUS_FAILURE if failed else Outcome.SUCCESS,
        description=event.detail if failed else "",
        study=study,
    )


def _refused(recorded: Recorded, reporter: Reporter) -> AuditMessage | None:
    facts = recorded.event.facts
    if "status" in facts:
        return None  # an object that was refused for what it is: no matter of security
    return AuditMessage(
        event_id=EventId.SECURITY_ALERT,
        event_type=EventType.NODE_AUTHENTICATION,
        action=Action.EXECUTE,
        at=recorded.event.at,
        source=reporter.source,
        participants=(reporter.participant(requestor=True), *_caller(facts)),
        outcome=Outcome.MINOR_FAILURE,
        description=recorded.event.detail,
    )


def _caller(facts: Mapping[str, str]) -> tuple[Participant, ...]:
    ae_title, address = facts.get("ae_title", ""), facts.get("address", "")
    if not ae_title and not address:
        return ()
    return (Participant(user_id=ae_title or address, requestor=False, ae_title=ae_title, address=address),)


def _configured(recorded: Recorded, reporter: Reporter) -> AuditMessage:
    event = recorded.event
    return AuditMessage(
        event_id=EventId.SECURITY_ALERT,
        event_type=EventType.SOFTWARE_CONFIGURATION,
        action=Action.EXECUTE,
        at=event.at,
        source=reporter.source,
        participants=(
            reporter.participant(requestor=False),
            Participant(user_id=str(event.facts.get("user", "unknown")), requestor=True),
        ),
        description=f"{event.kind}: {event.detail}",
    )


def _exported(recorded: Recorded, reporter: Reporter) -> AuditMessage:
    return AuditMessage(
        event_id=EventId.AUDIT_LOG_USED,
        action=Action.READ,
        at=recorded.event.at,
        source=reporter.source,
        participants=(Participant(user_id=str(recorded.event.facts.get("user", "unknown")), requestor=True),),
        log_uri=LOG_URI,
    )


def _study(recorded: Recorded) -> AuditedStudy | None:
    if recorded.study_uid is None:
        return None
    facts = recorded.event.facts
    sop_class_uid = facts.get("sop_class_uid")
    told = {name: facts[name] for name in _DECISION if name in facts}
    return AuditedStudy(
        study_uid=recorded.study_uid,
        patient_id=recorded.patient_id or "",
        issuer_of_patient_id=recorded.issuer_of_patient_id or "",
        accession_number=recorded.accession_number or "",
        instances={sop_class_uid: (facts["sop_instance_uid"],)} if sop_class_uid else {},
        details={name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()},
    )


_MAKERS: Mapping[str, Callable[[Recorded, Reporter], AuditMessage | None]] = {
    events.STARTED: _activity,
    events.STOPPED: _activity,
    StudyState.ANALYSED: _decided,
    StudyState.NOT_ANALYSED: _decided,
    StudyState.FAILED: _decided,
    events.REPROCESS: _asked_again,
    FILES_REMOVED: _deleted,
    events.SENT: _sent,
    events.DELIVERY_FAILED: _sent,
    events.DELIVERY_ON_HOLD: _sent,
    events.REFUSED: _refused,
    events.ACTIVATED: _configured,
    events.SHADOWED: _configured,
    events.DATABASE_RESTORED: _configured,
    events.EXPORTED: _exported,
    events.DATABASE_BACKED_UP: _exported,  # the record of events is in it
}
