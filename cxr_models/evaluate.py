"""How good a model is on labelled images: figures with their 95 % intervals."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from torch import Tensor

from cxr_models.answers import Answers, Known
from cxr_models.bootstrap import (
    Bootstrap,
    Figure,
    Flags,
    Statistic,
    auc,
    calibration_error,
    mean,
    weighted_mean,
)
from cxr_models.catalogue import Catalogue, LabelledImage
from cxr_models.curves import calibration_error_by_chance, coverage_accuracy, even_bins, full_bins, reliability
from cxr_models.errors import InvalidData
from cxr_models.images import read_radiograph
from cxr_models.predict import Predictor
from cxr_models.seen import find_seen
from cxr_models.values import Prediction

ON_A_CARD = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Steps of the coverage-accuracy curve that a card and a table have room for."""

Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `evaluate --json` prints. A figure is None where there is no image to tell it from.

    Attributes
    ----------
    groups
        How many independent groups the images make; see `LabelledImage.group`.
    confusion_matrix
        Rows are the truth, columns the most probable label, both in the order of `labels`.
    per_class
        For each label sensitivity, specificity and predictive values of the most probable label, and the area under its ROC
        curve. Predictive values hold for the mix of classes that was measured, not for a ward.
    operating
        For each abnormal label the same at its threshold; under "flagged" those of any abnormal label present against
        images that are not Normal.
    pairwise
        "A against B": the area under the ROC curve of p(A) / (p(A) + p(B)) on the images of the two.
    ece
        Expected calibration error of the most probable label, in ten bins of equal width: more would mostly measure chance on
        a few hundred images.
    ece_adaptive
        The same in ten bins of equally many images (Nguyen and O'Connor 2015).
    ece_by_chance
        The `ece` that a perfectly calibrated model of the same confidences shows on as many images, on average.
    brier
        Mean squared distance of the probabilities from the truth, summed over labels: 0..2 (Brier 1950).
    abstention
        Over the images that are answered, those not undetermined: their share (coverage) and accuracy, with the confusion
        matrix, whose last column counts the undetermined ones.
    intervals
        For the figures above, 95 % by bootstrap over groups; see `cxr_models.bootstrap`.
    per_source
        For each collection the figures above on its images alone, and their intervals.
    source_balanced
        Accuracies with every collection weighing the same: the mean over `per_source`.
    coverage_accuracy
        The accuracy that is left when only the surest share of the images is answered, and the confidence from which.
    reliability
        The bins of `ece` that hold images: their limits, mean confidence, and accuracy.
    """

    n: int
    groups: int
    accuracy: float
    balanced_accuracy: float
    labels: list[str]
    confusion_matrix: list[list[int]]
    per_class: dict[str, Figures]
    operating: dict[str, Figures]
    pairwise: dict[str, Figures]
    ece: float
    ece_adaptive: float
    ece_by_chance: float
    brier: float
    abstention: dict[str, Any]
    intervals: dict[str, Any]
    per_source: dict[str, dict[str, Any]]
    source_balanced: Figures
    coverage_accuracy: list[dict[str, Any]]
    reliability: list[dict[str, Any]]

    def summary(self) -> dict[str, Any]:
        """Return what belongs on a model's card: everything but the sources, the bins and the curve's finer steps."""
        whole = asdict(self)
        for name in ("per_source", "source_balanced", "reliability"):
            del whole[name]
        whole["intervals"].pop("source_balanced")
        whole["coverage_accuracy"] = [row for row in self.coverage_accuracy if row["coverage"] in ON_A_CARD]
        return whole


def select_images(catalogue: Catalogue, *, seen: frozenset[str], unseen: bool) -> tuple[tuple[LabelledImage, ...], int]:
    """Choose what to measure on: the test part where there is one, else all; and count those whose group training has seen.

    Raises
    ------
    InvalidData
        Nothing is left that the model has not seen.
    """
    images = catalogue.test or catalogue.all
    groups = find_seen(catalogue.all, seen)
    known = sum(image.group in groups for image in images)
    if unseen:
        images = tuple(image for image in images if image.group not in groups)
    if not images:
        raise InvalidData("The model has seen all of these images; give others, or leave out --unseen.")
    return images, known


def state_caveats(
    images: Sequence[LabelledImage], *, catalogue: Catalogue, labels: Sequence[str], known: int, unseen: bool
) -> tuple[str, ...]:
    """Return what must be known before figures on these images are believed, a sentence each.

    Parameters
    ----------
    images, known
        What `select_images` returned for the catalogue and `unseen`.
    labels
        The model's.
    """
    caveats = []
    if known and not unseen and known == len(images):
        caveats.append(
            "All of these images were used in training: the figures tell what the model remembers, not what it knows."
        )
    elif known:
        fate = "left out" if unseen else "measured as well; --unseen leaves them out"
        caveats.append(f"{known} of these images were used in training: {fate}.")
    if catalogue.test and len(catalogue.test) < len(catalogue.all):
        others = len(catalogue.all) - len(catalogue.test)
        caveats.append(f"Only images under test/ are measured on; the other {others} in these folders take no part.")
    missing = [label for label in labels if label not in {image.label for image in images}]
    if missing:
        caveats.append(f"There are no images of {' or '.join(missing)}: how well they are found cannot be measured here.")
    copies = len(images) - len({image.sha256 for image in images})
    if copies:
        caveats.append(f"Byte-identical copies among these images, each counted again: {copies}.")
    return tuple(caveats)


def classify(predictor: Predictor, images: Sequence[LabelledImage]) -> list[Prediction]:
    """Read and classify image files as serving would, in their order; a bar on a terminal's stderr tells how far it is.

    Raises
    ------
    UnreadableImage
        A file is missing or no image.
    """

    def prepare(image: LabelledImage) -> Tensor:
        return predictor.prepare(read_radiograph(image.path))

    batches = [images[first : first + predictor.batch_size] for first in range(0, len(images), predictor.batch_size)]
    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        classified = [
            predictor.predict(list(threads.map(prepare, batch)))
            for batch in track(batches, "Classifying", console=console, transient=True, disable=not console.is_terminal)
        ]
    return [prediction for batch in classified for prediction in batch]


def evaluate(predictor: Predictor, images: Sequence[LabelledImage]) -> Evaluation:
    """Classify images and measure."""
    return measure(classify(predictor, images), images, labels=predictor.card.labels)


def measure(predictions: Sequence[Prediction], images: Sequence[Known], *, labels: tuple[str, ...]) -> Evaluation:
    """Measure predictions against the labels of their images.

    Raises
    ------
    InvalidData
        There are no images, or one has a label that is not among `labels`.
    """
    answers = Answers.gather(predictions, images, labels=labels)
    bootstrap = Bootstrap([image.group for image in images])
    collections = np.array([image.source for image in images])
    whole, per_source = _figures(answers, bootstrap), {}
    parts = []
    for source in sorted(set(collections.tolist())):
        part = answers.among(collections == source), bootstrap.among(collections == source)
        parts.append(_figures(*part))
        per_source[source] = _written(parts[-1], *part)
    whole["source_balanced"] = {name: mean([part[name] for part in parts]) for name in ("accuracy", "balanced_accuracy")}
    return Evaluation(
        labels=list(labels),
        per_source=per_source,
        coverage_accuracy=coverage_accuracy(answers, bootstrap),
        reliability=reliability(answers, bootstrap),
        **_written(whole, answers, bootstrap),
    )


def _figures(answers: Answers, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return a tree of figures."""
    truth, labels, normal = answers.truth, answers.labels, answers.normal
    probabilities, confidence = answers.probabilities, answers.confidence
    every = np.ones(len(truth), dtype=bool)
    per_class = {
        label: _called(answers.named == index, truth == index, bootstrap)
        | {"auc": bootstrap.figure(auc(probabilities[:, index], truth == index, truth != index))}
        for index, label in enumerate(labels)
    }
    operating = {
        label: _called(answers.present[:, index], truth == index, bootstrap)
        for index, label in enumerate(labels)
        if index != normal
    }
    pairs = combinations(sorted(range(len(labels)), key=lambda index: index != normal), 2)
    return {
        "accuracy": bootstrap.share(answers.right, every),
        "balanced_accuracy": mean([figures["sensitivity"] for figures in per_class.values()]),
        "per_class": per_class,
        "operating": operating | {"flagged": _called(~answers.present[:, normal], truth != normal, bootstrap)},
        "pairwise": {
            f"{labels[other]} against {labels[one]}": {"auc": bootstrap.figure(_pair_auc(answers, other, one))}
            for one, other in pairs
        },
        "ece": bootstrap.figure(calibration_error(confidence, answers.right, even_bins(confidence))),
        "ece_adaptive": bootstrap.figure(calibration_error(confidence, answers.right, full_bins(confidence))),
        "brier": bootstrap.figure(weighted_mean(((probabilities - np.eye(len(labels))[truth]) ** 2).sum(axis=1))),
        "abstention": {
            "coverage": bootstrap.share(~answers.undetermined, every),
            "accuracy": bootstrap.share(answers.right, ~answers.undetermined),
        },
    }


def _called(called: Flags, there: Flags, bootstrap: Bootstrap) -> dict[str, Figure]:
    figures = bootstrap.shares(
        np.stack([called, ~called, there, ~there], axis=1), np.stack([there, ~there, called, ~called], axis=1)
    )
    return dict(zip(("sensitivity", "specificity", "ppv", "npv"), figures, strict=True))


def _pair_auc(answers: Answers, positive: int, negative: int) -> Statistic:
    both = answers.probabilities[:, positive] + answers.probabilities[:, negative]
    score = answers.probabilities[:, positive] / np.maximum(both, np.finfo(float).tiny)
    return auc(score, answers.truth == positive, answers.truth == negative)


def _written(figures: dict[str, Any], answers: Answers, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the values of a tree of figures and, under "intervals", their intervals; with what has none."""
    values: dict[str, Any] = _each(figures, lambda figure: figure.value)
    counts = np.zeros((len(answers.labels), len(answers.labels) + 1), dtype=int)
    np.add.at(counts, (answers.truth, np.where(answers.undetermined, len(answers.labels), answers.named)), 1)
    values["abstention"]["confusion_matrix"] = counts.tolist()
    matrix = np.zeros((len(answers.labels), len(answers.labels)), dtype=int)
    np.add.at(matrix, (answers.truth, answers.named), 1)
    return values | {
        "n": len(answers.truth),
        "groups": bootstrap.groups,
        "confusion_matrix": matrix.tolist(),
        "ece_by_chance": calibration_error_by_chance(answers.confidence),
        "intervals": _each(figures, lambda figure: figure.interval),
    }


def _each(figures: dict[str, Any], take: Callable[[Figure], Any]) -> dict[str, Any]:
    return {name: take(each) if isinstance(each, Figure) else _each(each, take) for name, each in figures.items()}
