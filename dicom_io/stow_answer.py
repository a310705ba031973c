"""What a DICOMweb service says became of an object that it was sent: its response to STOW-RS (PS3.18 10.5.3 and annex I.2)."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree as ET  # of XML that declares no entities and is at most as long as an answer  # nosec B405

_TAG = re.compile("[0-9A-Fa-f]{8}")
_SOP_INSTANCE_UID: Final = "00081155"
_FAILURE_REASON: Final = "00081197"
_FAILED: Final = "00081198"
"""Failed SOP Sequence."""
_KEPT: Final = "00081199"
"""Referenced SOP Sequence."""
_OTHER_FAILURES: Final = "0008119A"
"""Other Failures Sequence, of what the service could not even tell which instance it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something that a service did not store."""

    reason: int | None
    """Failure Reason; None where there is none that can be read."""
    sop_instance_uid: str | None
    """Empty where no instance is named; None where none could be told."""

    def is_of(self, sop_instance_uid: str) -> bool:
        """Whether it is this object, sent in a request of its own, that failed."""
        return self.sop_instance_uid in {"", sop_instance_uid}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAnswer:
    """A service's answer; without failures, and naming nothing that is kept, where it says nothing."""

    failures: tuple[Failure, ...] = ()
    kept: frozenset[str] = frozenset()
    """SOP Instance UIDs."""


def read_answer(answer: bytes) -> StoreAnswer | None:
    """Read an answer in JSON (PS3.18 annex F), or in XML (PS3.19 annex A) as some services send it whatever they are asked for.

    None where it is neither, as what a login page or a proxy says is not.
    """
    if not answer.strip():
        return StoreAnswer()
    try:
        datasets = [_from_xml(answer)] if answer.lstrip().startswith(b"<") else _from_json(answer)
        failures = [
            *(_failure(item, _uid(item)) for ds in datasets for item in ds.get(_FAILED, ())),
            *(_failure(item, None) for ds in datasets for item in ds.get(_OTHER_FAILURES, ())),
        ]
        kept = {_uid(item) for ds in datasets for item in ds.get(_KEPT, ())}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ET.ParseError):
        return None
    return StoreAnswer(failures=tuple(failures), kept=frozenset(kept - {""}))


_Item = Mapping[str, Any]
"""The first value of each attribute."""
_Dataset = Mapping[str, list[_Item]]
"""The items of each sequence."""


def _failure(item: _Item, uid: str | None) -> Failure:
    try:
        reason = int(item[_FAILURE_REASON])
    except (ValueError, LookupError, TypeError, OverflowError):
        return Failure(reason=None, sop_instance_uid=uid)
    return Failure(reason=reason if 0 <= reason <= 0xFFFF else None, sop_instance_uid=uid)


def _uid(item: _Item) -> str:
    return str(item.get(_SOP_INSTANCE_UID) or "").strip(" \0\r\n\t")


def _from_json(answer: bytes) -> list[_Dataset]:
    told: Any = json.loads(answer)
    return [
        {
            tag: [
                {key: next(iter(_values(value)), None) for key, value in _attributes(item or {})} for item in _values(sequence)
            ]
            for tag, sequence in _attributes(ds)
            if tag in {_FAILED, _KEPT, _OTHER_FAILURES}
        }
        for ds in (told if isinstance(told, list) else [told])
    ]


def _attributes(ds: Any) -> Iterator[tuple[str, Any]]:
    for tag, attribute in ds.items():
        if not _TAG.fullmatch(tag):
            raise ValueError(tag)
        yield tag.upper(), attribute


def _values(attribute: Any) -> list[Any]:
    return list(attribute.get("Value") or ())


def _from_xml(answer: bytes) -> _Dataset:
    text = answer.decode("utf-8-sig")
    if "<!DOCTYPE" in text:  # nothing else declares entities
        raise ValueError
    root = ET.fromstring(text)  # read as the text that it is, whatever encoding it names  # noqa: S314  # nosec B314
    if root.tag.rpartition("}")[2] != "NativeDicomModel":
        raise ValueError
    return {
        tag: [dict(_first_values(item)) for item in sequence.iterfind("{*}Item")]
        for tag, sequence in _elements(root)
        if tag in {_FAILED, _KEPT, _OTHER_FAILURES}
    }


def _first_values(item: ET.Element) -> Iterator[tuple[str, Any]]:
    for tag, attribute in _elements(item):
        yield tag, attribute.findtext("{*}Value")


def _elements(ds: ET.Element) -> Iterator[tuple[str, ET.Element]]:
    for attribute in ds.iterfind("{*}DicomAttribute"):
        yield attribute.get("tag", "").upper(), attribute
