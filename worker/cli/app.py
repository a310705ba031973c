"""The commands, in the order a new operator meets them."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from worker.cli import audit, db, deliveries, models, reprocess, studies
from worker.cli.options import AsJson, Config, settings_of

app = typer.Typer(
    help="A DICOM worker beside the PACS: chest radiographs in by C-STORE, classifier results out as Structured Reports. "
    "AI-generated. Not for primary diagnosis. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(studies.app, name="studies")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(models.app, name="models")
app.add_typer(db.app, name="db")
app.add_typer(audit.app, name="audit")
app.command(name="reprocess")(reprocess.reprocess)


def _print_version(value: bool) -> None:
    if value:
        print(version("cxr-worker"))
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Hold the options of all commands."""


@app.command()
def demo(
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of PNG, JPEG or DICOM radiographs [default: synthetic ones]", metavar="DIR"),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the working folder and print where it is.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Send at most this many images.")] = 100,
) -> None:
    """Run the whole loop on this machine: a small PACS, the worker, radiographs in, reports back, a table of results."""
    from worker.cli.demo import print_results
    from worker.demo.run import run_demo

    results = run_demo(images, keep=keep, limit=limit)
    print_results(results)
    raise typer.Exit(0 if all(result.came_to_its_end for result in results) else 1)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("cxr-worker.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented configuration file with every default."""
    from worker.cli.example import write_example

    write_example(path, force=force)
    print(f"Wrote {path}. Next: edit the destinations, then 'cxr-worker doctor --config {path}'.")


@app.command()
def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Read every stored file and verify its checksum too.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Check configuration, database, disk, model, GPU and destinations, and name the cure for each failure."""
    from worker.cli.doctor import examine, show

    checks = examine(settings_of(config), config=config, deep=deep)
    raise typer.Exit(show(checks, as_json=as_json))


@app.command()
def conformance() -> None:
    """Print the DICOM Conformance Statement (Markdown, PS3.2 annex N), written from the code."""
    from worker.conformance import conformance_statement

    print(conformance_statement(), end="")


@app.command()
def serve(config: Config = None) -> None:
    """Receive, analyse, deliver and show the page in one process: the default for one machine. SIGTERM ends it gently."""
    from worker.service import Roles, serve

    serve(settings_of(config), Roles(receive=True, run=True, web=True))


@app.command()
def receive(config: Config = None) -> None:
    """Only receive and store; a runner elsewhere does the rest."""
    from worker.service import Roles, serve

    serve(settings_of(config), Roles(receive=True))


@app.command()
def run(config: Config = None) -> None:
    """Only run the steps after storing; a second runner waits as a hot standby."""
    from worker.service import Roles, serve

    serve(settings_of(config), Roles(run=True))


@app.command()
def web(config: Config = None) -> None:
    """Only show the page, with /healthz and /readyz."""
    from worker.service import Roles, serve

    serve(settings_of(config), Roles(web=True))
