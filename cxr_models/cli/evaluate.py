import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cxr_models.cli.options import DataFolders, Device, Json, Model
from cxr_models.cli.printing import print_json

if TYPE_CHECKING:
    from cxr_models.evaluate import Evaluation


def evaluate(  # noqa: PLR0913  each parameter is an option of the command line
    *,
    model: Model,
    data: DataFolders,
    unseen: Annotated[bool, typer.Option("--unseen", help="Leave out images the model was trained or validated on.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with figures, pictures and the surest mistakes.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write the pictures as PNG: confusion matrix, ROC, reliability, coverage, learning curves."
        ),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write what the model said of each image.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Measure a model on labelled images: on those under test/ where there are any, else on all.

    Every figure has its 95 % interval, by bootstrap over groups: images that share a patient or their bytes count together.
    """
    from cxr_models.catalogue import read_catalogue
    from cxr_models.evaluate import classify, measure, select_images, state_caveats
    from cxr_models.predict import Predictor
    from cxr_models.seen import read_seen
    from cxr_models.zoo import find_model

    folder = find_model(model)
    catalogue = read_catalogue(data)
    images, known = select_images(catalogue, seen=read_seen(folder), unseen=unseen)
    predictor = Predictor.load(model, device=device)
    labels = predictor.card.labels
    caveats = state_caveats(images, catalogue=catalogue, labels=labels, known=known, unseen=unseen)
    for caveat in caveats:
        typer.echo(caveat, err=True)
    # What cannot be written is told before the images are classified, not after.
    for place in (pictures, *(file.parent for file in (report, predictions) if file)):
        if place:
            place.mkdir(parents=True, exist_ok=True)
    said = classify(predictor, images)
    measured = measure(said, images, labels=labels)
    if predictions:
        from cxr_models.predictions_file import as_predicted, write_predictions

        write_predictions(predictions, as_predicted(images, said))
    if report or pictures:
        from cxr_models.answers import Answers
        from cxr_models.evaluation_page import Report, render_page
        from cxr_models.history import read_history
        from cxr_models.pictures import draw_pictures

        card, answers = predictor.card, Answers.gather(said, images, labels=labels)
        drawn = draw_pictures(measured, answers, card=card, history=read_history(folder))
        if pictures:
            for name, picture in drawn.items():
                (pictures / f"{name}.png").write_bytes(picture)
        if report:
            told = Report(card=card, measured=measured, answers=answers, images=images, pictures=drawn, caveats=caveats)
            report.write_text(render_page(told), encoding="utf-8")
    if as_json:
        print_json(dataclasses.asdict(measured))
    else:
        _print_evaluation(measured)


def _print_evaluation(measured: "Evaluation") -> None:
    console = Console()
    table = Table(f"{measured.n} images, {measured.groups} groups", "value", "95 %")
    for name in ("accuracy", "balanced_accuracy", "ece", "ece_adaptive", "brier"):
        table.add_row(name, *_told(getattr(measured, name), measured.intervals[name]))
    for group in ("per_class", "operating", "pairwise"):
        for label, figures in getattr(measured, group).items():
            for name, value in figures.items():
                table.add_row(f"{group} {label} {name}", *_told(value, measured.intervals[group][label][name]))
    for name in ("coverage", "accuracy") if measured.abstention["coverage"] < 1 else ():
        table.add_row(f"answered {name}", *_told(measured.abstention[name], measured.intervals["abstention"][name]))
    console.print(table)
    matrix = Table("truth, called", *measured.labels)
    for label, row in zip(measured.labels, measured.confusion_matrix, strict=True):
        matrix.add_row(label, *map(str, row))
    console.print(matrix)
    if len(measured.per_source) > 1:
        console.print(_table_of_sources(measured))


def _table_of_sources(measured: "Evaluation") -> Table:
    names = ("accuracy", "balanced_accuracy", "ece")
    table = Table("collection", "n", *names)
    mean = {"n": "", **measured.source_balanced, "intervals": measured.intervals["source_balanced"]}
    parts: dict[str, dict[str, Any]] = {**measured.per_source, "mean": mean}
    for source, part in parts.items():
        figures = (" ".join(_told(part.get(name), part["intervals"].get(name))) for name in names)
        table.add_row(source, str(part["n"]), *figures)
    return table


def _told(value: float | None, interval: list[float] | None) -> tuple[str, str]:
    return ("-", "") if value is None or interval is None else (f"{value:.3f}", f"{interval[0]:.3f} to {interval[1]:.3f}")
