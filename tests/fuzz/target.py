"""What is fuzzed, and what counts as a finding."""

import hashlib
import resource
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

MOST_SECONDS = 10.0
"""For one input."""
MOST_BYTES = 1024**3
"""By which one input may make the process grow."""
MOST_LEFT_BYTES = 64 * 1024**2
"""By which all inputs together may, in the end."""

ROOT = Path(__file__).resolve().parents[2]

Inputs = Callable[[], Iterable[bytes]]
Hostile = Callable[[], Iterator[tuple[str, bytes]]]


class Broken(AssertionError):
    """A target answered, but something that must hold of its answer does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Code that is handed a stranger's bytes.

    Attributes
    ----------
    says
        What it is, in words for the document.
    run
        Hands it the bytes. Returns, or raises one of `allowed`, which its callers handle.
    seeds
        Sound inputs to begin with, small.
    hostile
        Sound and unsound inputs of a bad will, each with its name: tried once, before anything is mutated.
    longest
        Bytes that an input has at most when it is mutated.
    """

    name: str
    says: str
    run: Callable[[bytes], None]
    allowed: tuple[type[Exception], ...]
    seeds: Inputs
    hostile: Hostile = lambda: iter(())
    longest: int = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An input that does what none may do."""

    target: str
    kind: str
    """``error``, ``slow`` or ``memory``; of a process that ended, ``crash``."""
    where: str
    """The same for inputs that do the same."""
    details: str
    data: bytes

    @property
    def name(self) -> str:
        """A file's name for its bytes."""
        return f"{self.target}-{self.kind}-{hashlib.sha256(self.where.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What became of one input."""

    ended: str
    """``returned``, or the name of an allowed error."""
    seconds: float
    grown: int
    """Bytes by which the highest resident memory of the process has grown meanwhile."""
    finding: Finding | None = None


def attempt(target: Target, data: bytes) -> Attempt:
    """Hand a target one input, under the limits."""
    before = _forget_peak()
    began = _own_seconds()
    finding = None
    try:
        target.run(data)
        ended = "returned"
    except target.allowed as error:
        ended = type(error).__name__
    except Exception as error:  # noqa: BLE001  whatever else comes out is what is looked for
        ended = "finding"
        what = str(error) if isinstance(error, Broken) else type(error).__name__
        where = f"{what} at {_place(error.__traceback__)}"
        details = "".join(traceback.format_exception(error))[-6000:]
        finding = Finding(target=target.name, kind="error", where=where, details=details, data=data)
    seconds, grown = _own_seconds() - began, peak_bytes() - before
    if finding is None and seconds > MOST_SECONDS:
        finding = Finding(target=target.name, kind="slow", where="time", details=f"{seconds:.1f} s", data=data)
    if finding is None and grown > MOST_BYTES:
        finding = Finding(target=target.name, kind="memory", where="memory", details=f"{grown / 2**20:.0f} MiB", data=data)
    return Attempt(ended=ended, seconds=seconds, grown=grown, finding=finding)


def _own_seconds() -> float:
    """A clock that stands still while this thread could run and others of the machine do (proc(5), schedstat)."""
    schedule = Path("/proc/thread-self/schedstat")
    waited = int(schedule.read_text().split()[1]) if schedule.is_file() else 0
    return time.monotonic() - waited / 1e9


def peak_bytes() -> int:
    """The highest resident memory of this process since `_forget_peak`."""
    status = Path("/proc/self/status").read_bytes()
    return int(status[status.index(b"VmHWM:") :].split(None, 2)[1]) * 1024


def _forget_peak() -> int:
    """Begin anew to look for the highest resident memory; answer the present one (proc(5), clear_refs)."""
    with Path("/proc/self/clear_refs").open("wb", buffering=0) as file:
        file.write(b"5")
    return resident_bytes()


def resident_bytes() -> int:
    """The resident memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _place(trace: TracebackType | None) -> str:
    """The last line of ours, and the last line of all: what tells one fault from another."""
    frames = traceback.extract_tb(trace)
    ours = [frame for frame in frames if str(ROOT) in frame.filename and not {".venv", "fuzz"} & {*Path(frame.filename).parts}]
    places = dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in [*ours[-1:], *frames[-1:]])
    return ", ".join(places)
