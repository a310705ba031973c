"""docs/reliability.md, written from results: every number in it is one that a run gave."""

from collections.abc import Mapping, Sequence
from inspect import getdoc
from pathlib import Path
from string import Template

from tests.soak.scenario import Result, Scenario
from tests.soak.senders import SENDERS
from tests.soak.system import OUTPUTS

_PAGE = Path(__file__).with_name("page.md")


def written(results: Sequence[Result], scenarios: Mapping[str, Scenario]) -> str:
    """Give the whole document."""
    return Template(_PAGE.read_text()).substitute(
        senders=SENDERS,
        outputs=" and ".join(f"`{output}`" for output in OUTPUTS),
        rows="\n".join(map(_row, results)),
        scenarios="\n\n".join(_section(result, scenarios[result.scenario]) for result in results),
        commands="\n".join(f"    {_command(result, scenarios[result.scenario])}" for result in results),
        machines="\n".join(sorted({f"Run on {result.machine}." for result in results})),
    )


def _command(result: Result, scenario: Scenario) -> str:
    of_studies, of_disturbances = scenario.share
    studies, kills = round(result.studies / of_studies), round(sum(result.disturbances.values()) / of_disturbances)
    return f".venv/bin/python -m tests.soak {result.scenario} --studies {studies} --kills {kills} --seed {result.seed}"


def _row(result: Result) -> str:
    cells = (
        result.scenario,
        f"{result.studies:,}, {result.films:,}",
        ", ".join(f"{what}: {count}" for what, count in sorted(result.disturbances.items())),
        f"{result.sent:,}",
        ", ".join(f"{answer}: {count:,}" for answer, count in sorted(result.answers.items())),
        f"{result.reports:,}",
        f"**{len(result.complaints)}**" if result.complaints else "nothing",
    )
    return f"| {' | '.join(cells)} |"


def _section(result: Result, scenario: Scenario) -> str:
    story = " ".join((getdoc(type(scenario)) or "").split())
    facts = [
        f"Seed {result.seed}, {result.seconds:,.0f} s, of which {result.calm_seconds:,.0f} s after the last disturbance.",
        f"Associations that found nobody: {result.unreachable:,}." if result.unreachable else "",
        f"Objects that got no answer: {result.answers['none']:,}." if "none" in result.answers else "",
        f"Studies of which an image came after the others were reported: {result.told_again:,}." if result.told_again else "",
        f"Files left unfinished, to be removed an hour later: {result.parts:,}." if result.parts else "",
    ]
    complaints = "".join(f"\n- {each}" for each in result.complaints)
    wrong = f"\n\nThe verdict found:\n{complaints}" if complaints else ""
    return f"## {result.scenario}\n\n{story}\n\n{' '.join(filter(None, facts))}{wrong}"
