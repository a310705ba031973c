"""Changes of several threads in one transaction: making it durable is what costs, and it costs once for all of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from threading import Lock
from typing import Protocol

from sqlalchemy import Connection

from worker.errors import DatabaseUnavailable, TransactionInTheWay
from worker.syncing import NotYet

Change = Callable[[Connection], None]
_PATIENCE_SECONDS = 0.5
"""For how long the database is held for a sync; else it goes on without, and the change is made again."""


class Basis(Protocol):
    """What must be true before a change is committed."""

    @property
    def repeats(self) -> bool:
        """Whether the change is made again where a power cut takes it back, so that it need not be durable by itself."""

    def begin(self) -> None:
        """Begin to make it true, while the change is made."""

    def wait(self, seconds: float | None) -> None:
        """Wait until it is true, or raise what keeps it from that.

        Raises
        ------
        worker.syncing.NotYet
            It is not after so many seconds. None: as long as it takes.
        """


class _Ticket:
    """A change that waits, and what became of it."""

    def __init__(self, change: Change, basis: Basis) -> None:
        self.change = change
        self.basis = basis
        self.is_done = False
        self.error: Exception | None = DatabaseUnavailable("The transaction was broken off.")


class Committer:
    """Whoever comes while a transaction is being committed waits, and the first of them commits for all."""

    def __init__(self, write: Callable[[bool], AbstractContextManager[Connection]]) -> None:
        """`write` opens a transaction, which is to be durable when it is committed, or need not."""
        self._write = write
        self._waiting: list[_Ticket] = []
        self._guard = Lock()
        self._turn = Lock()

    def commit(self, change: Change, *, basis: Basis) -> None:
        """Make a change; returning means that it is committed. What it raises itself concerns no other thread's change.

        Parameters
        ----------
        change
            Is made in an open transaction, perhaps a second time in another one.
        basis
            What must be true before it is committed; called by whichever thread commits, like `change`.
        """
        ticket = _Ticket(change, basis)
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
                        ticket.basis.wait(None)
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
        for ticket in tickets:
            ticket.basis.begin()
        with self._write(not all(ticket.basis.repeats for ticket in tickets)) as connection:
            for ticket in tickets:
                ticket.change(connection)
            for ticket in tickets:
                ticket.basis.wait(seconds)
