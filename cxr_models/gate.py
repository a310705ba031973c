"""The pixel gate: whether a picture is a frontal chest radiograph, stands upright, and has its bright and dark right.

A network of our own with some 80,000 weights, and thresholds that its card explains. It looks; what follows is the worker's.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from cxr_models.checkpoint import CARD, WEIGHTS
from cxr_models.errors import InvalidModel
from cxr_models.prepare import prepare
from cxr_models.values import Preparation

SIDE: Final = 64
FOLDER: Final = Path(__file__).parent / "gate_weights"
TURNS: Final = 4
_ENOUGH: Final = 4 * SIDE
_SMALL = Preparation(side=SIDE, mean=0.0, std=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the gate sees in a picture. All but the first mean something only where the first is near 1."""

    frontal: float
    """How probably it is a frontal chest radiograph, however it stands, 0..1."""
    quarter_turns: int
    """How many times it must be turned by 90 degrees against the clock to stand upright, most probably: 0..3."""
    turn: float
    """How probably it must be just this, 0..1."""
    inverted: float
    """How probably bright is what should be dark, 0..1."""
    mirrored: float
    """How probably the patient's left side is at the left once it is upright, 0..1. A heart on the right looks so too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateThresholds:
    """From which probability on something follows."""

    refuse: float
    """Below it a picture is no frontal chest radiograph whatever its header says."""
    accept: float
    """From it on it is one although no header says so."""
    turned: float
    inverted: float
    mirrored: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCard:
    """What the gate is, was trained on, and how often it errs."""

    name: str
    version: str
    weights_sha256: str
    thresholds: GateThresholds
    intended_use: str
    limits: tuple[str, ...]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]


class GateNetwork(nn.Module):
    """Four convolutions and two layers; answers seven logits: frontal, inverted, mirrored, and the four turns."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.PixelUnshuffle(2),
            _convolution(4, 16, stride=2),
            _convolution(16, 32),
            _convolution(32, 48, stride=2),
            _convolution(48, 48),
            nn.Conv2d(48, 16, 1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(16 * 8 * 8, 40), nn.ReLU(), nn.Linear(40, 3 + TURNS))

    def forward(self, pixels: Tensor) -> Tensor:
        """Answer logits of shape (images, 7) to standardised pictures of shape (images, 1, 64, 64)."""
        logits: Tensor = self.classifier(self.features(pixels))
        return logits


def _convolution(before: int, after: int, *, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


class FrontalGate:
    """Looks at one picture at a time, on the CPU; safe to call from many threads."""

    def __init__(self, network: GateNetwork, card: GateCard) -> None:
        self.card = card
        self.network = network.eval().requires_grad_(requires_grad=False)

    @classmethod
    def load(cls, folder: Path = FOLDER) -> Self:
        """Load the gate that ships, or another one.

        Raises
        ------
        InvalidModel
            Card or weights are missing, or they do not describe each other.
        """
        card = read_gate_card(folder)
        try:
            weights = (folder / WEIGHTS).read_bytes()
            if hashlib.sha256(weights).hexdigest() != card.weights_sha256:
                raise InvalidModel(f"{folder / WEIGHTS} is not the file that {folder / CARD} describes: its SHA-256 differs.")
            network = GateNetwork()
            network.load_state_dict(safetensors.torch.load(weights))
        except OSError as error:
            raise InvalidModel(f"{folder / WEIGHTS} cannot be read: {error.strerror}.") from error
        except (safetensors.SafetensorError, RuntimeError) as error:
            raise InvalidModel(f"{folder / WEIGHTS} does not hold the gate's weights.") from error
        return cls(network, card)

    def look(self, pixels: NDArray[np.float32]) -> Look:
        """Look at a picture.

        Parameters
        ----------
        pixels
            Shape (rows, columns), 0..1, as it would be shown.

        Raises
        ------
        UnreadableImage
            It has no pixels or not two axes, or holds values that are not numbers of 0..1.
        """
        # Every n-th pixel of a large film: four a side still make one of the network's, and to weigh in all takes 20 ms.
        step = max(min(pixels.shape, default=0) // _ENOUGH, 1)
        with torch.inference_mode():
            return looks(self.network(standardised(prepare(pixels[::step, ::step], _SMALL)[None])))[0]


def standardised(pixels: Tensor) -> Tensor:
    """Bring each picture of a batch (images, 1, 64, 64) to mean 0 and standard deviation 1, the ends cut off at 3."""
    deviation, mean = torch.std_mean(pixels, dim=(1, 2, 3), keepdim=True)
    return ((pixels - mean) / deviation.clamp(min=1e-3)).clamp(-3, 3)


def looks(logits: Tensor) -> list[Look]:
    """Read the network's logits, shape (images, 7)."""
    flags = logits[:, :3].sigmoid().tolist()
    turns = functional.softmax(logits[:, 3:], dim=1).max(dim=1)
    return [
        Look(frontal=frontal, inverted=inverted, mirrored=mirrored, quarter_turns=quarter_turns, turn=turn)
        for (frontal, inverted, mirrored), turn, quarter_turns in zip(
            flags, turns.values.tolist(), turns.indices.tolist(), strict=True
        )
    ]


def read_gate_card(folder: Path = FOLDER) -> GateCard:
    """Read what a gate says of itself.

    Raises
    ------
    InvalidModel
        The card is missing, or is no gate's.
    """
    try:
        return TypeAdapter(GateCard).validate_python(json.loads((folder / CARD).read_bytes()))
    except OSError as error:
        raise InvalidModel(f"{folder / CARD} cannot be read: {error.strerror}.") from error
    except (ValueError, ValidationError) as error:
        raise InvalidModel(f"{folder / CARD} is not a gate's card: {error}.") from error
