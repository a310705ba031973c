import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cxr_models.errors import UnreadableImage
from cxr_models.prepare import prepare
from cxr_models.values import Preparation

shapes = st.tuples(st.integers(1, 150), st.integers(1, 150))
sides = st.sampled_from([1, 7, 32, 224])
images = shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))


@given(image=images, side=sides)
@settings(max_examples=60, deadline=None)
def test_every_image_of_0_to_1_becomes_a_square_within_minus_1_to_1_and_always_the_same(image: np.ndarray, side: int) -> None:
    prepared = prepare(image, Preparation(side=side))
    assert prepared.shape == (1, side, side)
    assert prepared.abs().max() <= 1 + 1e-5
    assert torch.equal(prepared, prepare(image.copy(), Preparation(side=side)))


@given(shape=shapes, value=st.floats(0, 1, width=32), side=sides)
@settings(max_examples=60, deadline=None)
def test_an_even_grey_keeps_its_value_at_every_size(shape: tuple[int, int], value: float, side: int) -> None:
    prepared = prepare(np.full(shape, value, np.float32), Preparation(side=side))
    assert torch.allclose(prepared, torch.full_like(prepared, value * 2 - 1), atol=1e-5)


@given(image=images, side=sides)
@settings(max_examples=40, deadline=None)
def test_the_negative_of_an_image_is_prepared_to_the_negative_tensor(image: np.ndarray, side: int) -> None:
    positive = prepare(image, Preparation(side=side))
    assert torch.allclose(prepare(1 - image, Preparation(side=side)), -positive, atol=1e-5)


@given(image=images, side=sides, place=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)))
@settings(max_examples=60, deadline=None)
def test_a_pixel_that_is_no_number_is_noticed_wherever_it_is(image: np.ndarray, side: int, place: tuple[int, int]) -> None:
    spoilt = image.copy()
    spoilt[place[0] % image.shape[0], place[1] % image.shape[1]] = np.nan
    with pytest.raises(UnreadableImage):
        prepare(spoilt, Preparation(side=side))
