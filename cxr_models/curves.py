"""How far a model's confidence can be believed: calibration by bins, and accuracy against coverage."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_models.answers import Answers
from cxr_models.bootstrap import RESAMPLES, Bootstrap, Floats

BINS = 10
STEPS = 100
"""Of the coverage-accuracy curve."""


def even_bins(confidence: Floats) -> NDArray[np.intp]:
    """Return the bin of each confidence (0..1), the bins of equal width."""
    return np.minimum((confidence * BINS).astype(np.intp), BINS - 1)


def full_bins(confidence: Floats) -> NDArray[np.intp]:
    """Return the bin of each confidence, the bins of equally many images; equal ones stay together."""
    return np.searchsorted(np.sort(confidence), confidence) * BINS // len(confidence)


def calibration_error_by_chance(confidence: Floats) -> float:
    """Return the error over even bins that a perfectly calibrated model of these confidences shows on average."""
    bins = even_bins(confidence)
    member = (bins[:, None] == np.unique(bins)).astype(float)
    right = np.random.default_rng(0).random((RESAMPLES, len(confidence))) < confidence
    return float(np.abs((right - confidence) @ member).sum(axis=1).mean() / len(confidence))


def coverage_accuracy(answers: Answers, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Return for each share of the images, the surest first, how many they are, their accuracy, and the least confidence."""
    confidence = answers.confidence
    _, level = np.unique(-confidence, return_inverse=True)
    # Images of equal confidence are answered in no order: each counts as right as they are together.
    right = (np.bincount(level, weights=answers.right) / np.bincount(level))[level]
    surest = np.argsort(level, kind="stable")
    coverages = [step / STEPS for step in range(STEPS, 0, -1)]
    counts = [max(1, round(coverage * len(level))) for coverage in coverages]
    answered = np.argsort(surest)[:, None] < np.array(counts)
    figures = bootstrap.shares(right[:, None], answered)
    return [
        {
            "coverage": coverage,
            "n": count,
            "accuracy": figure.value,
            "interval": figure.interval,
            "confidence": float(confidence[surest[count - 1]]),
        }
        for coverage, count, figure in zip(coverages, counts, figures, strict=True)
    ]


def reliability(answers: Answers, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Return for each even bin that holds images its limits, how many they are, their mean confidence, and accuracy."""
    confidence = answers.confidence
    bins = even_bins(confidence)
    filled = np.unique(bins)
    member = bins[:, None] == filled
    figures = bootstrap.shares(answers.right[:, None], member)
    return [
        {
            "from": int(each) / BINS,
            "to": (int(each) + 1) / BINS,
            "n": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": figure.value,
            "interval": figure.interval,
        }
        for each, inside, figure in zip(filled, member.T, figures, strict=True)
    ]
