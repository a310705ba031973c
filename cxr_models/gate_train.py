"""Training of the gate: films and other pictures, turned, mirrored, inverted and spoiled at random. Research use only."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cxr_models.gate import SIDE, TURNS, GateNetwork, standardised
from cxr_models.gate_data import DRAWN_CHEST, Pictures, burned_in
from cxr_models.progress import shown

log = logging.getLogger(__name__)

HALF_BATCH: Final = 32
LEARNING_RATE: Final = 3e-3
LAYERS: Final = 150
UPRIGHT: Final = 0.5
INVERTED: Final = 0.3
MIRRORED: Final = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Posed:
    """A batch of pictures and what was done to them.

    Attributes
    ----------
    pixels
        Standardised, shape (images, 1, 64, 64).
    turns
        Quarter turns against the clock that bring each back upright.
    """

    pixels: Tensor
    turns: Tensor
    inverted: Tensor
    mirrored: Tensor


def train_gate(pictures: Pictures, *, steps: int, seed: int = 0) -> GateNetwork:
    """Train the network on pictures, half of every batch films; the same arguments give the same weights on one machine."""
    torch.manual_seed(seed)
    network = GateNetwork().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps)
    batches = _batches(pictures, np.random.default_rng(seed))
    layers = torch.from_numpy(burned_in(LAYERS, seed=seed)) > 127
    for step in shown(range(steps), words="Training the gate"):
        chosen = next(batches)
        frontal = torch.from_numpy(pictures.frontal[chosen])
        has_sides = torch.from_numpy(pictures.kinds[chosen] != DRAWN_CHEST)
        posed = pose(torch.from_numpy(pictures.pixels[chosen]), layers)
        loss = _loss(network(posed.pixels), posed, frontal, has_sides)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if (step + 1) % 200 == 0:
            log.info("step %d of %d, loss %.3f", step + 1, steps, loss.item())
    return network.eval()


def pose(pictures: Tensor, layers: Tensor) -> Posed:
    """Spoil, turn, mirror and invert pictures at random.

    Parameters
    ----------
    pictures
        uint8, shape (images, 96, 96).
    layers
        What can be burned in, bool, shape (layers, 64, 64).
    """
    pixels = pictures[:, None].float() / 255
    count = len(pixels)
    pixels = _exposed(_moved(pixels))
    pixels = _framed(_lettered(pixels, layers, share=0.2), share=0.2)
    turns = torch.where(torch.rand(count) < UPRIGHT, 0, torch.randint(TURNS, (count,)))
    mirrored, inverted = torch.rand(count) < MIRRORED, torch.rand(count) < INVERTED
    pixels = torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(3), pixels)
    for turn in range(1, TURNS):
        pixels[turns == turn] = torch.rot90(pixels[turns == turn], -turn, (2, 3))
    pixels = torch.where(inverted.view(-1, 1, 1, 1), 1 - pixels, pixels)
    pixels = _framed(_lettered(pixels, layers, share=0.3), share=0.3)
    noise = torch.randn_like(pixels) * pixels.std(dim=(1, 2, 3), keepdim=True)
    pixels = pixels + noise * (torch.rand(count, 1, 1, 1) * 0.25) * (torch.rand(count, 1, 1, 1) < 0.4)
    return Posed(pixels=standardised(pixels.clamp(0, 1)), turns=turns, inverted=inverted, mirrored=mirrored)


def _batches(pictures: Pictures, draw: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Half of each batch is frontal, each source as often as it is there; the kinds of the rest come equally often."""
    films = np.flatnonzero(pictures.frontal)
    kinds = np.unique(pictures.kinds[~pictures.frontal])
    of_kind = [np.flatnonzero(pictures.kinds == kind) for kind in kinds]
    while True:
        others = [draw.choice(of_kind[kind]) for kind in draw.integers(len(kinds), size=HALF_BATCH)]
        yield np.concatenate([draw.choice(films, HALF_BATCH), np.array(others)])


def _loss(logits: Tensor, posed: Posed, frontal: Tensor, has_sides: Tensor) -> Tensor:
    sided = frontal & has_sides
    return (
        functional.binary_cross_entropy_with_logits(logits[:, 0], frontal.float())
        + functional.binary_cross_entropy_with_logits(logits[frontal, 1], posed.inverted[frontal].float())
        + 0.5 * functional.binary_cross_entropy_with_logits(logits[sided, 2], posed.mirrored[sided].float())
        + functional.cross_entropy(logits[frontal, 3:], posed.turns[frontal])
    )


def _moved(pixels: Tensor) -> Tensor:
    count = len(pixels)
    angle = torch.randn(count) * 0.09
    across = torch.exp((torch.rand(count) * 2 - 1) * 0.17)
    down = across * torch.exp((torch.rand(count) * 2 - 1) * 0.12)
    shift = (torch.rand(2, count) * 2 - 1) * 0.1
    grid = functional.affine_grid(
        torch.stack(
            [
                torch.stack([across * angle.cos(), -down * angle.sin(), shift[0]], dim=1),
                torch.stack([across * angle.sin(), down * angle.cos(), shift[1]], dim=1),
            ],
            dim=1,
        ),
        [count, 1, SIDE, SIDE],
        align_corners=False,
    )
    padding = "border" if torch.rand(()) < 0.5 else "zeros"
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _exposed(pixels: Tensor) -> Tensor:
    count = len(pixels)
    gamma = torch.exp((torch.rand(count, 1, 1, 1) * 2 - 1) * 0.8)
    blurred = functional.avg_pool2d(functional.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pixels = torch.where(torch.rand(count, 1, 1, 1) < 0.25, blurred, pixels).clamp(min=1e-4) ** gamma
    steep = 1 + torch.rand(count, 1, 1, 1) * 1.2 * (torch.rand(count, 1, 1, 1) < 0.3)
    middle = pixels.mean(dim=(1, 2, 3), keepdim=True)
    return ((pixels - middle) * steep + middle).clamp(0, 1)


def _lettered(pixels: Tensor, layers: Tensor, *, share: float) -> Tensor:
    count = len(pixels)
    layer = layers[torch.randint(len(layers), (count,))][:, None]
    layer = layer & (torch.rand(count, 1, 1, 1) < share)
    grey = torch.where(torch.rand(count, 1, 1, 1) < 0.8, torch.rand(count, 1, 1, 1).round(), torch.rand(count, 1, 1, 1))
    return torch.where(layer, grey, pixels)


def _framed(pixels: Tensor, *, share: float) -> Tensor:
    """Cover edges, as collimators and the margins of scanned films do."""
    count, side = len(pixels), pixels.shape[-1]
    along = (torch.arange(side) + 0.5) / side
    low, high = torch.rand(2, 2, count, 1) * 0.13 * (torch.rand(2, 2, count, 1) < 0.6)
    outside = (along < low) | (along > 1 - high)
    covered = (outside[0][:, None, :, None] | outside[1][:, None, None, :]) & (torch.rand(count, 1, 1, 1) < share)
    return torch.where(covered, (torch.rand(count, 1, 1, 1) < 0.3).float(), pixels)
