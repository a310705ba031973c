"""Some hundred changed inputs for each target, of a fixed seed: what `python -m tests.fuzz` does for an hour."""

import logging
from collections.abc import Iterator
from random import Random

import pytest

from tests.fuzz.mutation import mutate
from tests.fuzz.target import Target, attempt
from tests.fuzz.targets import TARGETS

RUNS = 250
SLOW_RUNS = {"outputs": 60}


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """What is told of thousands of broken inputs helps nobody."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_broken_inputs_end_in_a_return_or_an_error_that_is_handled(target: Target) -> None:
    random = Random(31)  # noqa: S311  nothing secret
    seeds = list(target.seeds())
    broken = [
        mutate(random.choice(seeds), seeds, random, longest=target.longest) for _ in range(SLOW_RUNS.get(target.name, RUNS))
    ]
    for data in [*seeds, *broken]:
        finding = attempt(target, data).finding
        assert finding is None, f"{finding.where}: {data[:400]!r}\n{finding.details}"


def test_a_change_is_never_longer_than_allowed_and_the_same_for_the_same_seed() -> None:
    seeds = list(TARGETS["messages"].seeds())
    one, other = ([mutate(seeds[0], seeds, Random(seed), longest=250) for seed in range(200)] for _ in range(2))  # noqa: S311
    assert one == other
    assert max(map(len, one)) <= 250
    assert len(set(one)) > 120
