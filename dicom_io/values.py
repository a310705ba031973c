"""What the DICOM side hands from one function to the next."""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, NewType

import numpy as np
from numpy.typing import NDArray

from dicom_io.codes import Assessment, Condition, Presence
from dicom_io.errors import InvalidReport
from dicom_io.standing import AS_TOLD, Correction
from dicom_io.wording import Language, Wording, wording_in

StudyUID = NewType("StudyUID", str)
SeriesUID = NewType("SeriesUID", str)
SOPInstanceUID = NewType("SOPInstanceUID", str)
SOPClassUID = NewType("SOPClassUID", str)
TransferSyntaxUID = NewType("TransferSyntaxUID", str)

ANY_UID: Final = re.compile(r"[0-9][0-9.]{0,63}")
"""Leading zeros break PS3.5 section 9.1, yet real devices send them: such an image is kept, not lost."""
EXACT_UID: Final = re.compile(r"(?=.{1,64}$)(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
"""As the standard has it: what names a kind of thing is never written otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An application entity that can be called."""

    ae_title: str
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What produced a result, as TID 4019 "Algorithm Identification" names it (PS3.16)."""

    name: str
    version: str
    manufacturer: str
    parameters: tuple[str, ...]
    """Each a line such as ``weights sha256 3f…`` or ``threshold COVID-19 0.41``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFinding:
    """One class of the classifier on one image."""

    condition: Condition
    probability: float
    """0 to 1."""
    present: bool
    """Whether the probability reached the operating threshold of its class."""
    threshold: float | None = None
    """That operating threshold, 0 to 1, where the class has one."""

    def __post_init__(self) -> None:
        """Raise `InvalidReport` for what is no probability (NaN compares false)."""
        for value in (self.probability, 0.0 if self.threshold is None else self.threshold):
            if not 0.0 <= value <= 1.0:
                raise InvalidReport("A probability or threshold is not between 0 and 1.")

    @property
    def raises_concern(self) -> bool:
        """Whether something abnormal is present."""
        return self.present and self.condition is not Condition.NORMAL


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFindings:
    """All classes on one image. The image is the file as received, so that identity is copied from it and nowhere else."""

    path: Path
    findings: tuple[ClassFinding, ...]
    undetermined: bool = False
    """The classifier is not sure of this image. What it flags stays flagged; the rest is then undetermined, not absent."""
    correction: Correction = AS_TOLD
    """With which it was read, where its pixels told other than its header."""

    def presence(self, finding: ClassFinding) -> Presence:
        """What is said of one of its classes."""
        if self.undetermined and not finding.raises_concern:
            return Presence.UNDETERMINED
        return Presence.PRESENT if finding.present else Presence.ABSENT


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Saliency:
    """What in an image spoke for a condition."""

    condition: Condition
    map: NDArray[np.float32]
    """Shape (rows, columns), 0..1, lying over the whole image as displayed, whatever the two shapes are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectReference:
    """Names one stored composite object of the same study."""

    sop_class_uid: SOPClassUID
    sop_instance_uid: SOPInstanceUID
    series_uid: SeriesUID


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFindings:
    """Everything a report on one study says. Two equal values give byte-identical objects."""

    images: tuple[ImageFindings, ...]
    algorithm: Algorithm
    assessment: Assessment
    """The triage level."""
    impression: str
    """One sentence for a reader."""
    analysed_at: datetime
    """Time zone aware; becomes the content date and time."""
    result_key: str
    """Names the result (analysed instances, model, version); the UIDs of every object made from it are derived from this."""
    predecessor: ObjectReference | None = None
    """The report that this one supersedes, of the same kind."""
    language: Language = Language.ENGLISH
    """Of the words in it."""

    @property
    def wording(self) -> Wording:
        """The words of its language."""
        return wording_in(self.language)

    def __post_init__(self) -> None:
        """Raise `InvalidReport` for findings that no report can be written from."""
        if not self.images or not all(image.findings for image in self.images):
            raise InvalidReport("The findings name no image, or an image without a class.")
        if self.analysed_at.utcoffset() is None:
            raise InvalidReport("The time of the analysis has no time zone.")
        if not all((self.impression, self.result_key, self.algorithm.name, self.algorithm.version)):
            raise InvalidReport("The findings lack an impression, a result key, or the name or version of the algorithm.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedImage:
    """An image that was not analysed."""

    path: Path
    code: str
    """A reason code; its words in a language are `wording.reasons`."""
    reason: str
    """One English sentence for an operator, without values of a patient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedStudy:
    """A study of which no image was analysed. Two equal values give byte-identical objects."""

    images: tuple[RefusedImage, ...]
    decided_at: datetime
    """Time zone aware."""
    result_key: str
    language: Language = Language.ENGLISH
    predecessor: ObjectReference | None = None

    @property
    def wording(self) -> Wording:
        """The words of its language."""
        return wording_in(self.language)
