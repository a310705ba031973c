import hashlib
import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cxr_models.card_page import render_card
from cxr_models.catalogue import LabelledImage, read_catalogue, split
from cxr_models.classifier import Classifier, blocks
from cxr_models.errors import InvalidData, InvalidRecipe, UnknownDevice, UnreadableImage
from cxr_models.evaluate import evaluate
from cxr_models.films import group_by_film
from cxr_models.images import read_radiograph
from cxr_models.networks import build_network
from cxr_models.predict import Predictor
from cxr_models.recipe import Recipe
from cxr_models.seen import read_seen
from cxr_models.teacher import Teacher
from cxr_models.train import Fitted, Machine, fit, train
from cxr_models.values import LABELS, Card

CPU = Machine(accelerator="cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def write_films(home: Path, *, train_each: int, test_each: int) -> Path:
    """Write three classes that a network can tell apart: bright above, bright below, bright in the middle; with test images."""
    generator = np.random.default_rng(0)
    for part, each in (("train", train_each), ("test", test_each)):
        for name, rows in (("Covid", slice(0, 20)), ("Normal", slice(20, 40)), ("Viral Pneumonia", slice(40, 60))):
            folder = home / part / name
            folder.mkdir(parents=True)
            for index in range(each):
                pixels = generator.integers(0, 90, (60, 50), dtype=np.uint8)
                pixels[rows] += 120
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return home


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return write_films(tmp_path / "films", train_each=24, test_each=6)


RECIPE: dict[str, object] = {"architecture": "lenet5", "epochs": 12, "batch_size": 16, "learning_rate": 3e-3}


@pytest.fixture
def run(films: Path, tmp_path: Path) -> Callable[..., tuple[Path, Card]]:
    """Train from the folders to a model folder."""

    def run(name: str = "model", *, machine: Machine = CPU, **changes: object) -> tuple[Path, Card]:
        recipe = Recipe.model_validate(RECIPE | changes)
        with warnings.catch_warnings():
            # Lightning's and TensorBoard's own use of what newer torch and NumPy deprecate.
            warnings.simplefilter("ignore")
            card = train(read_catalogue([films]), recipe=recipe, output=tmp_path / name, machine=machine, version="0.1.0")
        return tmp_path / name, card

    return run


@pytest.fixture
def fitted(films: Path, tmp_path: Path) -> Callable[..., Fitted]:
    """Fit to one split of the images."""
    catalogue = read_catalogue([films])

    def fitted(name: str = "fitted", *, machine: Machine = CPU, **changes: object) -> Fitted:
        recipe = Recipe.model_validate(RECIPE | changes)
        parts = split(catalogue, val_share=recipe.val_share, test_share=0.15, seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fit(parts, recipe=recipe, machine=machine, output=tmp_path / name)

    return fitted


def same_weights(first: Fitted, second: Fitted) -> bool:
    others = second.network.state_dict()
    return all(torch.equal(each, others[name]) for name, each in first.network.state_dict().items())


def scalars(logs: Path, name: str) -> list[float]:
    events = EventAccumulator(str(next(logs.rglob("events.*")).parent))
    events.Reload()
    return [each.value for each in events.Scalars(name)]


def test_a_training_learns_calibrates_and_writes_a_model_that_serves(
    run: Callable[..., tuple[Path, Card]], films: Path
) -> None:
    folder, card = run()
    measured = card.metrics["films, test folder"]
    assert measured["n"] == 18
    assert measured["accuracy"] > 0.9
    assert card.training["train"] == {"COVID-19": 20, "Normal": 20, "Pneumonia": 20}
    assert card.training["validation"] == {"COVID-19": 4, "Normal": 4, "Pneumonia": 4}
    predictor = Predictor.load(str(folder), device="cpu")
    assert predictor.card == card
    again = evaluate(predictor, group_by_film(read_catalogue([films])).test)
    assert json.loads(json.dumps(again.summary())) == json.loads(json.dumps(measured))
    history = json.loads((folder / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == list(range(12))
    for name in ("train_loss", "valid_loss", "valid_acc", "valid_balanced_acc"):
        assert scalars(folder / "logs", name) == pytest.approx([epoch[name] for epoch in history])
    assert history[-1]["valid_acc"] == 1
    assert scalars(folder / "logs", "test_acc") == [pytest.approx(measured["accuracy"])]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(fitted: Callable[..., Fitted]) -> None:
    augmentation = {"rotate_degrees": 5, "translate": 0.1, "contrast": 0.2}
    first, again, other = (fitted(epochs=2, seed=seed, balance="class", augmentation=augmentation) for seed in (0, 0, 1))
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_of_several_attempts_the_one_with_the_lowest_validation_loss_is_kept(fitted: Callable[..., Fitted]) -> None:
    alone = [fitted(epochs=2, seed=seed) for seed in range(3)]
    best = min(alone, key=lambda each: min(epoch["valid_loss"] for epoch in each.history))
    kept = fitted(epochs=2, attempts=3)
    assert same_weights(kept, best)
    assert kept.history == best.history


@pytest.mark.parametrize(
    "changes",
    [
        {"average": 0.9, "architecture": "lenet5_bn", "dropout": 0.3},
        {"optimizer": "sgd", "schedule": "onecycle", "body_learning_rate_factor": 0.5},
        {"optimizer": "adamw", "weight_decay": 0.1, "label_smoothing": 0.1, "mixup": 0.4},
        {"class_weights": True, "balance": "source", "init": "normal_0.05"},
        {"monitor": "valid_balanced_acc", "stop_on": "valid_acc", "attempts": 2},
        {"stored_side": 48, "augmentation": {"noise": 0.1, "erase": 0.5, "mirror": 0.5, "rotate_degrees": 10}},
        {"trainable": "staged", "head_epochs": 1, "freeze_blocks": 1},
    ],
    ids=", ".join,
)
def test_every_choice_of_a_recipe_trains(fitted: Callable[..., Fitted], changes: dict[str, object]) -> None:
    done = fitted(epochs=2, **changes)
    assert done.card.training["recipe"]["epochs"] == 2
    assert Recipe.model_validate(done.card.training["recipe"]) == Recipe.model_validate(RECIPE | {"epochs": 2} | changes)
    with torch.inference_mode():
        assert done.network(torch.zeros(1, 1, 32, 32)).isfinite().all()


def test_what_is_frozen_stays_as_it_was_and_the_rest_learns(fitted: Callable[..., Fitted]) -> None:
    def moved(**changes: object) -> list[bool]:
        before, after = (fitted(epochs=epochs, architecture="lenet5_bn", **changes).network for epochs in (1, 3))
        pairs = zip((*blocks(before), before.classifier), (*blocks(after), after.classifier), strict=True)
        return [
            any(not torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
            for one, two in pairs
        ]

    # Validated best is the last of one and three epochs here: the loss falls throughout.
    assert moved(freeze_blocks=2) == [False, False, True, True]
    assert moved(trainable="head") == [False, False, False, True]
    assert moved() == [True, True, True, True]


def test_a_training_stops_early_when_the_validation_loss_no_longer_falls(fitted: Callable[..., Fitted]) -> None:
    done = fitted(epochs=60, patience=1, learning_rate=0.5, optimizer="sgd")
    assert 2 <= len(done.history) < 60


def test_without_validation_every_image_is_trained_on_nothing_is_chosen_and_no_figure_is_claimed(
    run: Callable[..., tuple[Path, Card]],
) -> None:
    folder, card = run(val_share=0, keep="last", patience=1, min_delta=10.0)
    assert card.training["train"] == {"COVID-19": 24, "Normal": 24, "Pneumonia": 24}
    assert card.training["validation"] == {"COVID-19": 0, "Normal": 0, "Pneumonia": 0}
    assert card.metrics.keys() == {"films, test folder"}
    assert (card.temperature, card.abstain_below) == (1.0, 0.0)
    history = json.loads((folder / "history.json").read_text())
    assert len(history) == 12
    assert not any(name.startswith("valid") for epoch in history for name in epoch)
    assert [each.name for each in (folder / "checkpoints" / "seed-0").iterdir()] == ["last.ckpt"]
    assert "not calibrated" in render_card(card)
    assert Predictor.load(str(folder), device="cpu").card == card


class Liar(Teacher):
    """Calls each image by the label after its own."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.described = {"name": "liar", "sha256": "0" * 64}

    def label(self, images: Sequence[LabelledImage]) -> torch.Tensor:
        self.asked += [image.sha256 for image in images]
        return torch.eye(3)[[(LABELS.index(image.label) + 1) % 3 for image in images]]


def test_a_network_learns_what_its_teacher_says_of_each_training_image_and_the_card_names_it(
    films: Path, tmp_path: Path
) -> None:
    parts = split(read_catalogue([films]), val_share=0.15, test_share=0.15, seed=0)
    recipe = Recipe.model_validate(RECIPE | {"teacher": "liar", "teacher_share": 1.0, "keep": "last"})
    teacher = Liar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = fit(parts, recipe=recipe, machine=CPU, output=tmp_path / "taught", teacher=teacher)
    assert sorted(teacher.asked) == sorted(image.sha256 for image in parts.train)
    predictor = Predictor(fitted.network, replace(fitted.card, temperature=1.0), device=torch.device("cpu"))
    answers = predictor.predict([predictor.prepare(read_radiograph(film.path)) for film in parts.test])
    lies = [LABELS[(LABELS.index(film.label) + 1) % 3] for film in parts.test]
    assert [answer.label for answer in answers] == lies
    assert fitted.card.training["teacher"] == teacher.described
    assert "(liar, SHA-256 `000" in render_card(fitted.card)


@pytest.mark.parametrize("average", [0, 0.9])
def test_the_weights_that_are_kept_are_those_that_were_validated_best(
    fitted: Callable[..., Fitted], films: Path, average: float
) -> None:
    done = fitted(epochs=8, average=average, learning_rate=1e-3, seed=3)
    raw = Predictor(done.network, replace(done.card, temperature=1.0), device=torch.device("cpu"))
    chosen = split(read_catalogue([films]), val_share=0.15, test_share=0.15, seed=0).val
    answers = raw.predict([raw.prepare(read_radiograph(film.path)) for film in chosen])
    loss = -np.mean([np.log(answer.probabilities[film.label]) for answer, film in zip(answers, chosen, strict=True)])
    assert loss == pytest.approx(min(epoch["valid_loss"] for epoch in done.history), rel=1e-3)


class TestResuming:
    @pytest.mark.parametrize(("average", "val_share"), [(0, 0.15), (0.9, 0.15), (0.9, 0)])
    def test_a_training_cut_off_goes_on_to_what_it_would_have_become(
        self, fitted: Callable[..., Fitted], monkeypatch: pytest.MonkeyPatch, average: float, val_share: float
    ) -> None:
        changes: dict[str, object] = {
            "val_share": val_share,
            "keep": "best" if val_share else "last",
            "epochs": 4,
            "average": average,
            "schedule": "onecycle",
            "augmentation": {"translate": 0.1, "noise": 0.1},
        }
        whole = fitted("whole", **changes)
        begin = Classifier.on_train_epoch_start

        def cut_off(self: Classifier) -> None:
            if self.current_epoch == 2:
                raise OSError("power cut")
            begin(self)

        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "on_train_epoch_start", cut_off)
            with pytest.raises(OSError, match="power cut"):
                fitted("cut", **changes)
        resumed = fitted("cut", machine=replace(CPU, resume=True), **changes)
        assert [epoch["epoch"] for epoch in resumed.history] == [0, 1, 2, 3]
        assert resumed.history == whole.history
        assert same_weights(resumed, whole)

    def test_the_last_and_the_best_checkpoint_are_kept_and_no_others(
        self, fitted: Callable[..., Fitted], tmp_path: Path
    ) -> None:
        for _ in range(2):
            fitted("kept", epochs=3, monitor="valid_acc")
        folder = tmp_path / "kept" / "checkpoints" / "seed-0"
        names = sorted(each.name for each in folder.iterdir())
        assert names[0] == "last.ckpt"
        assert re.fullmatch(r"model-epoch=0\d-valid_acc=\d\.\d\d\.ckpt", names[1])
        assert len(names) == 2

    def test_where_nothing_was_begun_there_is_nothing_to_resume(self, fitted: Callable[..., Fitted]) -> None:
        with pytest.raises(InvalidData, match=r"no training to resume.*leave out --resume"):
            fitted(machine=replace(CPU, resume=True))

    def test_a_training_by_another_recipe_is_not_resumed(self, fitted: Callable[..., Fitted]) -> None:
        fitted(epochs=1)
        with pytest.raises(InvalidRecipe, match=r"other values of batch_size, learning_rate"):
            fitted(epochs=1, batch_size=8, learning_rate=1e-3, machine=replace(CPU, resume=True))

    def test_a_training_is_resumed_though_the_file_that_it_started_from_lies_elsewhere(
        self, fitted: Callable[..., Fitted], tmp_path: Path
    ) -> None:
        file = tmp_path / "begin.pth"
        torch.save(build_network("lenet5", classes=3).state_dict() | {"features.0.weight": torch.zeros(6, 3, 5, 5)}, file)
        fitted(epochs=1, initial=str(file))
        moved = file.rename(file.with_name("weights.pth"))
        with pytest.raises(InvalidRecipe, match="other values of initial"):
            fitted(epochs=2, initial=str(moved), machine=replace(CPU, resume=True))
        (tmp_path / "elsewhere").mkdir()
        moved = moved.rename(tmp_path / "elsewhere" / "begin.pth")
        resumed = fitted(epochs=2, initial=str(moved), machine=replace(CPU, resume=True))
        assert [epoch["epoch"] for epoch in resumed.history] == [0, 1]


class TestTransfer:
    @pytest.mark.parametrize(
        "trainable", [{"trainable": "head"}, {"trainable": "staged", "head_epochs": 1, "freeze_blocks": 3}]
    )
    def test_a_vgg16_starts_from_a_file_of_colour_weights(
        self, fitted: Callable[..., Fitted], tmp_path: Path, trainable: dict[str, object]
    ) -> None:
        features = dict(build_network("vgg16_pooled", classes=3).state_dict())
        tensors = {name: each for name, each in features.items() if name.startswith("features.")}
        tensors["features.0.weight"] = torch.randn(64, 3, 3, 3) / 10
        file = tmp_path / "colour.pth"
        torch.save(tensors, file)
        machine = replace(CPU, fast_dev_run=True)
        how = {"architecture": "vgg16_pooled", "input_side": 32, "batch_size": 4, "initial": str(file)}
        done = fitted(machine=machine, **how, **trainable)
        initial = done.card.training["initial"]
        assert initial["taken"] == "features.0 folded, 26 tensors taken, head new"
        assert initial["name"] == "colour.pth"
        assert initial["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert str(tmp_path) not in json.dumps(done.card.training)
        # The one epoch trains the head alone, so the convolutions are still those of the file.
        assert torch.equal(done.network.get_submodule("features.28").weight, tensors["features.28.weight"])

    def test_a_training_goes_on_from_a_model_of_our_own(
        self, run: Callable[..., tuple[Path, Card]], fitted: Callable[..., Fitted]
    ) -> None:
        folder, card = run(epochs=12)
        done = fitted(epochs=1, learning_rate=1e-6, initial=str(folder), mean=0.4, std=0.3)
        assert done.history[0]["valid_acc"] == 1
        assert done.card.training["initial"] == {
            "name": "lenet5 0.1.0",
            "sha256": card.weights_sha256,
            "taken": "features.0 folded, 10 tensors taken, head taken",
        }


def test_scoring_as_published_keeps_the_leaks_and_says_so_beside_the_honest_figures(
    run: Callable[..., tuple[Path, Card]], films: Path
) -> None:
    for index in range(3):
        leak = films / "test" / "Normal" / f"{index}.png"
        leak.write_bytes((films / "train" / "Normal" / f"{index}.png").read_bytes())
    augmentation = {"mirror": 0.5, "rotate_degrees": 10}
    honest = run(epochs=1, augmentation=augmentation)[1]
    published = run(epochs=1, augmentation=augmentation, as_published=True)[1]
    assert sum(published.training["train"].values()) == sum(honest.training["train"].values()) + 3
    assert {name: each["n"] for name, each in honest.metrics.items()} == {"validation": 11, "films, test folder": 18}
    ways = "as published (augmented test images, leaks kept)"
    assert {name: each["n"] for name, each in published.metrics.items() if "validation" not in name} == {
        "films, test folder": 15,
        f"films, test folder, {ways}": 18,
    }


def test_the_model_folder_tells_which_images_were_seen(run: Callable[..., tuple[Path, Card]], films: Path) -> None:
    folder, _ = run(epochs=1)
    catalogue = read_catalogue([films])
    assert read_seen(folder) == {image.sha256 for image in catalogue.train}


@pytest.mark.parametrize(
    ("architecture", "side"),
    [
        ("lenet5", 32),
        ("lenet5_bn", 32),
        ("vgg16_pooled", 48),
        pytest.param("vgg16", 32, marks=pytest.mark.slow),
        pytest.param("vgg16_bn", 48, marks=pytest.mark.slow),
    ],
)
def test_a_fast_run_of_each_network_goes_through_every_step(
    run: Callable[..., tuple[Path, Card]], architecture: str, side: int
) -> None:
    machine = Machine(accelerator="cpu", fast_dev_run=True)
    folder, card = run(machine=machine, architecture=architecture, input_side=side, batch_size=4, optimizer="sgd")
    assert (card.architecture, card.input_side) == (architecture, side)
    assert Predictor.load(str(folder), device="cpu").card == card


def test_an_image_that_is_cut_off_ends_the_training_with_its_name(run: Callable[..., tuple[Path, Card]], films: Path) -> None:
    broken = films / "train" / "Normal" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UnreadableImage, match=str(broken)):
        run()


@pytest.mark.parametrize("machine", [Machine(accelerator="abacus"), Machine(accelerator="cpu", precision="7-bit")])
def test_a_machine_that_lightning_does_not_know_is_refused(run: Callable[..., tuple[Path, Card]], machine: Machine) -> None:
    with pytest.raises(UnknownDevice, match="Lightning cannot train like this"):
        run(machine=machine)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_training_runs_on_the_gpu_in_mixed_precision(run: Callable[..., tuple[Path, Card]]) -> None:
    _, card = run(machine=Machine(accelerator="gpu", precision="bf16-mixed"))
    assert card.metrics["films, test folder"]["accuracy"] > 0.9
