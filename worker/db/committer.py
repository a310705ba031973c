"""Changes of several threads in one transaction: making it durable is what costs, and it costs once for all of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from threading import Lock

from sqlalchemy import Connection

from worker.errors import DatabaseUnavailable, TransactionInTheWay
from worker.syncing import NotYet

Change = Callable[[Connection], None]
Condition = Callable[[float | None], None]
_PATIENCE_SECONDS = 0.5
"""For how long the database is held for a sync; else it goes on without, and the change is made again."""


class _Ticket:
    """A change that waits, and what became of it."""

    def __init__(self, change: Change, provided: Condition) -> None:
        self.change = change
        self.provided = provided
        self.is_done = False
        self.error: Exception | None = DatabaseUnavailable("The transaction was broken off.")


class Committer:
    """Whoever comes while a transaction is being committed waits, and the first of them commits for all."""

    def __init__(self, write: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._write = write
        self._waiting: list[_Ticket] = []
        self._guard = Lock()
        self._turn = Lock()

    def commit(self, change: Change, *, provided: Condition) -> None:
        """Make a change; returning means that it is committed. What it raises itself concerns no other thread's change.

        Parameters
        ----------
        change
            Is made in an open transaction, perhaps a second time in another one.
        provided
            Waits for what must be true before the change is committed, or raises what keeps it from that; called like `change`,
            with how many seconds it may take: after them it raises `worker.syncing.NotYet`. None: as long as it takes.
        """
        ticket = _Ticket(change, provided)
        with self._guard:
            self._waiting.append(ticket)
        with self._turn:
            if not ticket.is_done:
                with self._guard:
                    tickets, self._waiting = self._waiting, []
                self._commit(tickets)
        if ticket.error is not None:
            raise ticket.error

    def _commit(self, tickets: list[_Ticket]) -> None:
        try:
            try:
                self._change(tickets, _PATIENCE_SECONDS)
            except NotYet:  # nobody else's changes wait for a disk that hangs
                for ticket in tickets:
                    with suppress(Exception):  # it is raised again below
                        ticket.provided(None)
                self._change(tickets, None)
            for ticket in tickets:
                ticket.error = None
        except Exception as error:  # noqa: BLE001  the boundary between the threads: each gets its own
            is_away = isinstance(error, DatabaseUnavailable) and not isinstance(error, TransactionInTheWay)
            if len(tickets) > 1 and not is_away:  # alone each keeps its own error, and waits for one other at most
                for ticket in tickets:
                    self._commit([ticket])
                return
            for ticket in tickets:
                ticket.error = error
        finally:
            for ticket in tickets:
                ticket.is_done = True

    def _change(self, tickets: list[_Ticket], seconds: float | None) -> None:
        with self._write() as connection:
            for ticket in tickets:
                ticket.change(connection)
            for ticket in tickets:
                ticket.provided(seconds)
