"""One forward pass of a network, as fast as its device allows: prepared images in, logits out."""

import copy
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr_models.quicken import channels_last, quicken
from cxr_models.values import Card
from cxr_models.views import averaged_logits

Precision = Literal["auto", "float32", "bfloat16"]

MOVED = 1e-2
"""By how much a lower precision may move a probability before auto refuses it."""
ROUNDS = 3
_LEAST_SAVED = 0.005
"""Seconds an image on a CPU: where less is to be gained, chance would decide, and answers differ from start to start."""


def reproducible() -> AbstractContextManager[None]:
    """Keep cuDNN from TF32, and from another algorithm for another batch size: an answer would depend on its neighbours."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    return flags


class Forward(Protocol):
    """Logits of shape (images, classes), float32 on the CPU, of prepared images of shape (images, 1, side, side) there."""

    def __call__(self, images: Tensor) -> Tensor:
        """Run the network, averaging over the card's views."""


def make_forward(network: nn.Module, card: Card, *, device: torch.device, precision: Precision) -> tuple[Forward, Precision]:
    """Ready a network for its device; return what runs it, and in which precision.

    Auto is bfloat16 where a trial on this device shows that it is faster and that no probability can move by more than 1e-2,
    else float32.

    Parameters
    ----------
    network
        In evaluation mode, on the device; it stays as it is.
    """

    def make(kind: torch.dtype) -> Forward:
        return (
            CudaForward(network, card, device=device, kind=kind) if device.type == "cuda" else CpuForward(network, card, kind)
        )

    if precision == "bfloat16":
        return make(torch.bfloat16), "bfloat16"
    plain = make(torch.float32)
    if precision == "auto" and _computes_bfloat16(device):
        low = make(torch.bfloat16)
        if _is_worth_it(low, plain, card, least_saved=_LEAST_SAVED if device.type == "cpu" else 0.0):
            return low, "bfloat16"
    return plain, "float32"


class CpuForward:
    """float32 by `quicken`, or bfloat16 by oneDNN."""

    def __init__(self, network: nn.Module, card: Card, kind: torch.dtype) -> None:
        quick = quicken(network, winograd=kind is torch.float32)
        self._network = quick if kind is torch.float32 else _converted(quick, kind)
        self._kind = kind
        self._views = card.views

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """See `Forward`."""
        images = images if self._kind is torch.float32 else channels_last(images.to(self._kind))
        return averaged_logits(self._network, images, self._views).float()


class CudaForward:
    """CUDA graphs, one for each power of two of images: a batch is filled up to the next one, and one launch runs it all."""

    def __init__(self, network: nn.Module, card: Card, *, device: torch.device, kind: torch.dtype) -> None:
        self._network = _converted(quicken(network, winograd=False), kind)
        self._device = device
        self._kind = kind
        self._views = card.views
        self._graphs: dict[int, _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """See `Forward`; the first batch of a size waits for its graph to be recorded."""
        with torch.cuda.device(self._device):
            size = 1 << (len(images) - 1).bit_length()
            if size not in self._graphs:
                self._graphs[size] = _Graph(self._logits, (size, *images.shape[1:]), pool=self._pool)
            return self._graphs[size].replay(images)

    def _logits(self, images: Tensor) -> Tensor:
        with reproducible():
            return averaged_logits(self._network, channels_last(images.to(self._kind)), self._views).float()


class _Graph:
    def __init__(self, work: Callable[[Tensor], Tensor], shape: tuple[int, ...], *, pool: Any) -> None:
        self._staging = torch.zeros(shape, pin_memory=True)
        self._inward = torch.zeros(shape, device="cuda")
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            # What libraries set up on their first call cannot be recorded.
            for _ in range(ROUNDS):
                work(self._inward)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # A shadow model may use the device from another thread meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outward = work(self._inward)

    def replay(self, images: Tensor) -> Tensor:
        self._staging[: len(images)] = images
        self._staging[len(images) :] = 0
        self._inward.copy_(self._staging, non_blocking=True)
        self._graph.replay()
        return self._outward[: len(images)].cpu()


def _converted(network: nn.Module, kind: torch.dtype) -> nn.Module:
    own = copy.deepcopy(network)
    return own.to(dtype=kind, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16; others convert back and forth, and take four times as long."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # from torch 2.11 on
    return capabilities is not None and bool(capabilities().get("amx_bf16"))


def _is_worth_it(low: Forward, plain: Forward, card: Card, *, least_saved: float) -> bool:
    images = _trial_images(card)
    moved = (low(images) - plain(images)).abs().max().item() / card.temperature
    # A probability moves by at most half of what all logits move by: its slope is p (1 - p), and two logits may part.
    if moved / 2 > MOVED or not math.isfinite(moved):
        return False
    takes, instead = _seconds(low, images), _seconds(plain, images)
    return takes < 0.9 * instead and instead - takes > least_saved * len(images)


def _trial_images(card: Card) -> Tensor:
    """Return eight made-up images, shape (8, 1, side, side): blots of all sizes, from faint to full contrast."""
    generator = torch.Generator().manual_seed(0)
    side = card.input_side
    images = torch.zeros(8, 1, side, side)
    for scale in (2, 4, 8, 16, 32):
        images += functional.interpolate(torch.rand(8, 1, scale, scale, generator=generator), (side, side), mode="bilinear")
    images = (images - images.amin()) / (images.amax() - images.amin())
    faint = torch.linspace(0.2, 1, 8).view(8, 1, 1, 1)
    return ((images - 0.5) * faint + 0.5 - card.mean) / card.std


def _seconds(forward: Forward, images: Tensor) -> float:
    spent = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        forward(images)
        spent.append(time.perf_counter() - started)
    return min(spent)
