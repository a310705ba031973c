"""What one step hands to the next."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import NewType

from dicom_io.kinds import Kind
from dicom_io.pixels import AS_TOLD, Correction
from dicom_io.values import ObjectReference, SeriesUID, SOPClassUID, SOPInstanceUID, StudyUID
from dicom_io.wording import Language

StudyId = NewType("StudyId", int)
InstanceId = NewType("InstanceId", int)
ReportId = NewType("ReportId", int)
DeliveryId = NewType("DeliveryId", int)


class StudyState(StrEnum):
    """Where a study stands. The order of the members is the order of the path."""

    ARRIVING = "arriving"
    """Images may still come."""
    READY = "ready"
    """Quiet long enough: due for analysis."""
    ANALYSED = "analysed"
    """Predictions are recorded: due for its reports."""
    NOT_ANALYSED = "not_analysed"
    """No image of it is a frontal chest radiograph that may be analysed; an end, with a reason."""
    FAILED = "failed"
    """It should have been analysed and was not; an end, with a reason, until somebody runs `reprocess`."""
    REPORTED = "reported"
    """Its reports are made and queued for every destination."""
    DELIVERED = "delivered"
    """Every destination has every report that it wants."""


class DeliveryState(StrEnum):
    """Where one report stands on its way to one destination."""

    PENDING = "pending"
    """Due at its next attempt."""
    STORED = "stored"
    """The destination answered that it keeps the object; its storage commitment is still to come."""
    DELIVERED = "delivered"
    """The destination keeps the object, and has committed to that where we ask for it."""
    ON_HOLD = "on_hold"
    """Not taken in all attempts. Due again as soon as the destination answers C-ECHO, if it could not be reached, else when it
    takes one of those on hold, with which it is tried every 10 minutes."""
    FAILED = "failed"
    """The object itself was refused, or was stored and not committed to; `deliveries retry` queues it again."""
    SUPERSEDED = "superseded"
    """Not sent any more: a newer report of the study, or another patient's image, came before it was, or its file is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One object to be made of a study. Reports of the same output supersede each other."""

    kind: Kind
    sop_class_uid: SOPClassUID
    language: Language


class ModelRole(StrEnum):
    """What a model answers for."""

    ACTIVE = "active"
    """Its answer is the result: triage and reports follow from it."""
    SHADOW = "shadow"
    """Its answer is recorded beside the active model's, to compare the two, and never reported."""


class Triage(StrEnum):
    """How urgently a person should look. Ordered by `rank`; we never lower it."""

    NONE = "none"
    ROUTINE = "routine"
    HIGH = "high"
    URGENT = "urgent"

    @property
    def rank(self) -> int:
        """0 for none, 3 for urgent."""
        return list(Triage).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Proof that an object lies durably on disk."""

    path: Path
    """Relative to the data folder."""
    sha256: str
    """Of the data set as received, without file meta."""
    size: int
    """Bytes of the data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstance:
    """A received object that is on disk and in the database."""

    id: InstanceId
    sop_instance_uid: SOPInstanceUID
    path: Path
    """Absolute."""
    sha256: str
    patient_id: str
    issuer_of_patient_id: str
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyStudy:
    """A complete study, due for analysis."""

    id: StudyId
    study_uid: StudyUID
    generation: int
    attempts: int
    instances: tuple[StoredInstance, ...]
    """Every object received, in order of arrival."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Which weights answered."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said of one image."""

    model: ModelIdentity
    temperature: float
    thresholds: Mapping[str, float]
    """Operating threshold of each abnormal label."""
    probabilities: Mapping[str, float]
    present: Mapping[str, bool]
    label: str
    undetermined: bool
    """The most probable label is not probable enough to be an answer. What is flagged stays flagged."""
    flagged: bool
    parameters: tuple[str, ...] = ()
    """What else made the answer, as reports name it: the preparation of the image, below which confidence it abstains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """Why a shadow model said nothing of an image."""

    reason: str
    model: ModelIdentity | None = None
    """Which model it is, where that could be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcome:
    """What became of one image: an answer, or the reason why there is none."""

    instance: StoredInstance
    eligible: bool
    reason_code: str
    reason: str
    answer: Answer | None
    shadow: Answer | Unanswered | None = None
    """What the shadow model said, or why it said nothing; None where there is none. Nothing may follow from it."""
    correction: Correction = AS_TOLD
    """What the pixels told that the header did not: whoever shows the image applies it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """What became of one study."""

    study: ReadyStudy
    images: tuple[ImageOutcome, ...]
    failure: str | None = None
    """Why the study as a whole cannot be analysed, whatever its images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What is said of a study as a whole."""

    state: StudyState
    reason: str | None
    """In words, where there is no result."""
    triage: Triage


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysedStudy:
    """A study whose predictions are recorded: due for its reports."""

    id: StudyId
    study_uid: StudyUID
    generation: int
    attempts: int
    analysed_at: datetime
    triage: Triage
    images: tuple[ImageOutcome, ...]
    """Only those with an answer."""

    @property
    def flagged(self) -> bool:
        """Whether something abnormal was found on an image."""
        return any(image.answer is not None and image.answer.flagged for image in self.images)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnansweredStudy:
    """A study of which no image was analysed: due for the report that says why."""

    id: StudyId
    study_uid: StudyUID
    generation: int
    attempts: int
    decided_at: datetime
    images: tuple[ImageOutcome, ...]


ToldStudy = AnalysedStudy | UnansweredStudy
"""What a report can be made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownReport:
    """A report that is in the database."""

    id: ReportId
    reference: ObjectReference
    result_key: str
    path: Path
    """Relative to the data folder."""
    sha256: str | None
    """Of the file as it was made; None where that was not kept."""
    gone: bool
    """Its file was deleted."""
    awaited: bool
    """Some destination is still to have it, or none ever had it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeReport:
    """A report that is on disk, not yet in the database."""

    output: Output
    sop_instance_uid: SOPInstanceUID
    series_uid: SeriesUID
    result_key: str
    """Which result it tells; two reports tell the same one where another came in between."""
    path: Path
    """Relative to the data folder."""
    sha256: str
    """Of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDelivery:
    """A report that a destination should be sent, or asked to commit to, now."""

    id: DeliveryId
    study_id: StudyId
    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    path: Path
    """Absolute."""
    attempts: int
    sha256: str | None = None
    """Of the file as it was made; None where that was not kept."""
