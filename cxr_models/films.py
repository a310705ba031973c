"""The same film under another name: public collections overlap, and a copy scaled, cropped or saved again has other bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cxr_models.catalogue import Catalogue, LabelledImage, grouped
from cxr_models.data import load_images
from cxr_models.values import Preparation

PREPARATION = Preparation(side=64)
MARGIN = 10
"""Pixels of each edge that do not count: copies differ there, by crop, frame and burned-in text."""
ALIKE = 0.97


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmPair:
    """Two images of one film.

    Attributes
    ----------
    correlation
        Of the part that both show, 0..1.
    crop
        Where the second image's frame lies in the first: left, top, right, bottom as shares of the first's width and height;
        below 0 or above 1 where the second shows more than the first.
    """

    first: LabelledImage
    second: LabelledImage
    correlation: float
    crop: tuple[float, float, float, float]


def group_by_film(catalogue: Catalogue) -> Catalogue:
    """Join the groups of images that show one film."""
    return grouped(catalogue, [(pair.first, pair.second) for pair in find_pairs(catalogue.all)])


def find_pairs(images: Sequence[LabelledImage]) -> tuple[FilmPair, ...]:
    """Find the images that show one film."""
    middle = slice(MARGIN, PREPARATION.side - MARGIN)
    pixels = load_images(images, PREPARATION).tensors[0][:, :, middle, middle].flatten(1)
    centred = pixels - pixels.mean(dim=1, keepdim=True)
    prints = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-6)
    alike = torch.triu(prints @ prints.T, diagonal=1)
    return tuple(
        FilmPair(first=images[first], second=images[second], correlation=float(alike[first, second]), crop=(0.0, 0.0, 1.0, 1.0))
        for first, second in (alike >= ALIKE).nonzero().tolist()
    )
