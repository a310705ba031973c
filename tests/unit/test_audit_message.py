"""Audit messages have the elements and attributes of PS3.15 A.5.1.1, in its order, whatever they tell."""

import re
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest

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
    encode,
)
from tests.audit_schema import violations

AT = datetime(2031, 5, 20, 12, 0, tzinfo=UTC)
US = Participant(user_id="CXRWORKER", requestor=False, role=Role.DESTINATION, ae_title="CXRWORKER", address="worker.test")
STUDY = AuditedStudy(
    study_uid="1.2.3",
    patient_id="TEST-0001",
    issuer_of_patient_id="HOSPITAL",
    accession_number="ACC-1",
    instances={"1.2.840.10008.5.1.4.1.1.88.33": ("1.2.3.4",)},
    details={"model": "lenet5"},
)
SOURCE = AuditSource(source_id="CXRWORKER", site_id="SITE")


def message(**changes: object) -> AuditMessage:
    usual = {
        "event_id": EventId.INSTANCES_TRANSFERRED,
        "action": Action.CREATE,
        "at": AT,
        "source": SOURCE,
        "participants": (
            Participant(user_id="MODALITY", requestor=True, role=Role.SOURCE, ae_title="MODALITY", address="192.0.2.1"),
            US,
        ),
        "study": STUDY,
    }
    return AuditMessage(**{**usual, **changes})  # type: ignore[arg-type]


SOMEBODY = Participant(user_id="somebody", requestor=True)
TOLD: dict[EventId, dict[str, object]] = {
    EventId.APPLICATION_ACTIVITY: {
        "action": Action.EXECUTE,
        "participants": (replace(US, role=Role.APPLICATION),),
        "study": None,
    },
    EventId.AUDIT_LOG_USED: {"action": Action.READ, "participants": (SOMEBODY,), "study": None, "log_uri": "urn:x"},
    EventId.INSTANCES_ACCESSED: {"action": Action.READ, "participants": (SOMEBODY, replace(US, role=None))},
    EventId.INSTANCES_TRANSFERRED: {},
    EventId.STUDY_DELETED: {"action": Action.DELETE, "participants": (SOMEBODY,)},
    EventId.SECURITY_ALERT: {"action": Action.EXECUTE, "participants": (SOMEBODY, replace(US, role=None)), "study": None},
}
TOLD = {event_id: {"event_id": event_id, **usual} for event_id, usual in TOLD.items()}


@pytest.mark.parametrize("event_id", EventId)
@pytest.mark.parametrize("event_type", [None, *EventType])
def test_every_event_is_as_the_schema_wants_it(event_id: EventId, event_type: EventType | None) -> None:
    told = message(event_type=event_type, outcome=Outcome.MINOR_FAILURE, description="why", **TOLD[event_id])
    assert violations(encode(told)) == []


def test_a_message_tells_who_did_what_with_whose_study() -> None:
    root = ET.fromstring(encode(message()))  # noqa: S314  our own
    event = root.find("EventIdentification")
    assert event is not None
    assert event.attrib == {
        "EventActionCode": "C",
        "EventDateTime": "2031-05-20T12:00:00.000+00:00",
        "EventOutcomeIndicator": "0",
    }
    assert event.find("EventID").attrib == {  # type: ignore[union-attr]
        "csd-code": "110104",
        "codeSystemName": "DCM",
        "originalText": "DICOM Instances Transferred",
    }
    modality, worker = root.findall("ActiveParticipant")
    assert modality.attrib == {
        "UserID": "MODALITY",
        "UserIsRequestor": "true",
        "AlternativeUserID": "AETITLES=MODALITY",
        "NetworkAccessPointID": "192.0.2.1",
        "NetworkAccessPointTypeCode": "2",
    }
    assert worker.get("NetworkAccessPointTypeCode") == "1", "a machine's name"
    study, patient = root.findall("ParticipantObjectIdentification")
    assert (study.get("ParticipantObjectID"), study.get("ParticipantObjectTypeCodeRole")) == ("1.2.3", "3")
    assert (patient.get("ParticipantObjectID"), patient.get("ParticipantObjectTypeCodeRole")) == ("TEST-0001", "1")
    (detail,) = study.findall("ParticipantObjectDetail")
    assert (detail.get("type"), b64decode(detail.get("value", ""))) == ("model", b"lenet5")
    (issuer,) = patient.findall("ParticipantObjectDetail")
    assert (issuer.get("type"), b64decode(issuer.get("value", ""))) == ("IssuerOfPatientID", b"HOSPITAL")
    assert [element.get("UID") for element in study.iter("Instance")] == ["1.2.3.4"]
    assert [element.get("Number") for element in study.iter("Accession")] == ["ACC-1"]


def test_what_strangers_sent_breaks_no_xml() -> None:
    strange = message(study=AuditedStudy(study_uid="1.2.3", patient_id='<"&\x00\x1b\ud800>', accession_number="]]>\x0b"))
    root = ET.fromstring(encode(strange))  # noqa: S314  our own
    assert root.findall("ParticipantObjectIdentification")[1].get("ParticipantObjectID") == '<"&>'
    assert violations(encode(strange)) == []


def test_equal_messages_are_equal_bytes() -> None:
    assert encode(message()) == encode(message())


@pytest.mark.parametrize(
    ("wrong", "cured"),
    [
        (b"<EventID", b"<EventName"),
        (b'UserIsRequestor="true"', b'UserIsRequestor="perhaps"'),
        (b'originalText="URI"', b'displayName="URI"'),
        (b'EventOutcomeIndicator="0"', b'EventOutcomeIndicator="1"'),
        (b"<ParticipantObjectName>Patient</ParticipantObjectName>", b""),
        (b'ParticipantObjectID="1.2.3"', b'Surprise="1.2.3"'),
        (b'csd-code="4"', b'csd-code=""'),
    ],
)
def test_the_schema_finds_what_is_wrong(wrong: bytes, cured: bytes) -> None:
    xml = encode(message(**TOLD[EventId.AUDIT_LOG_USED]) if b"URI" in wrong else message())
    assert wrong in xml
    assert violations(xml) == []
    broken = xml.replace(wrong, cured)
    if wrong == b"<EventID":
        broken = re.sub(rb"</EventID>", b"</EventName>", broken)
    assert violations(broken)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("the action 'D'", {"action": Action.DELETE}),
        ("the participants '<110152><110153><110153>'", {"participants": (US, *[replace(US, role=Role.SOURCE)] * 2)}),
        ("the participants '<110152>'", {"participants": (US,)}),
        ("the objects ''", {"study": None}),
        ("the objects '<1/1><2/13><2/3>'", {"log_uri": "urn:x"}),
        ("the participants '<>'", {**TOLD[EventId.APPLICATION_ACTIVITY], "participants": (SOMEBODY,)}),
        ("the participants '<><><>'", {**TOLD[EventId.STUDY_DELETED], "participants": (SOMEBODY,) * 3}),
    ],
)
def test_the_table_of_an_event_finds_what_is_wrong(wrong: str, told: dict[str, object]) -> None:
    (found,) = violations(encode(message(**told)))
    assert found.endswith(wrong)
