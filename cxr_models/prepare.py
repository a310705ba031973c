"""From a decoded image to a network's input: the only code that resizes or normalises, for training and for serving."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cxr_models.errors import UnreadableImage
from cxr_models.values import Preparation

# Bilinear weights after a box reduction to at least twice the target: half the time of bilinear alone on a whole film.
REDUCING_GAP = 2.0
ROUNDING = 1e-3


def prepare(image: NDArray[np.float32], preparation: Preparation) -> torch.Tensor:
    """Squash an image to the network's square and normalise it.

    The proportions are not kept: the published comparison squashes. Every pixel weighs in (antialiased), so fine noise does
    not alias into the small square. Deterministic, and safe to call from many threads.

    Parameters
    ----------
    image
        Shape (rows, columns), 0..1, bright where the film is bright.
    preparation
        `card.preparation` of the model that is served or trained.

    Returns
    -------
    torch.Tensor
        float32, contiguous, shape (1, side, side), values (x - mean) / std.

    Raises
    ------
    UnreadableImage
        The array has no pixels or not two axes, or holds values that are not numbers of 0..1.
    """
    if image.ndim != 2 or image.size == 0:
        raise UnreadableImage(f"An image has two axes and at least one pixel; this one has the shape {image.shape}.")
    whole = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    small = whole.resize((preparation.side, preparation.side), Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
    pixels = np.asarray(small, dtype=np.float32)
    # Every source pixel weighs in, so one that is no number shows in the result; NaN fails both comparisons.
    if not (pixels.min() >= -ROUNDING and pixels.max() <= 1 + ROUNDING):
        raise UnreadableImage("The image holds values that are not numbers of 0..1.")
    return torch.from_numpy((pixels - np.float32(preparation.mean)) / np.float32(preparation.std)).unsqueeze(0)
