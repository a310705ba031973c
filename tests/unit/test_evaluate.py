from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_auroc, multiclass_calibration_error

from cxr_models.calibrate import choose_thresholds, fit_temperature, softmax
from cxr_models.catalogue import Catalogue, LabelledImage
from cxr_models.errors import InvalidData
from cxr_models.evaluate import Evaluation, measure, select_images
from cxr_models.values import LABELS, Prediction

THRESHOLDS = {"COVID-19": 0.3, "Pneumonia": 0.3}


def case(number: int, truth: int, patient: str | None = None) -> LabelledImage:
    return LabelledImage(
        path=Path(f"{number}.png"),
        label=LABELS[truth],
        patient=patient or f"p{number}",
        source="set",
        sha256=str(number),
        group=patient or f"p{number}",
    )


def drawn(count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that know something of the truth, with ties."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 3, count)
    logits = generator.normal(size=(count, 3)).round(1)
    logits[np.arange(count), truth] += 1
    return logits, truth


def measured(probabilities: np.ndarray, truth: np.ndarray, patients: list[str] | None = None) -> Evaluation:
    predictions = [
        Prediction.read(dict(zip(LABELS, row, strict=True)), thresholds=THRESHOLDS) for row in probabilities.tolist()
    ]
    names = patients or [f"p{index}" for index in range(len(truth))]
    images = [case(index, each, names[index]) for index, each in enumerate(truth.tolist())]
    return measure(predictions, images, labels=LABELS)


def test_counts_and_shares_are_those_of_a_case_worked_by_hand() -> None:
    surely = {0: [0.8, 0.1, 0.1], 1: [0.1, 0.8, 0.1], 2: [0.1, 0.1, 0.8]}
    named, truth = [0, 0, 1, 1, 1, 2], np.array([0, 1, 1, 1, 2, 2])
    result = measured(np.array([surely[each] for each in named]), truth)
    assert result.n == 6
    assert result.confusion_matrix == [[1, 0, 0], [1, 2, 0], [0, 1, 1]]
    assert result.accuracy == pytest.approx(4 / 6)
    assert result.balanced_accuracy == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert result.per_class["Normal"]["sensitivity"] == pytest.approx(2 / 3)
    assert result.per_class["Normal"]["specificity"] == pytest.approx(2 / 3)
    assert result.per_class["COVID-19"]["specificity"] == pytest.approx(4 / 5)
    assert result.per_class["Normal"]["ppv"] == pytest.approx(2 / 3)
    assert result.per_class["COVID-19"]["ppv"] == pytest.approx(1 / 2)
    assert result.per_class["COVID-19"]["npv"] == 1
    assert result.operating["flagged"]["sensitivity"] == result.operating["flagged"]["specificity"] == pytest.approx(2 / 3)
    assert result.brier == pytest.approx((4 * 0.06 + 2 * (0.8**2 + 0.9**2 + 0.1**2)) / 6)
    assert result.ece == pytest.approx(0.8 - 4 / 6)


def test_auc_and_calibration_error_are_those_of_torchmetrics() -> None:
    logits, truth = drawn()
    probabilities = softmax(logits)
    result = measured(probabilities, truth)
    known = multiclass_auroc(torch.tensor(probabilities), torch.tensor(truth), num_classes=3, average=None)
    assert [result.per_class[label]["auc"] for label in LABELS] == pytest.approx(known.tolist(), abs=1e-4)
    error = multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(truth), num_classes=3, n_bins=10)
    assert result.ece == pytest.approx(error.item(), abs=1e-4)


def test_intervals_hold_their_figure_and_narrow_with_more_images() -> None:
    few, many = drawn(60), drawn(2000)
    widths = []
    for logits, truth in (few, many):
        result = measured(softmax(logits), truth)
        low, high = result.intervals["accuracy"]
        assert low < result.accuracy < high
        auc_low, auc_high = result.intervals["per_class"]["Normal"]["auc"]
        assert auc_low < result.per_class["Normal"]["auc"] < auc_high
        widths.append(high - low)
    # A standard error shrinks with the root of n: 60 to 2000 images is a factor of 5.8.
    assert widths[0] / widths[1] == pytest.approx(5.8, rel=0.3)


