import csv
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from cxr_models import search as module
from cxr_models.catalogue import Catalogue, read_catalogue
from cxr_models.cli import main
from cxr_models.crossvalidate import Fold, Plan
from cxr_models.errors import InvalidData, NonFiniteOutput
from cxr_models.predictions_file import PredictedImage
from cxr_models.recipe import Augmentation, Recipe, read_recipe, shipped_recipes
from cxr_models.search import BEST, TRIES, Budget, as_toml, mean_over_sources, search
from cxr_models.train import Machine
from cxr_models.values import LABELS
from tests.factories import write_films

TINY = Recipe(architecture="lenet5", epochs=1, batch_size=16, learning_rate=3e-3, attempts=2)
Search = Callable[..., list[dict[str, Any]]]


def said(label: str, called: str, source: str = "one") -> PredictedImage:
    probabilities = dict.fromkeys(LABELS, 0.2) | {called: 0.6}
    return PredictedImage(sha256="", source=source, label=label, group="", probabilities=probabilities)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("films") / "all", each=12)


@pytest.fixture(scope="module")
def catalogue(films: Path) -> Catalogue:
    return read_catalogue([films])


@pytest.fixture
def run(catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """A search whose trainings are made up: the nearer the label smoothing to 0.1, the more of ten images are right."""

    def made_up(_: Fold, *, recipe: Recipe, **__: Any) -> tuple[list[PredictedImage], dict[str, Any]]:
        assert recipe.attempts == 1
        right = round(10 - 90 * abs(recipe.label_smoothing - 0.1))
        return [said("Normal", "Normal" if number < right else "Pneumonia") for number in range(10)], {}

    monkeypatch.setattr(module, "train_fold", made_up)

    def run(*, tries: int | None = None, minutes: float | None = None, recipe: Recipe = TINY) -> list[dict[str, Any]]:
        plan = Plan(name="tiny", recipe=recipe, count=3)
        budget = Budget(tries=tries, minutes=minutes)
        return search(catalogue, plan=plan, machine=Machine(accelerator="cpu"), output=tmp_path, budget=budget)

    return run


def test_the_first_try_is_the_recipe_itself_and_the_best_is_written_as_a_recipe(run: Search, tmp_path: Path) -> None:
    tries = run(tries=20)
    assert [row["try"] for row in tries] == list(range(20))
    assert tries[0]["label_smoothing"] == 0
    assert tries[0]["score"] == pytest.approx(0.1)
    best = max((row for row in tries if row["ended"] == "complete"), key=lambda row: row["score"])
    assert best["score"] > 0.8
    found = read_recipe(str(tmp_path / BEST))
    assert found.label_smoothing == best["label_smoothing"]
    assert found.learning_rate == pytest.approx(3e-3 * best["learning_rate_factor"], rel=0.01)
    assert (found.attempts, found.epochs) == (2, 1)


def test_a_try_that_is_worse_than_most_after_two_folds_is_given_up(run: Search, tmp_path: Path) -> None:
    tries = run(tries=14)
    given_up = [row for row in tries if row["ended"] == "given up"]
    assert given_up
    assert {row["folds"] for row in given_up} == {2}
    with (tmp_path / TRIES).open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["ended"] for row in written] == [row["ended"] for row in tries]


def test_a_search_goes_on_where_it_was(run: Search) -> None:
    first = run(tries=3)
    both = run(tries=5)
    assert both[:3] == first
    assert len(both) == 5
    assert len({row["learning_rate_factor"] for row in both}) == 5
    assert run(tries=5) == both


def test_another_recipe_does_not_go_on_with_a_search(run: Search) -> None:
    run(tries=1)
    with pytest.raises(InvalidData, match="another recipe"):
        run(tries=2, recipe=TINY.model_copy(update={"epochs": 2}))


def test_a_search_without_time_left_still_completes_one_try(run: Search) -> None:
    assert [row["ended"] for row in run(minutes=0)] == ["complete"]


def test_a_training_that_comes_to_nothing_is_a_failed_try(run: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(*_: Any, **__: Any) -> Any:
        raise NonFiniteOutput

    monkeypatch.setattr(module, "train_fold", diverging)
    assert [row["ended"] for row in run(tries=2)] == ["failed", "failed"]


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_is_in_its_own_space_and_is_written_as_it_is_read(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    own = optuna.trial.FixedTrial(module.own_values(recipe))
    assert module.draw(own, recipe) == recipe.model_copy(update={"attempts": 1})
    (tmp_path / "written.toml").write_text(as_toml(recipe))
    assert read_recipe(str(tmp_path / "written.toml")) == recipe


def test_a_recipe_is_written_by_its_differences_alone() -> None:
    recipe = Recipe(architecture="lenet5", initial='a "file"', class_weights=True, augmentation=Augmentation(gamma=0.3))
    assert as_toml(recipe) == (
        'architecture = "lenet5"\ninitial = "a \\"file\\""\nclass_weights = true\n\n[augmentation]\ngamma = 0.3\n'
    )


def test_a_large_source_counts_no_more_than_a_small_one() -> None:
    rows = [said("Normal", "Normal", "large")] * 9 + [said("Normal", "Pneumonia", "small")]
    assert mean_over_sources(rows) == 0.5


def test_the_command_searches_and_says_how_long_it_takes(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    (tmp_path / "tiny.toml").write_text(as_toml(TINY))
    arguments = ["search", tmp_path / "tiny.toml", "--data", films, "--output", tmp_path / "out", "--folds", "2"]

    def call(*flags: str) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["cxr-models", *map(str, arguments), "--accelerator", "cpu", *flags])
        with warnings.catch_warnings():
            # Lightning's and TensorBoard's own use of what newer torch and NumPy deprecate.
            warnings.simplefilter("ignore")
            with pytest.raises(SystemExit) as end:
                main()
        return end.value.code, *capsys.readouterr()

    code, out, err = call("--trials", "2", "--json")
    assert not code, err
    assert [row["folds"] for row in json.loads(out)] == [2, 2]
    assert "1 tries, best" in err
    assert "left" in err
    code, out, err = call("--trials", "2")
    assert not code
    assert "learning_rate_factor" in out
    code, out, err = call()
    assert code == 2
    assert "--minutes" in err
