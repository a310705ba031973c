"""``cxr-worker models``: which classifiers there are, and which one answers."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.options import AsJson, Config, database_of
from worker.cli.printing import print_json, print_table
from worker.errors import ConfigurationError

app = typer.Typer(help="Which classifiers there are, and which one answers.", no_args_is_help=True)


@app.command(name="list")
def list_models(config: Config = None, as_json: AsJson = False) -> None:
    """List the shipped models and the active one."""
    from cxr_models.checkpoint import read_card
    from cxr_models.zoo import find_model, shipped_models
    from worker.models import active_model

    with database_of(config) as (settings, database), database.read() as connection:
        active = active_model(connection, settings.inference)
    names = list(dict.fromkeys([*shipped_models(), active]))
    rows = []
    for name in names:
        card = read_card(find_model(name))
        rows.append({"model": name, "version": card.version, "architecture": card.architecture, "active": name == active})
    if as_json:
        print_json(rows)
        return
    print_table(("model", "version", "architecture", "active"), (list(row.values()) for row in rows))


@app.command()
def show(
    model: Annotated[str | None, typer.Argument(help="Name or folder [default: the active one]")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's card: what it was trained on, how well it does, and its limits."""
    from cxr_models.checkpoint import read_card
    from cxr_models.zoo import find_model
    from worker.models import active_model

    if model is None:
        with database_of(config) as (settings, database), database.read() as connection:
            model = active_model(connection, settings.inference)
    card = asdict(read_card(find_model(model)))
    if as_json:
        print_json(card)
        return
    for key, value in card.items():
        print(f"{key}: {value}")


@app.command()
def activate(model: str, config: Config = None) -> None:
    """Make a model the one that answers; a running worker takes it up at its next step. Its weights are checked first."""
    from cxr_models.predict import Predictor
    from cxr_models.zoo import shipped_models
    from worker.models import activate

    card = Predictor.load(model, device="cpu").card
    if len(model) > 255:
        raise ConfigurationError("models activate: the path is longer than 255 characters.")
    name = model if model in shipped_models() else str(Path(model).expanduser().resolve())
    with database_of(config) as (_, database), database.write() as connection:
        activate(connection, name, now=datetime.now(UTC))
    print(
        f"{card.name} {card.version} is active. Earlier studies follow tonight, or now with 'cxr-worker reprocess --outdated'."
    )
