"""Convolutions of 3 x 3 with a quarter of the multiplications, for CPUs: F(4 x 4, 3 x 3) of Lavin and Gray (2016)."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

TILE, OUT = 6, 4
INPUT = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
KERNEL = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
OUTPUT = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)
TILES_AT_ONCE = 128
"""Tiles of one pass, so that they stay in a core's second cache: 64 to 256 are equally fast, 1,024 up to twice as slow."""


def pays(convolution: nn.Conv2d) -> bool:
    """Whether `Winograd` can take this layer's place and is the faster: with few channels, moving tiles costs what it saves."""
    return (
        convolution.kernel_size == (3, 3)
        and convolution.padding in {(1, 1), "same"}
        and convolution.padding_mode == "zeros"
        and convolution.stride == convolution.dilation == (1, 1)
        and convolution.groups == 1
        and min(convolution.in_channels, convolution.out_channels) >= 64
    )


class Crew:
    """Threads that each compute alone, of which `torch.get_num_threads()` are at work.

    torch shares out every small product and waits for the slowest thread each time; these wait once a layer. Beside other
    programs on the same cores that is many times as fast.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(os.cpu_count(), "winograd", initializer=partial(torch.set_num_threads, 1))

    def work(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Run all tasks, each once and in any order, in inference mode."""
        count = torch.get_num_threads()
        waiting = iter(tasks)
        if min(count, len(tasks)) <= 1:
            _run(waiting)
            return
        shares = [self._threads.submit(_run, waiting) for _ in range(min(count, len(tasks)) - 1)]
        torch.set_num_threads(1)
        try:
            _run(waiting)
        finally:
            wait(shares)
            torch.set_num_threads(count)
        for share in shares:
            share.result()


@torch.inference_mode()
def _run(tasks: Iterator[Callable[[], None]]) -> None:
    for task in tasks:
        task()


class Winograd(nn.Module):
    """What a convolution and, on request, the ReLU after it compute; four times its weights in memory, half its time.

    Float32 rounds more coarsely this way: an output moves by about 1e-4 of the outputs' standard deviation.
    """

    def __init__(self, convolution: nn.Conv2d, *, relu: bool, crew: Crew) -> None:
        super().__init__()
        self.crew = crew
        weight = convolution.weight.detach()
        kernel = torch.tensor(KERNEL, dtype=torch.float64)
        transformed = torch.kron(kernel, kernel) @ weight.double().permute(2, 3, 1, 0).reshape(9, -1)
        bias = torch.zeros(len(weight)) if convolution.bias is None else convolution.bias.detach().clone()
        self.weight: Tensor
        self.bias: Tensor
        self.inward: Tensor
        self.outward: Tensor
        self.register_buffer("weight", transformed.float().view(TILE * TILE, *weight.shape[1::-1]))
        self.register_buffer("bias", bias)
        # Both directions of a transform in one matrix product: the fastest thing that a CPU does.
        self.register_buffer("inward", torch.kron(torch.tensor(INPUT), torch.tensor(INPUT)))
        self.register_buffer("outward", torch.kron(torch.tensor(OUTPUT), torch.tensor(OUTPUT)))
        self.relu = relu

    def forward(self, images: Tensor) -> Tensor:
        """Return the convolved images, shape (images, channels, rows, columns), without a gradient."""
        count, _, rows, columns = images.shape
        down, across = -(-rows // OUT), -(-columns // OUT)
        margins = (0, 0, 1, OUT * across + 1 - columns, 1, OUT * down + 1 - rows)
        padded = functional.pad(images.permute(0, 2, 3, 1), margins)
        tiles = padded.unfold(1, TILE, OUT).unfold(2, TILE, OUT).permute(4, 5, 0, 1, 2, 3)
        result = images.new_empty(count, down, OUT, across, OUT, len(self.bias))
        places = result.permute(2, 4, 0, 1, 3, 5)
        images_at_once = max(1, TILES_AT_ONCE // (down * across))
        rows_at_once = max(1, min(down, TILES_AT_ONCE // across))
        parts = [
            (slice(None), slice(None), slice(image, image + images_at_once), slice(row, row + rows_at_once))
            for image in range(0, count, images_at_once)
            for row in range(0, down, rows_at_once)
        ]
        self.crew.work([partial(self._convolve, tiles[part], places[part]) for part in parts])
        whole = result.view(count, OUT * down, OUT * across, -1)
        return whole[:, :rows, :columns].permute(0, 3, 1, 2)

    def _convolve(self, tiles: Tensor, place: Tensor) -> None:
        inputs, outputs = tiles.shape[-1], place.shape[-1]
        spread = torch.mm(self.inward, tiles.reshape(TILE * TILE, -1)).view(TILE * TILE, -1, inputs)
        products = torch.bmm(spread, self.weight).view(TILE * TILE, -1)
        found = torch.mm(self.outward, products).view(-1, outputs).add_(self.bias)
        place.copy_((found.relu_() if self.relu else found).view(place.shape))
