"""``cxr-worker db``: migrations, backup, and what is kept."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.options import Config, database_of, settings_of
from worker.cli.user import user_asking
from worker.errors import ConfigurationError, DatabaseOutdated

app = typer.Typer(help="Bring the database to this version, back it up, delete what need not be kept.", no_args_is_help=True)


@app.command()
def upgrade(config: Config = None) -> None:
    """Run the migrations that are missing (Alembic)."""
    from worker.db.migrate import current_revision
    from worker.service import opened

    with opened(settings_of(config), migrate=True) as database:
        print(f"The database is at migration {current_revision(database)}.")


@app.command()
def check(config: Config = None) -> None:
    """Tell whether the database is whole, at the newest migration, its tables as they should be, its events guarded."""
    from worker.db.migrate import current_revision, differences
    from worker.db.soundness import require_guarded, require_whole
    from worker.service import opened

    with opened(settings_of(config), migrate=False) as database:
        require_whole(database)
        found = differences(database)
        if found:
            raise DatabaseOutdated(f"The tables differ from the schema: {'; '.join(found)}")
        require_guarded(database)
        print(f"The database is at migration {current_revision(database)}, the newest.")


@app.command()
def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    config: Config = None,
) -> None:
    """Delete the files that the rules of [keeping] let go, as a running worker does every hour; the clock is believed."""
    from worker.keeping.retention import plan, retain

    with database_of(config) as (settings, database):
        if not settings.keeping.deletes:
            rules = "days, failed_days, undelivered_days, maximum_bytes or minimum_free_bytes"
            raise ConfigurationError(f"keeping: no rule says what to delete; set {rules}.")
        if not dry_run:
            count = retain(database, settings, clock=lambda: datetime.now(UTC), user=user_asking())
            print(f"The files of {count} studies are deleted.")
            return
        with database.read() as connection:
            for removal in plan(connection, settings, now=datetime.now(UTC)):
                print(f"{removal.study.study_uid}: {removal.study.bytes} bytes; {removal.why}")


@app.command()
def backup(file: Annotated[Path, typer.Argument(help="New file to write.")], config: Config = None) -> None:
    """Copy the embedded database as it is now, also while a worker runs, and read the copy through."""
    from worker.keeping.backup import back_up

    size = back_up(settings_of(config), file, user=user_asking(), now=datetime.now(UTC))
    print(f"Wrote {file}: {size} bytes, whole. Received objects and reports are files in data_dir: keep those too.")


@app.command()
def restore(file: Annotated[Path, typer.Argument(help="A file that 'db backup' wrote.")], config: Config = None) -> None:
    """Put a backup in the place of the embedded database, which is kept aside; no worker may run meanwhile."""
    from worker.keeping.backup import restore

    before = restore(settings_of(config), file, user=user_asking(), now=datetime.now(UTC))
    kept = f"What was there before is kept: {', '.join(map(str, before))}." if before else "There was none before."
    print(f"Restored. {kept} What was received since is entered again when 'serve' or 'run' starts.")
