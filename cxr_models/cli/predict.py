from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cxr_models.cli.options import Device, Json, Model
from cxr_models.cli.printing import print_json


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
        print_json(
            [
                {
                    "file": str(file),
                    "label": each.label,
                    "undetermined": each.undetermined,
                    "probabilities": dict(each.probabilities),
                    "flagged": each.flagged,
                }
                for file, each in zip(readable, predictions, strict=True)
            ]
        )
    else:
        table = Table("file", "answer", *predictor.card.labels, "flagged")
        for file, each in zip(readable, predictions, strict=True):
            answer = f"undetermined ({each.label})" if each.undetermined else each.label
            probabilities = (f"{probability:.3f}" for probability in each.probabilities.values())
            table.add_row(str(file), answer, *probabilities, "yes" if each.flagged else "")
        Console().print(table)
    if len(readable) < len(files):
        raise typer.Exit(1)
