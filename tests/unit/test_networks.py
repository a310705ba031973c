import pytest
import torch
from torch import nn

from cxr_models.errors import InvalidModel
from cxr_models.networks import INPUT_SIDES, build_network, build_skeleton


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_networks_have_exactly_the_published_numbers_of_parameters() -> None:
    assert count(build_network("lenet5", classes=3)) == 61_111
    assert count(build_skeleton("vgg16", classes=3)) == 134_271_683


def test_lenet5_turns_32_pixels_squared_into_three_logits_by_tanh_and_average_pooling() -> None:
    network = build_network("lenet5", classes=3)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    kinds = [type(layer) for layer in network.modules()]
    assert kinds.count(nn.Tanh) == 4
    assert kinds.count(nn.AvgPool2d) == 2
    assert [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)] == [6, 16, 120]


def test_vgg16_takes_one_grey_channel_and_keeps_the_layout_and_dropout_of_torchvision() -> None:
    network = build_skeleton("vgg16", classes=3)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert shapes["features.0.weight"] == (64, 1, 3, 3)
    assert shapes["features.28.weight"] == (512, 512, 3, 3)
    assert shapes["classifier.6.weight"] == (3, 4096)
    assert sum(isinstance(layer, nn.Dropout) for layer in network.modules()) == 2
    assert network(torch.empty(2, 1, 224, 224, device="meta")).shape == (2, 3)


@pytest.mark.parametrize("architecture", sorted(INPUT_SIDES))
def test_a_skeleton_takes_no_memory(architecture: str) -> None:
    assert all(parameter.is_meta for parameter in build_skeleton(architecture, classes=3).parameters())


def test_an_architecture_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(InvalidModel, match=r"resnet.*lenet5, vgg16"):
        build_network("resnet", classes=3)
