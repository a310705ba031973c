from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cxr_models.cli.options import Device, Model


def explain(  # noqa: PLR0913  each parameter is an option of the command line
    *,
    model: Model,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="PNG or JPEG files.", show_default=False)],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for one picture per file; made where it is missing.")],
    label: Annotated[str | None, typer.Option(help="Explain this label [default: the most probable one].")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Also write the maps as .npy: float32, side x side, 0 to 1.")] = False,
    device: Device = "auto",
) -> None:
    """Draw over each radiograph what spoke for its label, and print the pictures' names.

    Every file is answered or named as unreadable; one unreadable file makes the exit code 1.
    """
    import numpy as np

    from cxr_models.errors import UnreadableImage
    from cxr_models.images import read_radiograph
    from cxr_models.overlay import draw_overlay
    from cxr_models.predict import Predictor
    from cxr_models.saliency import explain, require_label

    predictor = Predictor.load(model, device=device)
    require_label(predictor.card, label)
    output.mkdir(parents=True, exist_ok=True)
    failed = False
    for file, name in zip(files, _names(files), strict=True):
        try:
            image = read_radiograph(file)
        except UnreadableImage as error:
            typer.echo(f"cxr-models: {error}", err=True)
            failed = True
            continue
        prepared = predictor.prepare(image)
        (prediction,) = predictor.predict([prepared])
        shown = label or prediction.label
        saliency = explain(predictor, prepared, label=shown)
        title = f"{file.name}: {shown}, probability {prediction.probabilities[shown]:.2f}"
        if not saliency.any():
            title += "; nothing in the image speaks for it"
        picture = output / f"{name}.png"
        picture.write_bytes(draw_overlay(image, saliency, title=title))
        typer.echo(picture)
        if raw:
            np.save(picture.with_suffix(".npy"), saliency)
    if failed:
        raise typer.Exit(1)


def _names(files: Sequence[Path]) -> list[str]:
    """Return a name for each file's picture; files of one name in several folders get a number."""
    names: list[str] = []
    for file in files:
        name, number = file.stem, 2
        while name in names:
            name, number = f"{file.stem}-{number}", number + 1
        names.append(name)
    return names
