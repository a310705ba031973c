"""Views of one image whose answers are averaged: what a shift by a pixel changes is no property of the patient."""

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr_models.values import Views

_SHIFTS = tuple(product((0, 1, 2), repeat=2))


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
    upright = _shifted(images) if views == "shifted" else [images]
    return upright if views == "one" else [view for each in upright for view in (each, each.flip(3))]


def _shifted(images: Tensor) -> list[Tensor]:
    rows, columns = images.shape[2:]
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return [padded[:, :, down : down + rows, across : across + columns] for down, across in _SHIFTS]
