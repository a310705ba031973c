import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cxr_models.cli.options import DataFolders, Json
from cxr_models.cli.printing import print_json, wide_console


def crossvalidate(  # noqa: PLR0913  each parameter is an option of the command line
    *,
    recipe: Annotated[str, typer.Option(help="Name of a recipe that ships, or a TOML file.")],
    data: DataFolders,
    output: Annotated[Path, typer.Option(help="Folder for out_of_fold.csv, crossvalidation.json and each fold's training.")],
    folds: Annotated[int, typer.Option(min=2, max=100, help="In how many parts.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Draws the parts; the training's seed is the recipe's.")] = 0,
    only_fold: Annotated[
        list[int] | None, typer.Option(help="Train this fold alone, from 1; may be given again. Others may run elsewhere.")
    ] = None,
    initial: Annotated[str | None, typer.Option(help="Weights to start from, as in train [default: the recipe's].")] = None,
    teacher: Annotated[str | None, typer.Option(help="Weights for the teacher, as in train [default: the recipe's].")] = None,
    accelerator: Annotated[str, typer.Option(help="Lightning's: auto, cpu, gpu …")] = "auto",
    precision: Annotated[str, typer.Option(help="Lightning's: 32-true, bf16-mixed, 16-mixed …")] = "32-true",
    as_json: Json = False,
) -> None:
    """Train a recipe once for each part of the images without that part, and measure it on the part.

    No patient, file or film stands on two sides. Images of test folders take no part, and what shares a film with one is never
    trained on. Folds that the output folder holds already are not trained again.
    """
    from cxr_models.catalogue import read_catalogue
    from cxr_models.recipe import change_recipe, read_recipe

    chosen = change_recipe(read_recipe(recipe), initial=initial, teacher=teacher)
    catalogue = read_catalogue(data)
    from cxr_models.crossvalidate import Plan, crossvalidate
    from cxr_models.films import group_by_film
    from cxr_models.train import Machine

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    summary = crossvalidate(
        group_by_film(catalogue),
        plan=Plan(name=Path(recipe).stem, recipe=chosen, count=folds, seed=seed),
        machine=Machine(accelerator=accelerator, precision=precision),
        output=output,
        only=only_fold or (),
    )
    if summary is None:
        return
    if as_json:
        print_json(summary)
    else:
        _print_figures(summary["figures"])


def _print_figures(figures: dict[str, Any]) -> None:
    table = Table("images", "n", "accuracy", "balanced accuracy", "calibration error")
    for name, measured in {"all": figures, **figures["per_source"]}.items():
        cells = []
        for figure in ("accuracy", "balanced_accuracy", "ece"):
            low, high = measured["intervals"][figure]
            cells.append(f"{measured[figure]:.3f} ({low:.3f} to {high:.3f})")
        table.add_row(name, str(measured["n"]), *cells)
    wide_console().print(table)
