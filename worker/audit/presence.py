"""A process of the worker in the record of events: when it began and when it ended."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from worker.db import events
from worker.db.events import Event
from worker.errors import DatabaseUnavailable
from worker.pipeline import Parts


@contextmanager
def noted(parts: Parts, *, roles: Sequence[str]) -> Iterator[None]:
    """Note that this process began, and at the end that it ended; one that was killed has no end.

    `roles` are what it does: receive, run, web.
    """
    _note(events.STARTED, parts, roles)
    try:
        yield
    finally:
        with suppress(DatabaseUnavailable):
            _note(events.STOPPED, parts, roles)


def _note(kind: str, parts: Parts, roles: Sequence[str]) -> None:
    with parts.database.write() as connection:
        event = Event(kind=kind, at=parts.clock(), detail=", ".join(roles), facts={"roles": list(roles)})
        events.record(connection, event)
