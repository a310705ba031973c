"""The DICOM Conformance Statement (PS3.2 annex N), written from the code: what it says is what runs."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from inspect import getsource
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_io import acceptor, codes, guests, negotiation, sender, uids
from dicom_io.eligibility import SOP_CLASSES, ReasonCode
from dicom_io.identity import COPIED
from dicom_io.kinds import SERIES, Kind
from dicom_io.status import StoreStatus
from dicom_io.values import ObjectReference, SeriesUID, SOPClassUID, SOPInstanceUID, StudyUID
from dicom_io.wire import Patience
from dicom_io.wording import Language
from dicom_io.wrap import Encoding, Exposure, Patient, dx_from_grayscale
from worker.demo.phantom import synthetic_radiograph
from worker.destination import Destination
from worker.settings import Settings
from worker.steps.report import Pictures, build, output_of, refuse
from worker.values import (
    AnalysedStudy,
    Answer,
    ImageOutcome,
    InstanceId,
    ModelIdentity,
    StoredInstance,
    StudyId,
    Triage,
    UnansweredStudy,
)

_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_SOMETIMES: Final = frozenset(
    {"IssuerOfPatientID", "StudyDescription", "ReferencedRequestSequence", "PredecessorDocumentsSequence"}
)
"""In the examples, and in other objects where the image states it or an earlier result is superseded."""
_FOLLOWING: Final = frozenset({"BurnedInAnnotation", "LossyImageCompression", "PatientOrientation", "PresentationLUTShape"})
"""What says the same of our object as of its image."""
_STUDY: Final = StudyUID(uids.derived_uid("study", "conformance"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute of an object that we make."""

    tag: str
    keyword: str
    vr: str
    presence: str
    """PS3.2's ALWAYS, VNAP (value not always present), ANAP (attribute not always present) or EMPTY."""
    source: str
    """IMAGE where the value is that of the source image, AUTO where we make it, CONFIG where a setting decides."""


