import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cxr_models import crossvalidate as module
from cxr_models.catalogue import Catalogue, LabelledImage, read_catalogue
from cxr_models.cli import main
from cxr_models.crossvalidate import (
    OUT_OF_FOLD,
    SUMMARY,
    Plan,
    accuracy,
    balanced_accuracy,
    crossvalidate,
    plan_folds,
    read_recipe_of,
)
from cxr_models.errors import InvalidData
from cxr_models.evaluate import measure
from cxr_models.predictions_file import PredictedImage, read_predictions
from cxr_models.recalibrate import read_across_folds
from cxr_models.recipe import Recipe
from cxr_models.teacher import Teacher
from cxr_models.train import Machine
from cxr_models.values import LABELS
from tests.factories import write_films

CPU = Machine(accelerator="cpu")
TINY = Recipe(architecture="lenet5", epochs=2, batch_size=16, learning_rate=3e-3)


def image(number: int, *, label: str = "Normal", group: str | None = None, source: str = "one") -> LabelledImage:
    return LabelledImage(
        path=Path(f"{number}.png"),
        label=label,
        patient=str(number),
        source=source,
        sha256=str(number),
        group=group or str(number),
    )


def many(count: int, **changes: Any) -> tuple[LabelledImage, ...]:
    return tuple(image(number, label=LABELS[number % 3], **changes) for number in range(count))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("films")
    for seed, source in enumerate(("north", "south")):
        write_films(home / source, each=12, seed=seed)
    return home


@pytest.fixture(scope="module")
def catalogue(films: Path) -> Catalogue:
    return read_catalogue([films / "north", films / "south"])


@pytest.fixture
def run(catalogue: Catalogue) -> Callable[..., dict[str, Any] | None]:
    torch.set_num_threads(1)

    def run(output: Path, *, recipe: Recipe = TINY, seed: int = 0, **changes: Any) -> dict[str, Any] | None:
        plan = Plan(name="tiny", recipe=recipe, count=3, seed=seed)
        with warnings.catch_warnings():
            # Lightning's and TensorBoard's own use of what newer torch and NumPy deprecate.
            warnings.simplefilter("ignore")
            return crossvalidate(**{"catalogue": catalogue} | changes, plan=plan, machine=CPU, output=output)

    return run


def test_no_group_stands_on_two_sides_and_each_image_is_predicted_once() -> None:
    images = tuple(replace(each, group=f"g{number // 2}") for number, each in enumerate(many(90)))
    planned = plan_folds(Catalogue(unparted=images), Plan(name="tiny", recipe=TINY))
    assert sorted(each.sha256 for fold in planned for each in fold.images) == sorted(each.sha256 for each in images)
    for fold in planned:
        sides = [{each.group for each in side} for side in (fold.images, fold.parts.train, fold.parts.val)]
        assert all(sides)
        assert sum(map(len, sides)) == len(set.union(*sides))
        assert fold.parts.test == ()


def test_what_shares_a_group_with_a_test_image_is_predicted_but_never_trained_on() -> None:
    copies = tuple(image(number, group="tested") for number in (100, 101))
    test = (image(102, group="tested"),)
    planned = plan_folds(Catalogue(train=many(60), unparted=copies, test=test), Plan(name="tiny", recipe=TINY))
    trained = {each.sha256 for fold in planned for each in fold.parts.train + fold.parts.val}
    predicted = {each.sha256 for fold in planned for each in fold.images}
    assert trained == {str(number) for number in range(60)}
    assert predicted == trained | {"100", "101"}


