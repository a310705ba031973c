"""A teacher: what a logistic regression on VGG16's frozen convolutions says of each training image.

Its answers are soft labels beside the true ones (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"). An
image's is by a regression that was fitted to no image of its group: what it knows by heart says nothing of what a film shows.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cxr_models.calibrate import fit_temperature, softmax
from cxr_models.catalogue import LabelledImage, folds
from cxr_models.images import read_radiograph
from cxr_models.initial import InitialWeights, read_initial, take_over
from cxr_models.networks import build_network
from cxr_models.prepare import prepare
from cxr_models.progress import shown
from cxr_models.quicken import quicken
from cxr_models.recipe import Recipe
from cxr_models.values import LABELS, Preparation

SIDE = 128
FOLDS = 5
DECAY = 1000.0
"""Half the sum of the squared weights, times this, is added to the summed loss; measured at this side."""

IMAGES_AT_ONCE = 16
CUTS = (23, 30)
"""After the last rectifiers of VGG16's fourth and fifth block, of torchvision's layers; a pooling follows each."""


class Teacher:
    """Labels images by what frozen convolutions see in them; keeps what they saw, so that no image is looked at twice.

    Attributes
    ----------
    described
        Name and SHA-256 of the convolutions' weights, for a card.
    """

    def __init__(self, weights: InitialWeights) -> None:
        self._preparation = Preparation(side=SIDE)
        network = build_network("vgg16_pooled", classes=len(LABELS))
        take_over(weights, network=network, preparation=self._preparation)
        layers = list(network.eval().requires_grad_(requires_grad=False).get_submodule("features").children())
        parts = (layers[: CUTS[0]], layers[CUTS[0] : CUTS[1]], layers[CUTS[1] :])
        self._blocks = [quicken(nn.Sequential(*part), winograd=True) for part in parts]
        self._seen: dict[str, Tensor] = {}
        self.described = {"name": weights.name, "sha256": weights.sha256}

    def label(self, images: Sequence[LabelledImage]) -> Tensor:
        """Return for each image the probabilities of `LABELS`, shape (images, labels), learnt from the others' groups.

        Raises
        ------
        InvalidData
            There are fewer groups than `FOLDS`.
        UnreadableImage
            A file is cut off or no image.
        """
        return soft_labels(self._look(images), images)

    @torch.inference_mode()
    def _look(self, images: Sequence[LabelledImage]) -> Tensor:
        unseen = list({image.sha256: image for image in images if image.sha256 not in self._seen}.values())
        batches = [unseen[first : first + IMAGES_AT_ONCE] for first in range(0, len(unseen), IMAGES_AT_ONCE)]
        for batch in shown(batches, total=len(batches), words="Looking with the teacher"):
            prepared = torch.stack([prepare(read_radiograph(image.path), self._preparation) for image in batch])
            found = (self._features(prepared) + self._features(prepared.flip(3))) / 2
            self._seen |= dict(zip((image.sha256 for image in batch), found, strict=True))
        return torch.stack([self._seen[image.sha256] for image in images])

    def _features(self, images: Tensor) -> Tensor:
        """Return mean and deviation of each channel of the fourth and fifth block, and the means of the last in four fields."""
        fourth = self._blocks[0](images)
        fifth = self._blocks[1](fourth)
        four = nn.functional.adaptive_avg_pool2d(self._blocks[2](fifth), 2)
        spread = [figure for maps in (fourth, fifth) for figure in (maps.mean((2, 3)), maps.std((2, 3)))]
        return torch.cat([*spread, four.flatten(1)], dim=1)


def read_teacher(recipe: Recipe) -> Teacher | None:
    """Return the teacher that a recipe names, or None where it names none.

    Raises
    ------
    InvalidModel
        Its weights are not here and cannot be fetched, or are no VGG16's.
    """
    if recipe.teacher is None:
        return None
    source = Recipe(architecture="vgg16_pooled", initial=recipe.teacher, initial_normalisation="caffe")
    return Teacher(read_initial(source, option="--teacher"))


def soft_labels(features: Tensor, images: Sequence[LabelledImage]) -> Tensor:
    """Return for each image the probabilities of `LABELS` by a regression on the images of other groups.

    Parameters
    ----------
    features
        Shape (images, features).

    Returns
    -------
    Tensor
        Shape (images, labels); one temperature, fitted to all of them, makes them as sure as they are right.
    """
    parts = folds(images, count=FOLDS)
    fold_of = {image.path: number for number, part in enumerate(parts) for image in part}
    numbers = torch.tensor([fold_of[image.path] for image in images])
    truth = torch.tensor([LABELS.index(image.label) for image in images])
    logits = torch.empty(len(images), len(LABELS), dtype=torch.float64)
    for number in range(FOLDS):
        held = numbers == number
        logits[held] = regress(features[~held], truth[~held], asked=features[held])
    found = logits.numpy()
    return torch.from_numpy(softmax(found, fit_temperature(found, truth.numpy())).astype(np.float32))


def regress(features: Tensor, truth: Tensor, *, asked: Tensor) -> Tensor:
    """Fit a multinomial logistic regression to standardised features; return its logits for others, shape (asked, labels)."""
    deviation, mean = torch.std_mean(features.double(), dim=0, correction=0)
    deviation = deviation + 1e-6
    known = (features.double() - mean) / deviation
    weights = torch.zeros(known.shape[1], len(LABELS), dtype=torch.float64, requires_grad=True)
    biases = torch.zeros(len(LABELS), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, biases], max_iter=200, tolerance_grad=1e-4, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = nn.functional.cross_entropy(known @ weights + biases, truth, reduction="sum") + DECAY / 2 * (weights**2).sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return ((asked.double() - mean) / deviation @ weights + biases).detach()
