"""The command `cxr-models`. Data goes to stdout, everything else to stderr; 0 ok, 1 failed, 2 bad usage or configuration.

torch and Lightning are imported inside the commands: `--help` answers at once.
"""

import logging
import os
import sys

import typer

from cxr_models.cli.calibrate import calibrate
from cxr_models.cli.crossvalidate import crossvalidate
from cxr_models.cli.data import data
from cxr_models.cli.evaluate import evaluate
from cxr_models.cli.explain import explain
from cxr_models.cli.gate import gate
from cxr_models.cli.predict import predict
from cxr_models.cli.search import search
from cxr_models.cli.show import show
from cxr_models.cli.table import table
from cxr_models.cli.train import train
from cxr_models.errors import Misuse, ModelError

app = typer.Typer(
    help="Train, evaluate and use classifiers of chest radiographs. Research use only: not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (train, crossvalidate, calibrate, search, evaluate, predict, explain, show, table):
    app.command()(command)
app.add_typer(data, name="data")
app.add_typer(gate, name="gate")


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
