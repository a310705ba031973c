"""What a model answered, beside the truth, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cxr_models.bootstrap import Flags, Floats
from cxr_models.errors import InvalidData
from cxr_models.values import NORMAL, Prediction


class Known(Protocol):
    """An image whose label is known: a `LabelledImage` or a `PredictedImage`."""

    @property
    def label(self) -> str:
        """The truth."""

    @property
    def source(self) -> str:
        """The collection."""

    @property
    def group(self) -> str:
        """What patient and film it shares with others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a model answered beside the truth; row i of every array is image i.

    Attributes
    ----------
    truth, named
        Shape (images,): the index of the true and of the most probable label.
    probabilities, present
        Shape (images, labels).
    undetermined
        Shape (images,).
    """

    labels: tuple[str, ...]
    truth: NDArray[np.intp]
    named: NDArray[np.intp]
    probabilities: Floats
    present: Flags
    undetermined: Flags

    @classmethod
    def gather(cls, predictions: Sequence[Prediction], images: Sequence[Known], *, labels: tuple[str, ...]) -> Self:
        """Join predictions with the labels of their images.

        Raises
        ------
        InvalidData
            There are no images, or one has a label that the model does not know.
        """
        if not images:
            raise InvalidData("There are no images to measure on.")
        if unknown := {image.label for image in images} - set(labels):
            raise InvalidData(
                f"The model knows {', '.join(labels)} and not {', '.join(sorted(unknown))}; leave those images out."
            )
        return cls(
            labels=labels,
            truth=np.array([labels.index(image.label) for image in images]),
            named=np.array([labels.index(each.label) for each in predictions]),
            probabilities=np.array([[each.probabilities[label] for label in labels] for each in predictions]),
            present=np.array([[each.present[label] for label in labels] for each in predictions]),
            undetermined=np.array([each.undetermined for each in predictions]),
        )

    def among(self, images: Flags) -> Self:
        """Return those of some of the images."""
        return replace(
            self,
            truth=self.truth[images],
            named=self.named[images],
            probabilities=self.probabilities[images],
            present=self.present[images],
            undetermined=self.undetermined[images],
        )

    @property
    def right(self) -> Flags:
        """Whether the most probable label is the true one, shape (images,)."""
        right: Flags = self.named == self.truth
        return right

    @property
    def confidence(self) -> Floats:
        """The highest probability, shape (images,)."""
        highest: Floats = self.probabilities.max(axis=1)
        return highest

    @property
    def normal(self) -> int:
        """The index of the label Normal."""
        return self.labels.index(NORMAL)
