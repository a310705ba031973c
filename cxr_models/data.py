"""The images of a training, decoded once and kept in memory."""

import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import lightning
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from cxr_models.catalogue import LabelledImage, Split
from cxr_models.errors import InvalidData
from cxr_models.flatten import flatten
from cxr_models.images import read_radiograph
from cxr_models.prepare import prepare
from cxr_models.recipe import Recipe
from cxr_models.values import LABELS, Preparation

MEASURED_PIXELS = 2**18
"""Of a batch that is only measured, unless the recipe's are larger: a small network is done sooner with many at once."""


def load_images(images: Sequence[LabelledImage], preparation: Preparation) -> TensorDataset:
    """Decode and prepare images on all cores; item i is (tensor of shape (1, side, side), index into LABELS)."""
    tensors = _on_all_cores(lambda image: prepare(read_radiograph(image.path), preparation), images)
    empty = torch.empty(0, 1, preparation.side, preparation.side)
    return TensorDataset(torch.stack(tensors) if tensors else empty, _truth(images))


def load_pixels(images: Sequence[LabelledImage], preparation: Preparation, *, recipe: Recipe) -> TensorDataset:
    """Decode images for `augment`; item i is (uint8 tensor of shape (1 or 2, stored side, stored side), index into LABELS).

    Behind each image stands its flattened one where the recipe flattens: it takes too long to be made in every epoch. An image
    is flattened in the same way whatever images are beside it.
    """
    stored = replace(preparation, side=recipe.stored_side or preparation.side)

    def load(image: LabelledImage) -> Tensor:
        plain = read_radiograph(image.path)
        films = [plain]
        if recipe.augmentation.flatten:
            films.append(flatten(plain, np.random.default_rng(zlib.crc32(image.sha256.encode()))))
        grey = torch.cat([prepare(film, stored) for film in films]).mul_(stored.std).add_(stored.mean)
        return grey.mul_(255).round_().clamp_(0, 255).to(torch.uint8)

    return TensorDataset(torch.stack(_on_all_cores(load, images)), _truth(images))


def _on_all_cores(load: Callable[[LabelledImage], Tensor], images: Sequence[LabelledImage]) -> list[Tensor]:
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        console = Console(stderr=True)
        return list(track(threads.map(load, images), "Decoding", len(images), console=console, transient=True))


def _truth(images: Sequence[LabelledImage]) -> Tensor:
    return torch.tensor([LABELS.index(each.label) for each in images])


def draw_weights(images: Sequence[LabelledImage], balance: str) -> Tensor:
    """Return how often each image is drawn, relative to the others.

    Evenly over classes for "class"; over the sources of each class as well for "source".
    """
    if balance == "none":
        return torch.ones(len(images), dtype=torch.float64)
    groups = [(image.label, image.source if balance == "source" else "") for image in images]
    sizes = Counter(groups)
    per_label = Counter(label for label, _ in sizes)
    return torch.tensor([1 / (sizes[group] * per_label[group[0]]) for group in groups], dtype=torch.float64)


class BatchDraw(Sampler[list[int]]):
    """The batches of an epoch: every image once in random order, or as many draws by weight; another order in each epoch."""

    def __init__(self, weights: Tensor, *, batch_size: int, seed: int, share: int = 1) -> None:
        self._weights = weights
        self._batch_size = batch_size
        self._draws = max(1, len(weights) // share)
        self._seed = seed
        self._generator = torch.Generator()
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Go to the draws of an epoch; Lightning calls it, so that a resumed training goes on where it was."""
        self._generator.manual_seed(self._seed * 10_000 + epoch)

    def __len__(self) -> int:
        return math.ceil(self._draws / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        even = bool((self._weights == self._weights[0]).all())
        order = torch.multinomial(self._weights, self._draws, replacement=not even, generator=self._generator).tolist()
        for first in range(0, self._draws, self._batch_size):
            yield order[first : first + self._batch_size]


class Radiographs(lightning.LightningDataModule):
    """The split of a catalogue as Lightning takes it. No epoch waits for decoding: `setup` keeps all images as tensors.

    Parameters
    ----------
    taught
        Soft labels of the training images, shape (images, labels), where there is a teacher; a batch then ends with them.
    """

    def __init__(self, split: Split, *, recipe: Recipe, preparation: Preparation, taught: Tensor | None = None) -> None:
        super().__init__()
        measured = [("validation", split.val)] if split.val or recipe.val_share else []
        for part, images in [("training", split.train), *measured]:
            missing = set(LABELS) - {image.label for image in images}
            if missing:
                raise InvalidData(
                    f"No {part} images of {', '.join(sorted(missing))}; add some, or a larger val_share in the recipe."
                )
        self.split = split
        self.recipe = recipe
        self.preparation = preparation
        self._taught = () if taught is None else (taught,)
        self._loaded: dict[str, TensorDataset] = {}

    def setup(self, stage: str) -> None:
        """Decode what is not decoded yet: what is augmented as pixels, the rest as serving prepares it."""
        wanted = {"train": self.split.train, "val": self.split.val} if stage == "fit" else {"test": self.split.test}
        for part, images in wanted.items():
            if part in self._loaded:
                continue
            if part == "train" or self.recipe.as_published:
                self._loaded[part] = load_pixels(images, self.preparation, recipe=self.recipe)
            else:
                self._loaded[part] = load_images(images, self.preparation)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the batches of an epoch, each process of a distributed training its own draw."""
        world = self.trainer.world_size if self.trainer else 1
        rank = self.trainer.global_rank if self.trainer else 0
        weights = draw_weights(self.split.train, self.recipe.balance)
        batches = BatchDraw(weights, batch_size=self.recipe.batch_size, seed=self.recipe.seed * 1000 + rank, share=world)
        # A loader draws a number as it starts, a resumed one at another moment: not from what augmentation draws from.
        images = TensorDataset(*self._loaded["train"].tensors, *self._taught)
        return DataLoader(images, sampler=batches, batch_size=None, generator=torch.Generator())

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the validation images in order."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the test images in order."""
        return self._in_order("test")

    def validation(self) -> TensorDataset:
        """Return the validation images as serving would prepare them."""
        return load_images(self.split.val, self.preparation) if self.recipe.as_published else self._loaded["val"]

    @property
    def measured_at_once(self) -> int:
        """How many images a batch has that is only measured."""
        return max(self.recipe.batch_size, MEASURED_PIXELS // self.preparation.side**2)

    def _in_order(self, part: str) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self._loaded[part], batch_size=self.measured_at_once)
