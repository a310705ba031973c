import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_models.catalogue import Catalogue, read_catalogue
from cxr_models.cli import main
from cxr_models.crossvalidate import OUT_OF_FOLD, Plan
from cxr_models.errors import InvalidData
from cxr_models.predictions_file import PredictedImage, read_predictions, short_group, write_predictions
from cxr_models.recalibrate import read_across_folds
from cxr_models.recipe import Recipe, read_recipe
from cxr_models.table import (
    ADULTS,
    CALIBRATION,
    CHILDREN,
    CONFIDENT,
    FILMS,
    GOALS,
    MISSED,
    PUBLISHED,
    RECIPES,
    SOURCES,
    UNCOPIED,
    Measured,
    check_folds,
    hold_against,
    measure_out_of_fold,
    measure_published,
    outside_tests,
    reached,
)
from cxr_models.values import LABELS
from tests.factories import data_folder

SHIPPED = Path(__file__).resolve().parents[2] / "docs" / "model_cards"
SHIPPED_RESULTS = sorted(SHIPPED.glob("*/out_of_fold.csv"))
FILE = Path("out_of_fold.csv")
Rows = tuple[PredictedImage, ...]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return read_catalogue([data_folder() / source for source in SOURCES])


@pytest.fixture(scope="module")
def rows(catalogue: Catalogue) -> Rows:
    """Predictions that know something of the truth, made up, with folds by group."""
    generator = np.random.default_rng(0)
    made = []
    for image in outside_tests(catalogue):
        powers = np.exp(generator.normal(size=3) + 1.5 * (np.array(LABELS) == image.label))
        made.append(
            PredictedImage(
                sha256=image.sha256,
                source=image.source,
                label=image.label,
                group=short_group(image.group),
                fold=int(image.group[:4], 16) % 5 + 1,
                probabilities=dict(zip(LABELS, (powers / powers.sum()).tolist(), strict=True)),
            )
        )
    return tuple(made)


@pytest.fixture
def results(tmp_path: Path, rows: Rows) -> Path:
    write_predictions(tmp_path / "lenet5" / "out_of_fold.csv", rows)
    return tmp_path


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    torch.set_num_threads(1)

    def printed(*options: str | Path, code: int = 0) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["cxr-models", "table", "--data", str(data_folder()), *map(str, options)])
        with pytest.raises(SystemExit) as end:
            main()
        assert int(end.value.code or 0) == code
        return capsys.readouterr()

    return printed


def called(row: PredictedImage) -> str:
    return max(row.probabilities, key=lambda label: row.probabilities[label])


def right(rows: Sequence[PredictedImage]) -> float:
    return float(np.mean([called(row) == row.label for row in rows]))


def test_the_figures_are_those_of_the_rows_they_name(rows: Rows) -> None:
    recipe = read_recipe("lenet5")
    found = measure_out_of_fold(rows, recipe=recipe)
    read = read_across_folds(rows, recipe=recipe)
    rows = tuple(replace(row, probabilities=each.probabilities) for row, each in zip(rows, read, strict=True))
    adults = [row for row in rows if row.source == "covid-nih-mix"]
    assert found[CHILDREN].value == pytest.approx(right([row for row in rows if row.source == "kermany"]))
    assert found[CHILDREN].n == 680
    assert found[ADULTS].value == pytest.approx(right(adults))
    assert found[ADULTS].n == 584
    nih = [row for row in adults if row.label != "COVID-19"]
    ill, well = (
        np.array([row.probabilities["Pneumonia"] / row.probabilities["Normal"] for row in nih if row.label == label])
        for label in ("Pneumonia", "Normal")
    )
    assert found[FILMS].value == pytest.approx((ill[:, None] > well).mean())
    assert found[FILMS].n == 514
    surest = sorted(adults, key=lambda row: -max(row.probabilities.values()))[:409]
    assert found[CONFIDENT].value == pytest.approx(right(surest))
    assert found[CONFIDENT].n == 409
    for measured in found.values():
        assert measured.interval[0] < measured.value < measured.interval[1] or measured is found[CALIBRATION]


def test_all_66_published_test_images_count_and_60_of_them_have_no_copy_elsewhere(catalogue: Catalogue) -> None:
    said = [
        PredictedImage(
            sha256=image.sha256,
            source=image.source,
            label=image.label,
            group=image.group,
            probabilities=dict.fromkeys(LABELS, 0.1)
            | {"Normal" if image.label == "Pneumonia" and index % 2 else image.label: 0.8},
        )
        for index, image in enumerate(catalogue.test)
    ]
    found = measure_published(said, catalogue)
    assert found[PUBLISHED].n == 66
    assert found[PUBLISHED].value == pytest.approx(56 / 66)
    assert found[UNCOPIED].n == 60
    assert found[UNCOPIED].value == pytest.approx(50 / 60)
    assert (found[MISSED].value, found[MISSED].n) == (10, 20)


def test_a_figure_reaches_its_target_from_the_side_that_is_better() -> None:
    def measured(value: float) -> Measured:
        return Measured(value=value, interval=(0, 1), n=1)

    assert [reached(ADULTS, "vgg16", measured(value)) for value in (0.87, 0.8699)] == [True, False]
    assert [reached(MISSED, "lenet5", measured(value)) for value in (1, 2)] == [True, False]
    assert reached(UNCOPIED, "lenet5", measured(1)) is None


