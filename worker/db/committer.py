"""Changes of several threads in one transaction: making it durable is what costs, and it costs once for all of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock

from sqlalchemy import Connection

from worker.errors import DatabaseUnavailable

Change = Callable[[Connection], None]


class _Ticket:
    """A change that waits, and what became of it."""

    def __init__(self, change: Change, provided: Callable[[], None]) -> None:
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

    def commit(self, change: Change, *, provided: Callable[[], None]) -> None:
        """Make a change; returning means that it is committed. What it raises itself concerns no other thread's change.

        Parameters
        ----------
        change
            Is made in an open transaction, perhaps a second time in another one.
        provided
            Waits for what must be true before the change is committed, or raises what keeps it from that; called like `change`.
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
            with self._write() as connection:
                for ticket in tickets:
                    ticket.change(connection)
                for ticket in tickets:
                    ticket.provided()
            for ticket in tickets:
                ticket.error = None
        except Exception as error:  # noqa: BLE001  the boundary between the threads: each gets its own
            if len(tickets) > 1 and not isinstance(error, DatabaseUnavailable):
                for ticket in tickets:
                    self._commit([ticket])
                return
            for ticket in tickets:
                ticket.error = error
        finally:
            for ticket in tickets:
                ticket.is_done = True
