"""``cxr-worker db``: migrations."""

import typer

from worker.cli.options import Config, settings_of
from worker.errors import DatabaseOutdated

app = typer.Typer(help="Bring the database to this version, or check that it is there.", no_args_is_help=True)


@app.command()
def upgrade(config: Config = None) -> None:
    """Run the migrations that are missing (Alembic)."""
    from worker.db.migrate import current_revision
    from worker.service import opened

    with opened(settings_of(config), migrate=True) as database:
        print(f"The database is at migration {current_revision(database)}.")


@app.command()
def check(config: Config = None) -> None:
    """Tell whether the database is at the newest migration and its tables are as they should be."""
    from worker.db.migrate import current_revision, differences
    from worker.service import opened

    with opened(settings_of(config), migrate=False) as database:
        found = differences(database)
        if found:
            raise DatabaseOutdated(f"The tables differ from the schema: {'; '.join(found)}")
        print(f"The database is at migration {current_revision(database)}, the newest.")