def test_predictions_must_be_of_just_these_images(catalogue: Catalogue, rows: Rows) -> None:
    images = outside_tests(catalogue)
    hold_against(images, rows, file=FILE)
    check_folds(images, rows, file=FILE)
    other = replace(rows[0], sha256="0" * 64)
    wrong = LABELS[LABELS.index(rows[0].label) - 1]
    for changed, words in (
        (rows[1:], "1 among the images, but not in the file"),
        ((*rows, rows[0]), "1 twice"),
        ((*rows, other), "not among the images, such as 000"),
        ((replace(rows[0], label=wrong), *rows[1:]), f"{rows[0].sha256} {wrong}, and its folder {rows[0].label}"),
    ):
        with pytest.raises(InvalidData, match=words):
            hold_against(images, changed, file=FILE)


def test_no_group_of_the_file_or_of_the_patients_may_stand_on_two_folds(catalogue: Catalogue, rows: Rows) -> None:
    images = outside_tests(catalogue)
    first = next(row for row in rows if sum(each.group == row.group for each in rows) > 1)
    moved = replace(first, fold=first.fold % 5 + 1)
    kept = [row for row in rows if row is not first]
    for changed, words in (
        ((*kept, moved), "on two folds"),
        # A file that names groups of its own does not get past the patients that the manifest knows.
        ((*kept, replace(moved, group="alone")), "on two folds"),
        ((*rows[1:], replace(rows[0], fold=None)), "no fold"),
    ):
        with pytest.raises(InvalidData, match=words):
            check_folds(images, changed, file=FILE)
    apart = [row for row in rows if row.fold != rows[0].fold][:1]
    joined = [replace(row, group=rows[0].group) if row in apart else row for row in rows]
    with pytest.raises(InvalidData, match="on two folds"):
        check_folds(images, joined, file=FILE)


def test_the_command_prints_each_cell_and_says_what_is_not_measured(
    printed: Callable[..., tuple[str, str]], results: Path, catalogue: Catalogue
) -> None:
    out, err = printed("--results", results)
    assert all(goal.name in out for goal in GOALS)
    assert "reached" in out
    assert "not measured" in out
    assert f"no {results / 'vgg16' / 'out_of_fold.csv'}" in err
    test = [
        PredictedImage(
            sha256=image.sha256,
            source=image.source,
            label=image.label,
            group="alone",
            probabilities=dict.fromkeys(LABELS, 0) | {image.label: 1},
        )
        for image in catalogue.test
    ]
    write_predictions(results / "vgg16" / "published_test.csv", test)
    out, _ = printed("--results", results, "--json")
    cells = {(cell["row"], cell["network"]): cell for cell in json.loads(out)}
    assert cells[PUBLISHED.name, "vgg16"]["value"] == 1
    assert cells[PUBLISHED.name, "vgg16"]["reached"] is True
    assert cells[MISSED.name, "vgg16"]["interval"][0] == 0
    assert cells[PUBLISHED.name, "lenet5"]["n"] == 66
    assert cells[ADULTS.name, "lenet5"]["target"] == 0.76


def test_a_network_is_cross_validated_anew_by_its_recipe_where_that_is_asked_for(
    printed: Callable[..., tuple[str, str]], results: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cross_validate(catalogue: Catalogue, *, plan: Plan, output: Path, **_: object) -> None:
        assert plan.recipe == read_recipe(RECIPES["lenet5"])
        assert len(outside_tests(catalogue)) == len(rows)
        sure = [replace(row, probabilities=dict.fromkeys(LABELS, 0) | {row.label: 1}) for row in rows]
        write_predictions(output / OUT_OF_FOLD, sure)

    monkeypatch.setattr("cxr_models.crossvalidate.crossvalidate", cross_validate)
    monkeypatch.setattr("cxr_models.films.group_by_film", lambda catalogue: catalogue)
    out, _ = printed("--results", results, "--train", "lenet5", "--json")
    cells = {(cell["row"], cell["network"]): cell["value"] for cell in json.loads(out)}
    assert cells[ADULTS.name, "lenet5"] == 1


def test_a_file_of_other_images_is_one_clear_error(printed: Callable[..., tuple[str, str]], results: Path, rows: Rows) -> None:
    write_predictions(results / "lenet5" / "out_of_fold.csv", rows[5:])
    out, err = printed("--results", results, code=2)
    assert out == ""
    assert "5 among the images, but not in the file" in err.splitlines()[-1]


def test_results_of_the_network_that_ships_are_there() -> None:
    assert SHIPPED / "lenet5" / "out_of_fold.csv" in SHIPPED_RESULTS


@pytest.mark.parametrize("file", SHIPPED_RESULTS, ids=lambda file: file.parent.name)
def test_the_results_that_ship_belong_to_the_images_and_to_the_recipe_that_ships(file: Path, catalogue: Catalogue) -> None:
    rows = read_predictions(file)
    hold_against(outside_tests(catalogue), rows, file=file)
    check_folds(outside_tests(catalogue), rows, file=file)
    summary = json.loads(file.with_name("crossvalidation.json").read_text())
    # Weights to start or to learn from may have come from a file.
    recipe = read_recipe(RECIPES[file.parent.name])
    assert Recipe.model_validate(summary["recipe"] | {"initial": recipe.initial, "teacher": recipe.teacher}) == recipe
    assert summary["figures"]["n"] == len(rows)
