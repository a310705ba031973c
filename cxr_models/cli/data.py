from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cxr_models.cli.options import Json
from cxr_models.cli.printing import print_json, wide_console

if TYPE_CHECKING:
    from cxr_models.films import FilmPair
    from cxr_models.hygiene import Findings

data = typer.Typer(help="Look after folders of radiographs.", no_args_is_help=True)
LISTED = 20
"""Lines of each list on the screen; --json has them all."""


@data.callback()
def look_after() -> None:
    """Look after folders of radiographs."""


@data.command()
def check(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR…",
            help="Folders with one folder per class, optionally under train/, val/, test/.",
            show_default=False,
        ),
    ],
    *,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder to write a picture of each pair of near duplicates to, side by side.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what would spoil a training or a measurement: unreadable files, copies, leaks, wrong labels, shortcuts.

    A copy is found by its bytes, or by its pixels when it was scaled, cropped by up to 15 % a side, or saved again. The exit
    code is 1 when files are unreadable, when something of test also stands in train or val, or when one film has two labels.
    """
    from cxr_models.catalogue import read_catalogue
    from cxr_models.hygiene import examine

    findings = examine(read_catalogue(folders))
    if as_json:
        print_json(_plain(findings))
    else:
        _print(findings)
    if pictures is not None:
        _draw(findings.films, pictures)
    if findings.spoilt:
        raise typer.Exit(1)


def _print(findings: "Findings") -> None:
    console = wide_console()
    console.print(_counts(findings))
    console.print(_sizes(findings))
    summary = Table("found", "number")
    for name, number in (
        ("unreadable files", len(findings.unreadable)),
        ("files with the bytes of another", sum(len(files) - 1 for files in findings.duplicates)),
        ("pairs of near duplicates", len(findings.films)),
        *(
            (f"images of train or val that share {link} with a measured one", _leaking(findings, link))
            for link in ("bytes", "film", "patient")
        ),
        ("pairs with one film under two labels", len(findings.conflicts)),
        *((f"{mode} images, read as grey", len(images)) for mode, images in findings.modes.items()),
    ):
        summary.add_row(name, str(number))
    console.print(summary)
    for title, lines in _lists(findings):
        if lines:
            console.print(f"\n[bold]{title}[/bold]")
            for line in lines[:LISTED]:
                console.print(f"  {line}", soft_wrap=True, markup=False, highlight=False)
            if len(lines) > LISTED:
                console.print(f"  … and {len(lines) - LISTED} more; --json has them all")
    console.print(f"\n{_advice(findings)}", soft_wrap=True)


def _counts(findings: "Findings") -> Table:
    from cxr_models.values import LABELS

    table = Table("source", "part", *LABELS, title="images")
    for source, part in sorted({(source, part) for source, part, _ in findings.counts}):
        table.add_row(source, part, *(str(findings.counts.get((source, part, label), 0)) for label in LABELS))
    return table


def _sizes(findings: "Findings") -> Table:
    table = Table("source", "width", "height", "width / height", title="least, median, greatest")
    for source, sizes in findings.sizes.items():
        pixels = (f"{each.least:.0f} {each.middle:.0f} {each.greatest:.0f}" for each in (sizes.width, sizes.height))
        aspect = sizes.aspect
        table.add_row(source, *pixels, f"{aspect.least:.2f} {aspect.middle:.2f} {aspect.greatest:.2f}")
    return table


def _lists(findings: "Findings") -> list[tuple[str, list[str]]]:
    return [
        ("Unreadable", [each.reason for each in findings.unreadable]),
        ("Same bytes", [" = ".join(str(image.path) for image in files) for files in findings.duplicates]),
        (
            "Measured and trained on",
            [f"{each.first.path} and {each.second.path} ({each.link})" for each in findings.leaks],
        ),
        (
            "Two labels",
            [
                f"{each.first.path} {each.first.label}, {each.second.path} {each.second.label} ({each.link})"
                for each in findings.conflicts
            ],
        ),
        (
            "Near duplicates",
            [
                f"{pair.correlation:.2f}  {pair.first.path} and {pair.second.path}"
                for pair in sorted(findings.films, key=lambda pair: -pair.correlation)
            ],
        ),
        ("Shortcuts", _shortcuts(findings)),
        (
            "Few images",
            [f"{source}, {part}: {number} of {label}" for (source, part, label), number in findings.few.items()],
        ),
    ]


def _shortcuts(findings: "Findings") -> list[str]:
    return [
        *(f"all {label} is from {source}: a network may tell the source" for label, source in findings.lone_labels.items()),
        *(
            f"{source} has no {' and no '.join(labels)}: its look itself speaks against that"
            for source, labels in findings.lacking.items()
        ),
    ]


def _advice(findings: "Findings") -> str:
    steps = []
    if findings.unreadable:
        steps.append("replace or remove the unreadable files, a training stops at them")
    if findings.conflicts:
        steps.append("let a radiologist say which label is right, and remove the other image")
    if findings.leaks:
        steps.append("remove the images from train and val that share something with test (a training of ours leaves them out)")
    if steps:
        return f"To do: {'; '.join(steps)}."
    return "Nothing here spoils a measurement." + (
        " Mind the copies: split by group, as a training of ours does." if findings.duplicates or findings.films else ""
    )


def _leaking(findings: "Findings", link: str) -> int:
    return sum(each.link == link for each in findings.leaks)


def _draw(pairs: "tuple[FilmPair, ...]", folder: Path) -> None:
    from cxr_models.films import draw_pair
    from cxr_models.progress import shown

    folder.mkdir(parents=True, exist_ok=True)
    for number, pair in enumerate(shown(pairs, words="Drawing pairs"), start=1):
        draw_pair(pair).save(folder / f"{number:04}-{pair.correlation:.2f}-{pair.first.path.stem}-{pair.second.path.stem}.png")


def _plain(findings: "Findings") -> dict[str, Any]:
    from dataclasses import asdict

    def named(keys: tuple[str, str, str], number: int) -> dict[str, Any]:
        return dict(zip(("source", "part", "label", "images"), (*keys, number), strict=True))

    def shared(each: Any) -> dict[str, Any]:
        return {
            "files": [str(each.first.path), str(each.second.path)],
            "labels": [each.first.label, each.second.label],
            "link": each.link,
        }

    return {
        "spoilt": findings.spoilt,
        "counts": [named(*item) for item in findings.counts.items()],
        "unreadable": [{"file": str(each.image.path), "reason": each.reason} for each in findings.unreadable],
        "duplicates": [[str(image.path) for image in files] for files in findings.duplicates],
        "near_duplicates": [
            {
                "files": [str(pair.first.path), str(pair.second.path)],
                "correlation": round(pair.correlation, 3),
                "crop": [round(share, 3) for share in pair.crop],
            }
            for pair in findings.films
        ],
        "leaks": [shared(each) for each in findings.leaks],
        "conflicts": [shared(each) for each in findings.conflicts],
        "sizes": {source: asdict(sizes) for source, sizes in findings.sizes.items()},
        "modes": {mode: [str(image.path) for image in images] for mode, images in findings.modes.items()},
        "labels_of_one_source": findings.lone_labels,
        "labels_a_source_lacks": findings.lacking,
        "few": [named(*item) for item in findings.few.items()],
        "advice": _advice(findings),
    }
