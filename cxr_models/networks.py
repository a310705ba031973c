"""The architectures by name."""

import torch
from torch import nn

from cxr_models.errors import InvalidModel
from cxr_models.lenet5 import LeNet5

INPUT_SIDES = {"lenet5": 32, "vgg16": 224}
"""The side in pixels of the square that each architecture takes, as published."""


def build_network(architecture: str, *, classes: int) -> nn.Module:
    """Build a network with fresh weights.

    Raises
    ------
    InvalidModel
        There is no such architecture.
    """
    if architecture == "lenet5":
        return LeNet5(classes)
    if architecture == "vgg16":
        # torchvision takes a second to import, which a worker with a LeNet-5 need not wait for.
        from cxr_models.vgg16 import VGG16  # noqa: PLC0415

        return VGG16(classes)
    raise InvalidModel(f"There is no architecture {architecture!r}; there are {', '.join(INPUT_SIDES)}.")


def build_skeleton(architecture: str, *, classes: int) -> nn.Module:
    """Build a network without memory for its parameters, for weights that are assigned at once."""
    with torch.device("meta"):
        return build_network(architecture, classes=classes)
