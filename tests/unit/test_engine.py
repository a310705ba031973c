"""The contract of an engine, kept by the one that ships and by the fake of the tests; and what only the real one does."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_models.errors import DeviceBusy, NonFiniteOutput
from cxr_models.gate import FrontalGate
from cxr_models.predict import Predictor
from cxr_models.values import LABELS, Prediction
from dicom_io.pixels import Correction
from dicom_io.values import SOPInstanceUID, StudyUID
from tests.factories import make_dx, make_study, radiograph, study_uid, write
from tests.fakes import FakeEngine, stored_instance
from worker.engine import Engine, Gate, LocalEngine
from worker.registry import identity_of
from worker.steps.predict import parameters_of
from worker.values import ReadyStudy, StudyId, StudyOutcome

MakeStudy = Callable[..., ReadyStudy]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load("lenet5", device="cpu")


@pytest.fixture
def local(predictor: Predictor) -> Iterator[LocalEngine]:
    engine = LocalEngine(predictor, decode_threads=2)
    yield engine
    engine.close()


@pytest.fixture(params=["local", "fake"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Every engine there is."""
    found: Engine = request.getfixturevalue("local") if request.param == "local" else FakeEngine()
    return found


@pytest.fixture
def ready(tmp_path: Path) -> MakeStudy:
    """Make a ready study of files on disk; None stands for a file that is no image."""

    def make(name: str = "study", views: tuple[str | None, ...] = ("PA",)) -> ReadyStudy:
        folder = tmp_path / name
        folder.mkdir()
        images = make_study(name, views=tuple(view or "PA" for view in views))  # type: ignore[misc]  # views of the test
        instances = []
        for number, (ds, view) in enumerate(zip(images, views, strict=True), start=1):
            path = write(ds, folder / f"{number}.dcm")
            if view is None:
                path.write_bytes(b"nonsense" * 50)
            uid = SOPInstanceUID(str(ds.SOPInstanceUID))
            instances.append(stored_instance(100 * len(name) + number, sop_instance_uid=uid, path=path))
        return ReadyStudy(
            id=StudyId(len(name)), study_uid=StudyUID(study_uid(name)), generation=1, attempts=1, instances=tuple(instances)
        )

    return make


def _by_study(outcomes: Iterator[StudyOutcome]) -> dict[str, StudyOutcome]:
    return {outcome.study.study_uid: outcome for outcome in outcomes}


# the contract


def test_every_study_gets_one_outcome_with_one_entry_for_each_image(engine: Engine, ready: MakeStudy) -> None:
    studies = [ready("a", ("PA", "LL")), ready("bb", ("LL",)), ready("ccc", ("AP", None))]
    outcomes = list(engine.analyse(studies))
    assert sorted(outcome.study.id for outcome in outcomes) == [1, 2, 3]
    for outcome in outcomes:
        assert {image.instance for image in outcome.images} == set(outcome.study.instances)


def test_only_frontal_images_are_answered_and_the_others_have_a_reason(engine: Engine, ready: MakeStudy) -> None:
    (outcome,) = engine.analyse([ready("a", ("PA", "LL", None))])
    frontal, lateral, broken = sorted(outcome.images, key=lambda image: image.instance.id)
    assert frontal.eligible
    assert frontal.answer is not None
    for image in (lateral, broken):
        assert not image.eligible
        assert image.reason
        assert image.answer is None


def test_an_answer_has_every_label_and_adds_up(engine: Engine, ready: MakeStudy) -> None:
    (outcome,) = engine.analyse([ready()])
    answer = outcome.images[0].answer
    assert answer is not None
    assert set(answer.probabilities) == set(answer.present) == set(LABELS)
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.label == max(answer.probabilities, key=lambda label: answer.probabilities[label])
    assert answer.flagged == any(answer.present[label] for label in LABELS if label != "Normal")


def test_nothing_to_analyse_has_no_outcome(engine: Engine) -> None:
    assert list(engine.analyse([])) == []


def test_the_same_study_twice_has_the_same_outcome(engine: Engine, ready: MakeStudy) -> None:
    study = ready()
    assert list(engine.analyse([study])) == list(engine.analyse([study]))


# the real one


