"""From what became of the images to what is said of the study."""

from dicom_io.values import StudyUID
from tests.fakes import answer_for, stored_instance
from worker.steps.record import conclude
from worker.values import ImageOutcome, ReadyStudy, StudyId, StudyOutcome, StudyState, Triage

STUDY = ReadyStudy(id=StudyId(1), study_uid=StudyUID("1.2"), generation=1, attempts=1, instances=())


def _image(*, label: str | None = None, eligible: bool = True, reason: str = "") -> ImageOutcome:
    return ImageOutcome(
        instance=stored_instance(),
        eligible=eligible,
        reason_code="x",
        reason=reason,
        answer=answer_for(label) if label else None,
    )


def _outcome(*images: ImageOutcome, failure: str | None = None) -> StudyOutcome:
    return StudyOutcome(study=STUDY, images=images, failure=failure)


def test_one_answered_image_makes_a_study_analysed() -> None:
    lateral, broken = _image(eligible=False, reason="A lateral."), _image(reason="Undecodable.")
    conclusion = conclude(_outcome(lateral, broken, _image(label="Pneumonia")))
    assert (conclusion.state, conclusion.reason, conclusion.triage) == (StudyState.ANALYSED, None, Triage.HIGH)


def test_the_most_urgent_image_decides_the_triage_level() -> None:
    conclusion = conclude(_outcome(_image(label="Normal"), _image(label="COVID-19"), _image(label="Pneumonia")))
    assert conclusion.triage is Triage.URGENT


def test_an_image_that_could_not_be_analysed_fails_a_study_without_answers() -> None:
    conclusion = conclude(_outcome(_image(eligible=False, reason="A lateral."), _image(reason="Undecodable.")))
    assert (conclusion.state, conclusion.reason, conclusion.triage) == (StudyState.FAILED, "Undecodable.", Triage.NONE)


def test_a_study_without_any_eligible_image_is_not_analysed() -> None:
    conclusion = conclude(_outcome(_image(eligible=False, reason="A lateral.")))
    assert (conclusion.state, conclusion.reason, conclusion.triage) == (StudyState.NOT_ANALYSED, "A lateral.", Triage.NONE)


def test_a_failure_of_the_whole_study_outweighs_its_answers() -> None:
    conclusion = conclude(_outcome(_image(label="COVID-19"), failure="Two patients."))
    assert (conclusion.state, conclusion.reason, conclusion.triage) == (StudyState.FAILED, "Two patients.", Triage.NONE)


def test_equal_reasons_are_counted_and_only_the_commonest_are_named() -> None:
    images = [_image(eligible=False, reason=f"Reason {each}.") for each in "AABBBCDE"]
    reason = conclude(_outcome(*images)).reason
    assert reason == "Reason B. (3 images) Reason A. (2 images) Reason C. and 2 other reasons: see 'cxr-worker studies show'"
