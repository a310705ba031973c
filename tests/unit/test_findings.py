"""What a label means, and what two results have to share to be the same one."""

from dataclasses import replace
from itertools import permutations

import pytest

from cxr_models.values import LABELS
from dicom_io.codes import Assessment, Presence
from dicom_io.values import StudyUID
from tests.fakes import NOON, answer_for, model_identity, stored_instance
from worker.findings import MEANINGS, most_urgent, result_key, study_findings, triage_of
from worker.values import AnalysedStudy, Answer, ImageOutcome, StudyId, Triage

_ALSO_PNEUMONIA = {"COVID-19": False, "Normal": True, "Pneumonia": True}


def _image(answer: Answer, number: int = 1) -> ImageOutcome:
    return ImageOutcome(
        instance=stored_instance(number),
        eligible=True,
        reason_code="eligible",
        reason="",
        answer=answer,
    )


def _study(*answers: Answer) -> AnalysedStudy:
    return AnalysedStudy(
        id=StudyId(1),
        study_uid=StudyUID("1.2"),
        generation=1,
        attempts=0,
        analysed_at=NOON,
        triage=triage_of(answers),
        images=tuple(_image(answer, number) for number, answer in enumerate(answers, start=1)),
    )


def test_every_label_of_the_models_has_a_meaning() -> None:
    assert set(MEANINGS) == set(LABELS)


@pytest.mark.parametrize("order", list(permutations(["COVID-19", "Normal", "Pneumonia"])))
def test_the_most_urgent_label_counts_in_whatever_order(order: tuple[str, ...]) -> None:
    assert triage_of([answer_for(label) for label in order]) is Triage.URGENT


def test_every_label_that_is_present_counts_not_only_the_most_probable() -> None:
    both = replace(answer_for("Pneumonia"), present={"COVID-19": True, "Normal": False, "Pneumonia": True})
    assert triage_of([both]) is Triage.URGENT


def test_no_answer_is_no_triage_level() -> None:
    assert triage_of([]) is Triage.NONE


def test_the_same_result_has_the_same_key() -> None:
    study = _study(answer_for("Normal"))
    assert result_key(study) == result_key(replace(study, generation=7, analysed_at=NOON.replace(year=2040)))
    assert result_key(study) != result_key(replace(study, triage=Triage.HIGH)), "another level is another report"


@pytest.mark.parametrize(
    "other",
    [
        _study(answer_for("Normal"), answer_for("Normal")),
        _study(answer_for("Normal", model=model_identity("2.0"))),
        _study(replace(answer_for("Normal"), temperature=2.0)),
        _study(replace(answer_for("Normal"), thresholds={"COVID-19": 0.31, "Pneumonia": 0.3})),
        _study(answer_for("Normal", undetermined=True)),
        _study(replace(answer_for("Normal"), label="Pneumonia")),
        replace(_study(replace(answer_for("Normal"), present=_ALSO_PNEUMONIA)), triage=_study(answer_for("Normal")).triage),
        replace(_study(answer_for("Normal")), study_uid=StudyUID("1.3")),
        replace(_study(), images=(_image(answer_for("Normal"), 2),)),
    ],
    ids=[
        *("another image", "other weights", "temperature", "threshold", "not sure"),
        *("another label", "one more is present", "another study", "other bytes"),
    ],
)
def test_whatever_may_change_a_result_changes_its_key(other: AnalysedStudy) -> None:
    assert result_key(other) != result_key(_study(answer_for("Normal")))


def test_the_impression_names_findings_level_and_highest_probabilities() -> None:
    findings = study_findings(_study(answer_for("Normal"), answer_for("COVID-19")), name="key", predecessor=None)
    assert findings.impression == (
        "AI triage urgent: COVID-19 suspected (COVID-19 80%, Normal 80%, Pneumonia 10%; 2 images, highest of each)."
    )


def test_the_impression_of_a_normal_image_flags_nothing() -> None:
    findings = study_findings(_study(answer_for("Normal")), name="key", predecessor=None)
    assert findings.impression == "AI triage routine: no finding flagged (COVID-19 10%, Normal 80%, Pneumonia 10%; 1 image)."


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([answer_for("Normal", undetermined=True)], "AI triage routine: undetermined: the model is not sure ("),
        (
            [answer_for("Pneumonia", undetermined=True)],
            "AI triage high: pneumonia suspected; undetermined: the model is not sure (COVID-19 10%, Normal 10%, ",
        ),
        (
            [answer_for("Normal"), answer_for("Normal", undetermined=True)],
            "AI triage routine: undetermined on 1 of 2 images: the model is not sure (",
        ),
    ],
    ids=["nothing flagged", "flagged", "one of two"],
)
def test_the_impression_says_that_the_model_is_not_sure_and_still_names_what_is_flagged(
    answers: list[Answer], says: str
) -> None:
    assert study_findings(_study(*answers), name="key", predecessor=None).impression.startswith(says)


@pytest.mark.parametrize("label", LABELS)
def test_not_being_sure_lowers_no_level_and_calls_nothing_normal(label: str) -> None:
    sure, unsure = _study(answer_for(label)), _study(answer_for(label, undetermined=True))
    assert unsure.triage is sure.triage
    usual, assessment = (study_findings(study, name="key", predecessor=None).assessment for study in (sure, unsure))
    assert assessment == (Assessment.UNDETERMINED if label == "Normal" else usual)
    (image,) = study_findings(unsure, name="key", predecessor=None).images
    said = {finding.condition: image.presence(finding) for finding in image.findings}
    assert {each for each in said.values() if each is not Presence.UNDETERMINED} == (
        set() if label == "Normal" else {Presence.PRESENT}
    )


def test_the_report_names_weights_temperature_and_thresholds() -> None:
    algorithm = study_findings(_study(answer_for("Normal")), name="key", predecessor=None).algorithm
    assert (algorithm.name, algorithm.version) == ("fake", "1.0")
    assert algorithm.parameters == (
        f"weights sha256 {model_identity().weights_sha256}",
        "temperature 1.0000",
        "threshold COVID-19 0.3000",
        "threshold Pneumonia 0.3000",
    )


def test_the_picture_shows_the_least_normal_image() -> None:
    assert most_urgent(_study(answer_for("Normal"), answer_for("Pneumonia"), answer_for("Normal"))) == 1
