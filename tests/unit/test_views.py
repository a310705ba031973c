"""Averaging over views of an image."""

import torch
from torch import Tensor, nn

from cxr_models.views import averaged_logits


class Corner(nn.Module):
    """Answers with the upper left pixel of each image."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, 0, 0]


def _image() -> Tensor:
    return torch.arange(9.0).view(1, 1, 3, 3)


def test_one_view_is_the_image_as_it_is() -> None:
    assert averaged_logits(Corner(), _image(), "one").item() == 0


def test_the_mirror_image_weighs_as_much_as_the_image() -> None:
    assert averaged_logits(Corner(), _image(), "mirrored").item() == (0 + 2) / 2


def test_shifts_repeat_the_edge_and_reach_one_pixel_each_way() -> None:
    upright, mirrored = (0 + 0 + 1 + 0 + 0 + 1 + 3 + 3 + 4) / 9, (2 + 2 + 1 + 2 + 2 + 1 + 5 + 5 + 4) / 9
    assert averaged_logits(Corner(), _image(), "shifted").item() == torch.tensor((upright + mirrored) / 2)


def test_shifts_by_2_reach_two_pixels_each_way_and_none_of_one() -> None:
    image = torch.arange(25.0).view(1, 1, 5, 5)
    # Rows 0, 0 and 2 of columns 0, 0 and 2; mirrored, of columns 4, 4 and 2.
    upright, mirrored = (0 + 0 + 2 + 0 + 0 + 2 + 10 + 10 + 12) / 9, (4 + 4 + 2 + 4 + 4 + 2 + 14 + 14 + 12) / 9
    assert averaged_logits(Corner(), image, "shifted_by_2").item() == torch.tensor((upright + mirrored) / 2)


def test_what_else_is_in_the_batch_does_not_change_an_answer() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    images = torch.rand(5, 1, 8, 8)
    together = averaged_logits(network, images, "shifted")
    alone = torch.cat([averaged_logits(network, image[None], "shifted") for image in images])
    assert torch.allclose(together, alone, atol=1e-5)
