"""The structure of an audit message, after the RELAX NG schema of PS3.15 A.5.1.1: elements in their order, and attributes.

And what the tables of PS3.15 A.5.3 say beyond it: which action, how many of which participants and objects.
"""

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


APPLICATION, DESTINATION, SOURCE, OTHER = "<110150>", "<110152>", "<110153>", "<>"
STUDY, PATIENT, LOG = "<2/3>", "<1/1>", "<2/13>"


@dataclass(frozen=True)
class Rule:
    """Of one event (its code is the key): actions; participants by their roles and objects by type and role, each sorted."""

    actions: str
    participants: str
    objects: str = ""


RULES = {
    "110100": Rule("E", f"{APPLICATION}({OTHER})*"),
    "110101": Rule("R", f"({OTHER}){{1,2}}", LOG),
    "110103": Rule("CRUD", f"({OTHER}){{1,2}}", f"{PATIENT}({STUDY})+"),
    "110104": Rule("CRU", f"{DESTINATION}{SOURCE}({OTHER})*", f"{PATIENT}({STUDY})+"),
    "110105": Rule("D", f"({OTHER}){{1,2}}", f"{PATIENT}({STUDY})+"),
    "110113": Rule("E", f"({OTHER})+", "(<.*>)*"),
}
"""PS3.15 A.5.3.1, .2, .6, .7, .8 and .11."""


def violations(xml: bytes) -> list[str]:
    """What about a message is not as the schema and the table of its event want it."""
    root = ET.fromstring(xml)  # noqa: S314  our own
    found = [] if root.tag == "AuditMessage" else [f"the root is {root.tag}"]
    found += [wrong for element in root.iter() for wrong in _of(element)]
    return found or _against_its_table(root)


def _against_its_table(root: ET.Element) -> list[str]:
    event = next(root.iter("EventIdentification"))
    code = next(event.iter("EventID")).get("csd-code", "")
    rule = RULES.get(code)
    if rule is None:
        return [f"the event {code} is unknown"]
    roles = [[role.get("csd-code", "") for role in each.iter("RoleIDCode")] for each in root.iter("ActiveParticipant")]
    participants = "".join(sorted(f"<{'+'.join(each)}>" for each in roles))
    kinds = [
        f"<{each.get('ParticipantObjectTypeCode')}/{each.get('ParticipantObjectTypeCodeRole')}>"
        for each in root.iter("ParticipantObjectIdentification")
    ]
    objects = "".join(sorted(kinds))
    told = [
        ("action", event.get("EventActionCode", ""), f"[{rule.actions}]"),
        ("participants", participants, rule.participants),
    ]
    told.append(("objects", objects, rule.objects))
    return [f"{code} has the {name} {value!r}" for name, value, pattern in told if not re.fullmatch(pattern, value)]


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
