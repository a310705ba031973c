from dataclasses import replace

import numpy as np
import pytest

from cxr_models.calibrate import choose_abstention, softmax
from cxr_models.checkpoint import read_card
from cxr_models.errors import InvalidModel
from cxr_models.evaluate import measure
from cxr_models.predictions_file import PredictedImage
from cxr_models.values import LABELS, Prediction
from cxr_models.zoo import find_model

THRESHOLDS = {"COVID-19": 0.3, "Pneumonia": 0.3}


def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, count)
    logits = generator.normal(size=(count, 3))
    logits[np.arange(count), truth] += 1
    return softmax(logits), truth


def test_an_answer_below_the_confidence_is_undetermined_and_nothing_else_changes() -> None:
    probabilities = {"COVID-19": 0.35, "Normal": 0.4, "Pneumonia": 0.25}
    sure = Prediction.read(probabilities, thresholds=THRESHOLDS)
    unsure = Prediction.read(probabilities, thresholds=THRESHOLDS, abstain_below=0.41)
    assert not sure.undetermined
    assert unsure.undetermined
    assert (unsure.label, unsure.flagged, unsure.present) == (sure.label, sure.flagged, sure.present)
    assert unsure.flagged
    assert not Prediction.read(probabilities, thresholds=THRESHOLDS, abstain_below=0.4).undetermined


@pytest.mark.parametrize("confidence", [-0.1, 1.0, float("nan")])
def test_a_card_takes_no_confidence_that_nothing_could_reach_or_lie_below(confidence: float) -> None:
    card = read_card(find_model("lenet5"))
    with pytest.raises(InvalidModel, match="abstain_below"):
        replace(card, abstain_below=confidence)


@pytest.mark.parametrize("accuracy", [0.8, 0.9])
def test_the_answered_images_reach_the_accuracy_and_no_lower_confidence_does(accuracy: float) -> None:
    probabilities, truth = drawn(2000)
    chosen = choose_abstention(probabilities, truth, accuracy=accuracy, least_coverage=0.1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    assert right[confidence >= chosen].mean() >= accuracy
    for lower in np.unique(confidence[confidence < chosen]):
        assert right[confidence >= lower].mean() < accuracy


def test_the_surest_share_is_answered_where_the_accuracy_is_out_of_reach() -> None:
    probabilities, truth = drawn(2000)
    chosen = choose_abstention(probabilities, truth, accuracy=1, least_coverage=0.6)
    assert (probabilities.max(axis=1) >= chosen).sum() == 1200


def test_nothing_is_left_undetermined_without_need_or_evidence() -> None:
    right = np.array([[0.5, 0.3, 0.2]] * 3)
    assert choose_abstention(right, np.zeros(3, int), accuracy=0.9, least_coverage=0.5) == 0
    assert choose_abstention(np.empty((0, 3)), np.empty(0, int), accuracy=0.9, least_coverage=0.5) == 0
    # One image, and it is wrong: there is no surer share to answer instead.
    assert choose_abstention(right[:1], np.ones(1, int), accuracy=0.9, least_coverage=0.5) == 0


def test_images_of_equal_confidence_stay_together() -> None:
    probabilities = np.array([[0.9, 0.05, 0.05]] * 2 + [[0.6, 0.2, 0.2]] * 2 + [[0.4, 0.3, 0.3]])
    chosen = choose_abstention(probabilities, np.array([0, 0, 0, 1, 1]), accuracy=0.75, least_coverage=0.1)
    assert chosen == pytest.approx(0.5)
    assert choose_abstention(probabilities, np.array([0, 0, 0, 1, 1]), accuracy=0.9, least_coverage=0.1) == pytest.approx(0.75)


def test_an_evaluation_tells_how_many_are_answered_and_how_well() -> None:
    images = [
        PredictedImage(sha256=str(index), source="set", label=label, group=str(index), probabilities={})
        for index, label in enumerate(("COVID-19", "COVID-19", "Normal", "Pneumonia"))
    ]
    rows = ([0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8])
    said = [Prediction.read(dict(zip(LABELS, row, strict=True)), thresholds=THRESHOLDS, abstain_below=0.6) for row in rows]
    measured = measure(said, images, labels=LABELS)
    assert measured.accuracy == 0.75
    assert measured.abstention["coverage"] == 0.75
    assert measured.abstention["accuracy"] == pytest.approx(2 / 3)
    assert measured.abstention["confusion_matrix"] == [[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0]]
    low, high = measured.intervals["abstention"]["accuracy"]
    assert low < 2 / 3 < high