def test_a_teacher_sees_no_image_whose_group_stands_in_the_fold_under_test(
    run: Callable[..., dict[str, Any] | None], catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = Catalogue(unparted=tuple(replace(each, group=f"g{n // 2}") for n, each in enumerate(catalogue.unparted)))
    recipe = TINY.model_copy(update={"teacher": "/home/of/nobody/weights.safetensors", "val_share": 0, "keep": "last"})
    asked: list[set[str]] = []

    class Watched(Teacher):
        def __init__(self) -> None:
            self.described = {"name": "watched", "sha256": "0" * 64}

        def label(self, images: Sequence[LabelledImage]) -> torch.Tensor:
            asked.append({image.group for image in images})
            return torch.full((len(images), len(LABELS)), 1 / 3)

    monkeypatch.setattr(module, "read_teacher", lambda _: Watched())
    summary = run(tmp_path, recipe=recipe, catalogue=pairs)
    folds = plan_folds(pairs, Plan(name="tiny", recipe=recipe, count=3))
    every = {each.group for each in pairs.unparted}
    assert asked == [every - {each.group for each in fold.images} for fold in folds]
    assert summary is not None
    assert [fold["teacher"]["name"] for fold in summary["each_fold"]] == ["watched"] * 3
    assert "nobody" not in json.dumps(summary)
    assert read_recipe_of(tmp_path, training=recipe.model_copy(update={"teacher": "imagenet-features"}))


def test_a_cross_validation_writes_predictions_of_every_image_and_the_figures(
    run: Callable[..., dict[str, Any] | None], catalogue: Catalogue, tmp_path: Path
) -> None:
    summary = run(tmp_path)
    rows = read_predictions(tmp_path / OUT_OF_FOLD)
    assert {row.sha256: (row.label, row.source) for row in rows} == {
        each.sha256: (each.label, each.source) for each in catalogue.unparted
    }
    assert len(rows) == 72
    assert {row.fold for row in rows} == {1, 2, 3}
    assert summary == json.loads((tmp_path / SUMMARY).read_text())
    assert summary["figures"]["n"] == 72
    assert summary["figures"]["accuracy"] == pytest.approx(accuracy(rows))
    assert set(summary["figures"]["per_source"]) == {"north", "south"}
    assert summary["recipe"]["epochs"] == 2
    assert [fold["epochs"] for fold in summary["each_fold"]] == [2, 2, 2]
    assert all(
        fold["temperature"] > 0 and set(fold["thresholds"]) == {"COVID-19", "Pneumonia"} for fold in summary["each_fold"]
    )
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0]


