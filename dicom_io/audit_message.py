"""Audit messages: who did what with whose study, as XML (PS3.15 A.5.1 for the structure, A.5.3 for what each event tells)."""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum, StrEnum
from ipaddress import ip_address
from xml.etree import ElementTree as ET  # written, never read  # nosec B405

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold (section 2.2)."""


class EventId(Enum):
    """What happened (PS3.16 CID 400)."""

    APPLICATION_ACTIVITY = ("110100", "Application Activity")
    AUDIT_LOG_USED = ("110101", "Audit Log Used")
    INSTANCES_ACCESSED = ("110103", "DICOM Instances Accessed")
    INSTANCES_TRANSFERRED = ("110104", "DICOM Instances Transferred")
    STUDY_DELETED = ("110105", "DICOM Study Deleted")
    SECURITY_ALERT = ("110113", "Security Alert")


class EventType(Enum):
    """Which kind of it (PS3.16 CID 401)."""

    APPLICATION_START = ("110120", "Application Start")
    APPLICATION_STOP = ("110121", "Application Stop")
    NODE_AUTHENTICATION = ("110126", "Node Authentication")
    SOFTWARE_CONFIGURATION = ("110131", "Software Configuration")


class Role(Enum):
    """What a participant had to do with it (PS3.16 CID 402)."""

    APPLICATION = ("110150", "Application")
    DESTINATION = ("110152", "Destination Role ID")
    SOURCE = ("110153", "Source Role ID")


class Action(StrEnum):
    """What was done to the objects."""

    CREATE = "C"
    READ = "R"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(IntEnum):
    """How it ended."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """A person or a process. `address` is an IP address or the name of a machine; empty: not known."""

    user_id: str
    requestor: bool
    role: Role | None = None
    ae_title: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedStudy:
    """A study, its patient, and which instances of it were meant: UIDs by SOP class, as far as they are told."""

    study_uid: str
    patient_id: str
    issuer_of_patient_id: str = ""
    accession_number: str = ""
    instances: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSource:
    """Who reports: an id that the site knows, and the site's own where it has one."""

    source_id: str
    site_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditMessage:
    """One event. `log_uri` names the log that was used."""

    event_id: EventId
    action: Action
    at: datetime
    source: AuditSource
    participants: tuple[Participant, ...]
    event_type: EventType | None = None
    outcome: Outcome = Outcome.SUCCESS
    description: str = ""
    study: AuditedStudy | None = None
    log_uri: str = ""


def encode(message: AuditMessage) -> bytes:
    """Write a message as UTF-8, in the order of elements that the schema of PS3.15 A.5.1.1 wants."""
    root = ET.Element("AuditMessage")
    event = _add(
        root,
        "EventIdentification",
        EventActionCode=message.action,
        EventDateTime=message.at.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(message.outcome.value),
    )
    _add_code(event, "EventID", *message.event_id.value)
    if message.event_type is not None:
        _add_code(event, "EventTypeCode", *message.event_type.value)
    if message.description:
        _add(event, "EventOutcomeDescription").text = _clean(message.description)
    for participant in message.participants:
        _add_participant(root, participant)
    source = _add(root, "AuditSourceIdentification", AuditSourceID=message.source.source_id)
    if message.source.site_id:
        source.set("AuditEnterpriseSiteID", _clean(message.source.site_id))
    _add(source, "AuditSourceTypeCode", **{"csd-code": "4"})  # application server
    if message.study is not None:
        _add_study(root, message.study)
    if message.log_uri:
        log = _add(root, "ParticipantObjectIdentification", ParticipantObjectID=message.log_uri, **_kind("2", "13"))
        _add_code(log, "ParticipantObjectIDTypeCode", "12", "URI", scheme="RFC-3881")
        _add(log, "ParticipantObjectName").text = "Security Audit Log"
    encoded: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return encoded


def _add_participant(root: ET.Element, participant: Participant) -> None:
    element = _add(root, "ActiveParticipant", UserID=participant.user_id, UserIsRequestor=str(participant.requestor).lower())
    if participant.ae_title:
        element.set("AlternativeUserID", _clean(f"AETITLES={participant.ae_title}"))
    if participant.address:
        element.set("NetworkAccessPointID", _clean(participant.address))
        element.set("NetworkAccessPointTypeCode", "2" if _is_ip(participant.address) else "1")
    if participant.role is not None:
        _add_code(element, "RoleIDCode", *participant.role.value)


def _add_study(root: ET.Element, study: AuditedStudy) -> None:
    element = _add(root, "ParticipantObjectIdentification", ParticipantObjectID=study.study_uid, **_kind("2", "3"))
    _add_code(element, "ParticipantObjectIDTypeCode", "110180", "Study Instance UID")
    _add(element, "ParticipantObjectName").text = "Study"
    for name, value in study.details.items():
        _add_detail(element, name, value)
    described = _add(element, "ParticipantObjectDescription")
    if study.accession_number:
        _add(described, "Accession", Number=study.accession_number)
    for sop_class_uid, uids in study.instances.items():
        of_class = _add(described, "SOPClass", UID=sop_class_uid, NumberOfInstances=str(len(uids)))
        for uid in uids:
            _add(of_class, "Instance", UID=uid)
    patient = _add(root, "ParticipantObjectIdentification", ParticipantObjectID=study.patient_id, **_kind("1", "1"))
    _add_code(patient, "ParticipantObjectIDTypeCode", "2", "Patient Number", scheme="RFC-3881")
    _add(patient, "ParticipantObjectName").text = "Patient"  # a name must stand there; the patient's is not kept
    if study.issuer_of_patient_id:
        _add_detail(patient, "IssuerOfPatientID", study.issuer_of_patient_id)


def _add_detail(parent: ET.Element, name: str, value: str) -> None:
    _add(parent, "ParticipantObjectDetail", type=name, value=b64encode(value.encode("utf-8", "replace")).decode())


def _kind(type_code: str, role: str) -> dict[str, str]:
    return {"ParticipantObjectTypeCode": type_code, "ParticipantObjectTypeCodeRole": role}


def _add(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, tag, {name: _clean(value) for name, value in attributes.items()})


def _add_code(parent: ET.Element, tag: str, code: str, meaning: str, *, scheme: str = "DCM") -> None:
    _add(parent, tag, **{"csd-code": code, "codeSystemName": scheme, "originalText": meaning})


def _clean(text: str) -> str:
    return _NO_XML.sub("", text)


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
