"""Tables for people, JSON for scripts; both on stdout. What a stranger sent must not command the operator's terminal."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

Row = TypeVar("Row")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
"""C0 and C1 without the line feed, which cells of ours have."""
_CONTROLS_THAT_JSON_LEAVES = re.compile(r"[\x7f-\x9f]")


def harmless(text: str) -> str:
    """Show each control character as its number: a terminal would obey it."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def print_line(text: str) -> None:
    """Print one line, whatever is in it."""
    print(harmless(text).replace("\n", "\\x0a"))


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(_CONTROLS_THAT_JSON_LEAVES.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def newest_of(found: list[Row], limit: int) -> list[Row]:
    """At most so many; where there are more, say so."""
    if len(found) > limit:
        print(f"cxr-worker: only the newest {limit} are listed; --limit lists more.", file=sys.stderr)
    return found[:limit]


@contextmanager
def busy(words: str) -> Iterator[None]:
    """Tell a person at a terminal what takes its time; a script's stderr stays empty."""
    from rich.console import Console

    with Console(stderr=True).status(words):
        yield


@contextmanager
def progressing(words: str) -> Iterator[Callable[[int, int], None]]:
    """Show a person at a terminal how much of something is done; what is given is told how much, and of how much."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(words, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under their headings, as wide as they need where nobody's terminal sets a width."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else harmless(str(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else 220).print(table)
