"""What in an image spoke for a label, as a map of the size of the network's input."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cxr_models.errors import DeviceBusy, InvalidData, NonFiniteOutput
from cxr_models.forward import reproducible
from cxr_models.predict import Predictor
from cxr_models.quicken import channels_last
from cxr_models.values import Card
from cxr_models.views import all_views, averaged_logits

STEPS = 8
PIXELS_AT_ONCE = 224 * 224
"""Of the input, through the network at once: every step of a small network, one step of a large one."""
WIDTH = 3 / 32
"""Of the window in which a map is averaged, as a share of the side: single pixels of a gradient say nothing to a reader."""


def explain(predictor: Predictor, prepared: Tensor, *, label: str | None = None) -> NDArray[np.float32]:
    """Map what in one image spoke for a label; see `explain_batch`.

    Parameters
    ----------
    prepared
        What `predictor.prepare` returned, shape (1, side, side).
    label
        One of the card's; the most probable one where none is given.

    Returns
    -------
    numpy.ndarray
        Shape (side, side), 0..1.
    """
    found: NDArray[np.float32] = explain_batch(predictor, [prepared], label=label)[0]
    return found


def explain_batch(predictor: Predictor, batch: Sequence[Tensor], *, label: str | None = None) -> NDArray[np.float32]:
    """Map what in each image spoke for a label, against the others.

    Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) from the image's own mean grey, in 8 steps, of the
    label's logit less the mean of all: only differences of logits move a probability. Averaged over windows of 3/32 of the
    side; what spoke against the label is left out. What is explained is the answer of `predict`: all the card's views.

    The same map each time, in float32 on the predictor's device. The network stays as it is, so `predict` may run meanwhile.

    Returns
    -------
    numpy.ndarray
        Shape (images, side, side), 0..1: the highest value of each map is 1. A map is 0 throughout where nothing spoke for
        the label.

    Raises
    ------
    InvalidData
        The card has no such label, or a tensor does not have this model's shape.
    NonFiniteOutput
        The network answered with something that is not a number.
    DeviceBusy
        The device has no memory left.
    """
    require_label(predictor.card, label)
    predictor.require_shape(batch)
    side = predictor.card.input_side
    maps = np.zeros((len(batch), side, side), dtype=np.float32)
    for first in range(0, len(batch), predictor.batch_size):
        part = slice(first, first + predictor.batch_size)
        try:
            maps[part] = _maps(predictor, batch[part], label)
        except torch.OutOfMemoryError as error:
            raise DeviceBusy(f"The device {predictor.device} has no memory left to explain {len(batch)} images.") from error
    return maps


def require_label(card: Card, label: str | None) -> None:
    """Refuse a label that the model does not know.

    Raises
    ------
    InvalidData
    """
    if label is not None and label not in card.labels:
        raise InvalidData(f"{card.name} knows no label {label!r}; it knows {', '.join(card.labels)}.")


def _maps(predictor: Predictor, batch: Sequence[Tensor], label: str | None) -> NDArray[np.float32]:
    with torch.inference_mode(mode=False), reproducible():
        # A tensor made in inference mode can take part in a gradient only as a copy.
        images = torch.stack([prepared.clone() for prepared in batch]).to(predictor.device)
        evidence = _integrated_gradients(predictor, images, label)
    if not torch.isfinite(evidence).all():
        raise NonFiniteOutput(f"{predictor.card.name} answered with something that is not a number.")
    window = 2 * round((WIDTH * images.shape[-1] - 1) / 2) + 1  # odd, or the map would be shifted
    evidence = functional.avg_pool2d(evidence, window, stride=1, padding=window // 2, count_include_pad=False).relu()
    highest = evidence.amax(dim=(2, 3), keepdim=True)
    shares: NDArray[np.float32] = (evidence / highest.clamp(min=torch.finfo(evidence.dtype).tiny))[:, 0].cpu().numpy()
    return shares


def _integrated_gradients(predictor: Predictor, images: Tensor, label: str | None) -> Tensor:
    card = predictor.card
    with torch.no_grad():
        probabilities = predictor.read(averaged_logits(predictor.network, images, card.views))
    index = probabilities.argmax(dim=1) if label is None else torch.full((len(images),), card.labels.index(label))
    chosen = functional.one_hot(index.to(images.device), len(card.labels)) - 1 / len(card.labels)
    blank = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    slopes = torch.zeros_like(images)
    for shares in torch.split((torch.arange(STEPS) + 0.5) / STEPS, max(1, PIXELS_AT_ONCE // images.numel())):
        with torch.enable_grad():
            points = torch.lerp(blank, images, shares.to(images).view(-1, 1, 1, 1, 1)).flatten(0, 1).requires_grad_()
            answers = predictor.network(channels_last(all_views(points, card.views)))
            views = answers.unflatten(0, (-1, len(shares), len(images)))
            (slope,) = torch.autograd.grad((views.mean(dim=0) * chosen).sum(), points)
        slopes += slope.view(-1, *images.shape).sum(dim=0) / STEPS
    return slopes * (images - blank)
