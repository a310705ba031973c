"""The options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

DataFolders = Annotated[
    list[Path],
    typer.Option("--data", help="Folder with one folder per class, optionally under train/, val/, test/. May be given again."),
]
Model = Annotated[str, typer.Option("--model", help="Name of a model that ships, or a model folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
