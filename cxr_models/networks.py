"""The architectures by name: two families, lenet5 and vgg16, and their variants."""

import torch
from torch import nn

from cxr_models.errors import InvalidModel
from cxr_models.lenet5 import LeNet5

INPUT_SIDES = {"lenet5": 32, "lenet5_bn": 32, "vgg16": 224, "vgg16_bn": 224, "vgg16_pooled": 224}
"""The side in pixels of the square that each architecture takes, as published. Any VGG16 also takes others, from 32 on."""


def build_network(architecture: str, *, classes: int) -> nn.Module:
    """Build a network with fresh weights: convolutions in `features`, ended by pooling or not, and its head in `classifier`.

    Raises
    ------
    InvalidModel
        There is no such architecture.
    """
    if architecture not in INPUT_SIDES:
        raise InvalidModel(f"There is no architecture {architecture!r}; there are {', '.join(INPUT_SIDES)}.")
    normalised = architecture.endswith("_bn")
    if architecture.startswith("lenet5"):
        return LeNet5(classes, normalised=normalised)
    # torchvision takes a second to import, which a worker with a LeNet-5 need not wait for.
    from cxr_models.vgg16 import VGG16  # noqa: PLC0415

    return VGG16(classes, normalised=normalised, pooled=architecture == "vgg16_pooled")


def build_skeleton(architecture: str, *, classes: int) -> nn.Module:
    """Build a network without memory for its parameters, for weights that are assigned at once."""
    with torch.device("meta"):
        return build_network(architecture, classes=classes)
