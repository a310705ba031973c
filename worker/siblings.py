"""Processes side by side: started together, ended together, and one that ends by itself is started again."""

import os
import signal
from collections.abc import Callable, Sequence
from threading import Thread
from time import monotonic

import structlog

log = structlog.get_logger()

_ENDING = {signal.SIGTERM, signal.SIGINT}
_TOLD = _ENDING | {signal.SIGCHLD}
_YOUNG_SECONDS = 10.0
"""One that leaves sooner cannot do its work here: it is not started again."""
_KILLED = 128
"""The exit code of one that a signal ended is this and the signal's number, as shells say it."""


def run_side_by_side(bodies: Sequence[Callable[[], None]]) -> None:
    """Run each in a process of its own, until a signal ends them all. Returns in each of them, and at last in the first.

    To be called before there are threads or open databases, which do not survive the parting of processes.

    Raises
    ------
    SystemExit
        In the first, where one could not do its work: with its exit code, after the others were ended.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD)  # they are waited for, and none comes in between
    lifeline = os.pipe()
    running: dict[int, tuple[Callable[[], None], float]] = {}
    waiting = list(bodies)
    code, ending = 0, False
    while running or waiting:
        for body in waiting:
            pid = os.fork()
            if pid == 0:
                _live(body, lifeline)
                return
            running[pid] = (body, monotonic())
        waiting = []
        if signal.sigwait(_TOLD) in _ENDING:
            ending = True
            _end(running)
        for pid, ended_with in _ended(running):
            body, began = running.pop(pid)
            if ending:
                code = code or ended_with
            elif ended_with < _KILLED and monotonic() - began < _YOUNG_SECONDS:
                code, ending = ended_with or 1, True
                _end(running)
            else:
                log.error("process.ended", status=ended_with, count=len(running))
                waiting.append(body)
    if code:
        raise SystemExit(code)


def _live(body: Callable[[], None], lifeline: tuple[int, int]) -> None:
    os.close(lifeline[1])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TOLD)
    Thread(target=_end_with_the_first, args=(lifeline[0],), name="lifeline", daemon=True).start()
    body()


def _end_with_the_first(lifeline: int) -> None:
    """The first process alone can write here and never does: what is read is its end, however it came."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _end(running: dict[int, tuple[Callable[[], None], float]]) -> None:
    for pid in running:
        os.kill(pid, signal.SIGTERM)


def _ended(running: dict[int, tuple[Callable[[], None], float]]) -> list[tuple[int, int]]:
    """Those that have ended, and their exit codes."""
    ended = []
    for pid in list(running):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            ended.append((pid, _KILLED - code if code < 0 else code))
    return ended
