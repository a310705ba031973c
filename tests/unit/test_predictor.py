import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cxr_models import forward
from cxr_models.checkpoint import save_model
from cxr_models.errors import DeviceBusy, InvalidData, NonFiniteOutput, Retryable, UnknownDevice
from cxr_models.forward import Precision
from cxr_models.networks import build_network
from cxr_models.predict import Predictor, choose_device
from cxr_models.prepare import prepare
from cxr_models.quicken import channels_last, quicken
from cxr_models.saliency import explain
from cxr_models.values import LABELS, UNSAVED, Card
from cxr_models.winograd import Crew, Winograd, pays

CPU = torch.device("cpu")


def card(biases: Mapping[str, float] | None = None, **changes: float) -> Card:
    written = {"temperature": 1.0, "input_side": 32} | changes
    return Card(
        name="plain",
        version="0.1.0",
        architecture="lenet5",
        labels=LABELS,
        mean=0.5,
        std=0.5,
        thresholds={"COVID-19": 0.3, "Pneumonia": 0.3},
        weights_sha256=UNSAVED,
        intended_use="tests",
        limits=(),
        temperature=written["temperature"],
        input_side=int(written["input_side"]),
        biases=biases or {},
    )


class Says(nn.Module):
    """Answers every image with the same logits and keeps the sizes of the batches it was shown."""

    def __init__(self, logits: Sequence[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits, dtype=torch.float32)
        self.batches: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        return self.logits.expand(len(images), -1)


class Echoes(nn.Module):
    """Answers with the first three pixels of each image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :3]


class OutOfMemory(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError(str(images.shape))


@pytest.fixture
def lenet5() -> Predictor:
    torch.manual_seed(0)
    return Predictor(build_network("lenet5", classes=3), card(), device=CPU, batch_size=32)


def films(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.random((40 + 7 * i, 60), dtype=np.float32) for i in range(count)]


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(lenet5: Predictor) -> None:
    prepared = [lenet5.prepare(film) for film in films(21)]
    alone = [lenet5.predict([each])[0] for each in prepared]
    together = lenet5.predict(prepared)
    reversed_ = lenet5.predict(prepared[::-1])[::-1]
    for single, first, second in zip(alone, together, reversed_, strict=True):
        for label in LABELS:
            assert single.probabilities[label] == pytest.approx(first.probabilities[label], abs=1e-5)
            assert single.probabilities[label] == pytest.approx(second.probabilities[label], abs=1e-5)


def test_predictions_come_in_the_order_of_the_images_and_the_labels() -> None:
    predictor = Predictor(Echoes(), card(), device=CPU, batch_size=2)
    batch = [torch.zeros(1, 32, 32) for _ in LABELS]
    for place, prepared in enumerate(batch):
        prepared[0, 0, place] = 5
    predictions = predictor.predict(batch)
    assert [each.label for each in predictions] == list(LABELS)
    assert [each.flagged for each in predictions] == [True, False, True]
    assert list(predictions[0].probabilities) == list(LABELS)
    assert sum(predictions[0].probabilities.values()) == pytest.approx(1, abs=1e-6)


def test_each_forward_pass_takes_at_most_batch_size_images() -> None:
    network = Says([0, 0, 0])
    Predictor(network, card(), device=CPU, batch_size=4).predict([torch.zeros(1, 32, 32)] * 10)
    assert network.batches == [4, 4, 2]


def test_no_images_are_no_predictions_and_no_forward_pass() -> None:
    network = Says([0, 0, 0])
    assert Predictor(network, card(), device=CPU).predict([]) == []
    assert network.batches == []


def test_warming_up_runs_the_network_before_the_first_image() -> None:
    network = Says([0, 0, 0])
    Predictor(network, card(), device=CPU).warm_up()
    assert network.batches


def test_the_temperature_of_the_card_divides_the_logits() -> None:
    logits = [2.0, 0.0, -1.0]
    prediction = Predictor(Says(logits), card(temperature=2.5), device=CPU).predict([torch.zeros(1, 32, 32)])[0]
    expected = torch.softmax(torch.tensor(logits) / 2.5, dim=0)
    assert list(prediction.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_biases_of_the_card_are_added_by_label_after_the_temperature() -> None:
    logits = [2.0, 0.0, -1.0]
    # In another order than the labels: a card is JSON, whose keys have none.
    biases = {"Pneumonia": 1.5, "COVID-19": -0.5, "Normal": 0.25}
    biased = Predictor(Says(logits), card(temperature=2.5, biases=biases), device=CPU)
    powers = np.exp(np.array(logits) / 2.5 + np.array([-0.5, 0.25, 1.5]))
    (prediction,) = biased.predict([torch.zeros(1, 32, 32)])
    assert list(prediction.probabilities.values()) == pytest.approx((powers / powers.sum()).tolist(), abs=1e-6)


@pytest.mark.parametrize("logits", [[float("nan"), 0, 0], [float("inf"), 0, 0], [0, 0, float("-inf")]])
def test_a_network_that_answers_with_no_number_is_refused(logits: list[float]) -> None:
    predictor = Predictor(Says(logits), card(), device=CPU)
    with pytest.raises(NonFiniteOutput, match=r"plain 0\.1\.0"):
        predictor.predict([torch.zeros(1, 32, 32)])
    with pytest.raises(NonFiniteOutput):
        predictor.warm_up()


def test_a_device_without_memory_may_be_tried_again() -> None:
    with pytest.raises(DeviceBusy, match="memory") as caught:
        Predictor(OutOfMemory(), card(), device=CPU).predict([torch.zeros(1, 32, 32)])
    assert isinstance(caught.value, Retryable)


@pytest.mark.parametrize("shape", [(32, 32), (1, 31, 32), (3, 32, 32), (1, 1, 32, 32)])
def test_a_tensor_of_another_shape_is_refused(lenet5: Predictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidData, match="shape"):
        lenet5.predict([torch.zeros(1, 32, 32), torch.zeros(shape)])


def test_dropout_is_at_rest_so_the_same_film_gets_the_same_answer() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(1024, 3)).train()
    predictor = Predictor(network, card(), device=CPU)
    prepared = predictor.prepare(films(1)[0])
    assert predictor.predict([prepared]) == predictor.predict([prepared])


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Predictor(Echoes(), card(), device=CPU, batch_size=0)


def test_the_predictor_prepares_as_training_does(lenet5: Predictor) -> None:
    film = films(1)[0]
    assert torch.equal(lenet5.prepare(film), prepare(film, lenet5.card.preparation))


def test_a_loaded_model_predicts_what_the_saved_network_does(tmp_path: Path, lenet5: Predictor) -> None:
    save_model(tmp_path, network=build_network("lenet5", classes=3), card=card())
    network = build_network("lenet5", classes=3)
    save_model(tmp_path, network=network, card=card())
    prepared = [lenet5.prepare(film) for film in films(3)]
    loaded = Predictor.load(str(tmp_path), device="cpu").predict(prepared)
    assert loaded == Predictor(network, card(), device=CPU).predict(prepared)


def test_the_model_that_ships_answers_a_film_with_probabilities() -> None:
    predictor = Predictor.load("lenet5", device="cpu")
    prediction = predictor.predict([predictor.prepare(films(1)[0])])[0]
    assert set(prediction.probabilities) == set(LABELS)
    assert prediction.label in LABELS


@pytest.mark.parametrize("device", ["quantum", "cuda:x", "mps", ""])
def test_a_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(UnknownDevice, match="auto"):
        choose_device(device)


def test_asking_for_a_gpu_where_there_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:0"):
        with pytest.raises(UnknownDevice, match="no device"):
            choose_device(device)
    assert choose_device("auto") == CPU


def batch_of(count: int, side: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(count, 1, side, side, generator=generator))


@pytest.fixture(scope="module")
def vgg16() -> Predictor:
    """A VGG16 with a small head, at 40 pixels: maps of sides that are no multiples of four, and logits that differ."""
    torch.manual_seed(0)
    network = build_network("vgg16_pooled", classes=3)
    torch.nn.init.normal_(network.classifier[-1].weight, 0, 0.5)  # type: ignore[union-attr, index, arg-type]
    return Predictor(network, card(input_side=40), device=CPU, batch_size=32)


@pytest.mark.parametrize("size", [(1, 8, 8), (2, 40, 40), (3, 13, 6), (1, 1, 1), (140, 4, 4)])
@pytest.mark.parametrize("relu", [False, True])
def test_the_quick_convolution_gives_what_the_plain_one_does(size: tuple[int, int, int], *, relu: bool) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(64, 80, kernel_size=3, padding=1)
    images = torch.randn(size[0], 64, *size[1:])
    with torch.no_grad():
        expected = convolution(images).relu() if relu else convolution(images)
        found = Winograd(convolution, relu=relu, crew=Crew())(images)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-3 * float(expected.std()))


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"kernel_size": 5}, {"padding": 0}, {"groups": 2}, {"dilation": 2}, {"padding_mode": "reflect"}],
)
def test_a_convolution_of_another_kind_is_left_alone(options: dict[str, Any]) -> None:
    assert pays(nn.Conv2d(64, 64, **({"kernel_size": 3, "padding": 1} | {})))
    assert not pays(nn.Conv2d(64, 64, **({"kernel_size": 3, "padding": 1} | options)))


@pytest.mark.parametrize("architecture", ["lenet5_bn", "vgg16_bn"])
def test_the_quick_twin_of_a_normalised_network_gives_its_answers_and_leaves_it_alone(architecture: str) -> None:
    torch.manual_seed(0)
    network: Any = build_network(architecture.replace("vgg16_bn", "vgg16_pooled"), classes=3)
    if architecture == "vgg16_bn":
        network.features = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), *network.features[2:])
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -1, 1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
    network.eval()
    kept = {name: weight.clone() for name, weight in network.state_dict().items()}
    images = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        expected = network(images)
        twin = quicken(network, winograd=True)
        assert torch.allclose(twin(images), expected, atol=1e-3 * float(expected.abs().max()))
    assert not any(isinstance(layer, nn.BatchNorm2d | nn.Dropout) for layer in twin.modules())
    assert all(torch.equal(weight, kept[name]) for name, weight in network.state_dict().items())
    shared = {weight.data_ptr() for weight in network.classifier.parameters()}
    assert {weight.data_ptr() for weight in twin.get_submodule("classifier").parameters()} == shared


def test_several_threads_give_the_answer_of_one_and_pass_errors_on(vgg16: Predictor) -> None:
    batch = batch_of(3, 40)
    alone = vgg16.predict(batch)
    torch.set_num_threads(2)
    try:
        assert vgg16.predict(batch) == alone
        assert torch.get_num_threads() == 2
        done: list[int] = []
        with pytest.raises(IndexError):
            Crew().work([partial(done.append, 1), partial([].pop, 0), partial(done.append, 3)])
        assert torch.get_num_threads() == 2
        assert sorted(done) == [1, 3]
    finally:
        torch.set_num_threads(1)


def test_channels_come_last_also_where_there_is_only_one() -> None:
    images = torch.rand(2, 1, 8, 6)
    laid_out = channels_last(images)
    assert torch.equal(laid_out, images)
    assert laid_out.stride() == (48, 1, 6, 1)
    assert nn.Conv2d(1, 4, kernel_size=3)(laid_out).is_contiguous(memory_format=torch.channels_last)


def test_a_vgg16_answers_on_a_cpu_as_the_network_itself_does_in_any_batch(vgg16: Predictor) -> None:
    assert any(isinstance(layer, Winograd) for layer in quicken(vgg16.network, winograd=True).modules())
    batch = batch_of(9, 40)
    with torch.no_grad():
        plain = torch.softmax(vgg16.network(torch.stack(batch)), dim=1)
    together = torch.tensor([list(each.probabilities.values()) for each in vgg16.predict(batch)])
    alone = torch.tensor([list(vgg16.predict([each])[0].probabilities.values()) for each in batch])
    assert plain.amax() < 0.999
    assert torch.allclose(together, plain, atol=1e-3)
    assert torch.allclose(together, alone, atol=1e-5)


def test_bfloat16_moves_probabilities_by_little_and_is_said() -> None:
    exact = Predictor.load("lenet5", device="cpu", precision="float32")
    low = Predictor.load("lenet5", device="cpu", precision="bfloat16")
    assert (exact.precision, low.precision) == ("float32", "bfloat16")
    prepared = [exact.prepare(film) for film in films(6)]
    for expected, answer in zip(exact.predict(prepared), low.predict(prepared), strict=True):
        for label in LABELS:
            assert answer.probabilities[label] == pytest.approx(expected.probabilities[label], abs=5e-2)
    assert [each.probabilities for each in low.predict(prepared)] != [each.probabilities for each in exact.predict(prepared)]


@pytest.mark.parametrize(
    ("capable", "moved", "seconds", "chosen"),
    [
        (True, 0.001, 0.5, "bfloat16"),
        (True, 0.001, 0.95, "float32"),
        (True, 0.03, 0.5, "float32"),
        (True, float("nan"), 0.5, "float32"),
        (False, 0.001, 0.5, "float32"),
    ],
)
def test_auto_takes_bfloat16_only_where_it_is_faster_and_the_same(
    monkeypatch: pytest.MonkeyPatch, *, capable: bool, moved: float, seconds: float, chosen: str
) -> None:
    class Slower(nn.Module):
        """Answers in bfloat16 a little differently; how long it takes is said below."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            exact = torch.zeros(len(images), 3, dtype=images.dtype)
            return exact + moved if images.dtype is torch.bfloat16 else exact

    monkeypatch.setattr(forward, "_computes_bfloat16", lambda _device: capable)
    kinds = {torch.float32: 1.0, torch.bfloat16: seconds}
    monkeypatch.setattr(forward, "_seconds", lambda runs, _images: kinds[runs._kind])  # noqa: SLF001
    predictor = Predictor(Slower(), card(), device=CPU, precision="auto")
    assert predictor.precision == chosen


@pytest.mark.parametrize(("plain", "chosen"), [(0.1, "bfloat16"), (0.02, "float32")])
def test_what_little_time_can_be_saved_of_does_not_depend_on_chance(
    monkeypatch: pytest.MonkeyPatch, plain: float, chosen: str
) -> None:
    monkeypatch.setattr(forward, "_computes_bfloat16", lambda _device: True)
    monkeypatch.setattr(forward, "_seconds", lambda runs, _images: plain / 2 if runs._kind is torch.bfloat16 else plain)  # noqa: SLF001
    assert Predictor.load("lenet5", device="cpu", precision="auto").precision == chosen


@pytest.mark.parametrize(("asked", "chosen"), [({}, "float32"), ({"precision": "auto"}, "bfloat16")])
def test_only_who_asks_for_it_gets_what_is_faster(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Precision], chosen: str
) -> None:
    monkeypatch.setattr(forward, "_computes_bfloat16", lambda _device: True)
    monkeypatch.setattr(forward, "_is_worth_it", lambda *_, **__: True)
    assert Predictor.load("lenet5", device="cpu", **asked).precision == chosen


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "apart"), [("float32", 1e-4), ("bfloat16", 5e-2)])
def test_a_batch_that_is_filled_up_for_its_graph_gives_the_answers_of_the_cpu(
    vgg16: Predictor, precision: Precision, apart: float
) -> None:
    on_gpu = Predictor(copy.deepcopy(vgg16.network), vgg16.card, device=torch.device("cuda"), precision=precision)
    on_gpu.warm_up()
    batch = batch_of(21, 40)
    for some in (batch, batch[:5], batch[:1], batch):
        for expected, answer in zip(vgg16.predict(some), on_gpu.predict(some), strict=True):
            for label in LABELS:
                assert answer.probabilities[label] == pytest.approx(expected.probabilities[label], abs=apart)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_map_on_a_gpu_is_the_map_on_the_cpu() -> None:
    on_cpu, on_gpu = Predictor.load("lenet5", device="cpu"), Predictor.load("lenet5", device="cuda")
    prepared = on_cpu.prepare(films(1)[0])
    assert np.allclose(explain(on_cpu, prepared), explain(on_gpu, prepared), atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_the_answers_of_the_cpu_in_any_batch() -> None:
    on_cpu, on_gpu = Predictor.load("lenet5", device="cpu"), Predictor.load("lenet5", device="cuda")
    on_gpu.warm_up()
    prepared = [on_cpu.prepare(film) for film in films(40)]
    together = on_gpu.predict(prepared)
    for one, expected, answer in zip(prepared, on_cpu.predict(prepared), together, strict=True):
        alone = on_gpu.predict([one])[0]
        for label in LABELS:
            assert answer.probabilities[label] == pytest.approx(expected.probabilities[label], abs=1e-4)
            assert answer.probabilities[label] == pytest.approx(alone.probabilities[label], abs=1e-5)
