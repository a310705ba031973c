import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cxr_models.catalogue import read_catalogue, split
from cxr_models.checkpoint import load_network
from cxr_models.errors import UnknownDevice, UnreadableImage
from cxr_models.evaluate import evaluate
from cxr_models.images import read_radiograph
from cxr_models.predict import Predictor
from cxr_models.recipe import Recipe
from cxr_models.seen import read_seen
from cxr_models.train import Machine, train
from cxr_models.values import Card

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


@pytest.fixture
def run(films: Path, tmp_path: Path) -> Callable[..., tuple[Path, Card]]:
    def run(name: str = "model", *, machine: Machine = CPU, data: Path = films, **changes: object) -> tuple[Path, Card]:
        written = {"architecture": "lenet5", "epochs": 12, "batch_size": 16, "learning_rate": 3e-3} | changes
        recipe = Recipe.model_validate(written)
        with warnings.catch_warnings():
            # Lightning's and TensorBoard's own use of what newer torch and NumPy deprecate.
            warnings.simplefilter("ignore")
            card = train(read_catalogue([data]), recipe=recipe, output=tmp_path / name, machine=machine, version="0.1.0")
        return tmp_path / name, card

    return run


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
    again = evaluate(predictor, read_catalogue([films]).test)
    assert json.loads(json.dumps(asdict(again))) == json.loads(json.dumps(measured))
    assert list((folder / "logs").rglob("events.out.tfevents.*"))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run: Callable[..., tuple[Path, Card]]) -> None:
    augmentation = {"rotate_degrees": 5, "translate": 0.1, "contrast": 0.2}
    first, again, other = (
        run(name, epochs=2, seed=seed, balance="class", augmentation=augmentation)[1].weights_sha256
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert first != other


def test_of_several_attempts_the_one_with_the_lowest_validation_loss_is_kept(run: Callable[..., tuple[Path, Card]]) -> None:
    alone = {run(f"seed-{seed}", epochs=2, seed=seed)[1].weights_sha256 for seed in range(3)}
    assert run("best", epochs=2, attempts=3)[1].weights_sha256 in alone


@pytest.mark.parametrize(
    "changes",
    [
        {"average": 0.9},
        {"optimizer": "sgd", "schedule": "onecycle"},
        {"optimizer": "adamw", "weight_decay": 0.1, "label_smoothing": 0.1},
        {"class_weights": True, "balance": "source"},
        {"monitor": "valid_balanced_acc", "attempts": 2},
    ],
    ids=", ".join,
)
def test_every_choice_of_a_recipe_trains(run: Callable[..., tuple[Path, Card]], changes: dict[str, object]) -> None:
    folder, card = run(epochs=2, **changes)
    assert Predictor.load(str(folder), device="cpu").card == card
    assert card.training["recipe"] | changes == card.training["recipe"]


def test_a_training_stops_early_when_the_validation_loss_no_longer_falls(run: Callable[..., tuple[Path, Card]]) -> None:
    folder, _ = run(epochs=60, patience=1, learning_rate=0.5, optimizer="sgd")
    events = EventAccumulator(str(next((folder / "logs").rglob("events.*")).parent))
    events.Reload()
    assert 2 <= len(events.Scalars("valid_loss")) < 60


@pytest.mark.parametrize("average", [0, 0.9])
def test_the_weights_that_are_kept_are_those_that_were_validated_best(
    run: Callable[..., tuple[Path, Card]], average: float
) -> None:
    folder, card = run(epochs=8, average=average, learning_rate=1e-3, seed=3)
    events = EventAccumulator(str(next((folder / "logs").rglob("events.*")).parent))
    events.Reload()
    losses, accuracies = ([each.value for each in events.Scalars(name)] for name in ("valid_loss", "valid_acc"))
    predictor = Predictor.load(str(folder), device="cpu")
    raw = Predictor(load_network(folder, torch.device("cpu"))[0], replace(card, temperature=1.0), device=torch.device("cpu"))
    assert predictor.card == card
    films = split(read_catalogue([folder.parent / "films"]), val_share=0.15, test_share=0.15, seed=0).val
    answers = raw.predict([raw.prepare(read_radiograph(film.path)) for film in films])
    loss = -np.mean([np.log(answer.probabilities[film.label]) for answer, film in zip(answers, films, strict=True)])
    assert loss == pytest.approx(min(losses), rel=1e-3)
    assert card.metrics["validation"]["accuracy"] == pytest.approx(accuracies[losses.index(min(losses))], abs=1e-6)


def test_the_model_folder_tells_which_images_were_seen(run: Callable[..., tuple[Path, Card]], films: Path) -> None:
    folder, _ = run(epochs=1)
    catalogue = read_catalogue([films])
    assert read_seen(folder) == {image.sha256 for image in catalogue.train}


def test_a_fast_run_of_lenet5_goes_through_every_step(run: Callable[..., tuple[Path, Card]]) -> None:
    folder, card = run(machine=Machine(accelerator="cpu", fast_dev_run=True))
    assert Predictor.load(str(folder), device="cpu").card == card


@pytest.mark.slow
def test_a_fast_run_of_vgg16_goes_through_every_step(run: Callable[..., tuple[Path, Card]], tmp_path: Path) -> None:
    few = write_films(tmp_path / "few", train_each=4, test_each=1)
    machine = Machine(accelerator="cpu", fast_dev_run=True)
    folder, card = run(machine=machine, data=few, architecture="vgg16", batch_size=2, optimizer="sgd")
    assert card.input_side == 224
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
