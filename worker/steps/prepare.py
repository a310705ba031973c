"""Prepare: from a selected image to the network's input."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_models.gate import FrontalGate
from dicom_io.errors import DicomError
from dicom_io.pixels import Correction
from worker.steps.examine import examine
from worker.steps.select import SelectedImage
from worker.values import ImageOutcome, StoredInstance, Unanswered


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """An image as the network wants it."""

    instance: StoredInstance
    tensor: torch.Tensor
    """Shape (1, side, side), float32, normalised."""
    notes: tuple[str, ...]
    correction: Correction
    shadow: torch.Tensor | Unanswered | None = None
    """The image as the shadow model wants it, or why it does not get it; None where there is no shadow model."""


ToTensor = Callable[[NDArray[np.float32]], torch.Tensor]
ToShadow = Callable[[NDArray[np.float32]], torch.Tensor | Unanswered]


def prepare(
    image: SelectedImage, to_tensor: ToTensor, *, gate: FrontalGate | None, shadow: ToShadow | None = None
) -> PreparedImage | ImageOutcome:
    """Decode, examine and normalise an image, for each model in its way, or say why it is not or cannot be analysed."""
    try:
        examined = examine(image, gate)
    except DicomError as error:
        return undecodable(image.instance, str(error), eligible=image.verdict.eligible)
    if isinstance(examined, ImageOutcome):
        return examined
    pixels = examined.picture.pixels
    return PreparedImage(
        instance=image.instance,
        tensor=to_tensor(pixels),
        notes=examined.notes,
        correction=examined.correction,
        shadow=None if shadow is None else shadow(pixels),
    )


def undecodable(instance: StoredInstance, reason: str, *, eligible: bool = True) -> ImageOutcome:
    """The outcome of an image that should have been analysed, or looked at, and could not be."""
    return ImageOutcome(instance=instance, eligible=eligible, reason_code="undecodable", reason=reason, answer=None)
