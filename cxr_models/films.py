"""The same film under another name: public collections overlap, and a copy scaled, cropped or saved again has other bytes."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from cxr_models.catalogue import Catalogue, LabelledImage, grouped
from cxr_models.images import read_radiograph
from cxr_models.overlap import SIDE, find_overlaps
from cxr_models.prepare import prepare
from cxr_models.progress import shown
from cxr_models.values import Preparation

THUMBNAIL = Preparation(side=SIDE, mean=0.0, std=1.0)
PICTURE = 512
"""Pixels a side of each half of a drawn pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmPair:
    """Two images of one film.

    Attributes
    ----------
    correlation
        Of the detail where both show the same, 0..1.
    crop
        Where the second image's frame lies in the first: left, top, right, bottom as shares of the first's width and height;
        below 0 or above 1 where the second shows more than the first.
    """

    first: LabelledImage
    second: LabelledImage
    correlation: float
    crop: tuple[float, float, float, float]


def group_by_film(catalogue: Catalogue) -> Catalogue:
    """Join the groups of images that show one film. Decodes every image; the time grows with the square of their number.

    Raises
    ------
    UnreadableImage
        A file is cut off or no image.
    """
    return grouped(catalogue, [(pair.first, pair.second) for pair in find_pairs(catalogue.all)])


def find_pairs(images: Sequence[LabelledImage], *, thumbnails: Sequence[Tensor] | None = None) -> tuple[FilmPair, ...]:
    """Find the images that show one film, if each of them is cropped by no more than 15 % a side.

    Parameters
    ----------
    thumbnails
        `thumbnail` of each image, where they are decoded already.

    Returns
    -------
    tuple[FilmPair, ...]
        Each pair once, in the order of the images; a file that stands in two places is a pair.

    Raises
    ------
    UnreadableImage
        A file is cut off or no image.
    """
    if len(images) < 2:
        return ()
    if thumbnails is None:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            decoded = threads.map(lambda image: thumbnail(read_radiograph(image.path)), images)
            thumbnails = list(shown(decoded, total=len(images), words="Reading images"))
    found = find_overlaps(torch.stack(list(thumbnails)))
    return tuple(
        FilmPair(first=images[first], second=images[second], correlation=correlation, crop=(left, top, right, bottom))
        for first, second, correlation, (left, top, right, bottom) in zip(
            found.firsts.tolist(), found.seconds.tolist(), found.correlations.tolist(), found.crops().tolist(), strict=True
        )
    )


def thumbnail(pixels: NDArray[np.float32]) -> Tensor:
    """Return what films are compared by: the image squashed to shape (128, 128), values 0..1."""
    return prepare(pixels, THUMBNAIL)[0]


def draw_pair(pair: FilmPair) -> Image.Image:
    """Draw both images side by side, and in the first the frame of the second, for a person to judge."""
    picture = Image.new("RGB", (2 * PICTURE, PICTURE))
    for place, image in enumerate((pair.first, pair.second)):
        grey = Image.fromarray((read_radiograph(image.path) * 255).round().astype(np.uint8))
        picture.paste(grey.resize((PICTURE, PICTURE)), (place * PICTURE, 0))
    left, top, right, bottom = (min(max(share, 0.0), 1.0) * (PICTURE - 1) for share in pair.crop)
    ImageDraw.Draw(picture).rectangle((left, top, right, bottom), outline=(255, 160, 0), width=2)
    return picture
