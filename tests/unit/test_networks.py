import pytest
import torch
from torch import nn

from cxr_models.classifier import Classifier, blocks
from cxr_models.errors import InvalidModel
from cxr_models.networks import INPUT_SIDES, build_network, build_skeleton
from cxr_models.recipe import Recipe


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def kinds(network: nn.Module) -> list[type]:
    return [type(layer) for layer in network.modules()]


def test_the_networks_have_exactly_the_published_numbers_of_parameters() -> None:
    assert count(build_network("lenet5", classes=3)) == 61_111
    assert count(build_skeleton("vgg16", classes=3)) == 134_271_683


def test_the_variants_add_what_their_batch_normalisation_has_or_leave_the_large_head_out() -> None:
    assert count(build_network("lenet5_bn", classes=3)) == 61_111 + 2 * (6 + 16 + 120)
    assert count(build_skeleton("vgg16_bn", classes=3)) == 134_271_683 + 2 * 4224
    assert count(build_skeleton("vgg16_pooled", classes=3)) == 14_713_536 + 513 * 3


def test_lenet5_turns_32_pixels_squared_into_three_logits_by_tanh_and_average_pooling() -> None:
    network = build_network("lenet5", classes=3)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    assert kinds(network).count(nn.Tanh) == 4
    assert kinds(network).count(nn.AvgPool2d) == 2
    assert [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)] == [6, 16, 120]


def test_lenet5_bn_has_the_same_convolutions_with_relu_maximum_pooling_and_normalisation() -> None:
    network = build_network("lenet5_bn", classes=3)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    assert kinds(network).count(nn.BatchNorm2d) == 3
    assert kinds(network).count(nn.MaxPool2d) == 2
    assert kinds(network).count(nn.ReLU) == 4
    assert nn.Tanh not in kinds(network)


def test_vgg16_takes_one_grey_channel_and_keeps_the_layout_and_dropout_of_torchvision() -> None:
    network = build_skeleton("vgg16", classes=3)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    assert shapes["features.0.weight"] == (64, 1, 3, 3)
    assert shapes["features.28.weight"] == (512, 512, 3, 3)
    assert shapes["classifier.6.weight"] == (3, 4096)
    assert sum(isinstance(layer, nn.Dropout) for layer in network.modules()) == 2
    assert network(torch.empty(2, 1, 224, 224, device="meta")).shape == (2, 3)


@pytest.mark.parametrize("architecture", ["vgg16", "vgg16_bn", "vgg16_pooled"])
@pytest.mark.parametrize("side", [32, 96, 150])
def test_every_vgg16_takes_any_side_from_32_pixels_on(architecture: str, side: int) -> None:
    network = build_skeleton(architecture, classes=3).eval()
    assert network(torch.empty(2, 1, side, side, device="meta")).shape == (2, 3)


def test_vgg16_bn_has_the_names_of_torchvision() -> None:
    from torchvision.models import vgg16_bn  # noqa: PLC0415  a second to import, for this test alone

    with torch.device("meta"):
        theirs = vgg16_bn(num_classes=3).state_dict()
    ours = build_skeleton("vgg16_bn", classes=3).state_dict()
    assert list(ours) == list(theirs)
    assert [name for name in ours if ours[name].shape != theirs[name].shape] == ["features.0.weight"]


@pytest.mark.parametrize("architecture", sorted(INPUT_SIDES))
def test_a_skeleton_takes_no_memory(architecture: str) -> None:
    assert all(parameter.is_meta for parameter in build_skeleton(architecture, classes=3).parameters())


def test_an_architecture_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(InvalidModel, match=r"resnet.*lenet5, lenet5_bn, vgg16, vgg16_bn, vgg16_pooled"):
        build_network("resnet", classes=3)


@pytest.mark.parametrize(("architecture", "expected"), [("lenet5", 3), ("lenet5_bn", 3), ("vgg16_bn", 5), ("vgg16_pooled", 5)])
def test_a_network_has_a_block_of_convolutions_for_each_pooling_and_what_follows(architecture: str, expected: int) -> None:
    network = build_skeleton(architecture, classes=3)
    found = blocks(network)
    assert len(found) == expected
    assert sum(map(count, found)) == count(network.get_submodule("features"))
    assert all(any(isinstance(layer, nn.Conv2d) for layer in block) for block in found)


class TestFreezing:
    def classifier(self, **changes: object) -> Classifier:
        recipe = Recipe.model_validate({"architecture": "lenet5_bn", "learning_rate": 0.01} | changes)
        return Classifier(recipe.model_dump(), [1, 1, 1])

    def learning(self, classifier: Classifier) -> list[bool]:
        """Which of the three blocks and the head learn, in an epoch that begins now."""
        classifier.train()
        classifier.on_train_epoch_start()
        parts = [*blocks(classifier.network), classifier.network.get_submodule("classifier")]
        for part in parts:
            learns = [parameter.requires_grad for parameter in part.parameters()]
            assert len(set(learns)) == 1
            assert all(layer.training == learns[0] for layer in part)
        return [next(part.parameters()).requires_grad for part in parts]

    def test_all_of_a_network_learns_unless_a_recipe_says_otherwise(self) -> None:
        assert self.learning(self.classifier()) == [True, True, True, True]

    def test_the_first_blocks_stay_as_they_are_and_their_normalisation_too(self) -> None:
        assert self.learning(self.classifier(freeze_blocks=2)) == [False, False, True, True]

    def test_the_head_alone_learns(self) -> None:
        assert self.learning(self.classifier(trainable="head")) == [False, False, False, True]

    def test_staged_training_begins_with_the_head_and_goes_on_with_all_but_frozen_blocks(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        classifier = self.classifier(trainable="staged", head_epochs=2, freeze_blocks=1)
        found = []
        for epoch in range(4):
            monkeypatch.setattr(Classifier, "current_epoch", epoch)
            found.append(self.learning(classifier))
        assert found == [[False, False, False, True]] * 2 + [[False, True, True, True]] * 2

    def test_frozen_blocks_keep_nothing_for_a_backward_pass(self) -> None:
        classifier = self.classifier(freeze_blocks=2)
        self.learning(classifier)
        first, second, third = blocks(classifier.network)
        between = second(first(torch.rand(2, 1, 32, 32)))
        assert not between.requires_grad
        assert third(between).requires_grad

    def test_the_body_learns_at_its_share_of_the_rate_and_what_is_frozen_is_not_in_the_optimiser(self) -> None:
        classifier = self.classifier(body_learning_rate_factor=0.1, freeze_blocks=1)
        head, body = classifier.configure_optimizers().param_groups
        assert (head["lr"], body["lr"]) == (0.01, pytest.approx(0.001))
        assert sum(map(torch.numel, head["params"])) == count(classifier.network.get_submodule("classifier"))
        assert sum(map(torch.numel, body["params"])) == sum(map(count, blocks(classifier.network)[1:]))


def test_a_recipe_sets_the_dropout_and_draws_the_weights_as_published() -> None:
    recipe = Recipe(architecture="vgg16_pooled", input_side=32, dropout=0.2, init="normal_0.05")
    network = Classifier(recipe.model_dump(), [1, 1, 1]).network
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.2]
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 14
    for layer in layers:
        assert 0.045 < layer.weight.std() < 0.055
        assert layer.bias is not None
        assert not layer.bias.any()
