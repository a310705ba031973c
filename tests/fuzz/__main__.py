"""``python -m tests.fuzz [TARGET…]``: fuzzes these targets, or all, for so many minutes together."""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.document import Result, write_document
from tests.fuzz.targets import TARGETS

_LOOK_EVERY_SECONDS = 5.0
_LATE_SECONDS = 60.0
_HOSTILE_SECONDS = 600.0
_STATUS = re.compile(r"^#\d+\s.*?cov: (?P<cov>\d+) .*?corp: (?P<corpus>\d+)/", re.MULTILINE)


def main() -> int:
    """Fuzz, print how it goes, and answer 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(TARGETS)}; all where none is given")
    parser.add_argument("--minutes", type=float, default=10.0, help="in all, shared out over the targets (10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--folder",
        type=Path,
        help="for corpora and findings; what an earlier run left of other targets there stands in the document too",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write docs/fuzzing.md there")
    parser.add_argument("--unguided", action="store_true", help="without atheris, though it is installed")
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.targets) - set(TARGETS)):
        parser.error(f"there is no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    names = chosen.targets or list(TARGETS)
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="cxr-fuzz-"))
    options = ["--seed", str(chosen.seed), *["--unguided"] * chosen.unguided]
    for name in names:
        _fuzz(Result(name=name, folder=folder / name), chosen.minutes * 60 / len(names), options)
    results = [result for name in TARGETS if (result := Result(name=name, folder=folder / name)).folder.is_dir()]
    found = [finding for result in results for finding in result.findings]
    print(f"{len(found)} findings" + (f" in {folder}" if found else ""))
    for finding in found:
        print(f"  {finding}")
    if chosen.write:
        write_document(chosen.write, results, seed=chosen.seed)
    return 1 if found else 0


def _fuzz(result: Result, seconds: float, options: Sequence[str]) -> None:
    """Fuzz one target; a session that dies is a finding, and another one goes on from there."""
    until = time.monotonic() + seconds
    shutil.rmtree(result.folder, ignore_errors=True)
    result.folder.mkdir(parents=True)
    _run(result, ["--name", "hostile", "--hostile"], limit=_HOSTILE_SECONDS)
    number = 0
    while (remaining := until - time.monotonic()) > 1:
        number += 1
        whole = _run(
            result, [*options, "--name", f"{number:04}", "--seconds", f"{remaining:.0f}"], limit=remaining + _LATE_SECONDS
        )
        if whole:
            break


def _run(result: Result, options: Sequence[str], *, limit: float) -> bool:
    """Run one session; answer whether it came to its end."""
    folder = result.folder
    command = [sys.executable, "-m", "tests.fuzz.session", result.name, "--folder", str(folder), *options]
    with (folder / "session.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        hung = _follow(process, result, limit=limit)
    died = process.returncode != 0 or hung
    _take_artifacts(folder, result.name, died=died, log=_log(folder), doing=_progress(folder).get("doing", ""))
    return not died


def _follow(process: "subprocess.Popen[bytes]", result: Result, *, limit: float) -> bool:
    """Print how a session goes until it ends; one that takes too long is ended. Answers whether it was."""
    until = time.monotonic() + limit
    while True:
        try:
            process.wait(_LOOK_EVERY_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        else:
            return False
        progress = _progress(result.folder)
        seen = list(_STATUS.finditer(_log(result.folder)))
        corpus = f", corpus {seen[-1]['corpus']}, coverage {seen[-1]['cov']}" if seen else ""
        executions, fuzzed = progress.get("executions", 0), progress.get("fuzzed_seconds", 0.0)
        rate = executions / fuzzed if fuzzed else 0.0
        memory = progress.get("resident_bytes", 0) / 2**20
        doing = f", {progress['doing']}" if progress.get("doing") else ""
        line = f"{result.name}: {executions} inputs, {rate:.0f}/s{corpus}, {memory:.0f} MiB"
        print(f"{line}, {len(result.findings)} findings{doing}", flush=True)
        if time.monotonic() > until:
            process.kill()
            process.wait()
            return True


def _progress(folder: Path) -> dict[str, Any]:
    """What the session that runs, or ran last, has written."""
    newest = max(folder.glob("progress-*.json"), key=lambda path: path.stat().st_mtime, default=None)
    return json.loads(newest.read_text()) if newest is not None else {}


def _log(folder: Path) -> str:
    path = folder / "session.log"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        return file.read().decode(errors="replace")


def _take_artifacts(folder: Path, name: str, *, died: bool, log: str, doing: str) -> None:
    """Make findings of what libFuzzer left, and of a session that ended without a word."""
    left = [path for kind in ("crash", "timeout", "oom", "leak", "slow-unit") for path in folder.glob(f"{kind}-*")]
    if died and not left:
        (folder / "died").write_bytes(b"")
        left = [folder / "died"]
    (folder / "findings").mkdir(exist_ok=True)
    for path in left:
        kind = path.name.partition("-")[0]
        kept = folder / "findings" / f"{name}-{kind}-{path.name[-8:]}"
        path.replace(kept.with_suffix(".bin"))
        kept.with_suffix(".txt").write_text(f"{kind}: the process ended\n{doing}\n\n{log[-6000:]}")


if __name__ == "__main__":
    sys.exit(main())
