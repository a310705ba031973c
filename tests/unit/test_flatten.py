from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cxr_models.augment import augment
from cxr_models.catalogue import LabelledImage
from cxr_models.data import load_pixels
from cxr_models.flatten import PATCHES, SIDE, flatten
from cxr_models.recipe import Augmentation, Recipe
from cxr_models.values import Preparation


def clouds(*, side: int = 300, seed: int = 0) -> NDArray[np.float32]:
    """Return a smooth image with some grain: like a film, it has no two equal neighbours."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.random((8, 8), np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    return (np.asarray(coarse) * 0.8 + 0.1 + draw.normal(0, 0.01, (side, side))).clip(0, 1).astype(np.float32)


def patches(image: NDArray[np.float32]) -> int:
    return len(np.unique(image))


def test_a_flattened_film_is_a_few_hundred_patches_that_keep_its_greys() -> None:
    film = clouds()
    flat = flatten(film, np.random.default_rng(0))
    assert flat.shape == (SIDE, SIDE)
    assert flat.dtype == np.float32
    assert PATCHES[0] / 2 < patches(flat) < PATCHES[1] * 1.5
    assert (flat[:, 1:] == flat[:, :-1]).mean() > 0.8
    small = np.asarray(Image.fromarray(film).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert flat.mean() == pytest.approx(small.mean(), abs=1e-3)
    assert np.abs(flat - small).mean() < 0.05


def test_the_number_of_patches_is_drawn() -> None:
    film = clouds()
    counts = [patches(flatten(film, np.random.default_rng(seed))) for seed in range(4)]
    assert max(counts) > 1.3 * min(counts)


def test_white_black_and_tiny_images_can_be_flattened() -> None:
    for image in (np.ones((90, 40)), np.zeros((256, 256)), np.full((1, 1), 0.5)):
        flat = flatten(image.astype(np.float32), np.random.default_rng(0))
        assert np.allclose(flat, image.flat[0], atol=1e-6)


def test_about_as_many_images_as_asked_are_taken_flat_and_the_others_plain() -> None:
    torch.manual_seed(0)
    both = torch.tensor([200, 40], dtype=torch.uint8).view(1, 2, 1, 1).expand(400, 2, 32, 32)
    greys = taken(both, Augmentation(flatten=0.3))
    assert set(greys.tolist()) == {200, 40}
    assert 90 <= (greys == 40).sum() <= 150
    assert (taken(both, Augmentation()) == 200).all()


def taken(pixels: Tensor, how: Augmentation) -> Tensor:
    moved = augment(pixels, how, preparation=Preparation(side=32, mean=0, std=1))
    return (moved[:, 0, 0, 0] * 255).round()


def test_a_recipe_that_flattens_keeps_the_flat_film_behind_the_plain_one(tmp_path: Path) -> None:
    image = stored(clouds(), at=tmp_path / "film.png")
    recipe = Recipe(architecture="lenet5", stored_side=64)
    flat_recipe = Recipe(architecture="lenet5", stored_side=64, augmentation=Augmentation(flatten=0.5))
    plain, _ = load_pixels([image], recipe.preparation, recipe=recipe).tensors
    both, truth = load_pixels([image], recipe.preparation, recipe=flat_recipe).tensors
    again, _ = load_pixels([image, image], recipe.preparation, recipe=flat_recipe).tensors
    assert plain.shape == (1, 1, 64, 64)
    assert both.shape == (1, 2, 64, 64)
    assert truth.tolist() == [2]
    assert torch.equal(both[:, :1], plain)
    assert torch.equal(both[0], again[0])
    assert torch.equal(again[0], again[1])
    assert len(both[0, 1].unique()) < len(both[0, 0].unique())
    assert (both[:, 1].float() - both[:, 0].float()).abs().mean() < 20


def stored(image: NDArray[np.float32], *, at: Path) -> LabelledImage:
    Image.fromarray((image * 255).astype(np.uint8)).save(at)
    return LabelledImage(path=at, label="Pneumonia", patient="p", source="s", sha256="00", group="g")
