"""What a label means: its condition and how urgent it is. The only place that knows; the words are `dicom_io.wording`'s."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from dicom_io.codes import Assessment, Condition
from dicom_io.uids import MANUFACTURER
from dicom_io.values import (
    Algorithm,
    ClassFinding,
    ImageFindings,
    ObjectReference,
    RefusedImage,
    RefusedStudy,
    StudyFindings,
)
from dicom_io.wording import Language, Wording, wording_in
from worker.values import AnalysedStudy, Answer, StudyState, ToldStudy, Triage, UnansweredStudy


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What one label of the classifier stands for."""

    condition: Condition
    triage: Triage
    """How soon somebody should look when it is present."""


MEANINGS = {
    "COVID-19": Meaning(condition=Condition.COVID_19, triage=Triage.URGENT),
    "Pneumonia": Meaning(condition=Condition.PNEUMONIA, triage=Triage.HIGH),
    "Normal": Meaning(condition=Condition.NORMAL, triage=Triage.ROUTINE),
}
ASSESSMENTS = {
    Triage.URGENT: Assessment.ACTIONABLE_WITHIN_MINUTES,
    Triage.HIGH: Assessment.ACTIONABLE_WITHIN_HOURS,
    Triage.ROUTINE: Assessment.NORMAL,
}


def triage_of(answers: Iterable[Answer]) -> Triage:
    """The most urgent level that any label present on any image asks for; none where there is no answer."""
    levels = (MEANINGS[label].triage for answer in answers for label, present in answer.present.items() if present)
    return max(levels, key=lambda level: level.rank, default=Triage.NONE)


def result_key(study: AnalysedStudy) -> str:
    """One name for one result: these bytes of these images of this study, what these weights with these parameters say of them.

    They say the same mostly: on another processor, or in another precision, an answer near a threshold may be the other one.
    """
    parts: list[str] = [study.study_uid, study.triage]
    for image in study.images:
        assert image.answer is not None  # noqa: S101  an analysed study has only images with an answer  # nosec B101
        model = image.answer.model
        parameters = (image.answer.temperature, sorted(image.answer.thresholds.items()))
        parts.append(f"{image.instance.sop_instance_uid} {image.instance.sha256} {model.weights_sha256} {parameters}")
        parts.append(f"{model.name} {model.version}{' undetermined' if image.answer.undetermined else ''}")
        parts.append(f"{image.answer.label}, of {sorted(label for label, present in image.answer.present.items() if present)}")
        parts.extend((*image.answer.parameters, *filter(None, (image.correction.code,))))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def refusal_key(study: UnansweredStudy) -> str:
    """One name for one refusal: these bytes of these images, for these reasons."""
    parts = [study.study_uid, "not analysed"]
    parts += [f"{image.instance.sop_instance_uid} {image.instance.sha256} {image.reason_code}" for image in study.images]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def told_as(study: ToldStudy) -> tuple[str, StudyState]:
    """The name of what a report tells of a study, and the state the study is in while that holds."""
    if isinstance(study, AnalysedStudy):
        return result_key(study), StudyState.ANALYSED
    return refusal_key(study), StudyState.NOT_ANALYSED


def refused_study(
    study: UnansweredStudy, *, name: str, predecessor: ObjectReference | None, language: Language
) -> RefusedStudy:
    """Put a study that was not analysed into what its report says."""
    return RefusedStudy(
        images=tuple(
            RefusedImage(path=image.instance.path, code=image.reason_code, reason=image.reason) for image in study.images
        ),
        decided_at=study.decided_at.astimezone(),
        result_key=name,
        language=language,
        predecessor=predecessor,
    )


def study_findings(
    study: AnalysedStudy, *, name: str, predecessor: ObjectReference | None, language: Language = Language.ENGLISH
) -> StudyFindings:
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
                correction=image.correction,
            )
            for image in study.images
            if image.answer is not None
        ),
        algorithm=_algorithm(answers[0]),
        assessment=_assessment(answers, study.triage),
        impression=_impression(answers, study.triage, wording_in(language)),
        analysed_at=study.analysed_at.astimezone(),  # documents carry local time
        result_key=name,
        predecessor=predecessor,
        language=language,
    )


def _assessment(answers: list[Answer], triage: Triage) -> Assessment:
    """The level as a code; what flags nothing is not called normal where the model is not sure of an image."""
    if triage is Triage.ROUTINE and any(answer.undetermined for answer in answers):
        return Assessment.UNDETERMINED
    return ASSESSMENTS[triage]


def _class_findings(answer: Answer) -> tuple[ClassFinding, ...]:
    return tuple(
        ClassFinding(
            condition=MEANINGS[label].condition,
            probability=probability,
            present=answer.present[label],
            threshold=answer.thresholds.get(label),
        )
        for label, probability in sorted(answer.probabilities.items())
    )


def _algorithm(answer: Answer) -> Algorithm:
    return Algorithm(
        name=answer.model.name,
        version=answer.model.version,
        manufacturer=MANUFACTURER,
        parameters=(
            f"weights sha256 {answer.model.weights_sha256}",
            f"temperature {answer.temperature:.4f}",
            *(f"threshold {label} {value:.4f}" for label, value in sorted(answer.thresholds.items())),
            *answer.parameters,
        ),
    )


def _impression(answers: list[Answer], triage: Triage, words: Wording) -> str:
    found = [
        words.suspected[MEANINGS[label].condition]
        for label in sorted(MEANINGS)
        if label != "Normal" and any(answer.present.get(label, False) for answer in answers)
    ]
    said = words.both.format(*found) if len(found) == 2 else "".join(found)
    highest = {label: max(answer.probabilities[label] for answer in answers) for label in sorted(answers[0].probabilities)}
    numbers = (f"{words.conditions[MEANINGS[label].condition]} {value:.0%}" for label, value in highest.items())
    return words.impression.format(
        level=words.triages[triage],
        kept="" if triage_of(answers) is triage else words.kept,
        findings="; ".join(filter(None, (said, _unsure(answers, words)))) or words.nothing_flagged,
        numbers=", ".join(numbers),
        images=words.one_image if len(answers) == 1 else words.several_images.format(len(answers)),
    )


def _unsure(answers: list[Answer], words: Wording) -> str:
    count = sum(answer.undetermined for answer in answers)
    if count == 0:
        return ""
    return words.undetermined if count == len(answers) else words.undetermined_on.format(count=count, all=len(answers))


def most_urgent(study: AnalysedStudy) -> int:
    """Place of the image that a reader should see first: the least probably normal one."""
    normal = [image.answer.probabilities["Normal"] if image.answer is not None else 1.0 for image in study.images]
    return normal.index(min(normal))


def most_telling(answer: Answer) -> str:
    """The abnormal label that a map of the image should speak for: the most probable one, what is present before the rest."""
    abnormal = [label for label in sorted(answer.probabilities) if MEANINGS[label].condition is not Condition.NORMAL]
    return max(abnormal, key=lambda label: (answer.present[label], answer.probabilities[label]))
