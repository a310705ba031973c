"""Views of one image whose answers are averaged: what a shift by a pixel or two changes is no property of the patient."""

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr_models.values import Views

_STEPS: dict[Views, int] = {"shifted": 1, "shifted_by_2": 2}
"""By how many pixels."""


def averaged_logits(network: nn.Module, images: Tensor, views: Views) -> Tensor:
    """Return the mean of a network's logits over the views of each image.

    Parameters
    ----------
    images
        Prepared images, shape (images, 1, side, side).

    Returns
    -------
    Tensor
        Shape (images, classes).
    """
    return torch.stack([network(view) for view in _views(images, views)]).mean(dim=0)


def all_views(images: Tensor, views: Views) -> Tensor:
    """Return the views of all images, shape (views x images, 1, side, side): first the first view of each image."""
    return torch.cat(_views(images, views))


def _views(images: Tensor, views: Views) -> list[Tensor]:
    upright = _shifted(images, _STEPS[views]) if views in _STEPS else [images]
    return upright if views == "one" else [view for each in upright for view in (each, each.flip(3))]


def _shifted(images: Tensor, step: int) -> list[Tensor]:
    rows, columns = images.shape[2:]
    padded = functional.pad(images, (step, step, step, step), mode="replicate")
    shifts = product((0, step, 2 * step), repeat=2)
    return [padded[:, :, down : down + rows, across : across + columns] for down, across in shifts]
