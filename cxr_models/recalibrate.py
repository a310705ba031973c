"""Calibration on out-of-fold predictions: of ten times as many images as validation has, and of every source.

The predictions of a cross-validation are by networks of one recipe, each image by one that was not trained on its group. What
is fitted on them holds for a network that the recipe trains on all of them (Platt 2000). A fold is calibrated by the
other folds, so that what is measured on it was not fitted on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cxr_models.calibrate import Calibration, choose_abstention, choose_thresholds, fit_calibration, fit_temperature
from cxr_models.errors import InvalidData
from cxr_models.predictions_file import PredictedImage
from cxr_models.recipe import READING, Recipe
from cxr_models.values import LABELS, Card, Prediction

TINIEST = 1e-6
"""Probabilities are written with six digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How outputs are read: as which probabilities, from which on a label is present, and below which none is answered."""

    calibration: Calibration
    thresholds: dict[str, float]
    abstain_below: float

    def read(self, row: PredictedImage) -> Prediction:
        """Read a prediction anew."""
        (probabilities,) = self.calibration.probabilities(_logits([row])).tolist()
        return Prediction.read(
            dict(zip(LABELS, probabilities, strict=True)), thresholds=self.thresholds, abstain_below=self.abstain_below
        )


def fit_reading(rows: Sequence[PredictedImage], *, recipe: Recipe) -> Reading:
    """Fit how outputs are read on predictions of images that no network concerned was trained on.

    Raises
    ------
    InvalidData
        A label has no images.
    """
    if missing := set(LABELS) - {row.label for row in rows}:
        raise InvalidData(f"Nothing can be calibrated without images of {', '.join(sorted(missing))}.")
    logits, truth = _logits(rows), np.array([LABELS.index(row.label) for row in rows])
    calibration = (
        fit_calibration(logits, truth)
        if recipe.calibration == "biases"
        else Calibration(temperature=fit_temperature(logits, truth))
    )
    probabilities = calibration.probabilities(logits)
    return Reading(
        calibration=calibration,
        thresholds=choose_thresholds(probabilities, truth, labels=LABELS, sensitivity=recipe.sensitivity),
        abstain_below=choose_abstention(
            probabilities, truth, accuracy=recipe.answer_accuracy, least_coverage=recipe.answer_coverage
        ),
    )


def read_across_folds(rows: Sequence[PredictedImage], *, recipe: Recipe) -> list[Prediction]:
    """Read each fold's predictions as the other folds are calibrated; in the order of the rows.

    Raises
    ------
    InvalidData
        There are fewer than two folds, or the others of a fold lack a label.
    """
    folds = {row.fold for row in rows}
    if len(folds) < 2:
        raise InvalidData("Predictions of two or more folds are needed, so that one is calibrated by the others.")
    readings = {fold: fit_reading([row for row in rows if row.fold != fold], recipe=recipe) for fold in folds}
    return [readings[row.fold].read(row) for row in rows]


def recalibrate(card: Card, rows: Sequence[PredictedImage], *, recipe: Recipe) -> Card:
    """Return a card with the reading that its recipe's cross-validation gives, in the place of that of few validation images.

    The rows are of networks that their own validation images gave a temperature, so this comes on top of the card's own, which
    is kept in `training`: a card that is calibrated again does not get it twice.

    Raises
    ------
    InvalidData
        A label has no images.
    """
    reading = fit_reading(rows, recipe=recipe)
    calibration = reading.calibration
    own = card.training.get("calibration", {}).get("validation_temperature", card.temperature)
    told = {"images": len(rows), "folds": len({row.fold for row in rows}), "validation_temperature": own}
    values = {name: getattr(recipe, name) for name in sorted(READING)}
    return replace(
        card,
        temperature=own * calibration.temperature,
        biases=dict(zip(LABELS, calibration.biases, strict=True)) if calibration.biases else {},
        thresholds=reading.thresholds,
        abstain_below=reading.abstain_below,
        training={**card.training, "recipe": {**card.training["recipe"], **values}, "calibration": told},
    )


def _logits(rows: Sequence[PredictedImage]) -> NDArray[np.float64]:
    chances = np.array([[row.probabilities[label] for label in LABELS] for row in rows])
    logits: NDArray[np.float64] = np.log(np.maximum(chances, TINIEST))
    return logits
