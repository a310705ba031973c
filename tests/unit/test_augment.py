import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cxr_models.augment import augment, mix
from cxr_models.prepare import prepare
from cxr_models.recipe import Augmentation
from cxr_models.values import Preparation

PREPARATION = Preparation(side=32)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    torch.manual_seed(0)


def noise(count: int = 4, *, side: int = 32) -> Tensor:
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8)


def smooth(count: int = 1, *, side: int = 96) -> Tensor:
    return functional.interpolate(noise(count, side=6).float(), side, mode="bicubic").clamp(0, 255).to(torch.uint8)


def normalised(pixels: Tensor) -> Tensor:
    return (pixels / 255 - 0.5) / 0.5


def test_no_augmentation_only_normalises() -> None:
    pixels = noise()
    assert torch.allclose(augment(pixels, Augmentation(), preparation=PREPARATION), normalised(pixels), atol=1e-6)


def test_a_move_that_does_not_move_is_the_image() -> None:
    pixels = noise()
    still = augment(pixels, Augmentation(translate=1e-6), preparation=PREPARATION)
    assert torch.allclose(still, normalised(pixels), atol=1e-3)


@pytest.mark.parametrize("stored", [96, 64, 50])
def test_a_larger_stored_image_is_reduced_to_what_serving_prepares(stored: int) -> None:
    pixels = noise(1, side=stored)
    reduced = augment(pixels, Augmentation(), preparation=PREPARATION)
    served = prepare((pixels[0, 0].numpy() / 255).astype(np.float32), PREPARATION)
    assert torch.allclose(reduced[0], served, atol=2e-2)


def test_each_image_is_changed_by_its_own_draw_within_the_range() -> None:
    film = (torch.linspace(0, 1, 32) * 255).to(torch.uint8).expand(6, 1, 32, 32)
    how = Augmentation(rotate_degrees=8, translate=0.1, scale=0.1, gamma=0.3, contrast=0.3, brightness=0.1)
    changed = augment(film, how, preparation=PREPARATION)
    assert changed.shape == (6, 1, 32, 32)
    assert changed.abs().max() <= 1
    assert all(not torch.allclose(changed[i], changed[j], atol=1e-2) for i in range(6) for j in range(i))


def test_brightness_alone_moves_every_pixel_alike() -> None:
    grey = torch.full((8, 1, 32, 32), 128, dtype=torch.uint8)
    shifts = augment(grey, Augmentation(brightness=0.2), preparation=PREPARATION).flatten(1)
    assert torch.allclose(shifts.min(dim=1).values, shifts.max(dim=1).values, atol=1e-5)
    assert 0.1 < shifts.abs().max() <= 0.4 + 1e-2


def test_mirroring_turns_about_as_many_images_as_asked_and_those_exactly() -> None:
    pixels = smooth(side=32).expand(400, 1, 32, 32)
    plain = normalised(pixels)
    changed = augment(pixels, Augmentation(mirror=0.25), preparation=PREPARATION)
    same = ((changed - plain).abs().amax(dim=(1, 2, 3)) < 1e-3).sum()
    turned = ((changed - plain.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-3).sum()
    assert same + turned == 400
    assert 70 <= turned <= 130


def test_what_is_moved_in_repeats_the_edge() -> None:
    white = torch.full((50, 1, 32, 32), 255, dtype=torch.uint8)
    how = Augmentation(rotate_degrees=30, translate=0.5, scale=0.3)
    assert torch.allclose(augment(white, how, preparation=PREPARATION), torch.ones(1), atol=1e-5)


def test_noise_is_of_another_strength_in_each_image_up_to_the_largest() -> None:
    grey = torch.full((64, 1, 32, 32), 128, dtype=torch.uint8)
    strengths = augment(grey, Augmentation(noise=0.1), preparation=PREPARATION).flatten(1).std(dim=1) * PREPARATION.std
    assert 0.08 < strengths.max() < 0.105
    assert strengths.min() < 0.02


def test_an_erased_rectangle_is_of_one_grey_and_the_rest_stays() -> None:
    pixels = noise(60, side=32)
    changed = augment(pixels, Augmentation(erase=1), preparation=PREPARATION)
    shares = []
    for image, plain in zip(changed[:, 0], normalised(pixels)[:, 0], strict=True):
        touched = (image - plain).abs() > 1e-5
        shares.append(float(touched.float().mean()))
        if touched.any():
            rows, columns = touched.any(dim=1).nonzero(), touched.any(dim=0).nonzero()
            box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert torch.allclose(box, box[0, 0].expand_as(box), atol=1e-5)
    assert 0.04 < max(shares) <= 0.45**2
    assert torch.equal(augment(pixels, Augmentation(erase=0), preparation=PREPARATION), normalised(pixels))


def test_mixing_adds_each_image_and_its_partner_by_their_shares() -> None:
    images = torch.rand(16, 1, 8, 8)
    mixed, partner, share = mix(images, 0.4)
    assert sorted(partner.tolist()) == list(range(16))
    assert 0 <= share <= 1
    assert torch.allclose(mixed, share * images + (1 - share) * images[partner])


def test_a_small_concentration_hardly_mixes_and_a_large_one_mixes_evenly() -> None:
    images = torch.rand(2, 1, 8, 8)
    few, many = ([mix(images, each)[2] for _ in range(300)] for each in (0.05, 10.0))
    assert np.mean([min(share, 1 - share) for share in few]) < 0.1
    assert np.mean([min(share, 1 - share) for share in many]) > 0.3
