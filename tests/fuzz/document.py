"""docs/fuzzing.md, from the results of a run."""

import json
import os
import platform
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.fuzz.target import MOST_BYTES, MOST_LEFT_BYTES, MOST_SECONDS
from tests.fuzz.targets import TARGETS

_NAMED = ("atheris", "pydicom", "pynetdicom", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pyjpegls", "urllib3")
_PAGE = """\
# Fuzzing

What parses bytes of strangers is handed millions of broken ones: association requests, objects, pixel data, what peers
answer. Nothing may come of an input but a return or an error that its caller handles. An input may take {most_seconds:.0f} s
and {most_mib} MiB, and a process must not grow by more than {left_mib} MiB in the end. `make fuzz` writes this page.

The last run: {minutes:.0f} minutes, loading left out, on {machine}, seed {seed}; {versions}.
**{executions:,} inputs, findings left: {findings}.**

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
headers, images of 60 million pixels in some kilobytes, gigabytes deflated, lists in each other. These are {count}; the slowest
took {slowest:.1f} s, the largest {largest:.0f} MiB.

| target | input | ended | seconds | MiB |
|---|---|---|---|---|
{hostile}

## Findings of this run

What a run finds is mended and kept as a few bytes in `tests/property/test_found_by_fuzzing.py`, and its target is run again;
the table has that run. Left of this one:{found}

## How

Each target is a function of bytes in `tests/fuzz/` and runs in a process of its own. Inputs begin with objects made in memory,
in every transfer syntax that is decoded, and with real files; none is committed. atheris (`pip install 'cxr-worker[fuzz]'`)
keeps what reaches new code of dicom_io, pydicom, pynetdicom and urllib3 and changes it, half of the time by changes that know
elements, lengths, representations, items and markers (`mutation.py`); without atheris these alone are made. Decoders run in
the target's process, where a crash of theirs is a finding; in the worker they have their own. Warnings are errors, for they
quote values.
`make test` hands each target some hundred changed inputs of a fixed seed (`tests/property/test_fuzz_targets.py`).

## What is not proven

The decoders themselves (OpenJPEG, libjpeg, CharLS) are compiled without instruments: inputs to them are changed, but not
guided. pylibjpeg-libjpeg does not give back the memory of a damaged JPEG image that it refuses, some bytes for each pixel:
that is why `pixels` and `analysis` grow; in the worker it goes with the process that decoded it
(`tests/integration/test_decoders.py`). TLS handshakes, the database and the network stack are not fuzzed.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one target: what its sessions wrote into its folder."""

    name: str
    folder: Path

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """What each wrote, the one of the hostile inputs aside."""
        paths = sorted(self.folder.glob("progress-[0-9]*.json"))
        return [json.loads(path.read_text()) for path in paths]

    @property
    def hostile(self) -> list[tuple[str, str, float, int]]:
        """Name, end, seconds and bytes grown of each hostile input."""
        path = self.folder / "progress-hostile.json"
        return json.loads(path.read_text())["hostile"] if path.is_file() else []

    @property
    def executions(self) -> int:
        """Inputs that were handed over."""
        return sum(session["executions"] for session in self.sessions)

    @property
    def corpus(self) -> int:
        """Inputs that were kept."""
        return len(list((self.folder / "corpus").glob("*")))

    @property
    def findings(self) -> list[str]:
        """What each is, with the file that tells more where there is one."""
        told = [f"{path.name}: {path.read_text().splitlines()[0]}" for path in sorted((self.folder / "findings").glob("*.txt"))]
        grown = sum(session["resident_bytes"] - session["warm_bytes"] for session in self.sessions)
        leak = (
            [f"{self.name}: grew by {grown / 2**20:.0f} MiB in {self.executions:,} inputs"] if grown > MOST_LEFT_BYTES else []
        )
        return told + leak


def write_document(path: Path, results: list[Result], *, seed: int) -> None:
    """Write what was fuzzed, how, and what came of it."""
    found = [finding for result in results for finding in result.findings]
    hostile = [each for result in results for each in result.hostile]
    page = _PAGE.format(
        most_seconds=MOST_SECONDS,
        most_mib=MOST_BYTES // 2**20,
        left_mib=MOST_LEFT_BYTES // 2**20,
        minutes=sum(session["fuzzed_seconds"] for result in results for session in result.sessions) / 60,
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
    sessions = result.sessions
    seconds = sum(session["fuzzed_seconds"] for session in sessions)
    ended: Counter[str] = Counter()
    for session in sessions:
        ended.update(session["ended"])
    cells = [
        result.name,
        f"{result.executions:,}",
        f"{result.executions / seconds if seconds else 0:,.0f}",
        f"{result.corpus:,}",
        f"{max((session['slowest_seconds'] for session in sessions), default=0):.2f} s",
        f"{max((session['most_grown_bytes'] for session in sessions), default=0) / 2**20:.0f} MiB",
        " ".join(f"{session['warm_bytes'] / 2**20:.0f} to {session['resident_bytes'] / 2**20:.0f} MiB" for session in sessions),
        ", ".join(f"{name} {count:,}" for name, count in ended.most_common()),
    ]
    return f"| {' | '.join(cells)} |"


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"
