from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cxr_models.checkpoint import save_model
from cxr_models.errors import DeviceBusy, InvalidData, NonFiniteOutput, Retryable, UnknownDevice
from cxr_models.networks import build_network
from cxr_models.predict import Predictor, choose_device
from cxr_models.prepare import prepare
from cxr_models.values import LABELS, UNSAVED, Card

CPU = torch.device("cpu")


def card(**changes: float) -> Card:
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
