"""What is fitted on predictions of images that no network concerned was trained on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from cxr_models.calibrate import Calibration, fit_calibration, fit_temperature, softmax
from cxr_models.errors import InvalidData
from cxr_models.predictions_file import PredictedImage
from cxr_models.recalibrate import fit_reading, read_across_folds, recalibrate
from cxr_models.recipe import Recipe
from cxr_models.values import LABELS, UNSAVED, Card

TEMPERATURE = Recipe(architecture="lenet5", answer_accuracy=0.9)
BIASES = TEMPERATURE.model_copy(update={"calibration": "biases"})


def generated(count: int, *, temperature: float, biases: Sequence[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and truths drawn with just the probabilities that this calibration gives them."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(count, 3))
    chances = softmax(logits / temperature + np.array(biases))
    truth = (chances.cumsum(axis=1) > generator.random((count, 1))).argmax(axis=1)
    return logits, truth


def loss(calibration: Calibration, logits: np.ndarray, truth: np.ndarray) -> float:
    return float(-np.log(calibration.probabilities(logits)[np.arange(len(truth)), truth]).mean())


def rows_of(logits: np.ndarray, truth: np.ndarray, *, folds: int = 5) -> list[PredictedImage]:
    return [
        PredictedImage(
            sha256=f"{number:064d}",
            source="made up",
            label=LABELS[right],
            group=str(number),
            fold=number % folds + 1,
            probabilities=dict(zip(LABELS, row, strict=True)),
        )
        for number, (row, right) in enumerate(zip(softmax(logits).tolist(), truth.tolist(), strict=True))
    ]


def card(temperature: float) -> Card:
    return Card(
        name="plain",
        version="1",
        architecture="lenet5",
        labels=LABELS,
        input_side=32,
        mean=0.5,
        std=0.5,
        temperature=temperature,
        thresholds={"COVID-19": 0.3, "Pneumonia": 0.3},
        weights_sha256=UNSAVED,
        intended_use="tests",
        limits=(),
        training={"recipe": {"architecture": "lenet5"}, "train": {"Normal": 3}},
    )


@pytest.mark.parametrize(("temperature", "biases"), [(0.5, (0.0, -1.4, 0.5)), (1.0, (0.0, 0.0, 0.0)), (3.0, (0.0, 2.0, 1.0))])
def test_temperature_and_biases_that_logits_were_made_with_are_found(temperature: float, biases: tuple[float, ...]) -> None:
    found = fit_calibration(*generated(20_000, temperature=temperature, biases=biases))
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.biases == pytest.approx(biases, abs=0.1)
    assert found.biases[0] == 0


def test_no_calibration_near_by_is_more_likely_than_the_one_that_is_fitted() -> None:
    logits, truth = generated(5000, temperature=2, biases=(0, 1, -1))
    found = fit_calibration(logits, truth)
    least = loss(found, logits, truth)
    for step in (-0.05, 0.05):
        moved = [replace(found, temperature=found.temperature * (1 + step))]
        moved += [
            replace(found, biases=tuple(bias + step * (place == moved_one) for place, bias in enumerate(found.biases)))
            for moved_one in (1, 2)
        ]
        assert all(loss(other, logits, truth) > least for other in moved)


def test_where_no_label_is_favoured_there_are_no_biases_and_the_temperature_is_that_fitted_alone() -> None:
    logits, truth = generated(500, temperature=1.7, biases=(0, 1, 0))
    # Every image once with each label in the place of the others: nothing is left to tell the labels apart.
    turned = np.concatenate([np.roll(logits, turn, axis=1) for turn in range(3)])
    truths = np.concatenate([(truth + turn) % 3 for turn in range(3)])
    found = fit_calibration(turned, truths)
    assert found.biases == pytest.approx((0, 0, 0), abs=1e-6)
    assert found.temperature == pytest.approx(fit_temperature(turned, truths), rel=1e-4)


def test_what_is_added_to_all_logits_of_an_image_changes_nothing() -> None:
    logits, truth = generated(400, temperature=2, biases=(0, -1, 0.5))
    shifted = logits + np.random.default_rng(1).normal(scale=50, size=(400, 1))
    found, other = fit_calibration(logits, truth), fit_calibration(shifted, truth)
    assert other.temperature == pytest.approx(found.temperature)
    assert other.biases == pytest.approx(found.biases)
    assert np.allclose(found.probabilities(logits), found.probabilities(shifted))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_label_without_images_keeps_finite_biases_and_becomes_improbable(missing: int) -> None:
    logits, truth = generated(600, temperature=1, biases=(0, 0, 0))
    kept = truth != missing
    found = fit_calibration(logits[kept], truth[kept])
    assert np.isfinite([found.temperature, *found.biases]).all()
    assert max(map(abs, found.biases)) < 10
    assert found.probabilities(logits[kept])[:, missing].mean() < 0.05


def test_logits_that_are_always_right_or_say_nothing_are_calibrated_within_bounds() -> None:
    truth = np.arange(60) % 3
    for logits in (np.eye(3)[truth] * 4, -np.eye(3)[truth], np.zeros((60, 3))):
        found = fit_calibration(logits, truth)
        assert 0.05 <= found.temperature <= 20
        assert np.isfinite(found.probabilities(logits)).all()
    assert fit_calibration(np.zeros((60, 3)), truth).biases == pytest.approx((0, 0, 0), abs=1e-6)


def test_a_recipe_says_whether_biases_are_fitted() -> None:
    logits, truth = generated(2000, temperature=1, biases=(0, -1.5, 0.5))
    rows = rows_of(logits, truth)
    alone, biased = (fit_reading(rows, recipe=recipe).calibration for recipe in (TEMPERATURE, BIASES))
    assert alone.biases == ()
    assert alone.temperature == pytest.approx(fit_temperature(logits, truth), rel=1e-3)
    assert biased.biases == pytest.approx((0, -1.5, 0.5), abs=0.25)
    assert loss(biased, logits, truth) < loss(alone, logits, truth) - 0.05


def test_no_fold_has_a_part_in_how_it_is_calibrated() -> None:
    rows = rows_of(*generated(600, temperature=0.5, biases=(0, -1, 1)))
    turned = {"COVID-19": "Normal", "Normal": "Pneumonia", "Pneumonia": "COVID-19"}
    changed = [replace(row, label=turned[row.label]) if row.fold == 2 else row for row in rows]
    before, after = read_across_folds(rows, recipe=BIASES), read_across_folds(changed, recipe=BIASES)
    for row, one, other in zip(rows, before, after, strict=True):
        assert (one == other) == (row.fold == 2)
    others = [row for row in rows if row.fold != 2]
    reading = fit_reading(others, recipe=BIASES)
    assert before[1] == reading.read(rows[1])
    assert rows[1].fold == 2


def test_too_few_folds_or_labels_cannot_be_calibrated() -> None:
    rows = rows_of(*generated(60, temperature=1, biases=(0, 0, 0)))
    with pytest.raises(InvalidData, match="two or more folds"):
        read_across_folds([replace(row, fold=1) for row in rows], recipe=BIASES)
    with pytest.raises(InvalidData, match="without images of COVID-19"):
        fit_reading([row for row in rows if row.label != "COVID-19"], recipe=BIASES)


def test_a_calibrated_card_reads_the_networks_outputs_as_the_out_of_fold_predictions_are_read() -> None:
    # What the network put out; the rows are of networks whose validation gave them a temperature of 1.6.
    outputs, truth = generated(3000, temperature=1, biases=(0, -1, 0.5))
    rows = rows_of(outputs / 1.6, truth)
    reading = fit_reading(rows, recipe=BIASES)
    calibrated = recalibrate(card(1.6), rows, recipe=BIASES)
    answers = softmax(outputs[:5] / calibrated.temperature + np.array([calibrated.biases[label] for label in LABELS]))
    expected = [list(reading.read(row).probabilities.values()) for row in rows[:5]]
    assert answers.tolist() == [pytest.approx(row, abs=1e-4) for row in expected]
    assert (calibrated.thresholds, calibrated.abstain_below) == (reading.thresholds, reading.abstain_below)
    assert calibrated.training["calibration"] == {"images": 3000, "folds": 5, "validation_temperature": 1.6}
    assert calibrated.training["recipe"]["calibration"] == "biases"
    assert calibrated.training["train"] == {"Normal": 3}


def test_a_card_that_is_calibrated_again_is_the_same() -> None:
    rows = rows_of(*generated(900, temperature=0.7, biases=(0, -1, 0.5)))
    once = recalibrate(card(1.6), rows, recipe=BIASES)
    assert recalibrate(once, rows, recipe=BIASES) == once
    assert recalibrate(once, rows, recipe=TEMPERATURE) == recalibrate(card(1.6), rows, recipe=TEMPERATURE)
    assert recalibrate(once, rows, recipe=TEMPERATURE).biases == {}
