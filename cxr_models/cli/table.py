import logging
import tempfile
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cxr_models.cli.options import Json
from cxr_models.cli.printing import print_json, wide_console

if TYPE_CHECKING:
    from cxr_models.catalogue import Catalogue
    from cxr_models.predictions_file import PredictedImage
    from cxr_models.table import Goal, Measured

NOTES = (
    "In brackets 95 % by bootstrap over groups: what shares a patient, its bytes or a film.",
    "5-fold: no group on two sides, each fold calibrated by the others.",
    "Published test: all 66 images, by a model trained without them, their copies and their films.",
    "Calibration error: ten bins of equal width.",
)


class Network(StrEnum):
    """The networks of the table."""

    LENET5 = "lenet5"
    VGG16 = "vgg16"


def table(
    *,
    data: Annotated[Path, typer.Option(help="Folder that holds covid19-dataset, covid-nih-mix and kermany.")],
    results: Annotated[Path, typer.Option(help="Folder with each network's out_of_fold.csv and published_test.csv.")] = Path(
        "docs/model_cards"
    ),
    train: Annotated[
        list[Network] | None, typer.Option(help="Cross-validate this network's recipe anew instead of reading its results.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what both networks reach against what they must reach; every figure is computed now, from these images.

    Cross-validated predictions are read from --results, must be of just these images, and are calibrated fold by fold now. The
    shipped LeNet-5 classifies the published test now; VGG16, whose weights are not shipped, has its calibrated model's
    predictions in --results.
    """
    from cxr_models.catalogue import read_catalogue
    from cxr_models.recipe import read_recipe
    from cxr_models.table import GOALS, NETWORKS, RECIPES, SOURCES, measure_out_of_fold, measure_published

    catalogue = read_catalogue([data / source for source in SOURCES])
    figures: dict[str, dict[Goal, Measured]] = {}
    for network in NETWORKS:
        published = _published(network, catalogue, results)
        predicted = _crossvalidated(network, catalogue) if network in (train or ()) else _read(network, catalogue, results)
        figures[network] = (measure_published(published, catalogue) if published else {}) | (
            measure_out_of_fold(predicted, recipe=read_recipe(RECIPES[network])) if predicted else {}
        )
    if as_json:
        print_json(_as_values(GOALS, figures))
    else:
        _print(GOALS, figures)


def _published(network: str, catalogue: "Catalogue", results: Path) -> "Sequence[PredictedImage]":
    from cxr_models.predictions_file import as_predicted, read_predictions
    from cxr_models.table import hold_against
    from cxr_models.zoo import shipped_models

    if network in shipped_models():
        from cxr_models.evaluate import classify
        from cxr_models.predict import Predictor

        return as_predicted(catalogue.test, list(classify(Predictor.load(network, device="cpu"), catalogue.test)))
    file = results / network / "published_test.csv"
    if not file.is_file():
        _miss(file, f"cxr-models evaluate --model DIR --data {{…}}/covid19-dataset/test --predictions {file}")
        return ()
    rows = read_predictions(file)
    hold_against(catalogue.test, rows, file=file)
    return rows


def _read(network: str, catalogue: "Catalogue", results: Path) -> "Sequence[PredictedImage]":
    from cxr_models.predictions_file import read_predictions
    from cxr_models.table import RECIPES, check_folds, hold_against, outside_tests

    file = results / network / "out_of_fold.csv"
    if not file.is_file():
        _miss(file, f"cxr-models crossvalidate --recipe {RECIPES[network]} --data … --output {file.parent}")
        return ()
    rows = read_predictions(file)
    hold_against(outside_tests(catalogue), rows, file=file)
    check_folds(outside_tests(catalogue), rows, file=file)
    return rows


def _crossvalidated(network: str, catalogue: "Catalogue") -> "Sequence[PredictedImage]":
    from cxr_models.crossvalidate import OUT_OF_FOLD, Plan, crossvalidate
    from cxr_models.films import group_by_film
    from cxr_models.predictions_file import read_predictions
    from cxr_models.recipe import read_recipe
    from cxr_models.table import RECIPES
    from cxr_models.train import Machine

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(name=network, recipe=read_recipe(RECIPES[network]))
        crossvalidate(group_by_film(catalogue), plan=plan, machine=Machine(), output=Path(folder))
        return read_predictions(Path(folder) / OUT_OF_FOLD)


def _miss(file: Path, command: str) -> None:
    typer.echo(f"There is no {file}, so its figures are not measured; {command} writes it.", err=True)


def _as_values(goals: "Sequence[Goal]", figures: "Mapping[str, Mapping[Goal, Measured]]") -> list[dict[str, object]]:
    from cxr_models.table import reached

    return [
        {
            "row": goal.name,
            "network": network,
            "n": found[goal].n,
            "value": found[goal].value,
            "interval": list(found[goal].interval),
            "target": goal.targets.get(network),
            "better": "lower" if goal.at_most else "higher",
            "reached": reached(goal, network, found[goal]),
        }
        for goal in goals
        for network, found in figures.items()
        if goal in found
    ]


def _print(goals: "Sequence[Goal]", figures: "Mapping[str, Mapping[Goal, Measured]]") -> None:
    printed = Table("", *figures)
    for goal in goals:
        printed.add_row(goal.name, *(_cell(goal, network, found.get(goal)) for network, found in figures.items()))
    console = wide_console()
    console.print(printed)
    for note in NOTES:
        console.print(note)


def _cell(goal: "Goal", network: str, measured: "Measured | None") -> str:
    from cxr_models.table import reached

    if measured is None:
        return "not measured"
    low, high = measured.interval
    target = goal.targets.get(network)
    if goal.targets == {} or target is None:
        return f"{measured.value:.3f} ({low:.3f} to {high:.3f}), n {measured.n}"
    sign, verdict = "≤" if goal.at_most else "≥", "reached" if reached(goal, network, measured) else "not reached"
    if isinstance(target, int):
        return f"{measured.value:.0f} ({low:.0f} to {high:.0f}) of {measured.n}, {sign} {target}: {verdict}"
    return f"{measured.value:.3f} ({low:.3f} to {high:.3f}), {sign} {target:.2f}: {verdict}"
