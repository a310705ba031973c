"""What a scenario is, and how one is run: load and disturbance side by side, then calm, then the verdict."""

import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Protocol, Self

from numpy.random import Generator, default_rng

from tests.servers import wait_for
from tests.soak.films import Study, make_studies
from tests.soak.senders import SENDERS, Load, Sender
from tests.soak.system import Deployment, Standing, System, running
from tests.soak.verdict import Place, judge

_PROGRESS_SECONDS = 5.0
_CALM_SECONDS = 1200.0
_AHEAD = 4
"""How many disturbances ahead the load is released, so that every one meets work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is sent, how often it is disturbed, and what the dice begin with."""

    studies: int
    disturbances: int
    seed: int


@dataclass(slots=True, kw_only=True)
class Course:
    """A running soak, as a scenario sees it."""

    system: System
    load: Load
    random: Generator
    size: Size
    done: Counter[str] = field(default_factory=Counter)
    """Disturbances by what they were."""

    def release(self) -> None:
        """Let the senders have the next share of the load: a disturbance, and a few more ahead, so that each meets work."""
        self.load.release((self.done.total() + _AHEAD) / (self.size.disturbances + _AHEAD))

    def wait_for_successes(self, *, rounds: float, seconds: float) -> None:
        """Wait until the senders were told of a random number of more successes, have nothing left, or the time is up.

        On average it is what is released for so many disturbances.
        """
        most = 2 * rounds * self.load.films / (self.size.disturbances + _AHEAD)
        count = self.random.uniform(0, most)
        begin, deadline = self.load.acknowledged, monotonic() + seconds
        wait_for(
            lambda: self.load.acknowledged >= begin + count or self.load.is_idle or monotonic() > deadline,
            "more successes",
            seconds=seconds + 1,
        )

    def go_on(self, seconds: float) -> None:
        """Let some time pass."""
        Event().wait(seconds)


class Scenario(Protocol):
    """One kind of trouble. Its docstring is its description in docs/reliability.md."""

    name: str
    share: tuple[float, float]
    """Of the studies and of the disturbances that the command is asked for."""

    def lacks(self) -> str:
        """What this machine does not have for it, in words; empty where it has everything."""

    def system(self, folder: Path, size: Size) -> AbstractContextManager[System]:
        """Start the system."""

    def disturb(self, course: Course) -> str:
        """Let the load go on, do it once, and say what it was."""

    def calm(self, course: Course) -> None:
        """Do no more of it, and put back what is still away."""


class Plain:
    """What a scenario is where it does not say otherwise: it needs nothing, runs what ships, and leaves nothing to put back."""

    def lacks(self) -> str:
        return ""

    @contextmanager
    def system(self, folder: Path, size: Size) -> Iterator[System]:  # noqa: ARG002  part of the contract
        with running(folder, Deployment()) as system:
            yield system

    def calm(self, course: Course) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run came to; every number of docs/reliability.md stands here."""

    scenario: str
    machine: str
    seed: int
    studies: int
    films: int
    sent: int
    answers: dict[str, int]
    unreachable: int
    disturbances: dict[str, int]
    reports: int
    told_again: int
    parts: int
    seconds: float
    calm_seconds: float
    complaints: tuple[str, ...]

    @classmethod
    def read(cls, line: str) -> Self:
        """Take one back from JSON."""
        return cls(**json.loads(line))


def run(scenario: Scenario, size: Size, folder: Path) -> Result:
    """Run one scenario in a folder of its own."""
    began = monotonic()
    (folder / "films").mkdir()
    studies = make_studies(folder / "films", size.studies, seed=size.seed)
    ledger = folder / "acknowledged.jsonl"
    load = Load(studies, ledger)
    with scenario.system(folder, size) as system:
        course = Course(system=system, load=load, random=default_rng(size.seed), size=size)
        with _progress(scenario.name, course):
            _disturb(scenario, course)
            calm = monotonic()
            scenario.calm(course)
            complaints = _calm_down(course, studies)
            calm_seconds = monotonic() - calm
        load.close()
        place = Place(
            database_url=system.worker.database_url,
            data_dir=system.worker.folder / "var",
            ledger=ledger,
            pacs=system.pacs.running,
        )
        verdict = judge(place, studies)
        complaints += [*verdict.complaints, *system.doctor()]
        complaints += [f"{each.name} ended by itself {each.died} times" for each in system.processes if each.died]
        complaints += [f"{each.name} ended with {code} on SIGTERM" for each in system.processes if (code := each.stop())]
    return Result(
        scenario=scenario.name,
        machine=_machine(),
        seed=size.seed,
        studies=size.studies,
        films=load.films,
        sent=load.sent,
        answers=dict(load.answers),
        unreachable=load.unreachable,
        disturbances=dict(course.done),
        reports=verdict.reports,
        told_again=verdict.told_again,
        parts=verdict.parts,
        seconds=round(monotonic() - began, 1),
        calm_seconds=round(calm_seconds, 1),
        complaints=tuple(complaints),
    )


def _machine() -> str:
    asked = subprocess.run(["git", "describe", "--always", "--dirty=, changed"], capture_output=True, text=True, check=False)
    what = f"commit {asked.stdout.strip()}" if asked.returncode == 0 else f"version {version('cxr-worker')}"
    on = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {what}, {on}"


def _disturb(scenario: Scenario, course: Course) -> None:
    ports = list(course.system.receivers)
    for number in range(SENDERS):
        Sender(number, course.load, port=ports[number % len(ports)], seed=course.size.seed).start()
    for _ in range(course.size.disturbances):
        course.done[scenario.disturb(course)] += 1
    course.load.release(1.0)


def _calm_down(course: Course, studies: Sequence[Study]) -> list[str]:
    """Wait until nothing is to be done any more; say where that does not come."""
    deadline = monotonic() + _CALM_SECONDS
    ends = {
        "every film is acknowledged": lambda: course.load.acknowledged == course.load.films,
        "every study comes to its end": lambda: _is_at_rest(course.system, studies),
    }
    for what, is_so in ends.items():
        try:
            wait_for(is_so, what, seconds=deadline - monotonic())
        except AssertionError as error:
            return [str(error)]
    return []


def _is_at_rest(system: System, studies: Sequence[Study]) -> bool:
    """Whether every study has come to an end; which one, the verdict says."""
    standing = system.standing()
    ended = ("delivered", "not_analysed", "failed")
    return standing is not None and sum(standing.studies.get(state, 0) for state in ended) == len(studies)


@contextmanager
def _progress(name: str, course: Course) -> Iterator[None]:
    """Say on stderr how far it is, again and again."""
    over, began = Event(), monotonic()

    def report() -> None:
        while not over.wait(_PROGRESS_SECONDS):
            load, standing = course.load, course.system.standing() or Standing()
            sys.stderr.write(
                f"{name} {monotonic() - began:.0f} s: {load.sent} sent, {load.acknowledged} of {load.films} acknowledged,"
                f" {course.done.total()} disturbances, {standing.analysed} analysed, {standing.delivered} delivered\n"
            )
            sys.stderr.flush()

    thread = Thread(target=report, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
