"""The structure of an audit message, after the RELAX NG schema of PS3.15 A.5.1.1: elements in their order, and attributes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

ANY = r"(?s).*"
SOME = r"(?s).+"
UID = r"[0-9.]{1,64}"
BASE64 = r"[A-Za-z0-9+/]*={0,2}"
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
CODED = {"csd-code": SOME, "codeSystemName": SOME, "displayName?": SOME, "originalText": SOME}


@dataclass(frozen=True)
class Element:
    """Attributes, with a ``?`` after the name of one that may lack; children: a regular expression of ``<Tag>``s."""

    attributes: Mapping[str, str] = field(default_factory=dict)
    children: str = ""
    text: bool = False


CODE = Element(CODED)
SCHEMA = {
    "AuditMessage": Element(
        children="<EventIdentification>(<ActiveParticipant>)+<AuditSourceIdentification>(<ParticipantObjectIdentification>)*"
    ),
    "EventIdentification": Element(
        {"EventActionCode?": "[CRUDE]", "EventDateTime": MOMENT, "EventOutcomeIndicator": "0|4|8|12"},
        "<EventID>(<EventTypeCode>)*(<EventOutcomeDescription>)?",
    ),
    "EventID": CODE,
    "EventTypeCode": CODE,
    "EventOutcomeDescription": Element(text=True),
    "ActiveParticipant": Element(
        {
            "UserID": SOME,
            "AlternativeUserID?": ANY,
            "UserName?": ANY,
            "UserIsRequestor": "true|false",
            "NetworkAccessPointID?": ANY,
            "NetworkAccessPointTypeCode?": "[1-5]",
        },
        "(<RoleIDCode>)*(<MediaIdentifier>)?",
    ),
    "RoleIDCode": CODE,
    "AuditSourceIdentification": Element({"AuditEnterpriseSiteID?": ANY, "AuditSourceID": SOME}, "(<AuditSourceTypeCode>)*"),
    "AuditSourceTypeCode": Element({"csd-code": "[1-9]"}),
    "ParticipantObjectIdentification": Element(
        {
            "ParticipantObjectID": ANY,
            "ParticipantObjectTypeCode?": "[1-4]",
            "ParticipantObjectTypeCodeRole?": "[1-9]|1[0-9]|2[0-6]",
            "ParticipantObjectDataLifeCycle?": "[1-9]|1[0-5]",
            "ParticipantObjectSensitivity?": ANY,
        },
        "<ParticipantObjectIDTypeCode>(<ParticipantObjectName>|<ParticipantObjectQuery>)(<ParticipantObjectDetail>)*"
        "(<ParticipantObjectDescription>)*",
    ),
    "ParticipantObjectIDTypeCode": CODE,
    "ParticipantObjectName": Element(text=True),
    "ParticipantObjectDetail": Element({"type": SOME, "value": BASE64}),
    "ParticipantObjectDescription": Element(children="(<MPPS>)*(<Accession>)*(<SOPClass>)*(<ParticipantObjectContainsStudy>)?"),
    "Accession": Element({"Number": ANY}),
    "SOPClass": Element({"UID?": UID, "NumberOfInstances": r"\d+"}, "(<Instance>)*"),
    "Instance": Element({"UID": UID}),
}


def violations(xml: bytes) -> list[str]:
    """What about a message is not as the schema wants it."""
    root = ET.fromstring(xml)  # noqa: S314  our own
    found = [] if root.tag == "AuditMessage" else [f"the root is {root.tag}"]
    return found + [wrong for element in root.iter() for wrong in _of(element)]


def _of(element: ET.Element) -> list[str]:
    wanted = SCHEMA.get(element.tag)
    if wanted is None:
        return [f"{element.tag} is unknown"]
    found = []
    children = "".join(f"<{child.tag}>" for child in element)
    if not re.fullmatch(wanted.children, children):
        found.append(f"{element.tag} holds {children}")
    if element.text and element.text.strip() and not wanted.text:
        found.append(f"{element.tag} holds text")
    known = {name.rstrip("?"): pattern for name, pattern in wanted.attributes.items()}
    found += [f"{element.tag} has {name}" for name in element.attrib if name not in known]
    found += [f"{element.tag} lacks {name}" for name in wanted.attributes if name[-1] != "?" and name not in element.attrib]
    found += [
        f"{element.tag} {name} is {value!r}"
        for name, value in element.attrib.items()
        if name in known and not re.fullmatch(known[name], value)
    ]
    return found
