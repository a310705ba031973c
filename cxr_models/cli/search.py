import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cxr_models.cli.options import DataFolders, Json
from cxr_models.cli.printing import print_json, wide_console
from cxr_models.errors import InvalidRecipe

SHOWN = 10


def search(  # noqa: PLR0913  each parameter is an option of the command line
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe that ships, or a TOML file.")],
    *,
    data: DataFolders,
    output: Annotated[Path, typer.Option(help="Folder for tries.csv, best.toml and the journal a later run goes on from.")],
    minutes: Annotated[float | None, typer.Option(min=0, help="End after so many minutes.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="End after so many tries, those of earlier runs included.")] = None,
    folds: Annotated[int, typer.Option(min=2, max=100, help="In how many parts each try is cross-validated.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Draws the parts and the tries.")] = 0,
    accelerator: Annotated[str, typer.Option(help="Lightning's: auto, cpu, gpu …")] = "auto",
    precision: Annotated[str, typer.Option(help="Lightning's: 32-true, bf16-mixed, 16-mixed …")] = "32-true",
    as_json: Json = False,
) -> None:
    """Search better values for a recipe: learning rate, weight decay, label smoothing, augmentation, mixup, average, balance.

    Each try is cross-validated; what counts is the mean over the data folders of the balanced accuracy. Images of test folders
    take no part. The first try is the recipe itself. A search that was ended goes on where it was.
    """
    from cxr_models.recipe import read_recipe

    if minutes is None and trials is None:
        raise InvalidRecipe("A search needs an end: give --minutes, --trials or both.")
    chosen = read_recipe(recipe)
    from cxr_models.catalogue import read_catalogue

    catalogue = read_catalogue(data)
    import optuna

    from cxr_models.crossvalidate import Plan
    from cxr_models.films import group_by_film
    from cxr_models.search import BEST, Budget, search
    from cxr_models.train import Machine

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tries = search(
        group_by_film(catalogue),
        plan=Plan(name=Path(recipe).stem, recipe=chosen, count=folds, seed=seed),
        machine=Machine(accelerator=accelerator, precision=precision),
        output=output,
        budget=Budget(minutes=minutes, tries=trials),
    )
    if as_json:
        print_json(tries)
    else:
        _print_tries(tries)
    if not (output / BEST).is_file():
        typer.echo("No try was completed, so there is no best one.", err=True)
        raise typer.Exit(1)
    typer.echo(f"The best is written to {output / BEST}.", err=True)


def _print_tries(tries: list[dict[str, Any]]) -> None:
    best = sorted(tries, key=lambda row: (row["ended"] != "complete", -(row["score"] or 0)))
    table = Table(*tries[0])
    for row in best[:SHOWN]:
        table.add_row(*map(str, row.values()))
    wide_console().print(table)
