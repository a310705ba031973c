"""How good a model is on labelled images: figures with their 95 % intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_models.catalogue import Catalogue, LabelledImage
from cxr_models.data import load_images
from cxr_models.errors import InvalidData
from cxr_models.predict import Predictor
from cxr_models.values import Prediction

RESAMPLES = 1000
BINS = 10
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)

Floats = NDArray[np.float64]
Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `evaluate --json` prints.

    Attributes
    ----------
    confusion_matrix
        Rows are the truth, columns the most probable label, both in the order of `labels`.
    per_class
        For each label sensitivity and specificity of the most probable label, and the area under its ROC curve.
    operating
        For each abnormal label sensitivity and specificity at its threshold; under "flagged" those of any abnormal label
        present against images that are not Normal. None where there is no image to tell from.
    ece
        Expected calibration error of the most probable label, in ten bins of equal width.
    intervals
        For the figures above, 95 % by bootstrap over patients.
    coverage_accuracy
        The accuracy that is left when only the surest share of the images is answered.
    """

    n: int
    accuracy: float
    balanced_accuracy: float
    labels: list[str]
    confusion_matrix: list[list[int]]
    per_class: dict[str, Figures]
    operating: dict[str, Figures]
    ece: float
    intervals: dict[str, Any]
    coverage_accuracy: list[dict[str, float]]


def select_images(catalogue: Catalogue, *, seen: frozenset[str], unseen: bool) -> tuple[tuple[LabelledImage, ...], int]:
    """Choose what to measure on: the test part where there is one, else all; and count those seen in training.

    Raises
    ------
    InvalidData
        Nothing is left that the model has not seen.
    """
    images = catalogue.test or catalogue.all
    known = sum(image.sha256 in seen for image in images)
    if unseen:
        images = tuple(image for image in images if image.sha256 not in seen)
    if not images:
        raise InvalidData("The model has seen all of these images; give others, or leave out --unseen.")
    return images, known


def evaluate(predictor: Predictor, images: Sequence[LabelledImage]) -> Evaluation:
    """Classify the images as serving would, and measure."""
    dataset = load_images(images, predictor.card.preparation)
    return measure(predictor.predict(list(dataset.tensors[0])), images, labels=predictor.card.labels)


def measure(predictions: Sequence[Prediction], images: Sequence[LabelledImage], *, labels: tuple[str, ...]) -> Evaluation:
    """Measure predictions against the labels of their images."""
    truth = np.array([labels.index(image.label) for image in images])
    probabilities = np.array([[prediction.probabilities[label] for label in labels] for prediction in predictions])
    named = np.array([labels.index(prediction.label) for prediction in predictions])
    present = np.array([[prediction.present[label] for label in labels] for prediction in predictions])
    flagged = np.array([prediction.flagged for prediction in predictions])
    normal = labels.index("Normal")

    def figures(weights: Floats) -> dict[str, Floats]:
        """Return each figure for each row of weights of the images, so that the bootstrap is one call."""
        found: dict[str, Floats] = {"accuracy": _share(named == truth, weights)}
        for index, label in enumerate(labels):
            of_class, others = weights * (truth == index), weights * (truth != index)
            found[f"per_class.{label}.sensitivity"] = _share(named == index, of_class)
            found[f"per_class.{label}.specificity"] = _share(named != index, others)
            found[f"per_class.{label}.auc"] = _auc(probabilities[:, index], of_class, others)
            if index != normal:
                found[f"operating.{label}.sensitivity"] = _share(present[:, index], of_class)
                found[f"operating.{label}.specificity"] = _share(~present[:, index], others)
        found["operating.flagged.sensitivity"] = _share(flagged, weights * (truth != normal))
        found["operating.flagged.specificity"] = _share(~flagged, weights * (truth == normal))
        there = [found[f"per_class.{labels[index]}.sensitivity"] for index in sorted(set(truth.tolist()))]
        found["balanced_accuracy"] = np.mean(there, axis=0)
        found["ece"] = _calibration_error(probabilities.max(axis=1), named == truth, weights)
        return found

    whole = {name: _number(values[0]) for name, values in figures(np.ones((1, len(truth)))).items()}
    drawn = figures(_resamples([image.patient for image in images]))
    spans = {name: _interval(values) for name, values in drawn.items()}
    matrix = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(matrix, (truth, named), 1)
    return Evaluation(
        n=len(truth),
        accuracy=whole["accuracy"] or 0.0,
        balanced_accuracy=whole["balanced_accuracy"] or 0.0,
        labels=list(labels),
        confusion_matrix=matrix.tolist(),
        per_class=_nested(whole, "per_class"),
        operating=_nested(whole, "operating"),
        ece=whole["ece"] or 0.0,
        intervals={
            "accuracy": spans["accuracy"],
            "balanced_accuracy": spans["balanced_accuracy"],
            "ece": spans["ece"],
            "per_class": _nested(spans, "per_class"),
            "operating": _nested(spans, "operating"),
        },
        coverage_accuracy=_coverage(probabilities.max(axis=1), named == truth),
    )


def _share(hit: NDArray[np.bool_], weights: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        result: Floats = (weights @ hit) / weights.sum(axis=1)
    return result


def _auc(scores: Floats, positives: Floats, negatives: Floats) -> Floats:
    """Return the weighted share of pairs in which the positive scores higher; a tie counts half."""
    _, group = np.unique(scores, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    up = np.add.reduceat(positives[:, order], starts, axis=1)
    down = np.add.reduceat(negatives[:, order], starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    with np.errstate(invalid="ignore"):
        result: Floats = (up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))
    return result


def _calibration_error(confidence: Floats, right: NDArray[np.bool_], weights: Floats) -> Floats:
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    member = (bins[:, None] == np.arange(BINS)).astype(float)
    gap: Floats = np.abs(weights @ (member * (right - confidence)[:, None])).sum(axis=1) / weights.sum(axis=1)
    return gap


def _coverage(confidence: Floats, right: NDArray[np.bool_]) -> list[dict[str, float]]:
    order = np.argsort(-confidence, kind="stable")
    rows = []
    for coverage in COVERAGES:
        answered = order[: max(1, round(coverage * len(order)))]
        rows.append({"coverage": coverage, "n": len(answered), "accuracy": float(right[answered].mean())})
    return rows


def _resamples(patients: Sequence[str]) -> Floats:
    """Return how often each image is drawn in each resample; images of one patient are drawn together."""
    _, patient = np.unique(patients, return_inverse=True)
    count = int(patient.max()) + 1
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return draws[:, patient].astype(float)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _interval(values: Floats) -> list[float] | None:
    known = values[~np.isnan(values)]
    return [float(each) for each in np.quantile(known, [0.025, 0.975])] if len(known) else None


def _nested(flat: Mapping[str, Any], first: str) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        head, *rest = name.split(".")
        if head == first:
            nested.setdefault(rest[0], {})[rest[1]] = value
    return nested
