"""What several threads change at once is one transaction, and what one of them gets wrong is its own."""

import errno
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from threading import Barrier, Event
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update

from tests.conftest import TestDatabase
from tests.fakes import FakeClock
from worker.db.committer import Committer, Condition
from worker.db.database import Database, open_database
from worker.db.schema import activations
from worker.errors import DatabaseUnavailable
from worker.syncing import NotYet

AT = FakeClock()()


def entering(model: str) -> Callable[[Connection], None]:
    def change(connection: Connection) -> None:
        connection.execute(insert(activations).values(at=AT, model=model))

    return change


def entered(database: Database) -> list[str]:
    with database.read() as connection:
        return sorted(connection.execute(select(activations.c.model)).scalars())


class Counted:
    """Transactions of a database, counted; the first one waits to be let go on."""

    def __init__(self, database: Database) -> None:
        self.transactions = 0
        self.began, self.go_on = Event(), Event()
        self._database = database

    def write(self) -> AbstractContextManager[Connection]:
        return self._write()

    @contextmanager
    def _write(self) -> Any:
        self.transactions += 1
        with self._database.write() as connection:
            if self.transactions == 1:
                self.began.set()
                assert self.go_on.wait(30)
            yield connection


def at_once(_seconds: float | None) -> None:
    """What needs nothing to be true first."""


def together(
    database: Database,
    changes: dict[str, Callable[[Connection], None]],
    provided: dict[str, Condition] | None = None,
) -> tuple[Counted, dict[str, Future[None]]]:
    """Commit the first change, and all others while its transaction is open."""
    counted = Counted(database)
    committer = Committer(counted.write)
    with ThreadPoolExecutor(len(changes) + 1) as pool:
        pool.submit(committer.commit, entering("first"), provided=at_once)
        assert counted.began.wait(30)
        done = {}
        for name, change in changes.items():
            done[name] = pool.submit(committer.commit, change, provided=(provided or {}).get(name, at_once))
            while len(committer._waiting) < len(done):  # noqa: SLF001  nothing else tells that it waits
                Event().wait(0.001)
        counted.go_on.set()
    return counted, done


def test_what_waits_while_another_commits_is_one_transaction(database: Database) -> None:
    names = [f"model-{number}" for number in range(8)]
    counted, done = together(database, {name: entering(name) for name in names})
    assert [each.result() for each in done.values()] == [None] * 8
    assert entered(database) == sorted(["first", *names])
    assert counted.transactions == 2


def test_what_one_change_gets_wrong_is_raised_to_it_alone(database: Database) -> None:
    def wrong(connection: Connection) -> None:
        entering("wrong")(connection)
        raise ZeroDivisionError

    _, done = together(database, {"one": entering("one"), "wrong": wrong, "two": entering("two")})
    assert isinstance(done["wrong"].exception(), ZeroDivisionError)
    assert (done["one"].result(), done["two"].result()) == (None, None)
    assert entered(database) == ["first", "one", "two"]


def test_a_change_whose_condition_fails_is_not_made_and_takes_no_other_with_it(database: Database) -> None:
    def fails(_seconds: float | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    names = ("one", "broken", "two")
    _, done = together(database, {name: entering(name) for name in names}, {"broken": fails})
    assert isinstance(done["broken"].exception(), OSError)
    assert (done["one"].result(), done["two"].result()) == (None, None)
    assert entered(database) == ["first", "one", "two"]


def test_nothing_is_committed_before_every_condition_is_met(database: Database) -> None:
    seen: list[list[str]] = []
    names = ("one", "two")
    _, done = together(
        database, {name: entering(name) for name in names}, {name: lambda _: seen.append(entered(database)) for name in names}
    )
    assert [each.result() for each in done.values()] == [None, None]
    assert seen == [["first"], ["first"]]


def test_a_condition_that_takes_long_is_waited_for_without_holding_the_database(database: Database) -> None:
    waited: list[float | None] = []

    def slow(seconds: float | None) -> None:
        waited.append(seconds)
        if seconds is not None:
            raise NotYet
        if len(waited) == 2:  # a transaction that was held now would keep this one out
            with database.write() as connection:
                entering("meanwhile")(connection)

    Committer(database.write).commit(entering("slow"), provided=slow)
    assert waited == [0.5, None, None]
    assert entered(database) == ["meanwhile", "slow"]


def test_a_condition_that_takes_long_and_fails_takes_no_other_with_it(database: Database) -> None:
    def fails(seconds: float | None) -> None:
        if seconds is not None:
            raise NotYet
        raise OSError(errno.EIO, "Input/output error")

    _, done = together(database, {name: entering(name) for name in ("one", "broken")}, {"broken": fails})
    assert isinstance(done["broken"].exception(), OSError)
    assert done["one"].result() is None
    assert entered(database) == ["first", "one"]


def test_a_row_that_the_database_refuses_takes_no_other_with_it(database: Database) -> None:
    def refused(connection: Connection) -> None:
        connection.execute(insert(activations).values(at=AT, model=None))

    _, done = together(database, {"one": entering("one"), "refused": refused})
    assert done["refused"].exception() is not None
    assert done["one"].result() is None
    assert entered(database) == ["first", "one"]


@pytest.mark.parametrize("database_kind", ["postgresql"])  # of SQLite only one transaction at a time can change anything
def test_batches_that_are_in_each_other_s_way_are_both_committed(test_database: TestDatabase) -> None:
    """As of two receivers whose senders send images of the same two studies, in another order."""
    both_hold_one = Barrier(2)

    def touching(model: str, *, first: bool) -> Callable[[Connection], None]:
        tries: list[str] = []

        def change(connection: Connection) -> None:
            connection.execute(update(activations).where(activations.c.model == model).values(at=AT))
            tries.append(model)
            if first and len(tries) == 1:  # whoever has to try again goes on alone
                both_hold_one.wait(30)

        return change

    def batch(database: Database, one: str, two: str) -> dict[str, Future[None]]:
        return together(database, {one: touching(one, first=True), two: touching(two, first=False)})[1]

    for model in ("one", "two"):
        with test_database.opened.write() as connection:
            entering(model)(connection)
    with ThreadPoolExecutor(2) as receivers, closing(open_database(test_database.url)) as other:
        batches = [
            receivers.submit(batch, test_database.opened, "one", "two"),
            receivers.submit(batch, other, "two", "one"),
        ]
        assert [each.exception() for done in batches for each in done.result().values()] == [None] * 4


def test_nobody_is_told_of_success_when_the_thread_that_commits_for_all_is_ended(database: Database) -> None:
    def ended(connection: Connection) -> None:
        entering("ended")(connection)
        raise SystemExit

    _, done = together(database, {"ended": ended, "one": entering("one"), "two": entering("two")})
    failures = [each.exception() for each in done.values()]
    assert sorted(type(failure).__name__ for failure in failures) == [
        "DatabaseUnavailable",
        "DatabaseUnavailable",
        "SystemExit",
    ]
    assert entered(database) == ["first"]


def test_nobody_is_told_of_success_while_the_database_is_away(test_database: TestDatabase) -> None:
    committer = Committer(test_database.opened.write)
    with test_database.away(), pytest.raises(DatabaseUnavailable):
        committer.commit(entering("lost"), provided=at_once)
    committer.commit(entering("kept"), provided=at_once)
    assert entered(test_database.opened) == ["kept"]
