"""A radiograph under the map of what spoke for its label, as a PNG picture."""

from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

DOTS_PER_INCH = 100
LONGEST_SIDE = 900
COLOURS = "inferno"
"""Even to the eye and rising in brightness, so that it also reads in grey and to the colour-blind."""
MOST_COVER = 0.6
NOTICE = "Research use only, not a medical device. The map tells what moved this model, not where a disease is."


def draw_overlay(image: NDArray[np.float32], saliency: NDArray[np.float32], *, title: str) -> bytes:
    """Draw the film alone and under its map, both in the film's proportions, with a colour bar and a caption.

    Parameters
    ----------
    image
        Shape (rows, columns), 0..1.
    saliency
        Shape (side, side), 0..1, as `explain` returns it; what it does not mark stays uncovered.

    Returns
    -------
    bytes
        A PNG file.
    """
    rows, columns = image.shape
    shrink = min(1.0, LONGEST_SIDE / max(rows, columns))
    size = max(1, round(columns * shrink)), max(1, round(rows * shrink))
    film = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    spread = np.clip(np.asarray(Image.fromarray(saliency).resize(size, Image.Resampling.BICUBIC)), 0, 1)
    figure = Figure(figsize=(11, 1.3 + 4.6 * min(1.6, rows / columns)), dpi=DOTS_PER_INCH, layout="constrained")
    plain, covered = figure.subplots(1, 2)
    for axes in (plain, covered):
        axes.imshow(film, cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
    coloured = covered.imshow(spread, cmap=COLOURS, vmin=0, vmax=1, alpha=MOST_COVER * spread**0.5)
    figure.suptitle(title)
    figure.colorbar(coloured, ax=covered, label="evidence for this label, share of the highest")
    figure.supxlabel(NOTICE, fontsize="small")
    file = BytesIO()
    # The version of matplotlib stands in the file otherwise.
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
