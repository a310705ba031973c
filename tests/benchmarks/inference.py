"""Images per second of prediction against the published loop, which keeps all that a gradient would need, in the same run."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cxr_models.networks import INPUT_SIDES, build_network
from cxr_models.predict import Predictor
from cxr_models.values import LABELS, UNSAVED, Card

PUBLISHED_BATCH = 25
BATCHES = {"vgg16": (1, 8, 25), "lenet5": (1, 32, 256)}
CUDA_BATCHES = {"vgg16": (1, 32, 256), "lenet5": (1, 256, 2048)}
TARGETS = {"cpu": {"vgg16": 2.0}, "cuda": {"vgg16": 10.0, "lenet5": 10.0}}
SHARE_OF_MATMUL = 0.5
SECONDS = {"vgg16": 40.0, "lenet5": 8.0}
"""After which no further round is begun; there are always two."""


def run() -> None:
    """Measure both networks on the CPU, and on the GPU where there is one."""
    torch.manual_seed(0)
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    for device in devices:
        for architecture in ("vgg16", "lenet5"):
            _compare(architecture, device)


def _compare(architecture: str, device: torch.device) -> None:
    side = INPUT_SIDES[architecture]
    network = build_network(architecture, classes=len(LABELS)).eval()
    predictor = Predictor(network, _card(architecture, side), device=device, batch_size=2048, precision="auto")
    images = torch.randn(max(PUBLISHED_BATCH, *_batches(architecture, device)), 1, side, side)
    ways: dict[int, Callable[[], object]] = {0: _published(network, images[:PUBLISHED_BATCH], device)}
    for batch in _batches(architecture, device):
        ways[batch] = _ours(predictor, list(images[:batch]))
    with _threads(1 if side <= 64 and device.type == "cpu" else torch.get_num_threads()):
        rounds = list(_rounds(ways, seconds=SECONDS[architecture]))
    per_second = {0: PUBLISHED_BATCH / statistics.median(each[0] for each in rounds)}
    ratios = {}
    for batch in _batches(architecture, device):
        per_second[batch] = batch / statistics.median(each[batch] for each in rounds)
        # Both ways of one round met the same neighbours on this machine.
        ratios[batch] = statistics.median(each[0] / PUBLISHED_BATCH / (each[batch] / batch) for each in rounds)
    best = max(ratios, key=lambda batch: ratios[batch])
    print(f"{architecture}, {side} pixels, {device.type}, {predictor.precision}, {torch.get_num_threads()} threads, ", end="")
    print(f"{len(rounds)} rounds; the published loop: {per_second[0]:.1f} images/s")
    for batch, ratio in ratios.items():
        print(f"  batch {batch:5}: {per_second[batch]:9.1f} images/s, {ratio:5.2f} x{' (best)' if batch == best else ''}")
    target = TARGETS[device.type].get(architecture)
    if target is not None:
        print(f"  must be at least {target:.0f} x: {'yes' if ratios[best] >= target else 'NO'}")
    if device.type == "cuda" and architecture == "vgg16":
        share = per_second[best] * _operations(network.to("cpu"), images[:1]) / _matmul_per_second()
        print(f"  {share:.0%} of the measured matrix product; must be {SHARE_OF_MATMUL:.0%}: ", end="")
        print("yes" if share >= SHARE_OF_MATMUL else "NO")


def _batches(architecture: str, device: torch.device) -> Sequence[int]:
    return (CUDA_BATCHES if device.type == "cuda" else BATCHES)[architecture]


def _published(network: nn.Module, images: Tensor, device: torch.device) -> Callable[[], object]:
    def classify() -> Tensor:
        assert torch.is_grad_enabled()
        return torch.softmax(network(images.to(device)), dim=1).argmax(dim=1).cpu()

    return _with_threads(classify, torch.get_num_threads())


def _ours(predictor: Predictor, images: list[Tensor]) -> Callable[[], object]:
    return lambda: predictor.predict(images)


def _with_threads(work: Callable[[], object], threads: int) -> Callable[[], object]:
    def run() -> object:
        with _threads(threads):
            return work()

    return run


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rounds(ways: dict[int, Callable[[], object]], *, seconds: float) -> Iterator[dict[int, float]]:
    """Time all ways one after the other, again and again, each round from the other end."""
    for way in ways.values():
        way()
    began, done = time.perf_counter(), 0
    while done < 2 or time.perf_counter() - began < seconds:
        order = list(ways) if done % 2 else list(reversed(ways))
        yield {key: _seconds(ways[key], least=0.2) for key in order}
        done += 1


def _seconds(work: Callable[[], object], *, least: float) -> float:
    """Return the seconds of one call, over as many as take `least` seconds."""
    began, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - began < least:
        work()
        calls += 1
    return (time.perf_counter() - began) / calls


def _operations(network: nn.Module, image: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return int(counter.get_total_flops())


def _matmul_per_second(side: int = 8192) -> float:
    """Return the multiplications and additions per second of a product of two bfloat16 matrices."""
    one, other = torch.randn(2, side, side, device="cuda", dtype=torch.bfloat16)

    def multiply() -> None:
        for _ in range(10):
            torch.mm(one, other)
        torch.cuda.synchronize()

    multiply()
    return 10 * 2 * side**3 / _seconds(multiply, least=1.0)


def _card(architecture: str, side: int) -> Card:
    return Card(
        name="bench",
        version="1",
        architecture=architecture,
        labels=LABELS,
        input_side=side,
        mean=0.5,
        std=0.5,
        temperature=1.0,
        thresholds={"COVID-19": 0.3, "Pneumonia": 0.3},
        weights_sha256=UNSAVED,
        intended_use="benchmark",
        limits=(),
    )
