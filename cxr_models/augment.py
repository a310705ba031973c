import math

import torch
from torch import Tensor
from torch.nn import functional

from cxr_models.recipe import Augmentation
from cxr_models.values import Preparation

ERASED = 0.4
"""Largest share of a side that an erased rectangle takes."""


def augment(pixels: Tensor, how: Augmentation, *, preparation: Preparation) -> Tensor:
    """Move images and change their grey values, each by its own draw; a whole batch at once, on its device.

    They are moved at the side they are stored at and reduced to the input side afterwards, so that a network sees what another
    framing of the same film would give.

    Parameters
    ----------
    pixels
        uint8, shape (images, 1, stored side, stored side), or (images, 2, …) with the flattened film behind the plain one, as
        `load_pixels` gives them.

    Returns
    -------
    torch.Tensor
        float32, shape (images, 1, side, side), normalised as `prepare` does.
    """
    grey = _one_of_two(pixels, how.flatten).to(torch.float32) / 255
    if how.rotate_degrees or how.translate or how.scale or how.stretch or how.mirror:
        grid = functional.affine_grid(_moves(how, grey), list(grey.shape), align_corners=False)
        grey = functional.grid_sample(grey, grid, mode="bilinear", padding_mode="border", align_corners=False)
    side = preparation.side
    if grey.shape[-1] != side:
        # Antialiased bilinear is what `prepare` reduces by.
        grey = functional.interpolate(grey, (side, side), mode="bilinear", antialias=True)
    if how.gamma:
        grey = grey.clamp(min=1e-4) ** _column(how.gamma, grey).exp()
    if how.contrast or how.brightness:
        middle = grey.mean(dim=(1, 2, 3), keepdim=True)
        grey = (grey - middle) * _column(how.contrast, grey).exp() + middle + _column(how.brightness, grey)
    if how.noise:
        grey = grey + torch.randn_like(grey) * _column(how.noise, grey).abs()
    if how.erase:
        grey = _erase(grey, how.erase)
    return (grey.clamp(0, 1) - preparation.mean) / preparation.std


def mix(images: Tensor, concentration: float) -> tuple[Tensor, Tensor, float]:
    """Mix each image with another of the batch (Zhang et al. 2018, "mixup").

    Returns
    -------
    tuple
        The mixed images, the index of each one's partner, and the share (0..1) of the image itself.
    """
    # By a gamma draw on the CPU: one number for the batch, and the seed of torch alone decides it.
    first, second = torch.distributions.Gamma(concentration, 1.0).sample((2,)).tolist()
    share = first / (first + second) if first + second > 0 else 1.0
    partner = torch.randperm(len(images), device=images.device)
    return share * images + (1 - share) * images[partner], partner, share


def _one_of_two(pixels: Tensor, flat: float) -> Tensor:
    if not flat:
        return pixels[:, :1]
    chosen = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < flat
    return torch.where(chosen, pixels[:, 1:], pixels[:, :1])


def _draw(reach: float, like: Tensor) -> Tensor:
    return (torch.rand(len(like), device=like.device) * 2 - 1) * reach


def _column(reach: float, like: Tensor) -> Tensor:
    return _draw(reach, like).view(-1, 1, 1, 1)


def _moves(how: Augmentation, like: Tensor) -> Tensor:
    angle = _draw(how.rotate_degrees, like) * (math.pi / 180)
    across = _draw(how.scale, like).exp()
    down = across * _draw(how.stretch, like).exp()
    across = torch.where(torch.rand_like(across) < how.mirror, -across, across)
    return torch.stack(
        [
            torch.stack([across * angle.cos(), -down * angle.sin(), _draw(how.translate, like)], dim=1),
            torch.stack([across * angle.sin(), down * angle.cos(), _draw(how.translate, like)], dim=1),
        ],
        dim=1,
    )


def _erase(grey: Tensor, probability: float) -> Tensor:
    along = torch.linspace(0, 1, grey.shape[-1], device=grey.device)
    middles, lengths = torch.rand(2, 2, len(grey), 1, device=grey.device)
    down, across = (along - middles).abs() < lengths * ERASED / 2
    chosen = torch.rand(len(grey), device=grey.device) < probability
    fill = torch.rand(len(grey), 1, 1, 1, device=grey.device)
    return torch.where(down[:, None, :, None] & across[:, None, None, :] & chosen[:, None, None, None], fill, grey)
