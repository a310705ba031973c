"""The command `cxr-models`. Data goes to stdout, everything else to stderr; 0 ok, 1 failed, 2 bad usage or configuration.

torch and Lightning are imported inside the commands: `--help` answers at once.
"""

import dataclasses
import json
import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cxr_models.errors import InvalidRecipe, Misuse, ModelError
from cxr_models.values import UNSAVED

if TYPE_CHECKING:
    from cxr_models.evaluate import Evaluation
    from cxr_models.values import Card

app = typer.Typer(
    help="Train, evaluate and use classifiers of chest radiographs. Research use only: not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DataFolders = Annotated[
    list[Path],
    typer.Option("--data", help="Folder with one folder per class, optionally under train/, val/, test/. May be given again."),
]
Model = Annotated[str, typer.Option("--model", help="Name of a model that ships, or a model folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


class Architecture(StrEnum):
    """The networks there are."""

    LENET5 = "lenet5"
    VGG16 = "vgg16"


@app.command()
def train(  # noqa: PLR0913  each parameter is an option of the command line
    *,
    architecture: Annotated[Architecture, typer.Option(help="The network to train.")],
    data: DataFolders,
    output: Annotated[Path, typer.Option(help="Model folder to write.")],
    recipe: Annotated[
        str | None, typer.Option(help="Name of a recipe that ships, or a TOML file [default: --architecture].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most this many epochs [default: the recipe's].")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="First seed [default: the recipe's].")] = None,
    version: Annotated[str, typer.Option(help="Version for the card.")] = "1.0.0",
    accelerator: Annotated[str, typer.Option(help="Lightning's: auto, cpu, gpu …")] = "auto",
    devices: Annotated[str, typer.Option(help="Lightning's: auto, a number, or a list such as 0,1.")] = "1",
    precision: Annotated[str, typer.Option(help="Lightning's: 32-true, bf16-mixed, 16-mixed …")] = "32-true",
    fast_dev_run: Annotated[bool, typer.Option("--fast-dev-run", help="One batch of everything, to try the set-up.")] = False,
) -> None:
    """Train a network, calibrate it on validation images, measure it on test images, and write the model folder."""
    from cxr_models.recipe import read_recipe

    chosen = read_recipe(recipe or architecture.value)
    if chosen.architecture != architecture.value:
        raise InvalidRecipe(
            f"The recipe {recipe} is for {chosen.architecture}, not {architecture.value}; name another with --recipe."
        )
    changes = {"epochs": epochs, "seed": seed}
    chosen = chosen.model_copy(update={key: value for key, value in changes.items() if value is not None})
    from cxr_models.catalogue import read_catalogue

    catalogue = read_catalogue(data)
    from cxr_models.train import Machine, train

    # Lightning sets its level as it is imported; its remarks say nothing that the progress bar and our own lines do not.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    machine = Machine(accelerator=accelerator, devices=devices, precision=precision, fast_dev_run=fast_dev_run)
    card = train(catalogue, recipe=chosen, output=output, machine=machine, version=version)
    # In a training of several processes one writes the folder; the others have nothing to show.
    if card.weights_sha256 != UNSAVED:
        _print_card(card)


@app.command()
def evaluate(
    *,
    model: Model,
    data: DataFolders,
    unseen: Annotated[bool, typer.Option("--unseen", help="Leave out images the model was trained or validated on.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model on labelled images: on those under test/ where there are any, else on all."""
    from cxr_models.catalogue import read_catalogue
    from cxr_models.evaluate import evaluate, select_images
    from cxr_models.predict import Predictor
    from cxr_models.seen import read_seen
    from cxr_models.zoo import find_model

    seen = read_seen(find_model(model))
    images, known = select_images(read_catalogue(data), seen=seen, unseen=unseen)
    if known:
        fate = "left out" if unseen else "measured as well; --unseen leaves them out"
        typer.echo(f"{known} of these images were used in training: {fate}.", err=True)
    measured = evaluate(Predictor.load(model, device=device), images)
    if as_json:
        _print_json(dataclasses.asdict(measured))
    else:
        _print_evaluation(measured)


@app.command()
def predict(
    *,
    model: Model,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="PNG or JPEG files.", show_default=False)],
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Classify image files. Every file is answered or named as unreadable; one unreadable file makes the exit code 1."""
    from cxr_models.errors import UnreadableImage
    from cxr_models.images import read_radiograph
    from cxr_models.predict import Predictor

    predictor = Predictor.load(model, device=device)
    readable, prepared = [], []
    for file in files:
        try:
            prepared.append(predictor.prepare(read_radiograph(file)))
            readable.append(file)
        except UnreadableImage as error:
            typer.echo(f"cxr-models: {error}", err=True)
    predictions = predictor.predict(prepared)
    if as_json:
        _print_json(
            [
                {"file": str(file), "label": each.label, "probabilities": dict(each.probabilities), "flagged": each.flagged}
                for file, each in zip(readable, predictions, strict=True)
            ]
        )
    else:
        table = Table("file", "label", *predictor.card.labels, "flagged")
        for file, each in zip(readable, predictions, strict=True):
            table.add_row(
                str(file), each.label, *(f"{p:.3f}" for p in each.probabilities.values()), "yes" if each.flagged else ""
            )
        Console().print(table)
    if len(readable) < len(files):
        raise typer.Exit(1)


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="NAME|DIR", help="Name of a model that ships, or a model folder.")],
    *,
    as_json: Json = False,
) -> None:
    """Print the card of a model."""
    from cxr_models.checkpoint import read_card
    from cxr_models.zoo import find_model

    card = read_card(find_model(model))
    if as_json:
        _print_json(dataclasses.asdict(card))
    else:
        _print_card(card)


def main() -> None:
    """Run the command; errors of ours become one line on stderr and the exit code 1 or 2."""
    _log_to_stderr()
    try:
        app()
    except ModelError as error:
        typer.echo(f"cxr-models: {error}", err=True)
        sys.exit(2 if isinstance(error, Misuse) else 1)
    except BrokenPipeError:
        # The reader, such as head, has what it wanted; without this Python reports the closed pipe once more as it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        typer.echo(f"cxr-models: {error.filename or ''}: {error.strerror or error}", err=True)
        sys.exit(1)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("cxr_models")
    ours.handlers = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_card(card: "Card") -> None:
    console = Console()
    console.print(
        f"[bold]{card.name} {card.version}[/bold]  {card.architecture}, {card.input_side} pixels, {', '.join(card.labels)}"
    )
    console.print(f"temperature {card.temperature:.3f}, thresholds {dict(card.thresholds)}")
    console.print(f"weights sha256 {card.weights_sha256}", soft_wrap=True)
    for name, measured in card.metrics.items():
        low, high = measured["intervals"]["accuracy"]
        console.print(f"{name}: n {measured['n']}, accuracy {measured['accuracy']:.3f} (95 % {low:.3f} to {high:.3f})")
    console.print(card.intended_use)
    for limit in card.limits:
        console.print(f"- {limit}")


def _print_evaluation(measured: "Evaluation") -> None:
    def line(name: str, value: float | None, interval: list[float] | None) -> tuple[str, str, str]:
        if value is None or interval is None:
            return name, "-", ""
        return name, f"{value:.3f}", f"{interval[0]:.3f} to {interval[1]:.3f}"

    table = Table("n " + str(measured.n), "value", "95 %")
    for name in ("accuracy", "balanced_accuracy", "ece"):
        table.add_row(*line(name, getattr(measured, name), measured.intervals[name]))
    for group in ("per_class", "operating"):
        for label, figures in getattr(measured, group).items():
            for name, value in figures.items():
                table.add_row(*line(f"{group} {label} {name}", value, measured.intervals[group][label][name]))
    console = Console()
    console.print(table)
    matrix = Table("truth, called", *measured.labels)
    for label, row in zip(measured.labels, measured.confusion_matrix, strict=True):
        matrix.add_row(label, *map(str, row))
    console.print(matrix)
