"""Options that several commands share, and the settings they lead to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from worker.db.database import Database
    from worker.settings import Settings

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Configuration file [default: cxr-worker.toml here, else the defaults]", metavar="FILE"
    ),
]
LARGEST_ID = 2**63 - 1
"""That a database can hold."""
Limit = Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="At most this many, the newest first.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


def settings_of(config: Path | None) -> "Settings":
    """Read the settings and set up the log."""
    from worker import log
    from worker.configuration import read_settings

    log.configure()
    return read_settings(config)


@contextmanager
def database_of(config: Path | None) -> Iterator[tuple["Settings", "Database"]]:
    """Settings and open database, at the newest migration."""
    from worker.db.database import open_database
    from worker.db.migrate import require_newest

    settings = settings_of(config)
    database = open_database(settings.database_url.get_secret_value())
    try:
        require_newest(database)
        yield settings, database
    finally:
        database.close()
