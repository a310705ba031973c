"""The same film under another name: public collections overlap, and a copy that was scaled or saved again has another hash."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cxr_models.catalogue import LabelledImage, Split
from cxr_models.data import load_images
from cxr_models.values import Preparation

PREPARATION = Preparation(side=64)
MARGIN = 10
"""Pixels of each edge that do not count: copies differ there, by crop, frame and burned-in text."""
ALIKE = 0.97
"""Correlation from which two images are one film. Of the collections trained on here, pairs known to be copies reach 0.98;
the most alike films of different patients, of many hundred, 0.952."""
AT_ONCE = 1024


def leave_out_lookalikes(parts: Split) -> Split:
    """Leave out of train what looks like an image of val or test, and out of val what looks like one of test.

    A copy that is cropped much more tightly than the other is not found.
    """
    train, val, test = (_fingerprints(images) for images in (parts.train, parts.val, parts.test))
    of_val = _resembles(val, test)
    of_train = _resembles(train, torch.cat([val, test]))
    kept_val, left_val = _parted(parts.val, of_val)
    kept_train, left_train = _parted(parts.train, of_train)
    return replace(parts, train=kept_train, val=kept_val, lookalikes=left_train + left_val)


def _fingerprints(images: Sequence[LabelledImage]) -> Tensor:
    middle = slice(MARGIN, PREPARATION.side - MARGIN)
    pixels = load_images(images, PREPARATION).tensors[0][:, :, middle, middle].flatten(1)
    centred = pixels - pixels.mean(dim=1, keepdim=True)
    fingerprints: Tensor = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-6)
    return fingerprints


def _resembles(images: Tensor, others: Tensor) -> list[bool]:
    if not len(others):
        return [False] * len(images)
    return [alike for some in torch.split(images, AT_ONCE) for alike in ((some @ others.T).amax(dim=1) >= ALIKE).tolist()]


def _parted(
    images: Sequence[LabelledImage], left: Sequence[bool]
) -> tuple[tuple[LabelledImage, ...], tuple[LabelledImage, ...]]:
    marked = list(zip(images, left, strict=True))
    return tuple(image for image, out in marked if not out), tuple(image for image, out in marked if out)
