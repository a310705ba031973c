"""Predict: from prepared images to a model's answers."""

from collections.abc import Sequence

import torch

from cxr_models.errors import Permanent
from cxr_models.predict import Predictor
from cxr_models.values import Card, Prediction
from worker.registry import identity_of
from worker.values import Answer


def predict(predictor: Predictor, tensors: Sequence[torch.Tensor]) -> list[Answer | str]:
    """Answer images together; where the batch fails for good, one by one, so that only the culprit gets the reason.

    Parameters
    ----------
    tensors
        What `predictor.prepare` returned.

    Returns
    -------
    list[Answer | str]
        For each image an answer, or the reason why there is none.

    Raises
    ------
    cxr_models.errors.DeviceBusy
        The device has no memory left.
    """
    try:
        return [answer_of(prediction, predictor.card) for prediction in predictor.predict(tensors)]
    except Permanent as error:
        if len(tensors) <= 1:
            return [str(error)]
        return [answer for tensor in tensors for answer in predict(predictor, [tensor])]


def answer_of(prediction: Prediction, card: Card) -> Answer:
    """A prediction together with what made it."""
    return Answer(
        model=identity_of(card),
        temperature=card.temperature,
        thresholds=card.thresholds,
        probabilities=prediction.probabilities,
        present=prediction.present,
        label=prediction.label,
        undetermined=prediction.undetermined,
        flagged=prediction.flagged,
        parameters=parameters_of(card),
    )


def parameters_of(card: Card) -> tuple[str, ...]:
    """What a card says of how an image is answered, beside weights, temperature and thresholds."""
    preparation = card.preparation
    squashed = f"squashed to {preparation.side} x {preparation.side}, mean {preparation.mean:g}, deviation {preparation.std:g}"
    biases = tuple(f"bias {label} {bias:.4f}" for label, bias in sorted(card.biases.items()))
    return f"preparation {squashed}, views {card.views}", f"undetermined below {card.abstain_below:.4f}", *biases
