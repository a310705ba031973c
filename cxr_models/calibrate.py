"""Temperature, biases and operating thresholds, fitted on images that the network was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr_models.values import NORMAL

STEPS = 80
LOWEST, HIGHEST = 0.05, 20.0
LEAST_STEP = 1e-6


def softmax(logits: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return probabilities of the same shape (images, classes); each row sums to 1."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def fit_temperature(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the temperature of the lowest negative log-likelihood (Guo et al. 2017), by golden-section search.

    The likelihood has one optimum in 1/temperature, so the search cannot end in a wrong one.
    """
    rows = np.arange(len(truth))

    def loss(inverse: float) -> float:
        return float(-np.log(softmax(logits * inverse)[rows, truth] + 1e-300).mean())

    golden = (5**0.5 - 1) / 2
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(STEPS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return 2 / (low + high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What turns a network's outputs into probabilities: softmax(outputs / temperature + biases)."""

    temperature: float
    biases: tuple[float, ...] = ()
    """One for each label, that of the first one 0, since only differences count; empty where none were fitted."""

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities of the same shape (images, labels)."""
        return softmax(logits / self.temperature + np.array(self.biases or 0.0))


def fit_calibration(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> Calibration:
    """Fit temperature and biases together by maximum likelihood (bias-corrected temperature scaling, Alexandari et al. 2020).

    A network that met every class equally often leans to the rare ones; the biases take that back. The biases' squares,
    divided by the number of images, are added to the loss, so that a class without images keeps a finite one.

    Parameters
    ----------
    logits
        Shape (images, labels); logarithms of probabilities will do.
    truth
        Shape (images,), indices of the labels.
    """
    images, labels = logits.shape
    hot = np.eye(labels)[truth]
    # Inverse temperature, then the biases but the first: the loss is convex in them, so Newton's steps end at its one minimum.
    features = np.zeros((images, labels, labels))
    features[:, :, 0] = logits - logits.mean(axis=1, keepdims=True)
    features[:, 1:, 1:] = np.eye(labels - 1)
    penalty = np.array([0.0, *[1 / images] * (labels - 1)])
    found = np.array([1.0, *[0.0] * (labels - 1)])

    def loss(values: NDArray[np.float64]) -> float:
        chances = softmax(features @ values)
        return float(-np.log((chances * hot).sum(axis=1) + 1e-300).mean() + penalty @ values**2)

    for _ in range(STEPS):
        chances = softmax(features @ found)
        slope = np.einsum("nl,nlp->p", chances - hot, features) / images + 2 * penalty * found
        mean = np.einsum("nl,nlp->np", chances, features)
        curve = np.einsum("nl,nlp,nlq->pq", chances, features, features) / images - mean.T @ mean / images
        step = np.linalg.solve(curve + np.diag(2 * penalty + 1e-9), slope)
        length = 1.0
        while length > LEAST_STEP and not loss(found - length * step) <= loss(found):
            length /= 2
        found = found - length * step
    inverse = float(np.clip(found[0], 1 / HIGHEST, 1 / LOWEST))
    return Calibration(temperature=1 / inverse, biases=(0.0, *map(float, found[1:])))


def choose_thresholds(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], *, labels: Sequence[str], sensitivity: float
) -> dict[str, float]:
    """Return for each abnormal label the highest threshold at which new images are expected to reach the sensitivity.

    Of the label's n images the k lowest scores fall below the threshold, k = floor((1 - sensitivity) (n + 1)) - 1. A new
    image then falls below it with a probability of at most 1 - sensitivity, whatever the scores' distribution (split
    conformal prediction, Sadinle et al. 2019). Few images cannot promise so much: the threshold is then the lowest score,
    which a new image reaches with n / (n + 1). A label without images gets the highest threshold there is.

    At most just below 1 / number of labels: the most probable label then always reaches its own, so flag and label agree.

    Parameters
    ----------
    probabilities
        Shape (images, labels), 0..1, calibrated.
    truth
        Shape (images,), indices into `labels`.
    sensitivity
        0..1, of the label's images the share to find.
    """
    highest = float(np.floor(1e4 / len(labels) - 1) / 1e4)
    chosen = {}
    for index, label in enumerate(labels):
        if label == NORMAL:
            continue
        scores = np.sort(probabilities[truth == index, index])
        missed = max(0, int(np.floor((1 - sensitivity) * (len(scores) + 1) + 1e-9)) - 1)
        # Rounded down, so that the image on the threshold stays above it.
        chosen[label] = float(max(1e-4, min(highest, np.floor(scores[missed] * 1e4) / 1e4))) if len(scores) else highest
    return chosen


def choose_abstention(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], *, accuracy: float, least_coverage: float
) -> float:
    """Return the lowest confidence from which the images that are answered reach the accuracy.

    The confidence of an image is its highest probability; below the returned one its answer is undetermined. The value lies
    half way between the least sure image that is answered and the surest that is not; images of equal confidence stay
    together. It is 0, so that every image is answered, where all of them reach the accuracy or there are none. Where the
    accuracy cannot be reached, it answers the surest `least_coverage` of the images and no fewer.

    It is chosen on the images it is measured on: with n answered, expect of new ones an accuracy within about
    1 / sqrt(n) of the one asked for.

    Parameters
    ----------
    probabilities
        Shape (images, labels), 0..1, calibrated.
    truth
        Shape (images,), indices of the labels.
    accuracy
        0..1, of the answered images the share that is to be right.
    least_coverage
        0..1, the share of the images that is answered in any case.
    """
    if not len(truth):
        return 0.0
    confidence = probabilities.max(axis=1)
    levels = np.unique(confidence)
    answered = confidence >= levels[:, None]
    allowed = answered.sum(axis=1) >= least_coverage * len(confidence)
    right = probabilities.argmax(axis=1) == truth
    reached = allowed & ((answered & right).sum(axis=1) >= accuracy * answered.sum(axis=1) - 1e-9)
    chosen = int(reached.argmax()) if reached.any() else int(np.flatnonzero(allowed)[-1])
    return float((levels[chosen - 1] + levels[chosen]) / 2) if chosen else 0.0