def test_the_gate_decides_what_headers_leave_open_and_what_they_say_wrongly(predictor: Predictor, ready: MakeStudy) -> None:
    study = ready("a", ("PA", "PA", "PA"))
    shades = (np.mgrid[:320, :256].sum(axis=0) // 3).astype(np.uint8)
    silent, inverted, pattern = make_dx(), make_dx(255 - radiograph()), make_dx(shades)
    del silent.ViewPosition, silent.ViewCodeSequence
    for instance, ds in zip(study.instances, (silent, inverted, pattern), strict=True):
        write(ds, instance.path)
    engine = LocalEngine(predictor, decode_threads=1, gate=Gate(pixels=FrontalGate.load()))
    (outcome,) = engine.analyse([study])
    engine.close()
    answered, corrected, refused = outcome.images
    assert answered.answer is not None
    assert "by its pixels" in answered.reason
    assert corrected.correction == Correction(inverted=True)
    assert corrected.answer is not None
    assert (refused.eligible, refused.reason_code, refused.answer) == (False, "not_like_chest", None)


def test_a_patient_under_the_configured_age_gets_no_answer(predictor: Predictor, ready: MakeStudy) -> None:
    engine = LocalEngine(predictor, decode_threads=1, gate=Gate(minimum_age_years=100))
    (outcome,) = engine.analyse([ready()])
    engine.close()
    assert (outcome.images[0].reason_code, outcome.images[0].answer) == ("under_age", None)


def test_the_answer_is_that_of_the_model_on_this_image(local: LocalEngine, ready: MakeStudy) -> None:
    study = ready()
    (outcome,) = local.analyse([study])
    answer = outcome.images[0].answer
    assert answer is not None
    card = local.predictor.card
    assert answer.model == identity_of(card)
    assert (answer.temperature, answer.thresholds) == (card.temperature, card.thresholds)
    biased = parameters_of(replace(card, biases={"COVID-19": 0.0, "Normal": -1.41, "Pneumonia": 0.5}))
    assert biased == (*answer.parameters, "bias COVID-19 0.0000", "bias Normal -1.4100", "bias Pneumonia 0.5000")
    pixels = radiograph(seed=1).astype("float32") / 255
    (expected,) = local.predictor.predict([local.predictor.prepare(pixels)])
    assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


def test_an_answer_below_the_cards_confidence_is_undetermined_and_flags_the_same(
    predictor: Predictor, ready: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = ready()
    engine = LocalEngine(predictor, decode_threads=1)
    (sure,) = engine.analyse([study])
    monkeypatch.setattr(predictor, "card", replace(predictor.card, abstain_below=0.999))
    (unsure,) = engine.analyse([study])
    engine.close()
    one, other = sure.images[0].answer, unsure.images[0].answer
    assert one is not None
    assert other is not None
    assert replace(other, parameters=()) == replace(one, undetermined=True, parameters=())
    assert not one.undetermined


def test_images_of_different_studies_share_one_forward_pass(
    local: LocalEngine, ready: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    predict = local.predictor.predict

    def counted(batch: Sequence[torch.Tensor]) -> list[Prediction]:
        batches.append(len(batch))
        return predict(batch)

    monkeypatch.setattr(local.predictor, "predict", counted)
    list(local.analyse([ready("a"), ready("bb", ("PA", "AP"))]))
    assert batches == [3]


def test_a_neighbour_in_the_batch_does_not_change_an_answer(local: LocalEngine, ready: MakeStudy) -> None:
    study = ready("a")
    alone = _by_study(local.analyse([study]))[study.study_uid].images[0].answer
    among = _by_study(local.analyse([ready("bb"), study, ready("ccc")]))[study.study_uid].images[0].answer
    assert alone is not None
    assert among is not None
    assert among.probabilities == pytest.approx(alone.probabilities, abs=1e-5)


def test_an_image_the_network_cannot_answer_costs_no_other_its_answer(
    local: LocalEngine, ready: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = local.predictor.predict
    culprit = local.predictor.prepare(radiograph(seed=1).astype("float32") / 255)

    def sometimes(batch: Sequence[torch.Tensor]) -> list[Prediction]:
        if any(torch.equal(tensor, culprit) for tensor in batch):
            raise NonFiniteOutput("Not a number.")
        return predict(batch)

    monkeypatch.setattr(local.predictor, "predict", sometimes)
    (outcome,) = local.analyse([ready("a", ("PA", "AP"))])
    first, second = outcome.images
    assert (first.eligible, first.answer, first.reason) == (True, None, "Not a number.")
    assert second.answer is not None


def test_a_device_that_is_busy_is_told_to_the_path_which_tries_later(
    local: LocalEngine, ready: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_: object) -> list[Prediction]:
        raise DeviceBusy

    monkeypatch.setattr(local.predictor, "predict", busy)
    with pytest.raises(DeviceBusy):
        list(local.analyse([ready()]))


def test_an_image_that_breaks_the_decoder_costs_no_other_its_answer(
    local: LocalEngine, ready: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = ready("a", ("PA", "AP"))
    select = local.analyse.__globals__["select"]

    def sometimes(instance: object, **rules: object) -> object:
        if instance is study.instances[0]:
            raise RecursionError
        return select(instance, **rules)

    monkeypatch.setitem(local.analyse.__globals__, "select", sometimes)
    (outcome,) = local.analyse([study])
    first, second = outcome.images
    assert (first.eligible, first.answer) == (True, None)
    assert first.reason.startswith("Internal error: RecursionError at ")
    assert second.answer is not None


def test_pixels_that_do_not_decode_are_the_images_failure(local: LocalEngine, ready: MakeStudy) -> None:
    study = ready()
    ds = make_dx()
    ds.PixelData = ds.PixelData[:100]
    write(ds, study.instances[0].path)
    (outcome,) = local.analyse([study])
    (image,) = outcome.images
    assert (image.eligible, image.answer, image.reason_code) == (True, None, "undecodable")
    assert image.reason


def test_a_file_that_is_gone_is_the_images_failure_and_says_what_to_do(local: LocalEngine, ready: MakeStudy) -> None:
    study = ready()
    study.instances[0].path.unlink()
    (outcome,) = local.analyse([study])
    assert "send the image again" in outcome.images[0].reason
