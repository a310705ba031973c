import math

import torch
from torch import Tensor
from torch.nn import functional

from cxr_models.recipe import Augmentation
from cxr_models.values import Preparation


def augment(images: Tensor, how: Augmentation, *, preparation: Preparation) -> Tensor:
    """Move prepared images and change their grey values, each by its own draw; a whole batch at once, on its device.

    Parameters
    ----------
    images
        Shape (images, 1, side, side), as `prepare` makes them. What is moved in from outside repeats the edge: a black frame
        would tell augmented images from others.

    Returns
    -------
    torch.Tensor
        The same shape and range. With an `Augmentation()` of all zeros, the images as they came.
    """
    if how == Augmentation():
        return images
    pixels = images * preparation.std + preparation.mean
    if how.rotate_degrees or how.translate or how.scale or how.stretch:
        grid = functional.affine_grid(_moves(len(images), how, images), list(images.shape), align_corners=False)
        pixels = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    column = (len(images), 1, 1, 1)
    gamma = _draw(len(images), how.gamma, images).exp().view(column)
    contrast = _draw(len(images), how.contrast, images).exp().view(column)
    brightness = _draw(len(images), how.brightness, images).view(column)
    pixels = pixels.clamp(min=1e-4) ** gamma
    middle = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = ((pixels - middle) * contrast + middle + brightness).clamp(0, 1)
    return (pixels - preparation.mean) / preparation.std


def _draw(count: int, reach: float, like: Tensor) -> Tensor:
    return (torch.rand(count, device=like.device, dtype=like.dtype) * 2 - 1) * reach


def _moves(count: int, how: Augmentation, like: Tensor) -> Tensor:
    angle = _draw(count, how.rotate_degrees, like) * (math.pi / 180)
    across = _draw(count, how.scale, like).exp()
    down = across * _draw(count, how.stretch, like).exp()
    return torch.stack(
        [
            torch.stack([across * angle.cos(), -down * angle.sin(), _draw(count, how.translate, like)], dim=1),
            torch.stack([across * angle.sin(), down * angle.cos(), _draw(count, how.translate, like)], dim=1),
        ],
        dim=1,
    )
