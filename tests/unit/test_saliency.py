import threading
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from cxr_models.errors import InvalidData, NonFiniteOutput
from cxr_models.images import SUFFIXES, read_radiograph
from cxr_models.networks import INPUT_SIDES, build_network, build_skeleton
from cxr_models.predict import Predictor
from cxr_models.saliency import explain, explain_batch
from cxr_models.values import LABELS, UNSAVED, Card
from tests.factories import data_folder, radiograph

CPU = torch.device("cpu")
SMALL_SIDES = {"lenet5": 32, "lenet5_bn": 32, "vgg16": 32, "vgg16_bn": 32, "vgg16_pooled": 32}


def card(architecture: str = "lenet5", views: str = "one", biases: Mapping[str, float] | None = None) -> Card:
    return Card(
        name="plain",
        version="0.1.0",
        architecture=architecture,
        labels=LABELS,
        input_side=SMALL_SIDES[architecture],
        mean=0.5,
        std=0.5,
        temperature=1.0,
        thresholds={"COVID-19": 0.3, "Pneumonia": 0.3},
        weights_sha256=UNSAVED,
        intended_use="tests",
        limits=(),
        views=views,  # type: ignore[arg-type]
        biases=biases or {},
    )


class Sees(nn.Module):
    """Says COVID-19 as far as the first rows of the left half are bright, Pneumonia as far as the right half's are."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        left, right = images[:, 0, :8, :8].mean(dim=(1, 2)), images[:, 0, :8, -8:].mean(dim=(1, 2))
        return torch.stack([10 * left, torch.zeros_like(left), 10 * right], dim=1)


class Says(nn.Module):
    def __init__(self, answer: float) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))[:, None] * torch.tensor([0.0, 0.0, 0.0]) + self.answer


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return Predictor.load("lenet5", device="cpu")


@pytest.fixture
def film(shipped: Predictor) -> torch.Tensor:
    return shipped.prepare(radiograph().astype(np.float32) / 255)


def filled(network: nn.Module) -> nn.Module:
    """Give fresh weights of rank one: a VGG16's own 134 million draws would take most of the test's time."""
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                rows, columns = layer.weight.flatten(1).shape
                both = torch.randn(rows, 1) * torch.randn(1, columns) / columns**0.5
                layer.weight.copy_(both.view_as(layer.weight))
                nn.init.normal_(layer.bias)
    return network


@pytest.mark.parametrize("architecture", sorted(INPUT_SIDES))
def test_every_architecture_is_explained_by_a_map_of_its_input(architecture: str) -> None:
    torch.manual_seed(0)
    network = filled(build_skeleton(architecture, classes=3).to_empty(device=CPU))
    predictor = Predictor(network, card(architecture), device=CPU)
    side = SMALL_SIDES[architecture]
    found = explain(predictor, torch.randn(1, side, side), label="Pneumonia")
    assert found.shape == (side, side)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() == pytest.approx(1)


def test_the_map_marks_what_the_label_was_read_from() -> None:
    predictor = Predictor(Sees(), card(), device=CPU)
    prepared = torch.full((1, 32, 32), -0.5)
    prepared[0, :8, :8] = prepared[0, :8, -8:] = 1
    for label, columns in (("COVID-19", slice(0, 16)), ("Pneumonia", slice(16, 32))):
        found = explain(predictor, prepared, label=label)
        assert found[:16, columns].sum() > 0.99 * found.sum()
    assert np.allclose(explain(predictor, prepared.clone()), explain(predictor, prepared, label="COVID-19"))


def test_a_model_that_answers_over_mirrored_views_is_explained_on_both() -> None:
    predictor = Predictor(Sees(), card(views="mirrored"), device=CPU)
    prepared = torch.full((1, 32, 32), -0.5)
    prepared[0, :8, :8] = prepared[0, :8, -8:] = 1
    found = explain(predictor, prepared, label="COVID-19")
    assert np.allclose(found, found[:, ::-1], atol=1e-6)
    assert found.any()


def test_the_most_probable_label_is_explained_where_none_is_named(shipped: Predictor, film: torch.Tensor) -> None:
    (prediction,) = shipped.predict([film])
    assert np.array_equal(explain(shipped, film), explain(shipped, film, label=prediction.label))
    others = [explain(shipped, film, label=label) for label in LABELS if label != prediction.label]
    assert not any(np.allclose(explain(shipped, film), other, atol=0.1) for other in others)


def test_a_label_that_is_most_probable_by_its_bias_is_the_one_that_is_explained() -> None:
    prepared = torch.full((1, 32, 32), -0.5)
    prepared[0, :8, :8], prepared[0, :8, -8:] = 1, 0.9
    predictor = Predictor(Sees(), card(biases={"COVID-19": 0, "Normal": 0, "Pneumonia": 3}), device=CPU)
    (prediction,) = predictor.predict([prepared])
    assert prediction.label == "Pneumonia"
    assert np.array_equal(explain(predictor, prepared), explain(predictor, prepared, label="Pneumonia"))
    assert not np.allclose(explain(predictor, prepared), explain(predictor, prepared, label="COVID-19"), atol=0.1)


def test_a_label_for_which_nothing_speaks_has_a_map_of_zeros(shipped: Predictor) -> None:
    blank = torch.zeros(1, 32, 32)
    assert not explain(shipped, blank).any()
    assert not explain(Predictor(Says(1.0), card(), device=CPU), torch.rand(1, 32, 32)).any()


def test_a_network_without_a_number_for_an_answer_is_not_explained() -> None:
    with pytest.raises(NonFiniteOutput, match="plain"):
        explain(Predictor(Says(float("nan")), card(), device=CPU), torch.full((1, 32, 32), float("nan")))


def test_a_label_or_a_shape_that_the_model_does_not_know_is_refused(shipped: Predictor, film: torch.Tensor) -> None:
    with pytest.raises(InvalidData, match=r"Fracture.*COVID-19"):
        explain(shipped, film, label="Fracture")
    with pytest.raises(InvalidData, match="shape"):
        explain(shipped, film[0])


def test_each_image_of_a_batch_has_the_map_it_has_alone(shipped: Predictor, film: torch.Tensor) -> None:
    batch = [film, film.flip(2), film.flip(1)]
    together = explain_batch(shipped, batch)
    assert together.shape == (3, 32, 32)
    for alone, found in zip(batch, together, strict=True):
        assert np.allclose(explain(shipped, alone), found, atol=1e-4)
    assert explain_batch(shipped, []).shape == (0, 32, 32)


def test_explaining_leaves_the_network_as_it_was_and_gives_the_same_map_again(shipped: Predictor, film: torch.Tensor) -> None:
    before = {name: weight.clone() for name, weight in shipped.network.state_dict().items()}
    answer = shipped.predict([film])
    first = explain(shipped, film)
    with torch.inference_mode():
        assert np.array_equal(explain(shipped, film.clone()), first)
    assert shipped.predict([film]) == answer
    assert all(torch.equal(weight, before[name]) for name, weight in shipped.network.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in shipped.network.modules())  # noqa: SLF001
    assert all(parameter.grad is None for parameter in shipped.network.parameters())


def test_predictions_made_meanwhile_in_another_thread_are_the_same(shipped: Predictor, film: torch.Tensor) -> None:
    alone, expected = explain(shipped, film), shipped.predict([film])
    maps: list[NDArray[np.float32]] = []
    explaining = threading.Thread(target=lambda: maps.extend(explain(shipped, film) for _ in range(10)))
    explaining.start()
    answers = [shipped.predict([film])]
    while explaining.is_alive():
        answers.append(shipped.predict([film]))
    explaining.join()
    assert all(answer == expected for answer in answers)
    assert len(maps) == 10
    assert all(np.array_equal(found, alone) for found in maps)


@pytest.fixture(scope="module")
def films(shipped: Predictor) -> list[torch.Tensor]:
    test = data_folder() / "covid19-dataset" / "test"
    files: list[Path] = []
    for folder in sorted(each for each in test.iterdir() if each.is_dir()):
        files += islice((file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES), 12)
    return [shipped.prepare(read_radiograph(file)) for file in files]


def test_the_map_depends_on_the_weights(shipped: Predictor, films: list[torch.Tensor]) -> None:
    """Adebayo et al. 2018, "Sanity Checks for Saliency Maps": what only draws edges would explain any network alike."""
    torch.manual_seed(1)
    fresh = Predictor(build_network(shipped.card.architecture, classes=3), shipped.card, device=CPU)
    learnt, random = explain_batch(shipped, films, label="Pneumonia"), explain_batch(fresh, films, label="Pneumonia")
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(learnt, random, strict=True)]
    assert np.mean(alike) < 0.3


def test_erasing_what_the_map_marks_costs_the_label_more_than_erasing_as_much_elsewhere(
    shipped: Predictor, films: list[torch.Tensor]
) -> None:
    images = torch.stack(films)
    marks = torch.from_numpy(explain_batch(shipped, films)).flatten(1)
    blurred = functional.avg_pool2d(functional.pad(images, (8, 8, 8, 8), mode="reflect"), 17, 1)
    erased = round(0.15 * marks.shape[1])
    with torch.no_grad():
        logits = shipped.network(images)
        chosen = logits.argmax(dim=1)

        def loss(places: torch.Tensor) -> float:
            """Return by how much the logits of the answers fall, on average."""
            hidden = torch.zeros_like(marks).scatter_(1, places, 1.0).view_as(images)
            left = shipped.network(images * (1 - hidden) + blurred * hidden)
            rows = torch.arange(len(images))
            return float((logits - left)[rows, chosen].mean())

        order = marks.argsort(dim=1, descending=True)
        generator = torch.Generator().manual_seed(0)
        anywhere = [
            loss(torch.stack([row[torch.randperm(len(row), generator=generator)[:erased]] for row in order[:, erased:]]))
            for _ in range(5)
        ]
        assert loss(order[:, :erased]) > 2 * max(*anywhere, loss(order[:, -erased:]), 0.1)
