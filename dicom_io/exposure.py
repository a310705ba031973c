"""What is wrong with a picture whatever it shows: too little of it, nothing on it, no grey between black and white."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicom_io.eligibility import MIN_SIDE
from dicom_io.reasons import ReasonCode

LEAST_SPAN: Final = 0.04
"""Of 0..1, between the darkest and the brightest hundredth of the pixels."""
MOST_EXTREME: Final = 0.8
"""Share of pixels that are black or white. Of 1,581 chest films none has more than 0.6."""
_STEP: Final = 8
_EDGE: Final = 1 / 512


def fault_of(pixels: NDArray[np.float32]) -> tuple[ReasonCode, str] | None:
    """Tell why a picture is not worth looking at, with a sentence for an operator; None where it is.

    Parameters
    ----------
    pixels
        Shape (rows, columns), 0..1, as displayed; what shutter and collimator hide is 0.
    """
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return ReasonCode.EMPTY, "Every visible pixel is black; a picture is expected."
    seen = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if min(seen.shape) < MIN_SIDE:
        height, width = seen.shape
        return ReasonCode.TOO_SMALL, f"Only {height} rows and {width} columns are not black; {MIN_SIDE} of each are expected."
    sample = np.sort(seen[::_STEP, ::_STEP], axis=None)
    dark, bright = sample[len(sample) // 100], sample[-1 - len(sample) // 100]
    if bright - dark < LEAST_SPAN:
        return ReasonCode.EMPTY, "The visible pixels hardly differ; a picture is expected."
    extreme = float(np.mean((sample < _EDGE) | (sample > 1 - _EDGE)))
    if extreme > MOST_EXTREME:
        return ReasonCode.SATURATED, f"{extreme:.0%} of the visible pixels are black or white; greys are expected."
    return None
