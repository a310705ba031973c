"""Bring the database to the newest migration, or tell that it is not there (Alembic)."""

from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import migrations
from worker.db.database import Database
from worker.db.schema import metadata
from worker.errors import DatabaseOutdated


def upgrade(database: Database) -> None:
    """Run every migration that is missing, in one transaction each."""
    with database.write() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def current_revision(database: Database) -> str | None:
    """The newest migration that has run, or None on an empty database."""
    with database.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest_revision() -> str:
    """The newest migration there is."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise DatabaseOutdated("There are no migrations: the installation is incomplete.")
    return head


def is_known(revision: str) -> bool:
    """Whether a migration is one of this version's."""
    return revision in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def made_by(revision: str, asked: str) -> list[tuple[str, str, str]]:
    """What a query finds in an embedded database that the migrations made, up to and with one of them."""
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        found = [(str(kind), str(name), str(sql)) for kind, name, sql in connection.exec_driver_sql(asked)]
    engine.dispose()
    return found


def require_newest(database: Database) -> None:
    """Go on only with a database at the newest migration.

    Raises
    ------
    DatabaseOutdated
        It is older, newer or empty.
    """
    current, newest = current_revision(database), newest_revision()
    if current != newest:
        raise DatabaseOutdated(
            f"The database is at migration {current or 'none'}, this version needs {newest}: run 'cxr-worker db upgrade'."
        )


def differences(database: Database) -> list[str]:
    """What stands in the tables and not in the schema, or the other way round; empty when they agree."""
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": False})
        return [str(difference) for difference in compare_metadata(context, metadata)]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config