def conformance_statement() -> str:
    """Write the statement as Markdown."""
    environment = Environment(
        loader=PackageLoader("worker"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  Markdown of our own words  # nosec B701
    )
    examples = dict(_examples())
    return environment.get_template("conformance.md").render(
        uids=uids,
        settings=Settings(),
        patience=Patience(),
        negotiation=negotiation,
        acceptor=acceptor,
        guests=guests,
        sender=sender,
        statuses=_members(StoreStatus),
        syntaxes=[UID(syntax) for syntax in negotiation.PREFERRED_SYNTAXES],
        analysed_classes=sorted((UID(each) for each in SOP_CLASSES), key=lambda uid: uid.name),
        reasons=_members(ReasonCode),
        kinds=[(kind, SERIES[kind], _members(Kind)[kind.name]) for kind in SERIES],
        made_classes=sorted({each for series in SERIES.values() for each in series.sop_classes}, key=lambda uid: uid.name),
        attributes={kind: _attributes(ds) for kind, ds in examples.items()},
        trees={kind: [*_tree(ds)] for kind, ds in examples.items() if "ContentSequence" in ds},
        codes=[*_codes()],
        languages=[*Language],
        character_sets=sorted(term for term in python_encoding if term),
    )


def _members(kind: type[Enum]) -> Mapping[str, tuple[Any, str]]:
    """Value and docstring of each member: Python does not keep the strings under an enum's members, its source does."""
    lines = [line.strip() for line in getsource(kind).splitlines()]
    said = {}
    for place, line in enumerate(lines[:-1]):
        name = line.partition(" =")[0]
        if name in kind.__members__ and lines[place + 1].startswith('"""'):
            said[name] = kind[name].value, lines[place + 1].strip('"')
    return said


def _examples() -> Iterator[tuple[Kind, Dataset]]:
    """One object of each kind, made on the path that serving takes, of a film of nobody."""
    with tempfile.TemporaryDirectory(prefix="cxr-conformance-") as name:
        path = Path(name) / "film.dcm"
        film = dx_from_grayscale(
            synthetic_radiograph(1),
            Patient(name="TEST^CONFORMANCE", patient_id="TEST-0001", birth_date="19700101", sex="O"),
            exposure=Exposure(study_uid=_STUDY, taken_at=_AT, accession_number="TEST-A1"),
            encoding=Encoding(bits_stored=8),
        )
        film.IssuerOfPatientID = "TEST"
        film.save_as(path, enforce_file_format=True)
        study = _analysed(path, film)
        pictures = Pictures(study, _Even)
        destination = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
        earlier = ObjectReference(
            sop_class_uid=SOPClassUID(SERIES[Kind.SR].sop_classes[0]),
            sop_instance_uid=SOPInstanceUID(uids.derived_uid("instance", "earlier")),
            series_uid=SeriesUID(uids.derived_uid("series", "earlier")),
        )
        for kind in SERIES:
            if kind is Kind.NOT_ANALYSED:
                yield kind, refuse(_unanswered(study), output_of(kind, destination), name="example", predecessor=earlier)
            elif ds := build(study, output_of(kind, destination), pictures, name="example", predecessor=earlier):
                yield kind, ds


class _Even:
    """Says of every part of an image that it spoke for the label by half."""

    def explain(self, pixels: NDArray[np.float32], model: ModelIdentity, label: str) -> NDArray[np.float32]:  # noqa: ARG002
        return np.full((32, 32), 0.5, np.float32)


def _analysed(path: Path, film: Dataset) -> AnalysedStudy:
    instance = StoredInstance(
        id=InstanceId(1),
        sop_instance_uid=SOPInstanceUID(film.SOPInstanceUID),
        path=path,
        sha256="0" * 64,
        patient_id="TEST-0001",
        issuer_of_patient_id="",
        received_at=_AT,
    )
    answer = Answer(
        model=ModelIdentity(name="example", version="1.0.0", weights_sha256="0" * 64),
        temperature=1.0,
        thresholds={"COVID-19": 0.5, "Pneumonia": 0.5},
        probabilities={"COVID-19": 0.1, "Normal": 0.1, "Pneumonia": 0.8},
        present={"COVID-19": False, "Normal": False, "Pneumonia": True},
        label="Pneumonia",
        undetermined=False,
        flagged=True,
    )
    image = ImageOutcome(instance=instance, eligible=True, reason_code="eligible", reason="", answer=answer)
    return AnalysedStudy(
        id=StudyId(1), study_uid=_STUDY, generation=1, attempts=0, analysed_at=_AT, triage=Triage.HIGH, images=(image,)
    )


def _unanswered(study: AnalysedStudy) -> UnansweredStudy:
    images = tuple(
        replace(
            image,
            eligible=False,
            reason_code=ReasonCode.NOT_FRONTAL,
            reason="ViewPosition is LL; PA or AP is expected.",
            answer=None,
        )
        for image in study.images
    )
    return UnansweredStudy(
        id=study.id,
        study_uid=study.study_uid,
        generation=1,
        attempts=0,
        decided_at=_AT,
        images=images,
    )


def _attributes(ds: Dataset) -> list[Attribute]:
    return [
        Attribute(
            tag=f"({element.tag.group:04X},{element.tag.element:04X})",
            keyword=element.keyword,
            vr=element.VR,
            presence=_presence(element),
            source=_source(element),
        )
        for element in ds
        if element.keyword != "ContentSequence"
    ]


def _presence(element: DataElement) -> str:
    if element.keyword in _SOMETIMES:
        return "ANAP"
    if element.keyword in COPIED - {"StudyInstanceUID"}:
        return "VNAP"
    return "EMPTY" if element.is_empty else "ALWAYS"


def _source(element: DataElement) -> str:
    if element.keyword in COPIED | _FOLLOWING and not (element.is_empty and element.keyword in _FOLLOWING):
        return "IMAGE"
    return "CONFIG" if element.keyword == "SeriesDescription" else "AUTO"


def _tree(item: Dataset, depth: int = 0) -> Iterator[str]:
    """One line for each content item; groups that differ in their values alone are told once."""
    relation = item.get("RelationshipType", "")
    concept = ""
    if "ConceptNameCodeSequence" in item:
        code = item.ConceptNameCodeSequence[0]
        concept = f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'
    template = "".join(f", TID {each.TemplateIdentifier}" for each in item.get("ContentTemplateSequence", []))
    yield f"{'    ' * depth}{' '.join(filter(None, (relation, item.ValueType, concept)))}{template}"
    told = set()
    for child in item.get("ContentSequence", []):
        lines = tuple(_tree(child, depth + 1))
        if lines not in told:
            told.add(lines)
            yield from lines


def _codes() -> Iterable[tuple[str, str, str, str]]:
    for kind in (codes.Condition, codes.Presence, codes.Assessment, codes.Anatomy, codes.View, codes.Document):
        for member in kind:
            yield kind.__name__, member.value.value, member.value.scheme_designator, member.value.meaning
