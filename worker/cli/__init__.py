"""The command ``cxr-worker``. Heavy imports stay inside the commands: ``--help`` must not wait for torch."""

import sys

from worker.cli.app import app
from worker.cli.failure import reported

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; errors we know end in one line and exit code 1 or 2, never in a traceback."""
    with reported():
        app(prog_name="cxr-worker")
    sys.exit(0)
