"""docs/fuzzing.md, from the results of a run."""

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.fuzz.target import MOST_BYTES, MOST_SECONDS
from tests.fuzz.targets import TARGETS

_NAMED = ("atheris", "pydicom", "pynetdicom", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pyjpegls", "urllib3")
_PAGE = """\
# Fuzzing

What parses bytes of strangers is handed millions of broken ones: association requests, objects, pixel data, what peers
answer. Nothing may come of an input but a return or an error that its caller handles. An input may take {most_seconds:.0f} s
and {most_mib} MiB, and a process must not grow. `make fuzz` does it, and writes this page.

The last run: {minutes:g} minutes on one core of {machine}, seed {seed}; {versions}.
**{executions:,} inputs, {findings} findings.**

| target | inputs | a second | kept | slowest | most memory for one | memory, then and now | ended |
|---|---|---|---|---|---|---|---|
{rows}

*Kept* are the inputs that reached code no other did. *Most memory* is how far the resident memory of the process rose, for
one input, above where it stood; *then and now* is where it stood after the first 20 s and at the end. *Ended* says how often
each end came.

## Targets

{targets}

## Inputs of a bad will

Before anything is changed at random, each target is handed what a stranger would make on purpose: megabytes of nothing but
headers, images of 100 million pixels in a kilobyte, gigabytes deflated, lists in each other. These are {count}; the slowest
took {slowest:.1f} s, the largest {largest:.0f} MiB.

| target | input | ended | seconds | MiB |
|---|---|---|---|---|
{hostile}

## Findings of this run

What a run finds is mended, and kept as a few bytes in `tests/property/test_found_by_fuzzing.py`. This run:{found}

## How

Each target is a function of bytes in `tests/fuzz/` and runs in a process of its own. Inputs begin with objects made in memory,
in every transfer syntax that is decoded, and with real files; none is committed. atheris (`pip install 'cxr-worker[fuzz]'`)
keeps what reaches new code of dicom_io, pydicom, pynetdicom and urllib3 and changes it, half of the time by changes that know
elements, lengths, representations, items and markers (`mutation.py`); without atheris these alone are made. Decoders run in
the process, as they do in the worker: a crash of theirs is a finding. Warnings are errors, for they quote values.
`make test` hands each target some hundred changed inputs of a fixed seed (`tests/property/test_fuzz_targets.py`).

## What is not proven

The decoders themselves (OpenJPEG, libjpeg, CharLS) are compiled without instruments: inputs to them are changed, but not
guided. TLS handshakes, the database and the network stack are not fuzzed. An hour is an hour.
"""


@dataclass(slots=True, kw_only=True)
class Result:
    """What became of one target."""

    name: str
    folder: Path
    sessions: int = 0
    executions: int = 0
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    most_grown_bytes: int = 0
    warm_bytes: int = 0
    resident_bytes: int = 0
    corpus: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    hostile: list[tuple[str, str, float, int]] = field(default_factory=list)

    def take(self, progress: dict[str, Any]) -> None:
        """Add what a session wrote down."""
        self.sessions += 1
        self.executions += progress.get("executions", 0)
        self.seconds += progress.get("fuzzed_seconds", 0.0)
        if not progress.get("executions"):
            self.hostile += [(name, ended, seconds, grown) for name, ended, seconds, grown in progress.get("hostile", [])]
            return
        self.slowest_seconds = max(self.slowest_seconds, progress.get("slowest_seconds", 0.0))
        self.most_grown_bytes = max(self.most_grown_bytes, progress.get("most_grown_bytes", 0))
        self.warm_bytes, self.resident_bytes = progress.get("warm_bytes", 0), progress.get("resident_bytes", 0)
        for ended, count in progress.get("ended", {}).items():
            self.ended[ended] = self.ended.get(ended, 0) + count

    @property
    def findings(self) -> list[Path]:
        """Each with what it is."""
        return sorted((self.folder / "findings").glob("*.txt"))


def write_document(path: Path, results: list[Result], *, minutes: float, seed: int) -> None:
    """Write what was fuzzed, how, and what came of it."""
    found = [finding.read_text().splitlines()[0] for result in results for finding in result.findings]
    hostile = [each for result in results for each in result.hostile]
    page = _PAGE.format(
        most_seconds=MOST_SECONDS,
        most_mib=MOST_BYTES // 2**20,
        minutes=minutes,
        machine=f"{platform.machine()} with {os.cpu_count()} cores",
        versions=", ".join([f"Python {platform.python_version()}", *map(_version, _NAMED)]),
        seed=seed,
        executions=sum(result.executions for result in results),
        findings=len(found),
        rows="\n".join(map(_row, results)),
        targets="\n".join(f"- **{result.name}**: {TARGETS[result.name].says}" for result in results),
        count=len(hostile),
        slowest=max((seconds for _, _, seconds, _ in hostile), default=0.0),
        largest=max((grown for *_, grown in hostile), default=0) / 2**20,
        hostile="\n".join(
            f"| {result.name} | {name} | {ended} | {seconds:.2f} | {grown / 2**20:.0f} |"
            for result in results
            for name, ended, seconds, grown in result.hostile
        ),
        found="".join(f"\n- {first}" for first in found) if found else " None.",
    )
    path.write_text(page)


def _row(result: Result) -> str:
    rate = result.executions / result.seconds if result.seconds else 0.0
    ended = ", ".join(f"{name} {count:,}" for name, count in sorted(result.ended.items(), key=lambda each: -each[1]))
    memory = f"{result.warm_bytes / 2**20:.0f} to {result.resident_bytes / 2**20:.0f} MiB"
    grown = f"{result.most_grown_bytes / 2**20:.0f} MiB"
    counts = f"{result.executions:,} | {rate:,.0f} | {result.corpus:,} | {result.slowest_seconds:.2f} s"
    return f"| {result.name} | {counts} | {grown} | {memory} | {ended} |"


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"
