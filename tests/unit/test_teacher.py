"""A teacher's labels: learnt from other groups alone, and a share of what a network learns."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr_models import teacher as module
from cxr_models.catalogue import LabelledImage, read_catalogue
from cxr_models.checkpoint import WEIGHTS
from cxr_models.classifier import Classifier
from cxr_models.errors import InvalidModel
from cxr_models.networks import build_network
from cxr_models.recipe import Recipe
from cxr_models.teacher import read_teacher, regress, soft_labels
from cxr_models.values import LABELS
from cxr_models.zoo import find_model
from tests.factories import write_films

GROUPS = 60


def images() -> tuple[LabelledImage, ...]:
    """Two films of each patient, whose groups say nothing of the label."""
    return tuple(
        LabelledImage(
            path=Path(f"{number}.png"),
            label=LABELS[number // 2 * 7 % 3],
            patient=str(number // 2),
            source="one",
            sha256=str(number),
            group=str(number // 2),
        )
        for number in range(2 * GROUPS)
    )


def truth(films: tuple[LabelledImage, ...]) -> Tensor:
    return torch.tensor([LABELS.index(film.label) for film in films])


def taught(**changes: object) -> Recipe:
    return Recipe.model_validate({"architecture": "lenet5", "teacher": "imagenet-features"} | changes)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The convolutions of a VGG16 for three channels that learned nothing."""
    torch.manual_seed(1)
    features = build_network("vgg16_pooled", classes=3).get_submodule("features")
    features.register_module("0", nn.Conv2d(3, 64, kernel_size=3, padding=1))
    file = tmp_path_factory.mktemp("weights") / "colour.safetensors"
    safetensors.torch.save_file({f"features.{name}": each for name, each in features.state_dict().items()}, file)
    return file


def test_no_image_is_labelled_by_a_fit_that_saw_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    films, seen = images(), []

    def watched(known: Tensor, labels: Tensor, *, asked: Tensor) -> Tensor:
        seen.append([{films[int(number)].group for number in side[:, 0]} for side in (known, asked)])
        assert labels.tolist() == [LABELS.index(films[int(number)].label) for number in known[:, 0]]
        return torch.zeros(len(asked), len(LABELS), dtype=torch.float64)

    monkeypatch.setattr(module, "regress", watched)
    soft_labels(torch.arange(float(len(films)))[:, None], films)
    assert all(known and asked and not known & asked for known, asked in seen)
    assert sorted(group for _, asked in seen for group in asked) == sorted({film.group for film in films})


def test_what_tells_a_patient_from_others_teaches_nothing() -> None:
    films = images()
    known_by_heart = functional.one_hot(torch.tensor([int(film.group) for film in films])).double()
    fitted = regress(known_by_heart, truth(films), asked=known_by_heart).argmax(dim=1)
    assert (fitted == truth(films)).all()
    assert (soft_labels(known_by_heart, films).argmax(dim=1) == truth(films)).float().mean() < 0.5


def test_what_tells_a_label_from_others_is_learnt_and_as_sure_as_it_is_right() -> None:
    films = images()
    torch.manual_seed(0)
    telling = functional.one_hot(truth(films)).repeat(1, 20) + torch.randn(len(films), 60) * 1.5
    labels = soft_labels(telling, films)
    assert labels.sum(dim=1).tolist() == pytest.approx([1] * len(films))
    right = (labels.argmax(dim=1) == truth(films)).float().mean().item()
    assert right > 0.8
    assert labels.max(dim=1).values.mean().item() == pytest.approx(right, abs=0.06)


def test_a_regression_is_at_the_minimum_of_its_loss() -> None:
    torch.manual_seed(3)
    known, labels = torch.randn(40, 5).double() * 3 + 1, torch.arange(40) % 3
    logits = regress(known, labels, asked=known)
    # With intercepts the slope of the summed loss in them is the sum of what the probabilities are off by.
    off = functional.softmax(logits, dim=1) - functional.one_hot(labels, 3)
    assert off.sum(dim=0).abs().max() < 1e-3
    standard = (known - known.mean(dim=0)) / known.std(dim=0, correction=0)
    slopes = torch.linalg.lstsq(standard, logits - logits.mean(dim=0)).solution
    assert torch.allclose(standard.T @ off + module.DECAY * slopes, torch.zeros(5, 3).double(), atol=1e-2)


def test_a_teacher_looks_once_at_an_image_and_labels_it_as_its_mirror_image(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Labels that the films do not tell: a sure answer would hide what it is made of.
    written = read_catalogue([write_films(tmp_path / "films", each=5)]).all
    films = [replace(film, label=LABELS[number % 3]) for number, film in enumerate(written)]
    read: list[str] = []
    plain: Callable[..., Tensor] = module.prepare

    def prepared(*arguments: object, mirrored: bool) -> Tensor:
        read.append("one")
        image = plain(*arguments)
        return image.flip(2) if mirrored else image

    teacher, other = (read_teacher(taught(teacher=str(weights))) for _ in range(2))
    assert teacher is not None
    assert other is not None
    assert teacher.described["name"] == "colour.safetensors"
    monkeypatch.setattr(module, "prepare", lambda *arguments: prepared(*arguments, mirrored=False))
    labels = teacher.label(films)
    assert torch.equal(teacher.label(films), labels)
    assert labels.shape == (15, 3)
    assert len(read) == 15
    monkeypatch.setattr(module, "prepare", lambda *arguments: prepared(*arguments, mirrored=True))
    assert torch.allclose(other.label(films), labels, atol=1e-5)


def test_a_recipe_without_a_teacher_has_none() -> None:
    assert read_teacher(Recipe(architecture="lenet5")) is None


def test_missing_weights_are_one_clear_error_that_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"no initial weights .*gone.safetensors.*--teacher"):
        read_teacher(taught(teacher=str(tmp_path / "gone.safetensors")))


def test_a_file_of_other_weights_is_one_clear_error_that_names_the_option() -> None:
    with pytest.raises(InvalidModel, match=r"weights.safetensors has weights of shape .*; name others with --teacher"):
        read_teacher(taught(teacher=str(find_model("lenet5") / WEIGHTS)))


def test_without_a_network_the_error_names_the_option_for_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InvalidModel, match=r"elsewhere and name it with --teacher FILE"):
        read_teacher(taught())


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_batch_that_was_taught_costs_the_recipes_share_of_both_losses(share: float) -> None:
    torch.manual_seed(0)
    classifier = Classifier(taught(teacher_share=share, label_smoothing=0.1).model_dump(), [1, 1, 1])
    films, labels, soft = torch.randn(8, 1, 32, 32), torch.arange(8) % 3, torch.rand(8, 3).softmax(dim=1)
    logits = classifier(films)
    true = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    told = -(soft * logits.log_softmax(dim=1)).sum(dim=1).mean()
    loss = classifier.training_step((films, labels, soft), 0)
    assert loss.item() == pytest.approx(((1 - share) * true + share * told).item(), rel=1e-5)
    assert classifier.training_step((films, labels), 0).item() == pytest.approx(true.item(), rel=1e-5)


def test_an_image_that_stands_twice_is_labelled_twice() -> None:
    films = images()
    twice = (*films, replace(films[0], path=Path("copy.png")))
    features = functional.one_hot(truth(twice)).double()
    labels = soft_labels(features, twice)
    assert torch.equal(labels[0], labels[-1])
