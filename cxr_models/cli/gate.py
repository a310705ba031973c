import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cxr_models.cli.options import DataFolders, Json
from cxr_models.cli.printing import print_json, wide_console

if TYPE_CHECKING:
    from cxr_models.gate import GateCard

gate = typer.Typer(
    help="The pixel gate: whether a picture is a frontal chest radiograph, and stands and shines right.", no_args_is_help=True
)
Folder = Annotated[Path | None, typer.Option("--gate", help="Folder of a gate [default: the one that ships].", metavar="DIR")]


@gate.callback()
def look_after() -> None:
    """Train the pixel gate, measure it, show what it says of itself."""


@gate.command()
def train(
    *,
    data: DataFolders,
    output: Annotated[Path, typer.Option(help="Folder for weights.safetensors and card.json.")],
    version: Annotated[str, typer.Option(help="Version of the gate.")] = "1.0.0",
    seed: Annotated[int, typer.Option(help="Decides every draw.")] = 0,
) -> None:
    """Cross-validate a gate for its thresholds and error rates, train it on all films, and write it with its card.

    Every film counts as a frontal chest, whatever its label; pictures of other things are drawn, or composed of films.
    """
    from cxr_models.catalogue import read_catalogue
    from cxr_models.gate_crossvalidate import build_gate

    logging.getLogger("cxr_models").setLevel(logging.INFO)
    _print(build_gate(read_catalogue(data).all, output=output, version=version, seed=seed))


@gate.command()
def evaluate(
    *,
    data: DataFolders,
    folder: Folder = None,
    seed: Annotated[int, typer.Option(help="Other than the one it was trained with: other pictures are drawn.")] = 1,
    as_json: Json = False,
) -> None:
    """Count a gate's errors on these films, and on pictures drawn and composed anew. Films it was trained on flatter it."""
    from cxr_models.catalogue import read_catalogue
    from cxr_models.gate import FOLDER, FrontalGate
    from cxr_models.gate_data import gather
    from cxr_models.gate_measure import measure, see

    loaded = FrontalGate.load(folder or FOLDER)
    pictures = gather(read_catalogue(data).all, seed=seed)
    metrics = measure(see(loaded.network, pictures, seed=seed), loaded.card.thresholds)
    if as_json:
        print_json(metrics)
    else:
        _print(dataclasses.replace(loaded.card, metrics=metrics))


@gate.command()
def show(
    *,
    folder: Folder = None,
    page: Annotated[bool, typer.Option("--page", help="Print the card as a page of Markdown.")] = False,
    as_json: Json = False,
) -> None:
    """Print a gate's card: thresholds, error rates, limits."""
    from cxr_models.gate import FOLDER, read_gate_card

    card = read_gate_card(folder or FOLDER)
    if as_json:
        print_json(dataclasses.asdict(card))
    elif page:
        from cxr_models.gate_page import render_gate_card

        typer.echo(render_gate_card(card), nl=False)
    else:
        _print(card)


def _print(card: "GateCard") -> None:
    console = wide_console()
    console.print(f"[bold]{card.name} {card.version}[/bold]  weights sha256 {card.weights_sha256}", soft_wrap=True)
    console.print(f"thresholds {dataclasses.asdict(card.thresholds)}")
    for heading, among in card.metrics.items():
        table = Table(heading, "n", *(name.replace("_", " ") for name in _figures(next(iter(among.values())))))
        for name, measured in among.items():
            table.add_row(name, str(measured["n"]), *_figures(measured).values())
        console.print(table)
    for limit in card.limits:
        console.print(f"- {limit}")


def _figures(measured: dict[str, Any]) -> dict[str, str]:
    return {
        name: f"{figure['share']:.4f} ({figure['interval'][0]:.4f} to {figure['interval'][1]:.4f})"
        for name, figure in measured.items()
        if isinstance(figure, dict) and "share" in figure
    }
