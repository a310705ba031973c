import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cxr_models.cli.options import DataFolders, Device, Json, Model
from cxr_models.cli.printing import print_json

if TYPE_CHECKING:
    from cxr_models.evaluate import Evaluation


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
        print_json(dataclasses.asdict(measured))
    else:
        _print_evaluation(measured)


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
