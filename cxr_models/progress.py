from collections.abc import Iterable, Iterator, Sized
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

PATIENCE_SECONDS = 2.0

Item = TypeVar("Item")


def shown(steps: Iterable[Item], *, words: str, total: int | None = None) -> Iterator[Item]:
    """Go through steps, on a terminal with a progress bar on stderr once they have taken two seconds."""
    progress = Progress(console=Console(stderr=True), transient=True)
    task = progress.add_task(words, total=len(steps) if isinstance(steps, Sized) else total)
    begun = monotonic()
    try:
        for step in steps:
            yield step
            progress.advance(task)
            if progress.console.is_terminal and monotonic() - begun > PATIENCE_SECONDS:
                progress.start()
    finally:
        if progress.live.is_started:
            progress.stop()
