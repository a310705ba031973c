"""A network that computes what another does, sooner: no batch normalisation, no dropout, convolutions by `Winograd`."""

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cxr_models.winograd import Crew, Winograd, pays

PIXELS_AT_ONCE = 2 * 224 * 224
"""Of the input, through all convolutions at once: memory for larger maps comes anew from the system, a tenth slower."""


def channels_last(images: Tensor) -> Tensor:
    """Lay images out with the channels last, and so that it shows in the strides of images of one channel, too.

    torch calls such images laid out in both ways, takes the other one, and its first convolution and pooling take eight times
    as long.
    """
    return images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


class InParts(nn.Sequential):
    """Layers that take a batch a few images at a time, with the channels last."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  nn.Sequential's name for it
        """Return what the layers make of the whole batch."""
        images_at_once = max(1, PIXELS_AT_ONCE // (input.shape[2] * input.shape[3]))
        return torch.cat([self._through(part) for part in torch.split(channels_last(input), images_at_once)])

    def _through(self, images: Tensor) -> Tensor:
        for layer in self:
            images = layer(images)
        return images


def quicken(network: nn.Module, *, winograd: bool) -> nn.Module:
    """Return a network for inference that shares the parameters it can with this one, which stays as it was.

    Parameters
    ----------
    network
        In evaluation mode.
    winograd
        Whether convolutions are exchanged for `Winograd` where that pays: for float32 on a CPU.
    """
    if not any(isinstance(layer, nn.Conv2d) for layer in network.modules()):
        return network
    shared: dict[int, object] = {id(each): each for each in (*network.parameters(), *network.buffers())}
    return _rebuilt(copy.deepcopy(network, shared), Crew() if winograd else None)


def _rebuilt(module: nn.Module, crew: Crew | None) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _rebuilt(child, crew))
    if not isinstance(module, nn.Sequential):
        return module
    layers = list(_fused(module, crew))
    return (InParts if any(isinstance(layer, Winograd) for layer in layers) else nn.Sequential)(*layers)


def _fused(layers: Iterable[nn.Module], crew: Crew | None) -> Iterator[nn.Module]:
    waiting = [layer for layer in layers if not isinstance(layer, nn.Dropout)]
    while waiting:
        layer = waiting.pop(0)
        if isinstance(layer, nn.Conv2d):
            if waiting and isinstance(norm := waiting[0], nn.BatchNorm2d):
                layer = fuse_conv_bn_eval(layer, norm)
                del waiting[0]
            if crew is not None and pays(layer):
                relu = bool(waiting) and isinstance(waiting[0], nn.ReLU)
                layer = Winograd(layer, relu=relu, crew=crew)
                del waiting[: int(relu)]
        yield layer
