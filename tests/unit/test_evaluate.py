from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, multiclass_auroc, multiclass_calibration_error

from cxr_models.calibrate import choose_thresholds, fit_temperature, softmax
from cxr_models.catalogue import Catalogue, LabelledImage
from cxr_models.errors import InvalidData
from cxr_models.evaluate import ON_A_CARD, Evaluation, measure, select_images, state_caveats
from cxr_models.values import LABELS, Prediction

THRESHOLDS = {"COVID-19": 0.3, "Pneumonia": 0.3}


def case(number: int, truth: int, group: str | None = None, source: str = "set") -> LabelledImage:
    return LabelledImage(
        path=Path(f"{number}.png"),
        label=LABELS[truth],
        patient=f"p{number}",
        source=source,
        sha256=str(number),
        group=group or f"p{number}",
    )


def drawn(count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that know something of the truth, with ties."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 3, count)
    logits = generator.normal(size=(count, 3)).round(1)
    logits[np.arange(count), truth] += 1
    return logits, truth


def predicted(probabilities: np.ndarray, *, abstain_below: float = 0.0) -> list[Prediction]:
    return [
        Prediction.read(dict(zip(LABELS, row, strict=True)), thresholds=THRESHOLDS, abstain_below=abstain_below)
        for row in probabilities.tolist()
    ]


def measured(
    probabilities: np.ndarray,
    truth: np.ndarray,
    groups: Sequence[str] = (),
    *,
    sources: Sequence[str] = (),
    abstain_below: float = 0.0,
) -> Evaluation:
    count = len(truth)
    named = zip(truth.tolist(), groups or [None] * count, sources or ["set"] * count, strict=True)
    images = [case(index, *each) for index, each in enumerate(named)]
    return measure(predicted(probabilities, abstain_below=abstain_below), images, labels=LABELS)


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


def test_images_of_one_group_are_drawn_together_so_their_interval_is_wider() -> None:
    logits, truth = drawn(300)
    ten_each = [f"g{index // 10}" for index in range(300)]
    order = np.argsort(softmax(logits).argmax(axis=1) == truth)
    alone = measured(softmax(logits[order]), truth[order])
    together = measured(softmax(logits[order]), truth[order], ten_each)

    def width(result: Evaluation) -> float:
        return result.intervals["accuracy"][1] - result.intervals["accuracy"][0]

    assert width(together) > 2 * width(alone)


def test_where_all_are_hits_the_interval_tells_how_few_they_are() -> None:
    probabilities = np.tile([0.1, 0.8, 0.1], (20, 1))
    # Clopper and Pearson for 20 of 20, and for 10 independent ones.
    assert measured(probabilities, np.ones(20, int)).intervals["accuracy"] == pytest.approx([0.8316, 1], abs=1e-4)
    pairs = [f"p{index // 2}" for index in range(20)]
    assert measured(probabilities, np.ones(20, int), pairs).intervals["accuracy"] == pytest.approx([0.6915, 1], abs=1e-4)
    assert measured(probabilities, np.zeros(20, int)).intervals["accuracy"] == pytest.approx([0, 0.1684], abs=1e-4)
    assert measured(probabilities, np.ones(20, int)).intervals["balanced_accuracy"] == pytest.approx([0.8316, 1], abs=1e-4)


def test_a_class_without_images_has_no_sensitivity_rather_than_zero() -> None:
    result = measured(softmax(np.array([[0.0, 2, 1], [0, 1, 2], [0, 2, 1]])), np.array([1, 2, 2]))
    assert result.per_class["COVID-19"]["sensitivity"] is None
    assert result.per_class["COVID-19"]["auc"] is None
    assert result.intervals["per_class"]["COVID-19"]["sensitivity"] is None
    assert result.pairwise["COVID-19 against Normal"]["auc"] is None
    assert result.balanced_accuracy == pytest.approx(0.75)


def test_a_single_class_is_measured_as_far_as_it_goes() -> None:
    result = measured(softmax(np.array([[0.0, 2, 1], [0, 1, 2]])), np.array([2, 2]))
    assert (result.accuracy, result.balanced_accuracy, result.per_class["Pneumonia"]["auc"]) == (0.5, 0.5, None)
    assert result.per_class["Pneumonia"]["specificity"] is None


def test_images_that_cannot_be_measured_are_named() -> None:
    with pytest.raises(InvalidData, match="no images"):
        measure([], [], labels=LABELS)
    with pytest.raises(InvalidData, match="not COVID-19"):
        measure(predicted(np.array([[0.5, 0.3, 0.2]])), [case(0, 0)], labels=("Normal", "Pneumonia"))


def test_a_pair_of_labels_is_told_apart_by_the_odds_between_the_two() -> None:
    logits, truth = drawn()
    logits[:, 0] += np.random.default_rng(1).normal(size=200) * 5
    probabilities = softmax(logits)
    pair = truth != 0
    odds = probabilities[pair, 2] / (probabilities[pair, 1] + probabilities[pair, 2])
    known = binary_auroc(torch.tensor(odds), torch.tensor(truth[pair] == 2).long())
    result = measured(probabilities, truth)
    assert result.pairwise["Pneumonia against Normal"]["auc"] == pytest.approx(known.item(), abs=1e-4)
    assert set(result.pairwise) == {"Pneumonia against Normal", "COVID-19 against Normal", "Pneumonia against COVID-19"}


def test_each_source_has_the_figures_of_its_images_alone_and_weighs_the_same_in_the_mean() -> None:
    logits, truth = drawn(300)
    probabilities = softmax(logits)
    here = np.arange(300) < 60
    both = measured(probabilities, truth, sources=np.where(here, "small", "large").tolist())
    small, large = (measured(probabilities[part], truth[part]) for part in (here, ~here))
    for name, alone in (("small", small), ("large", large)):
        part = both.per_source[name]
        assert part["n"] == alone.n
        assert part["confusion_matrix"] == alone.confusion_matrix
        for figure in ("accuracy", "balanced_accuracy", "per_class", "pairwise", "ece", "brier"):
            assert part[figure] == getattr(alone, figure)
        assert part["intervals"]["accuracy"] == pytest.approx(alone.intervals["accuracy"], abs=0.03)
    mean = (small.accuracy + large.accuracy) / 2
    assert both.source_balanced["accuracy"] == pytest.approx(mean)
    low, high = both.intervals["source_balanced"]["accuracy"]
    assert low < mean < high


def test_the_surest_images_are_answered_first() -> None:
    probabilities = np.array([[0.9, 0.05, 0.05]] * 5 + [[0.4, 0.3, 0.3]] * 5)
    rows = {row["coverage"]: row for row in measured(probabilities, np.array([0] * 5 + [1] * 5)).coverage_accuracy}
    assert (rows[0.5]["n"], rows[0.5]["accuracy"], rows[0.5]["confidence"]) == (5, 1, 0.9)
    assert (rows[1.0]["n"], rows[1.0]["accuracy"], rows[1.0]["confidence"]) == (10, 0.5, 0.4)


def test_equally_sure_answers_have_no_order() -> None:
    probabilities = np.tile([0.8, 0.1, 0.1], (10, 1))
    for truth in ([0] * 6 + [1] * 4, [1] * 4 + [0] * 6):
        curve = measured(probabilities, np.array(truth)).coverage_accuracy
        assert [row["accuracy"] for row in curve] == pytest.approx([0.6] * len(curve))


def test_the_reliability_bins_hold_every_image_and_make_up_the_calibration_error() -> None:
    logits, truth = drawn()
    result = measured(softmax(logits), truth)
    assert sum(row["n"] for row in result.reliability) == 200
    gaps = [row["n"] * abs(row["confidence"] - row["accuracy"]) for row in result.reliability]
    assert sum(gaps) / 200 == pytest.approx(result.ece)
    for row in result.reliability:
        assert row["from"] <= row["confidence"] <= row["to"]
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]


def test_the_calibration_error_by_chance_is_what_a_calibrated_model_has_on_so_few_images() -> None:
    generator = np.random.default_rng(0)
    errors, expected = [], []
    for _ in range(20):
        probabilities = softmax(generator.normal(size=(100, 3)))
        truth = (probabilities.cumsum(axis=1) > generator.random((100, 1))).argmax(axis=1)
        result = measured(probabilities, truth)
        errors.append(result.ece)
        expected.append(result.ece_by_chance)
    assert np.mean(expected) > 0.05
    assert np.mean(errors) == pytest.approx(np.mean(expected), rel=0.15)


def test_bins_of_equally_many_images_show_what_bins_of_equal_width_hide() -> None:
    probabilities = np.repeat([[0.92, 0.04, 0.04], [0.98, 0.01, 0.01]], 50, axis=0)
    # Of the less sure half too many are right, of the surer half too few: within one wide bin they make up for each other.
    truth = np.array([0] * 50 + [0] * 45 + [1] * 5)
    result = measured(probabilities, truth)
    assert result.ece == pytest.approx(0)
    assert result.ece_adaptive == pytest.approx(0.08)


def test_a_card_holds_the_figures_without_the_curves() -> None:
    logits, truth = drawn(60)
    result = measured(softmax(logits), truth)
    summary = result.summary()
    assert summary["accuracy"] == result.accuracy
    assert summary["intervals"]["per_class"] == result.intervals["per_class"]
    assert [row["coverage"] for row in summary["coverage_accuracy"]] == list(ON_A_CARD)
    assert len(result.coverage_accuracy) == 100
    assert "per_source" not in summary
    assert "source_balanced" in result.intervals


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


def test_thresholds_from_few_images_hold_on_new_ones_on_average() -> None:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(400):
        scores = generator.random(25)
        probabilities = np.stack([1 - scores / 4, np.zeros(25), scores / 4], axis=1)
        chosen = choose_thresholds(probabilities, np.full(25, 2), labels=LABELS, sensitivity=0.9)
        found.append(1 - 4 * chosen["Pneumonia"])
    assert np.mean(found) == pytest.approx(0.923, abs=0.01)


def test_too_few_images_give_none_up_and_none_give_the_highest_threshold() -> None:
    probabilities = np.array([[0.2, 0.6, 0.2], [0.3, 0.6, 0.1]])
    chosen = choose_thresholds(probabilities, np.array([0, 0]), labels=LABELS, sensitivity=0.9)
    assert chosen == {"COVID-19": 0.2, "Pneumonia": 0.3332}


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


def test_what_must_be_known_before_the_figures_are_believed_is_said() -> None:
    train, test = (case(1, 0), case(2, 1)), (case(3, 0), case(4, 1), case(4, 1))

    def caveats(known: int, *, unseen: bool = False, images: tuple[LabelledImage, ...] = test) -> list[str]:
        catalogue = Catalogue(train=train, test=test)
        return list(state_caveats(images, catalogue=catalogue, labels=LABELS, known=known, unseen=unseen))

    always = caveats(0)
    assert [word in " ".join(always) for word in ("other 2", "no images of Pneumonia:", "again: 1")] == [True] * 3
    assert len(always) == 3
    assert "--unseen" in caveats(1)[0]
    assert "left out" in caveats(1, unseen=True)[0]
    assert "All of these" in caveats(3)[0]
    whole = tuple(case(index, index) for index in range(3))
    assert not state_caveats(whole, catalogue=Catalogue(unparted=whole), labels=LABELS, known=0, unseen=False)
