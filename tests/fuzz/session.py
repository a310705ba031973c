"""One process that hands one target inputs until its time is over and writes down how it goes.

`tests.fuzz` starts it, as ``python -m tests.fuzz.session``. With atheris coverage guides what is kept and changed; without it,
sound inputs are changed at random. Nothing that coverage is to be seen of may be imported up here.
"""

import argparse
import json
import logging
import os
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random

from tests.fuzz.mutation import mutate
from tests.fuzz.target import Finding, Target, attempt, resident_bytes

_GUIDES = (
    "dicom_io",
    *(f"pydicom.{name}" for name in ("charset", "dataelem", "dataset", "encaps", "filereader", "fileutil", "hooks", "values")),
    *(f"pynetdicom.{name}" for name in ("pdu", "pdu_items", "pdu_primitives", "presentation")),
    "urllib3.response",
    "worker.steps",
)
"""What coverage is seen of: the rest would take half a minute to instrument."""
_MOST_ADDRESS_BYTES = 16 * 1024**3
_WRITE_EVERY_SECONDS = 1.0
_WARM_AFTER_SECONDS = 20.0
_SEEDS_CHANGED_BY_HAND = 0.5
"""Of all changes; atheris makes the others."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How a session goes, as it is written down for whoever waits for it."""

    executions: int = 0
    fuzzed_seconds: float = 0.0
    ended: dict[str, int] = field(default_factory=dict)
    slowest_seconds: float = 0.0
    most_grown_bytes: int = 0
    resident_bytes: int = 0
    warm_bytes: int = 0
    """Resident memory after the first seconds: from there on it must not grow."""
    hostile: list[tuple[str, str, float, int]] = field(default_factory=list)
    """Name, how it ended, seconds, bytes grown."""
    doing: str = ""


class Session:
    """Hands inputs over and writes down what becomes of them."""

    def __init__(self, target: Target, folder: Path, name: str) -> None:
        self.target = target
        self._folder = folder
        self._name = name
        self._written = time.monotonic()
        self._began = 0.0
        self._progress = Progress()
        self._ended: Counter[str] = Counter()
        self._places: set[str] = set()

    def hostile(self) -> None:
        """Hand over the inputs of a bad will, each once."""
        for name, data in self.target.hostile():
            self._progress.doing = name
            self._write()
            made = attempt(self.target, data)
            self._progress.hostile.append((name, made.ended, made.seconds, made.grown))
            self._note(made.finding, name)
        self._progress.doing = ""
        self._write()

    def hand_over(self, data: bytes) -> None:
        """Hand over one input."""
        self._began = self._began or time.monotonic()
        made = attempt(self.target, data)
        self._progress.executions += 1
        self._ended[made.ended] += 1
        self._progress.slowest_seconds = max(self._progress.slowest_seconds, made.seconds)
        self._progress.most_grown_bytes = max(self._progress.most_grown_bytes, made.grown)
        self._note(made.finding)
        if time.monotonic() - self._written > _WRITE_EVERY_SECONDS:
            self._write()

    def _note(self, finding: Finding | None, name: str = "") -> None:
        if finding is None or finding.where in self._places:
            return
        self._places.add(finding.where)
        path = self._folder / "findings" / finding.name
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".txt").write_text(f"{finding.kind}: {finding.where}\n{name}\n\n{finding.details}")
        if len(finding.data) < 1024 * 1024:  # the others are made anew by their name
            path.with_suffix(".bin").write_bytes(finding.data)

    def _write(self) -> None:
        self._written = time.monotonic()
        progress = self._progress
        progress.fuzzed_seconds = self._written - self._began if self._began else 0.0
        progress.ended = dict(self._ended)
        progress.resident_bytes = resident_bytes()
        if progress.fuzzed_seconds < _WARM_AFTER_SECONDS or not progress.warm_bytes:
            progress.warm_bytes = progress.resident_bytes
        part = self._folder / "progress.part"
        part.write_text(json.dumps(asdict(progress)))
        part.replace(self._folder / f"progress-{self._name}.json")


def change_at_random(session: Session, *, seconds: float, runs: int, seed: int) -> None:
    """Change sound inputs until the time is over, or so often."""
    random = Random(seed)  # noqa: S311  nothing secret
    seeds = list(session.target.seeds())
    until = time.monotonic() + seconds
    for data in seeds:
        session.hand_over(data)
    for _ in range(runs):
        if time.monotonic() > until:
            break
        session.hand_over(mutate(random.choice(seeds), seeds, random, longest=session.target.longest))


def change_with_guidance(session: Session, atheris: object, *, folder: Path, seconds: float, seed: int) -> None:
    """Let libFuzzer keep what reaches new code and change it; this process ends with it."""
    seeds = list(session.target.seeds())
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for data in seeds:
        (corpus / sha256(data).hexdigest()[:16]).write_bytes(data)
    options = [
        f"-max_total_time={max(1, int(seconds))}",
        f"-max_len={session.target.longest}",
        f"-seed={seed}",
        "-timeout=10",
        "-rss_limit_mb=4096",
        "-print_final_stats=0",
        f"-artifact_prefix={folder}/",
    ]
    change = _changer(seeds, session.target, atheris)
    atheris.Setup([sys.argv[0], *options, str(corpus)], session.hand_over, custom_mutator=change)  # type: ignore[attr-defined]
    atheris.Fuzz()  # type: ignore[attr-defined]


def _changer(seeds: Sequence[bytes], target: Target, atheris: object) -> Callable[[bytes, int, int], bytes]:
    def change(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)  # noqa: S311  nothing secret
        if random.random() < _SEEDS_CHANGED_BY_HAND:
            return mutate(data, seeds, random, longest=min(most, target.longest))
        changed: bytes = atheris.Mutate(data, most)  # type: ignore[attr-defined]  only now is it what it will be
        return changed

    return change


def main() -> None:
    """Run one session."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.session", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--folder", type=Path, required=True, help="for the corpus, the findings and the progress")
    parser.add_argument("--name", required=True, help="of this session, for its progress")
    parser.add_argument("--seconds", type=float, default=0.0, help="in all, loading included")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hostile", action="store_true", help="hand over the inputs of a bad will and nothing else")
    parser.add_argument("--unguided", action="store_true", help="without atheris, though it is installed")
    chosen = parser.parse_args()
    until = time.monotonic() + chosen.seconds
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESS_BYTES, _MOST_ADDRESS_BYTES))
    atheris = None if chosen.unguided or chosen.hostile else _atheris()  # instruments would count as time
    target = _load(chosen.target, atheris)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")  # they quote values, and nobody has silenced them
    session = Session(target, chosen.folder, chosen.name)
    if chosen.hostile:
        session.hostile()
    elif atheris is None:
        change_at_random(session, seconds=until - time.monotonic(), runs=sys.maxsize, seed=chosen.seed)
    else:
        change_with_guidance(session, atheris, folder=chosen.folder, seconds=until - time.monotonic(), seed=chosen.seed)


def _atheris() -> object | None:
    try:
        import atheris  # noqa: PLC0415  not on every machine
    except ImportError:
        return None
    return atheris  # type: ignore[no-any-return]


def _load(name: str, atheris: object | None) -> Target:
    """Import the target, so that its coverage is seen where there is something that looks."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if atheris is None:
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    else:
        import torch  # noqa: F401, PLC0415  not looked at, and slow to instrument

        with atheris.instrument_imports(include=list(_GUIDES), enable_loader_override=False):  # type: ignore[attr-defined]
            from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    return TARGETS[name]


if __name__ == "__main__":
    main()
