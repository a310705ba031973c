"""A model's card on paper: what it is for, how well it does, from where on it flags, what it cannot do."""

from collections.abc import Iterator, Mapping
from typing import Any

from cxr_models.values import Card
from worker.cli.printing import print_table


def print_card(card: Card) -> None:
    """Print a card for a person; what a card does not say is left out."""
    print(f"{card.name} {card.version}: {card.architecture}, images of {card.input_side} by {card.input_side} pixels")
    print(f"weights sha256 {card.weights_sha256}")
    print(f"\n{card.intended_use}\n")
    for limit in card.limits:
        print(f"- {limit}")
    print()
    print_table(("label", "flagged from"), ((label, f"{value:.1%}") for label, value in card.thresholds.items()))
    if card.abstain_below:
        print(f"Undetermined where no label has {card.abstain_below:.0%}.\n")
    if card.metrics:
        columns = ("images", "n", "accuracy (95 %)", "balanced accuracy (95 %)", "calibration error (95 %)")
        print_table(columns, (_measured(name, measured) for name, measured in card.metrics.items()))
        columns = ("images", "label", "sensitivity (95 %)", "specificity (95 %)", "AUC (95 %)")
        print_table(columns, (row for name, measured in card.metrics.items() for row in _per_class(name, measured)))
    if sources := card.training.get("sources"):
        print_table(
            ("trained on", *card.labels), ((name, *(of.get(label, 0) for label in card.labels)) for name, of in sources.items())
        )


def _measured(name: str, measured: Mapping[str, Any]) -> tuple[Any, ...]:
    intervals = measured.get("intervals") or {}
    figures = (_figure(measured.get(key), intervals.get(key)) for key in ("accuracy", "balanced_accuracy", "ece"))
    return (name, measured.get("n"), *figures)


def _per_class(name: str, measured: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    intervals = (measured.get("intervals") or {}).get("per_class") or {}
    for label, of in (measured.get("per_class") or {}).items():
        around = intervals.get(label) or {}
        yield (name, label, *(_figure(of.get(key), around.get(key)) for key in ("sensitivity", "specificity", "auc")))


def _figure(value: float | None, interval: list[float] | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