def test_an_interrupted_run_goes_on_and_gives_what_an_uninterrupted_one_gives(
    run: Callable[..., dict[str, Any] | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole")
    trained = []
    fit = module.fit

    def counted(*arguments: Any, **options: Any) -> Any:
        trained.append(options["output"].name)
        return fit(*arguments, **options)

    monkeypatch.setattr(module, "fit", counted)
    assert run(tmp_path / "parts", only={2}) is None
    assert not (tmp_path / "parts" / OUT_OF_FOLD).exists()
    assert run(tmp_path / "parts") is not None
    assert trained == ["fold-2", "fold-1", "fold-3"]
    assert (tmp_path / "parts" / OUT_OF_FOLD).read_bytes() == (tmp_path / "whole" / OUT_OF_FOLD).read_bytes()


def test_of_several_processes_that_share_the_folds_the_last_one_sums_up(
    run: Callable[..., dict[str, Any] | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = module.fit

    def while_another_process_trains_the_others(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(module, "fit", fit)
        assert run(tmp_path, only={1, 3}) is None
        return fit(*arguments, **options)

    monkeypatch.setattr(module, "fit", while_another_process_trains_the_others)
    assert run(tmp_path, only={2}) is not None


def test_folds_of_another_recipe_seed_or_other_images_are_not_mixed(
    run: Callable[..., dict[str, Any] | None], catalogue: Catalogue, tmp_path: Path
) -> None:
    run(tmp_path, only={1})
    with pytest.raises(InvalidData, match="other recipe"):
        run(tmp_path, recipe=TINY.model_copy(update={"epochs": 3}))
    with pytest.raises(InvalidData, match="other seed, images"):
        run(tmp_path, seed=1)
    with pytest.raises(InvalidData, match="other images"):
        run(tmp_path, catalogue=Catalogue(unparted=catalogue.unparted[1:]))


def test_a_fold_that_was_written_before_a_recipe_had_some_value_still_counts(
    run: Callable[..., dict[str, Any] | None], tmp_path: Path
) -> None:
    run(tmp_path)
    path = tmp_path / "fold-1" / "fold.json"
    facts = json.loads(path.read_text())
    assert facts["plan"]["recipe"].pop("label_smoothing") == 0
    path.write_text(json.dumps(facts))
    assert run(tmp_path) is not None


def test_folds_that_are_there_are_read_otherwise_without_training_them_again(
    run: Callable[..., dict[str, Any] | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(tmp_path)
    written = (tmp_path / OUT_OF_FOLD).read_bytes()
    monkeypatch.setattr(module, "fit", lambda *_, **__: pytest.fail("trained again"))
    biased = run(tmp_path, recipe=TINY.model_copy(update={"calibration": "biases", "sensitivity": 0.6}))
    assert plain is not None
    assert biased is not None
    assert (tmp_path / OUT_OF_FOLD).read_bytes() == written
    assert (plain["recipe"]["calibration"], biased["recipe"]["calibration"]) == ("temperature", "biases")
    assert biased["figures"]["brier"] != plain["figures"]["brier"]
    rows = read_predictions(tmp_path / OUT_OF_FOLD)
    assert plain["figures"]["brier"] == measure(read_across_folds(rows, recipe=TINY), rows, labels=LABELS).brier


def test_the_recipe_of_a_cross_validation_may_differ_from_a_models_only_in_how_answers_are_read(tmp_path: Path) -> None:
    def written(**changes: Any) -> Recipe:
        recipe = TINY.model_copy(update=changes)
        (tmp_path / SUMMARY).write_text(json.dumps({"recipe": recipe.model_dump(mode="json")}))
        return recipe

    reading = {"calibration": "biases", "sensitivity": 0.8, "answer_accuracy": 0.9, "answer_coverage": 0.6}
    for changes in (reading, {"initial": "elsewhere.safetensors"}):
        recipe = written(**changes)
        assert read_recipe_of(tmp_path, training=TINY) == recipe
    written(epochs=3, batch_size=8)
    with pytest.raises(InvalidData, match="differs from the model's in batch_size, epochs"):
        read_recipe_of(tmp_path, training=TINY)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"recipe": {"architecture": "abacus"}}'])
def test_a_folder_without_a_finished_cross_validation_is_told(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / SUMMARY).write_text(content)
    with pytest.raises(InvalidData, match="no finished cross-validation"):
        read_recipe_of(tmp_path, training=TINY)


def test_a_fold_that_there_is_not_is_refused(run: Callable[..., dict[str, Any] | None], tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no fold 4; the folds are 1 to 3"):
        run(tmp_path, only={1, 4})


def test_balanced_accuracy_gives_each_label_that_occurs_the_same_weight() -> None:
    def said(label: str, called: str) -> PredictedImage:
        probabilities = dict.fromkeys(LABELS, 0.2) | {called: 0.6}
        return PredictedImage(sha256="", source="", label=label, group="", probabilities=probabilities)

    rows = [said("Normal", "Normal")] * 3 + [said("Pneumonia", "Normal")]
    assert accuracy(rows) == 0.75
    assert balanced_accuracy(rows) == 0.5


def test_the_command_prints_the_figures_and_one_line_a_fold(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    (tmp_path / "tiny.toml").write_text('architecture = "lenet5"\nepochs = 1\n')
    arguments = ["--recipe", tmp_path / "tiny.toml", "--data", films / "north", "--data", films / "south"]
    arguments += ["--output", tmp_path / "out", "--folds", "2", "--accelerator", "cpu"]

    def call(*flags: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["cxr-models", "crossvalidate", *map(str, arguments), *flags])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(SystemExit) as end:
                main()
        assert not end.value.code
        return capsys.readouterr()

    out, err = call()
    assert [line[:11] for line in err.splitlines() if line.startswith("fold")] == ["fold 1 of 2", "fold 2 of 2"]
    assert "north" in out
    out, err = call("--json")
    assert json.loads(out)["folds"] == 2
    assert "folds 1, 2 are there already" in err
