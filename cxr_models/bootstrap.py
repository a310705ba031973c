"""Figures on weighted images, each with the 95 % interval that it gets by drawing whole groups of images again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Statistic = Callable[[Floats], Floats]
"""Takes weights of shape (rows, images) and returns the figure for each row; NaN where there is nothing to tell it from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number that was measured.

    Attributes
    ----------
    value
        None where there was no image to tell it from.
    interval
        The lower and upper limit of 95 %.
    drawn
        What each resample gave, shape (resamples,).
    """

    value: float | None
    interval: list[float] | None
    drawn: Floats


class Bootstrap:
    """Draws as many groups as there are, with replacement, and takes every image of a drawn group (cluster bootstrap).

    Images of one patient or film are no independent witnesses; drawing them singly would make the intervals too narrow. The
    draws are the same for every figure and every run.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        _, self._group = np.unique(np.asarray(groups), return_inverse=True)
        count = int(self._group.max()) + 1
        draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        self._weights: Floats = draws[:, self._group].astype(float)

    def among(self, images: Flags) -> Self:
        """Return the same draws for some of the images."""
        part = object.__new__(type(self))
        part._group, part._weights = self._group[images], self._weights[:, images]
        return part

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(np.unique(self._group))

    def figure(self, statistic: Statistic) -> Figure:
        """Measure anything that can be weighted.

        A figure that no resample changes, such as an area under the ROC curve of 1, gets an interval without width: no image
        contradicts it, which does not say that there are enough of them.
        """
        value = statistic(np.ones((1, self._weights.shape[1])))[0]
        drawn = statistic(self._weights)
        return Figure(value=_number(value), interval=_interval(drawn), drawn=drawn)

    def share(self, hit: NDArray[np.generic], among: Flags) -> Figure:
        """Return the share of hits among some of the images; see `shares`."""
        return self.shares(hit[:, None], among[:, None])[0]

    def shares(self, hit: NDArray[np.generic], among: Flags) -> list[Figure]:
        """Return for each column the share of hits among some of the images.

        Where all or none are hits, every resample says so too, however few the images; the interval is then that of Clopper and
        Pearson (1934) for as many independent images as there are groups: 20 of 20 is 1.00 with 0.83 to 1.00.

        Parameters
        ----------
        hit, among
            Shape (images, columns); hits 0..1.
        """
        wanted = among.astype(float)
        with np.errstate(invalid="ignore"):
            values = (hit * wanted).sum(axis=0) / wanted.sum(axis=0)
            drawn = (self._weights @ (hit * wanted)) / (self._weights @ wanted)
        return [
            Figure(
                value=_number(value),
                interval=self._exact(float(value), among[:, column]) if value in {0, 1} else _interval(drawn[:, column]),
                drawn=drawn[:, column],
            )
            for column, value in enumerate(values)
        ]

    def _exact(self, value: float, among: Flags) -> list[float]:
        limit = 0.025 ** (1 / len(np.unique(self._group[among])))
        return [limit, 1.0] if value else [0.0, 1 - limit]


def mean(figures: Sequence[Figure]) -> Figure:
    """Return the mean of figures of the same draws, leaving out those without a value.

    Where no resample differs from the others, its interval is the mean of theirs.
    """
    known = [figure for figure in figures if figure.value is not None]
    if not known:
        return Figure(value=None, interval=None, drawn=np.full(RESAMPLES, np.nan))
    drawn: Floats = np.mean([figure.drawn for figure in known], axis=0)
    intervals = [figure.interval for figure in known if figure.interval]
    settled = len(np.unique(drawn[~np.isnan(drawn)])) == 1 and len(intervals) == len(known)
    return Figure(
        value=float(np.mean([figure.value for figure in known])),
        interval=[float(limit) for limit in np.mean(intervals, axis=0)] if settled else _interval(drawn),
        drawn=drawn,
    )


def auc(scores: Floats, positives: Flags, negatives: Flags) -> Statistic:
    """Return the share of pairs in which the positive scores higher; a tie counts half (Hanley and McNeil 1982)."""
    ascending = np.flatnonzero(negatives)[np.argsort(scores[negatives])]
    lower = np.searchsorted(scores[ascending], scores[positives], side="left")
    not_higher = np.searchsorted(scores[ascending], scores[positives], side="right")

    def statistic(weights: Floats) -> Floats:
        up, down = weights[:, positives], weights[:, ascending]
        below = np.pad(np.cumsum(down, axis=1), ((0, 0), (1, 0)))
        won = (up * (below[:, lower] + below[:, not_higher])).sum(axis=1) / 2
        with np.errstate(invalid="ignore"):
            result: Floats = won / (up.sum(axis=1) * down.sum(axis=1))
        return result

    return statistic


def weighted_mean(values: Floats) -> Statistic:
    """Return the mean of a value that each image has."""

    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            result: Floats = (weights @ values) / weights.sum(axis=1)
        return result

    return statistic


def calibration_error(confidence: Floats, right: Flags, bins: NDArray[np.intp]) -> Statistic:
    """Return the mean distance of confidence and accuracy over bins, each weighing as its images do (Naeini et al. 2015)."""
    member = (bins[:, None] == np.unique(bins)).astype(float)

    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            result: Floats = np.abs(weights @ (member * (right - confidence)[:, None])).sum(axis=1) / weights.sum(axis=1)
        return result

    return statistic


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _interval(values: Floats) -> list[float] | None:
    known = values[~np.isnan(values)]
    return [float(each) for each in np.quantile(known, [0.025, 0.975])] if len(known) else None
