"""The values that describe a model and what it says of an image. Free of torch."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from cxr_models.errors import InvalidModel, NonFiniteOutput

LABELS = ("COVID-19", "Normal", "Pneumonia")
"""The classes, sorted; the networks' outputs stand in this order."""

NORMAL = "Normal"
"""The one label that says nothing abnormal was found."""

Views = Literal["one", "mirrored", "shifted", "shifted_by_2"]
"""The image alone; and its mirror image; and both, each also shifted by one pixel in eight directions; and by two instead."""

UNSAVED = "0" * 64
"""Stands for the hash of weights that are not written yet; `save_model` puts the real one in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How an image becomes a network's input: squashed to `side` by `side` pixels, then (x - mean) / std of values 0..1."""

    side: int
    mean: float = 0.5
    std: float = 0.5

    def __post_init__(self) -> None:
        if self.side < 1 or not math.isfinite(self.mean) or not 0 < self.std < math.inf:
            raise InvalidModel(f"Not a preparation of images: side {self.side}, mean {self.mean}, std {self.std}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What `card.json` says of the weights beside it.

    Attributes
    ----------
    labels
        In the order of the network's outputs.
    temperature
        Divides the network's outputs before the softmax (Guo et al. 2017, "On Calibration of Modern Neural Networks").
    biases
        Added for each label after that, before the softmax (Alexandari et al. 2020, "Maximum Likelihood with Bias-Corrected
        Calibration"); none where there are none.
    views
        Which views of an image are averaged; see `cxr_models.views`.
    thresholds
        For each abnormal label the probability (0..1) from which it counts as present.
    abstain_below
        The probability (0..1) of the most probable label below which the answer is undetermined; 0 always answers.
    training
        The data the weights were fitted on, with counts, and the recipe.
    metrics
        For each set of images that was measured: n, the figures and their 95 % intervals.
    weights_sha256
        Of the bytes of `weights.safetensors`, in hexadecimal.
    """

    name: str
    version: str
    architecture: str
    labels: tuple[str, ...]
    input_side: int
    mean: float
    std: float
    temperature: float
    thresholds: Mapping[str, float]
    weights_sha256: str
    intended_use: str
    limits: tuple[str, ...]
    views: Views = "one"
    biases: Mapping[str, float] = field(default_factory=dict)
    abstain_below: float = 0.0
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self.preparation
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels) or NORMAL not in self.labels:
            raise InvalidModel(f"The labels {list(self.labels)} are not two or more different ones with {NORMAL} among them.")
        if not 0 < self.temperature < math.inf:
            raise InvalidModel(f"The temperature {self.temperature} is not a number above 0.")
        if self.biases and set(self.biases) != set(self.labels):
            raise InvalidModel(f"There must be one bias for each of {', '.join(self.labels)}, or none at all.")
        if not all(map(math.isfinite, self.biases.values())):
            raise InvalidModel(f"The biases {dict(self.biases)} are not all numbers.")
        if set(self.thresholds) != set(self.abnormal):
            raise InvalidModel(f"There must be one threshold for each of {', '.join(self.abnormal)}.")
        if not all(0 < threshold < 1 for threshold in self.thresholds.values()):
            raise InvalidModel(f"The thresholds {dict(self.thresholds)} are not all between 0 and 1.")
        if not 0 <= self.abstain_below < 1:
            raise InvalidModel(f"abstain_below is {self.abstain_below}; it is a probability from 0 to below 1.")
        if not re.fullmatch("[0-9a-f]{64}", self.weights_sha256):
            raise InvalidModel("weights_sha256 is not a SHA-256 of 64 hexadecimal digits.")

    @property
    def preparation(self) -> Preparation:
        """How images are prepared for these weights."""
        return Preparation(side=self.input_side, mean=self.mean, std=self.std)

    @property
    def abnormal(self) -> tuple[str, ...]:
        """Every label but Normal."""
        return tuple(label for label in self.labels if label != NORMAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model says of one image; `Prediction.read` makes it.

    Attributes
    ----------
    probabilities
        For each label 0..1; they sum to 1.
    label
        The most probable one, also where the answer is undetermined.
    undetermined
        The most probable label is less probable than the model answers for. `flagged` and `present` stand all the same:
        not being sure never makes an image less urgent.
    flagged
        Some abnormal label is present.
    present
        For each label whether it counts as present. Normal is present exactly when no other label is.
    """

    probabilities: Mapping[str, float]
    label: str
    undetermined: bool
    flagged: bool
    present: Mapping[str, bool]

    @classmethod
    def read(cls, probabilities: Mapping[str, float], *, thresholds: Mapping[str, float], abstain_below: float = 0.0) -> Self:
        """Draw the conclusions from the probabilities.

        An abnormal label is present from its threshold on, and also when it is the most probable one, whatever a site sets its
        threshold to: a report must not name a finding and call the image normal.

        Raises
        ------
        NonFiniteOutput
            A probability is not a number of 0..1.
        """
        if not all(0 <= probability <= 1 for probability in probabilities.values()):
            raise NonFiniteOutput
        label = max(probabilities, key=lambda each: probabilities[each])
        present = {
            each: each != NORMAL and (probability >= thresholds[each] or each == label)
            for each, probability in probabilities.items()
        }
        flagged = any(present.values())
        present[NORMAL] = not flagged
        undetermined = probabilities[label] < abstain_below
        return cls(probabilities=probabilities, label=label, undetermined=undetermined, flagged=flagged, present=present)