def test_images_of_one_patient_are_drawn_together_so_their_interval_is_wider() -> None:
    logits, truth = drawn(300)
    ten_each = [f"p{index // 10}" for index in range(300)]
    order = np.argsort(softmax(logits).argmax(axis=1) == truth)
    alone = measured(softmax(logits[order]), truth[order])
    together = measured(softmax(logits[order]), truth[order], ten_each)

    def width(result: Evaluation) -> float:
        return result.intervals["accuracy"][1] - result.intervals["accuracy"][0]

    assert width(together) > 2 * width(alone)


def test_a_class_without_images_has_no_sensitivity_rather_than_zero() -> None:
    result = measured(softmax(np.array([[0.0, 2, 1], [0, 1, 2], [0, 2, 1]])), np.array([1, 2, 2]))
    assert result.per_class["COVID-19"]["sensitivity"] is None
    assert result.per_class["COVID-19"]["auc"] is None
    assert result.intervals["per_class"]["COVID-19"]["sensitivity"] is None
    assert result.balanced_accuracy == pytest.approx(0.75)


def test_the_surest_images_are_answered_first() -> None:
    probabilities = np.array([[0.9, 0.05, 0.05]] * 5 + [[0.4, 0.3, 0.3]] * 5)
    rows = {row["coverage"]: row for row in measured(probabilities, np.array([0] * 5 + [1] * 5)).coverage_accuracy}
    assert (rows[0.5]["n"], rows[0.5]["accuracy"], rows[0.5]["confidence"]) == (5, 1, 0.9)
    assert (rows[1.0]["n"], rows[1.0]["accuracy"], rows[1.0]["confidence"]) == (10, 0.5, 0.4)


@pytest.mark.parametrize("sharpness", [0.25, 1.0, 4.0])
def test_the_temperature_takes_back_what_made_the_logits_too_sure_or_unsure(sharpness: float) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20_000, 3))
    truth = (softmax(logits).cumsum(axis=1) > generator.random((20_000, 1))).argmax(axis=1)
    assert fit_temperature(logits * sharpness, truth) == pytest.approx(sharpness, rel=0.1)


def test_thresholds_reach_the_sensitivity_and_no_lower_one_is_needed() -> None:
    logits, truth = drawn(2000)
    probabilities = softmax(logits)
    chosen = choose_thresholds(probabilities, truth, labels=LABELS, sensitivity=0.9)
    assert set(chosen) == {"COVID-19", "Pneumonia"}
    for label, threshold in chosen.items():
        scores = probabilities[truth == LABELS.index(label), LABELS.index(label)]
        assert (scores >= threshold).mean() >= 0.9
        assert (scores >= threshold + 0.02).mean() < 0.9


def test_the_most_probable_label_always_reaches_its_threshold() -> None:
    probabilities = np.tile([0.98, 0.01, 0.01], (10, 1))
    assert choose_thresholds(probabilities, np.zeros(10, int), labels=LABELS, sensitivity=0.9)["COVID-19"] < 1 / 3


def test_the_test_part_is_measured_where_there_is_one_and_seen_images_are_counted() -> None:
    train, test = (case(1, 0), case(2, 1)), (case(3, 0), case(4, 1), case(5, 2))
    catalogue = Catalogue(train=train, test=test)
    assert select_images(catalogue, seen=frozenset({"1", "4"}), unseen=False) == (test, 1)
    assert select_images(catalogue, seen=frozenset({"1", "4"}), unseen=True) == ((test[0], test[2]), 1)
    assert select_images(Catalogue(unparted=train), seen=frozenset(), unseen=False) == (train, 0)
    with pytest.raises(InvalidData, match="has seen all"):
        select_images(catalogue, seen=frozenset("345"), unseen=True)
