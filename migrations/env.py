"""Runs migrations on the connection that `worker.db.migrate` hands over."""

from typing import Any, Literal

from alembic import context

from worker.db.schema import UtcDateTime, metadata


def without_our_types(kind: str, item: Any, _autogenerate: Any) -> str | Literal[False]:
    """Write plain types into new migrations, so that old ones never depend on today's code."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def run() -> None:
    """Run them inside the caller's transaction."""
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, render_item=without_our_types)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
    with context.begin_transaction():
        context.run_migrations()


run()
