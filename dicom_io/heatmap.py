"""The heat map: the page, with what spoke for a condition laid over the radiograph."""

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.capture import page_capture
from dicom_io.film import Shown
from dicom_io.kinds import Kind
from dicom_io.values import Saliency, StudyFindings


def build_heatmap(findings: StudyFindings, *, image: int, pixels: NDArray[np.float32], saliency: Saliency) -> Dataset:
    """Draw findings beside one of their images under its map, as an RGB Secondary Capture in the study of the images.

    Parameters
    ----------
    image, pixels
        As for `dicom_io.capture.build_capture`.
    saliency
        Of that image as displayed.

    Returns
    -------
    Dataset
        With file meta information, Explicit VR Little Endian, uncompressed; equal arguments give equal bytes.

    Raises
    ------
    InvalidReport
        An image cannot be read or is not of the same patient and study, or the pixels or the map are not between 0 and 1.
    """
    return page_capture(
        Kind.HEATMAP,
        findings,
        Shown(number=image, pixels=pixels, saliency=saliency),
        derivation="Image under the map of what moved {}, with its results drawn beside it",
    )
