"""``cxr-worker models``: which classifiers there are, which one answers, and how another one would."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.options import AsJson, Config, database_of, settings_of
from worker.cli.printing import busy, print_json, print_table
from worker.cli.studies import moment
from worker.cli.user import user_asking

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from worker.db.database import Database
    from worker.register import Registration
    from worker.registry import ModelFolder
    from worker.settings import Settings

app = typer.Typer(help="Which classifiers there are, and which one answers.", no_args_is_help=True)
NameOrFolder = Annotated[
    str,
    typer.Argument(metavar="NAME[@VERSION]|DIR", help="A shipped or registered model, or a folder, which is registered first."),
]


@app.command(name="list")
def list_models(config: Config = None, as_json: AsJson = False) -> None:
    """List the shipped and the registered models, which one is active, which one is its shadow, and their held-out figures."""
    from worker.cli.model_rows import model_rows

    with database_of(config) as (settings, database), database.read() as connection:
        rows = model_rows(connection, settings)
    if as_json:
        print_json(rows)
        return
    columns = ("model", "version", "architecture", "weights", "from", "use", "held-out accuracy")
    print_table(columns, (_cells(row) for row in rows))


@app.command()
def show(
    model: Annotated[
        str | None, typer.Argument(metavar="[NAME[@VERSION]|DIR]", help="[default: the active one]", show_default=False)
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's card: what it was trained on, how well it does, and its limits."""
    from worker.cli.model_card import print_card

    card = _find(model, config).read_card()
    if as_json:
        print_json(asdict(card))
    else:
        print_card(card)


@app.command()
def register(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with weights.safetensors and card.json.")],
    name: Annotated[str | None, typer.Option(help="Register it under another name than its card has.")] = None,
    note: Annotated[str, typer.Option(help="A remark, shown by 'models list --json'.")] = "",
    config: Config = None,
) -> None:
    """Try a model and copy it into the data folder, where nobody changes it. It answers nothing until it is activated."""
    from worker.register import Registration

    wish = Registration(source=folder, name=name, note=note, at=datetime.now(UTC))
    with database_of(config) as (settings, database):
        _registered(wish, database, settings)


@app.command()
def activate(
    model: NameOrFolder,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Let it answer beside the active model: recorded, compared, never reported.")
    ] = False,
    config: Config = None,
) -> None:
    """Make a model the one that answers; a running worker takes it up at its next step. Its weights are checked first.

    A shipped name follows the package from version to version; with @VERSION that version is registered and stays.
    """
    from cxr_models.zoo import shipped_models
    from worker.db import models
    from worker.register import Registration, require_meanings, tried
    from worker.registry import Origin

    found = _find(model, config)
    card = found.read_card()
    with busy(f"Trying {card.name} {card.version}"):
        tried(found.path)
    if not shadow:
        require_meanings(card)
    with database_of(config) as (settings, database):
        if found.origin is not Origin.REGISTERED and found.reference not in shipped_models():
            wish = Registration(source=found.path, name=None, note="", at=datetime.now(UTC))
            found = _registered(wish, database, settings)
        with database.write() as connection:
            (models.set_shadow if shadow else models.activate)(connection, found.reference, now=datetime.now(UTC))
            _note(connection, found.reference, shadow=shadow)
    if shadow:
        print(
            f"{card.name} {card.version} is the shadow: recorded from the next study on, never reported. See 'models compare'."
        )
        return
    print(
        f"{card.name} {card.version} is active. Earlier studies follow tonight, or now with 'cxr-worker reprocess --outdated'."
    )


@app.command(name="deactivate-shadow")
def deactivate_shadow(config: Config = None) -> None:
    """Have no shadow model, whatever is configured. What it has answered stays recorded."""
    from worker.db import models

    with database_of(config) as (_, database), database.write() as connection:
        models.set_shadow(connection, None, now=datetime.now(UTC))
        _note(connection, None, shadow=True)
    print("There is no shadow model from the next study on.")


@app.command()
def compare(
    since: Annotated[str | None, typer.Option(help="Only answers since: a date, or an age such as 7d.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Compare the shadow model's answers with the active one's on the images that both answered, each image once."""
    from worker.db import agreement

    after = None if since is None else moment(since, now=datetime.now(UTC))
    with database_of(config) as (_, database), database.read() as connection:
        found = agreement.compare(connection, since=after)
    if as_json:
        print_json(found)
        return
    if not found:
        print("No image was answered by an active model and a shadow. 'cxr-worker models activate MODEL --shadow' names one.")
    for pair in found:
        _print_pair(pair)


def _find(model: str | None, config: Path | None) -> "ModelFolder":
    """The model that a person means, or the active one. Before the first migration nothing is registered."""
    from contextlib import closing

    from cxr_models.zoo import shipped_models
    from worker.db.database import open_database
    from worker.db.migrate import current_revision, require_newest
    from worker.db.models import registered
    from worker.registry import active_model, find_model

    settings = settings_of(config)
    if model in shipped_models():
        return find_model(model, (), data_dir=settings.data_dir)
    with closing(open_database(settings.database_url.get_secret_value())) as database:
        if current_revision(database) is None:
            return find_model(model or settings.inference.model, (), data_dir=settings.data_dir)
        require_newest(database)
        with database.read() as connection:
            if model is None:
                return active_model(connection, settings)
            return find_model(model, registered(connection), data_dir=settings.data_dir)


def _registered(wish: "Registration", database: "Database", settings: "Settings") -> "ModelFolder":
    from worker.register import register

    with busy(f"Trying and copying {wish.source}"):
        found, new = register(wish, database, data_dir=settings.data_dir)
    print(f"{found.reference} is registered: {found.path}" if new else f"{found.reference} was registered before, the same.")
    return found


def _note(connection: "Connection", reference: str | None, *, shadow: bool) -> None:
    """Keep in the record who named a model."""
    from worker.db import events

    kind = events.SHADOWED if shadow else events.ACTIVATED
    facts = {"user": user_asking(), "model": reference}
    events.record(connection, events.Event(kind=kind, at=datetime.now(UTC), detail=reference or "none", facts=facts))


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    use = ", ".join(role for role in ("active", "shadow") if row[role])
    figures = [f"{name}: {of['accuracy']:.2f} of {of['n']}" for name, of in row["metrics"].items()]
    weights = (row["weights_sha256"] or "")[:12]
    told = row["problem"] or "\n".join(figures)
    return (row["model"], row["version"], row["architecture"], weights, row["origin"], use, told)


def _print_pair(pair: dict[str, Any]) -> None:
    active, shadow = (f"{pair[role]['model']} {pair[role]['version']}" for role in ("active", "shadow"))
    flagged = pair["flagged"]
    silent = f"; on {pair['unanswered']} more the shadow gave no answer" if pair["unanswered"] else ""
    print(f"active {active}, shadow {shadow}: the same label on {pair['agreement']:.1%} of {pair['n']} images{silent}")
    print(
        f"flagged by both {flagged['both']}, by the active alone {flagged['active_only']}, by the shadow alone "
        f"{flagged['shadow_only']}, by neither {flagged['neither']}; undetermined: active {pair['undetermined']['active']}, "
        f"shadow {pair['undetermined']['shadow']}"
    )
    differences = ", ".join(f"{label} {value:.3f}" for label, value in pair["mean_absolute_difference"].items())
    print(f"mean absolute difference of probability: {differences}")
    labels = sorted({label for row in pair["confusion"].values() for label in row})
    rows = ((label, *(row.get(other, 0) for other in labels)) for label, row in pair["confusion"].items())
    print_table((f"active {active}", *(f"shadow: {label}" for label in labels)), rows)
