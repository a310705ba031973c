from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cxr_models.errors import InvalidModel, UnreadableImage
from cxr_models.prepare import prepare
from cxr_models.values import Preparation

LENET5 = Preparation(side=32)


def film(rows: int = 300, columns: int = 250) -> np.ndarray:
    return np.random.default_rng(0).random((rows, columns), dtype=np.float32)


@pytest.mark.parametrize("side", [32, 224])
def test_an_image_becomes_a_contiguous_float32_square_with_one_channel(side: int) -> None:
    prepared = prepare(film(), Preparation(side=side))
    assert prepared.shape == (1, side, side)
    assert prepared.dtype == torch.float32
    assert prepared.is_contiguous()


def test_black_becomes_minus_one_and_white_one() -> None:
    assert torch.equal(prepare(np.zeros((50, 40), np.float32), LENET5), torch.full((1, 32, 32), -1.0))
    assert torch.equal(prepare(np.ones((50, 40), np.float32), LENET5), torch.full((1, 32, 32), 1.0))


def test_mean_and_std_of_the_preparation_are_used() -> None:
    grey = np.full((50, 40), 0.75, np.float32)
    assert prepare(grey, Preparation(side=8, mean=0.25, std=0.125)).mean().item() == pytest.approx(4.0)


def test_a_wide_image_is_squashed_and_not_cropped() -> None:
    image = np.zeros((64, 256), np.float32)
    image[:, :8] = image[:, -8:] = 1
    prepared = prepare(image, LENET5)
    assert prepared[0, :, 0].min() > 0.5
    assert prepared[0, :, -1].min() > 0.5
    assert prepared[0, :, 4:-4].max() == -1


def test_a_fine_pattern_becomes_grey_and_does_not_alias() -> None:
    checkers = (np.indices((2048, 2048)).sum(axis=0) % 2).astype(np.float32)
    assert prepare(checkers, LENET5).abs().max() < 0.01


def test_rows_stay_rows() -> None:
    image = np.zeros((100, 100), np.float32)
    image[:50] = 1
    prepared = prepare(image, LENET5)[0]
    assert prepared[:14].min() > 0.99
    assert prepared[18:].max() < -0.99


def test_any_memory_layout_gives_the_same_tensor_and_the_image_stays_as_it_was() -> None:
    image = film()
    before = image.copy()
    expected = prepare(image, LENET5)
    assert torch.equal(prepare(np.asfortranarray(image), LENET5), expected)
    assert torch.equal(prepare(image[::-1][::-1], LENET5), expected)
    assert np.array_equal(image, before)


def test_many_threads_get_the_same_tensor() -> None:
    image = film(1200, 1000)
    expected = prepare(image, LENET5)
    with ThreadPoolExecutor(8) as threads:
        assert all(torch.equal(each, expected) for each in threads.map(lambda _: prepare(image, LENET5), range(24)))


@pytest.mark.parametrize(
    "image",
    [np.zeros((0, 5), np.float32), np.zeros(5, np.float32), np.zeros((5, 5, 3), np.float32)],
    ids=["no pixels", "one axis", "three axes"],
)
def test_what_has_not_two_axes_with_pixels_is_refused(image: np.ndarray) -> None:
    with pytest.raises(UnreadableImage, match="shape"):
        prepare(image, LENET5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_pixel_that_is_no_number_is_refused(value: float) -> None:
    image = film(1000, 1000)
    image[997, 3] = value
    with pytest.raises(UnreadableImage, match=r"0\.\.1"):
        prepare(image, LENET5)


def test_stored_values_that_were_not_brought_to_0_1_are_refused() -> None:
    with pytest.raises(UnreadableImage, match=r"0\.\.1"):
        prepare(film() * 4095, LENET5)


@pytest.mark.parametrize("wrong", [{"side": 0}, {"side": 32, "std": 0.0}, {"side": 32, "mean": float("nan")}])
def test_a_preparation_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidModel):
        Preparation(**wrong)
