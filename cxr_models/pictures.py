"""How good a model is, as PNG pictures."""

import math
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cxr_models.answers import Answers
from cxr_models.bootstrap import Flags, Floats
from cxr_models.evaluate import Evaluation
from cxr_models.history import Epochs
from cxr_models.values import Card

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which colour-blind people tell apart."""
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
INK, GREY = "#1b1f24", "#6b7280"
WIDE, SINGLE = (10.8, 4.2), (5.4, 4.8)
DOTS_PER_INCH = 160
PER_SOURCE: tuple[tuple[str, Callable[[Mapping[str, Any]], Any], str], ...] = (
    ("accuracy", lambda part: part["accuracy"], "o"),
    ("balanced accuracy", lambda part: part["balanced_accuracy"], "s"),
    (
        "Pneumonia against Normal, AUC",
        lambda part: part.get("pairwise", {}).get("Pneumonia against Normal", {}).get("auc"),
        "D",
    ),
)
FEWEST = 5
"""The coverage curve starts where this many images are answered: fewer say nothing."""


def draw_pictures(measured: Evaluation, answers: Answers, *, card: Card, history: Epochs = ()) -> dict[str, bytes]:
    """Draw what there is to draw: always the first four; the others where there are several sources, or a history.

    Returns
    -------
    dict[str, bytes]
        PNG files under the names confusion_matrix, roc, reliability, coverage_accuracy, per_source, learning_curves.
    """
    pictures = {
        "confusion_matrix": _confusion_matrix(measured),
        "roc": _roc(measured, answers, card),
        "reliability": _reliability(measured, answers),
        "coverage_accuracy": _coverage_accuracy(measured, card),
    }
    if len(measured.per_source) > 1:
        pictures["per_source"] = _per_source(measured)
    if history:
        pictures["learning_curves"] = _learning_curves(history, card.training.get("recipe", {}).get("monitor", "valid_loss"))
    return {name: _png(figure) for name, figure in pictures.items()}


def _confusion_matrix(measured: Evaluation) -> Figure:
    counts = np.array(measured.abstention["confusion_matrix"])
    answers = [*measured.labels, "undetermined"]
    if not counts[:, -1].any():
        counts, answers = counts[:, :-1], answers[:-1]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(SINGLE, "Confusion matrix")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        dark = shares[row, column] > 0.55
        text = f"{count}\n{100 * shares[row, column]:.0f} %" if counts[row].any() else "0"
        axes.text(column, row, text, ha="center", va="center", color="white" if dark else INK, fontsize=12)
    axes.set_xticks(range(len(answers)), answers)
    rows = [f"{label}\nn = {count}" for label, count in zip(measured.labels, counts.sum(axis=1), strict=True)]
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("Answer of the model")
    axes.set_ylabel("Truth")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _subtitle(axes, f"images and their share of the row; n = {measured.n}")
    return figure


def _roc(measured: Evaluation, answers: Answers, card: Card) -> Figure:
    figure = _figure(SINGLE, "ROC curve of each label against the others")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    axes.text(0.62, 0.58, "chance", color=GREY, fontsize=9, rotation=40, rotation_mode="anchor")
    for index, label in enumerate(answers.labels):
        there = answers.truth == index
        if not there.any() or there.all():
            continue
        colour, style = _look(index)
        area = _number(measured.per_class[label]["auc"], measured.intervals["per_class"][label]["auc"])
        false_alarms, found = _roc_points(answers.probabilities[:, index], there)
        axes.plot(
            false_alarms, found, color=colour, linestyle=style, linewidth=1.8, label=f"{label}, n = {there.sum()}: AUC {area}"
        )
        if label in card.thresholds:
            there_too = measured.operating[label]
            axes.plot(
                1 - (there_too["specificity"] or 0), there_too["sensitivity"] or 0, "o", color=colour, markersize=8, mec=INK
            )
    axes.plot([], [], "o", color="white", markersize=8, mec=INK, label="operating threshold of the card")
    _unit_square(axes)
    axes.set_xlabel("False alarms (1 - specificity)")
    axes.set_ylabel("Found (sensitivity)")
    axes.legend(loc="lower right", fontsize=8.5, frameon=True, framealpha=0.9)
    _subtitle(axes, f"n = {measured.n}; 95 % intervals by bootstrap over groups")
    return figure


def _reliability(measured: Evaluation, answers: Answers) -> Figure:
    figure = _figure(SINGLE, "Is the model as sure as it is right?")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    above.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="perfectly calibrated")
    rows = measured.reliability
    told = [row["confidence"] for row in rows]
    true = np.array([row["accuracy"] for row in rows])
    limits = np.array([row["interval"] for row in rows]).T
    # The share lies outside its own interval only by rounding.
    reach = np.maximum(np.stack([true - limits[0], limits[1] - true]), 0)
    above.errorbar(told, true, yerr=reach, fmt="o-", color=COLOURS[1], capsize=3, linewidth=1.4, label="measured, with 95 %")
    _unit_square(above)
    above.set_xlabel("")
    above.set_ylabel("Share that is right")
    above.legend(loc="upper left", fontsize=8.5, frameon=False)
    below.hist(
        [answers.confidence[answers.right], answers.confidence[~answers.right]],
        bins=np.linspace(0, 1, 21).tolist(),
        stacked=True,
        color=[COLOURS[1], COLOURS[0]],
        label=["right", "wrong"],
    )
    below.set_xlabel("Confidence (probability of the answer)")
    below.set_ylabel("Images")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.legend(loc="upper left", fontsize=8.5, frameon=False)
    below.spines[["top", "right"]].set_visible(False)
    error = f"calibration error {_told(measured, 'ece')}; by chance alone {measured.ece_by_chance:.3f}; n = {measured.n}"
    _subtitle(above, error)
    return figure


def _coverage_accuracy(measured: Evaluation, card: Card) -> Figure:
    figure = _figure(SINGLE, "Accuracy when the unsure are left undetermined")
    axes = figure.subplots()
    rows = [row for row in measured.coverage_accuracy if row["n"] >= FEWEST] or measured.coverage_accuracy[:1]
    coverage = [row["coverage"] for row in rows]
    limits = np.array([row["interval"] for row in rows]).T
    axes.fill_between(coverage, limits[0], limits[1], color=COLOURS[1], alpha=0.18, linewidth=0, label="95 % interval")
    axes.plot(coverage, [row["accuracy"] for row in rows], color=COLOURS[1], linewidth=1.8, label="accuracy of the answered")
    seventy = next((row for row in rows if row["coverage"] == 0.7), None)
    if seventy:
        told = _number(seventy["accuracy"], seventy["interval"])
        axes.plot(0.7, seventy["accuracy"], "o", color=COLOURS[1], mec=INK, markersize=8, label=f"surest 70 %: {told}")
    if card.abstain_below and measured.abstention["accuracy"] is not None:
        answered = measured.abstention
        told = _number(answered["accuracy"], measured.intervals["abstention"]["accuracy"])
        told = f"answered from {card.abstain_below:.2f}: {told}"
        axes.plot(answered["coverage"], answered["accuracy"], "D", color=COLOURS[0], mec=INK, markersize=8, label=told)
    axes.set_xlim(1, 0)
    axes.set_ylim(max(0, np.floor(10 * limits[0].min()) / 10), 1.01)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("Images answered, the surest (fewer to the right)")
    axes.set_ylabel("Answered images that are right")
    axes.legend(loc="lower right", fontsize=8.5, frameon=True, framealpha=0.9)
    _subtitle(axes, f"n = {measured.n}; all answered: {_told(measured, 'accuracy')}")
    return figure


def _per_source(measured: Evaluation) -> Figure:
    parts: dict[str, Mapping[str, Any]] = {
        f"{name}\n{part['n']} images, {part['groups']} groups": part for name, part in measured.per_source.items()
    }
    parts["mean of the collections"] = measured.source_balanced | {"intervals": measured.intervals["source_balanced"]}
    figure = _figure((WIDE[0], 1.7 + 0.75 * len(parts)), "Each collection alone")
    axes = figure.subplots()
    for row, part in enumerate(parts.values()):
        for index, (_, values, marker) in enumerate(PER_SOURCE):
            value, interval = values(part), values(part["intervals"])
            if value is None or interval is None:
                continue
            place, colour = row + 0.22 * (index - 1), _look(index)[0]
            axes.plot(interval, [place, place], color=colour, linewidth=1.8)
            axes.plot(value, place, marker, color=colour, mec=INK, markersize=8)
            axes.text(1.015, place, _number(value, interval), fontsize=9, va="center", color=colour)
    for index, (name, _, marker) in enumerate(PER_SOURCE):
        axes.plot([], [], marker, color=_look(index)[0], mec=INK, markersize=8, label=name)
    axes.set_yticks(range(len(parts)), list(parts))
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set_xlim(right=1.01)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=len(PER_SOURCE), fontsize=9, frameon=False)
    _subtitle(axes, "95 % intervals by bootstrap over groups; images of one known patient make one group")
    return figure


def _learning_curves(history: Epochs, monitor: str) -> Figure:
    figure = _figure(WIDE, "Learning curves")
    scores = [epoch.get(monitor, math.nan) for epoch in history]
    best = (min if monitor.endswith("loss") else max)(range(len(scores)), key=scores.__getitem__)
    for axes, ending, title in zip(figure.subplots(1, 2), ("loss", "acc"), ("Loss", "Accuracy"), strict=True):
        names = sorted({name for epoch in history for name in epoch if name.endswith(ending)})
        for index, name in enumerate(names):
            points = [(epoch["epoch"], epoch[name]) for epoch in history if name in epoch]
            colour, style = _look(index)
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1.6, label=name.replace("_", " "))
        if math.isfinite(scores[best]):
            kept = f"best by {monitor.replace('_', ' ')}"
            axes.axvline(history[best]["epoch"], color=GREY, linewidth=1, linestyle=":", label=kept)
        axes.set_xlabel("Epoch")
        axes.set_ylabel(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="#e5e7eb", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8.5, frameon=False)
        _subtitle(axes, "training images as they are augmented, validation images as they are")
    return figure


def _roc_points(scores: Floats, there: Flags) -> tuple[Floats, Floats]:
    order = np.argsort(-scores, kind="stable")
    # Images of equal score pass the threshold together.
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    found = np.cumsum(there[order])[ends] / there.sum()
    false_alarms = np.cumsum(~there[order])[ends] / (~there).sum()
    return np.append(0.0, false_alarms), np.append(0.0, found)


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(size: tuple[float, float], title: str) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize=12, fontweight="bold", color=INK)
    return figure


def _subtitle(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=9, color=GREY)


def _look(index: int) -> tuple[str, Any]:
    return COLOURS[index % len(COLOURS)], STYLES[index % len(STYLES)]


def _told(measured: Evaluation, name: str) -> str:
    return _number(getattr(measured, name), measured.intervals[name])


def _number(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or interval is None:
        return "-"
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _png(figure: Figure) -> bytes:
    content = BytesIO()
    # The version of matplotlib stands in the file otherwise.
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return content.getvalue()
