"""What a label means: its coded concept, its words and how urgent it is. The only place that knows."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.sr.coding import Code

from dicom_io.codes import Assessment, Condition
from dicom_io.uids import MANUFACTURER
from dicom_io.values import Algorithm, ClassFinding, ImageFindings, ObjectReference, StudyFindings
from worker.values import AnalysedStudy, Answer, Triage


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What one label of the classifier says to people and machines."""

    concept: Code
    words: str
    triage: Triage
    """How soon somebody should look when it is present."""


MEANINGS = {
    "COVID-19": Meaning(concept=Condition.COVID_19.value, words="COVID-19 suspected", triage=Triage.URGENT),
    "Pneumonia": Meaning(concept=Condition.PNEUMONIA.value, words="pneumonia suspected", triage=Triage.HIGH),
    "Normal": Meaning(concept=Condition.NORMAL.value, words="no finding flagged", triage=Triage.ROUTINE),
}
ASSESSMENTS = {
    Triage.URGENT: Assessment.ACTIONABLE_WITHIN_MINUTES.value,
    Triage.HIGH: Assessment.ACTIONABLE_WITHIN_HOURS.value,
    Triage.ROUTINE: Assessment.NORMAL.value,
}


def triage_of(answers: Iterable[Answer]) -> Triage:
    """The most urgent level that any label present on any image asks for; none where there is no answer."""
    levels = (MEANINGS[label].triage for answer in answers for label, present in answer.present.items() if present)
    return max(levels, key=lambda level: level.rank, default=Triage.NONE)


def result_key(study: AnalysedStudy) -> str:
    """One name for one result: these bytes of these images of this study, by these weights with these parameters."""
    parts: list[str] = [study.study_uid, study.triage]
    for image in study.images:
        assert image.answer is not None  # noqa: S101  an analysed study holds only images with an answer
        model = image.answer.model
        parameters = (image.answer.temperature, sorted(image.answer.thresholds.items()))
        parts.append(f"{image.instance.sop_instance_uid} {image.instance.sha256} {model.weights_sha256} {parameters}")
        parts.append(f"{model.name} {model.version}{' undetermined' if image.answer.undetermined else ''}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def study_findings(study: AnalysedStudy, *, name: str, predecessor: ObjectReference | None) -> StudyFindings:
    """Put an analysed study into the words and codes of its reports.

    The level is the study's, which never falls: where an earlier result asked for a higher one, the impression says so.

    Parameters
    ----------
    name
        What the UIDs of the reports are derived from.
    """
    answers = [image.answer for image in study.images if image.answer is not None]
    return StudyFindings(
        images=tuple(
            ImageFindings(
                path=image.instance.path,
                findings=_class_findings(image.answer),
                undetermined=image.answer.undetermined,
            )
            for image in study.images
            if image.answer is not None
        ),
        algorithm=_algorithm(answers[0]),
        assessment=_assessment(answers, study.triage),
        impression=_impression(answers, study.triage),
        analysed_at=study.analysed_at.astimezone(),  # documents carry local time
        result_key=name,
        predecessor=predecessor,
    )


def _assessment(answers: list[Answer], triage: Triage) -> Code:
    """The level as a code; what flags nothing is not called normal where the model is not sure of an image."""
    if triage is Triage.ROUTINE and any(answer.undetermined for answer in answers):
        return Assessment.UNDETERMINED.value
    return ASSESSMENTS[triage]


def _class_findings(answer: Answer) -> tuple[ClassFinding, ...]:
    return tuple(
        ClassFinding(
            concept=MEANINGS[label].concept,
            probability=probability,
            present=answer.present[label],
            threshold=answer.thresholds.get(label),
        )
        for label, probability in sorted(answer.probabilities.items())
    )


def _algorithm(answer: Answer) -> Algorithm:
    thresholds = tuple(f"threshold {label} {value:.4f}" for label, value in sorted(answer.thresholds.items()))
    return Algorithm(
        name=answer.model.name,
        version=answer.model.version,
        manufacturer=MANUFACTURER,
        parameters=(f"weights sha256 {answer.model.weights_sha256}", f"temperature {answer.temperature:.4f}", *thresholds),
    )


def _impression(answers: list[Answer], triage: Triage) -> str:
    found = [
        label for label in sorted(MEANINGS) if any(answer.present.get(label, False) for answer in answers) and label != "Normal"
    ]
    words = " and ".join(MEANINGS[label].words for label in found)
    words = "; ".join(filter(None, (words, _unsure(answers)))) or MEANINGS["Normal"].words
    highest = {label: max(answer.probabilities[label] for answer in answers) for label in sorted(answers[0].probabilities)}
    numbers = ", ".join(f"{label} {probability:.0%}" for label, probability in highest.items())
    images = "1 image" if len(answers) == 1 else f"{len(answers)} images, highest of each"
    kept = "" if triage_of(answers) is triage else ", kept from an earlier result"
    return f"AI triage {triage.value}{kept}: {words} ({numbers}; {images})."


def _unsure(answers: list[Answer]) -> str:
    count = sum(answer.undetermined for answer in answers)
    which = "" if count == len(answers) else f" on {count} of {len(answers)} images"
    return f"undetermined{which}: the model is not sure" if count else ""


def most_urgent(study: AnalysedStudy) -> int:
    """Place of the image that a reader should see first: the least probably normal one."""
    normal = [image.answer.probabilities["Normal"] if image.answer is not None else 1.0 for image in study.images]
    return normal.index(min(normal))
