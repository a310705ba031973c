"""Temperature and operating thresholds, fitted on validation images alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxr_models.values import NORMAL

STEPS = 80
LOWEST, HIGHEST = 0.05, 20.0


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


def choose_thresholds(
    probabilities: NDArray[np.float64], truth: NDArray[np.int64], *, labels: Sequence[str], sensitivity: float
) -> dict[str, float]:
    """Return for each abnormal label the highest threshold that finds at least this share of its images.

    At most just below 1 / number of labels: the most probable label then always reaches its own, so flag and label agree.
    """
    highest = np.floor(1e4 / len(labels) - 1) / 1e4
    chosen = {}
    for index, label in enumerate(labels):
        if label == NORMAL:
            continue
        scores = np.sort(probabilities[truth == index, index])
        missed = int(np.floor((1 - sensitivity) * len(scores) + 1e-9))
        # Rounded down, so that the image on the threshold stays above it.
        chosen[label] = float(max(1e-4, min(highest, np.floor(scores[missed] * 1e4) / 1e4))) if len(scores) else highest
    return chosen
