from torch import nn
from torchvision.models import vgg16  # type: ignore[import-untyped]


def VGG16(classes: int = 3) -> nn.Module:  # noqa: N802  it stands beside LeNet5 as the other network
    """VGG16 (Simonyan and Zisserman 2015, configuration D) for one grey channel: 134,271,683 parameters for three classes.

    Layout and parameter names are torchvision's, dropout included, so weights of its VGG16 fit but for the first convolution
    and the last layer. It takes images of shape (images, 1, 224, 224) and returns logits of shape (images, classes).
    """
    first = nn.Conv2d(1, 64, kernel_size=3, padding=1)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    if first.bias is not None:
        nn.init.zeros_(first.bias)
    network: nn.Module = vgg16(weights=None, num_classes=classes)
    network.get_submodule("features").register_module("0", first)
    return network
