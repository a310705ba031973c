"""A radiograph as patches of one grey each, as some public sets store their films."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import slic

SIDE = 256
"""At which patches are found: at twice the side it takes five times as long, and patches are larger than a pixel of it."""
PATCHES = (150, 500)
COMPACTNESS = 10.0


def flatten(image: NDArray[np.float32], draw: np.random.Generator) -> NDArray[np.float32]:
    """Replace each patch of similar neighbouring pixels by its mean (SLIC superpixels, Achanta et al. 2012).

    The number of patches is drawn. All 317 images of the published comparison are stored so, and most of their classes'
    other images are not: a network that meets flat patches in one class alone takes them for the disease.

    Parameters
    ----------
    image
        Shape (rows, columns), 0..1.
    draw
        Where the number of patches is drawn from.

    Returns
    -------
    numpy.ndarray
        float32, shape (256, 256), 0..1.
    """
    square = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    grey = np.asarray(square).clip(0, 1)
    # As colours, so that distances are of CIELAB (0..100), which the usual compactness goes with.
    patches = slic(
        np.repeat(grey[..., np.newaxis], 3, axis=2),
        n_segments=int(draw.integers(*PATCHES)),
        compactness=COMPACTNESS,
        start_label=0,
    ).ravel()
    means = (np.bincount(patches, weights=grey.ravel()) / np.bincount(patches)).astype(np.float32)
    flat: NDArray[np.float32] = means[patches].reshape(grey.shape)
    return flat
