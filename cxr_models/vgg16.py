from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers  # type: ignore[import-untyped]


class VGG16(nn.Module):
    """VGG16 (Simonyan and Zisserman 2015, configuration D) for one grey channel: 134,271,683 parameters for three classes.

    Layout, parameter names and first weights are torchvision's, dropout included, so weights of its VGG16 fit but for the
    first convolution and the last layer. It takes images of shape (images, 1, side, side), side 32 or more and 224 as
    published, and returns logits of shape (images, classes).

    Parameters
    ----------
    normalised
        Batch normalisation after each convolution, as torchvision's vgg16_bn.
    pooled
        After the 13 convolutions their mean over the image, a dropout and one linear layer, in place of the three large ones.
    """

    def __init__(self, classes: int = 3, *, normalised: bool = False, pooled: bool = False) -> None:
        super().__init__()
        self.features = make_layers(cfgs["D"], batch_norm=normalised)
        self.features[0] = nn.Conv2d(1, 64, kernel_size=3, padding=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1 if pooled else 7)
        if pooled:
            self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(512, classes))
        else:
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Linear(4096, classes),
            )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (images, classes), of prepared images."""
        logits: Tensor = self.classifier(self.avgpool(self.features(images)).flatten(1))
        return logits
