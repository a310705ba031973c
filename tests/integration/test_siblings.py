"""Processes side by side: they start, end and recover together."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers import wait_for

_PROGRAM = """
import os, signal, sys
from functools import partial
from pathlib import Path
from worker import siblings

folder, failing = Path(sys.argv[1]), sys.argv[2]

def body(name):
    if name == failing:
        sys.exit(2)
    (folder / f"{name}.{os.getpid()}").touch()
    signal.pause()

siblings.run_side_by_side([partial(body, name) for name in ("one", "two", "three")])
"""


@contextmanager
def side_by_side(folder: Path, *, failing: str = "none") -> Iterator[subprocess.Popen[bytes]]:
    command: Sequence[str] = (sys.executable, "-c", _PROGRAM, str(folder), failing)
    first = subprocess.Popen(command)
    try:
        yield first
    finally:
        first.kill()
        first.wait(20)


def began(folder: Path, count: int) -> dict[str, int]:
    """The names and process ids of those that began last, once so many have begun in all."""
    paths = wait_for(lambda: len(found := sorted(folder.iterdir(), key=os.path.getmtime)) == count and found, "they began")
    return {path.stem: int(path.suffix[1:]) for path in paths}


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_a_signal_ends_them_all(tmp_path: Path) -> None:
    with side_by_side(tmp_path) as first:
        pids = began(tmp_path, 3)
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 128 + signal.SIGTERM
        assert not any(map(is_there, pids.values()))


def test_one_that_is_killed_is_started_again_and_the_others_go_on(tmp_path: Path) -> None:
    with side_by_side(tmp_path):
        before = began(tmp_path, 3)
        os.kill(before["two"], signal.SIGKILL)
        after = began(tmp_path, 4)
        assert after["two"] != before["two"]
        assert (after["one"], after["three"]) == (before["one"], before["three"])
        assert all(map(is_there, after.values()))


def test_when_the_first_is_killed_the_others_end(tmp_path: Path) -> None:
    with side_by_side(tmp_path) as first:
        pids = began(tmp_path, 3)
        first.kill()
        wait_for(lambda: not any(map(is_there, pids.values())), "their end")


def test_one_that_cannot_begin_ends_them_all_with_its_exit_code(tmp_path: Path) -> None:
    with side_by_side(tmp_path, failing="two") as first:
        assert first.wait(20) == 2
        assert not any(is_there(int(path.suffix[1:])) for path in tmp_path.iterdir())
