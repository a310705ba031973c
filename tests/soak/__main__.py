"""``python -m tests.soak [SCENARIO…]``: runs these, or all; tells on stderr how it goes, on stdout one JSON line for each."""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree

from tests.soak.document import written
from tests.soak.scenario import Result, Scenario, Size, run
from tests.soak.scenarios import SCENARIOS


def main() -> int:
    """Run those that are named, or all; answer 1 where a verdict finds something."""
    known = {each.name: each() for each in SCENARIOS}
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"one of {', '.join(known)}; all where none is given")
    parser.add_argument("--studies", type=int, default=2000, help="that 'kills' sends; the others send a share of them")
    parser.add_argument("--kills", type=int, default=200, help="of 'kills'; the others disturb a share as often")
    parser.add_argument("--seed", type=int, default=1, help="what the dice begin with")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON lines of earlier runs; those of this one are added")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the document of all results")
    parser.add_argument("--no-run", action="store_true", help="run nothing: only write, of earlier results")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"there is no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    results: dict[str, Result] = {}
    if options.results and options.results.exists():
        results = {each.scenario: each for each in map(Result.read, options.results.read_text().splitlines())}
    failed = False
    for name in [] if options.no_run else options.names or known:
        size = sized(known[name], studies=options.studies, kills=options.kills, seed=options.seed)
        result = _run(known[name], size)
        if result is None:
            continue
        failed |= bool(result.complaints)
        results[name] = result
        line = json.dumps(asdict(result))
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        if options.results:
            with options.results.open("a") as file:
                file.write(f"{line}\n")
    if options.write:
        options.write.write_text(written(list(results.values()), known))
    return int(failed)


def sized(scenario: Scenario, *, studies: int, kills: int, seed: int) -> Size:
    """Its share of what was asked for."""
    of_studies, of_disturbances = scenario.share
    return Size(studies=max(4, round(studies * of_studies)), disturbances=max(2, round(kills * of_disturbances)), seed=seed)


def _run(scenario: Scenario, size: Size) -> Result | None:
    """Run it in a folder that goes with it, unless something is wrong."""
    if missing := scenario.lacks():
        sys.stderr.write(f"{scenario.name}: skipped, {missing}\n")
        return None
    folder = Path(tempfile.mkdtemp(prefix=f"cxr-soak-{scenario.name}-"))
    result = run(scenario, size, folder)
    if result.complaints:
        sys.stderr.write("".join(f"{scenario.name}: {each}\n" for each in result.complaints))
        sys.stderr.write(f"{scenario.name}: {len(result.complaints)} complaints; what it left is in {folder}\n")
    else:
        rmtree(folder)
    return result


if __name__ == "__main__":
    sys.exit(main())
