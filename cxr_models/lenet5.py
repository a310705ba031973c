from collections.abc import Callable

from torch import Tensor, nn


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition").

    As the published comparison has it: tanh, average pooling, full connections between the second and third convolution;
    61,111 parameters for three classes. The variant `normalised` has ReLU, maximum pooling and batch normalisation after each
    convolution, and a dropout that is off unless a recipe sets it: 284 parameters more.
    """

    def __init__(self, classes: int = 3, *, normalised: bool = False) -> None:
        super().__init__()
        active: Callable[[], nn.Module] = nn.ReLU if normalised else nn.Tanh

        def convolve(inward: int, outward: int) -> list[nn.Module]:
            norm: list[nn.Module] = [nn.BatchNorm2d(outward)] if normalised else []
            return [nn.Conv2d(inward, outward, kernel_size=5), *norm, active()]

        def pool() -> nn.Module:
            return nn.MaxPool2d(kernel_size=2) if normalised else nn.AvgPool2d(kernel_size=2)

        self.features = nn.Sequential(*convolve(1, 6), pool(), *convolve(6, 16), pool(), *convolve(16, 120))
        dropout: list[nn.Module] = [nn.Dropout(0.0)] if normalised else []
        self.classifier = nn.Sequential(nn.Linear(120, 84), active(), *dropout, nn.Linear(84, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (images, classes), of prepared images of shape (images, 1, 32, 32)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits
