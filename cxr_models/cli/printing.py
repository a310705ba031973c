"""What several commands print."""

import json
import sys
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from cxr_models.values import Card


def print_json(value: Any) -> None:
    """Print a value to stdout as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def wide_console() -> Console:
    """Return a console for wide tables: a file or a pipe has no width of its own, and 80 columns would break every cell."""
    return Console(width=None if sys.stdout.isatty() else 170)


def print_card(card: "Card") -> None:
    """Print a model's card for people."""
    console = Console()
    console.print(
        f"[bold]{card.name} {card.version}[/bold]  {card.architecture}, {card.input_side} pixels, {', '.join(card.labels)}"
    )
    biases = ", ".join(f"{label} {bias:.3f}" for label, bias in card.biases.items()) or "none"
    console.print(f"temperature {card.temperature:.3f}, biases {biases}, thresholds {dict(card.thresholds)}")
    if card.abstain_below:
        console.print(f"undetermined below a confidence of {card.abstain_below:.3f}")
    console.print(f"weights sha256 {card.weights_sha256}", soft_wrap=True)
    for name, measured in card.metrics.items():
        low, high = measured["intervals"]["accuracy"]
        console.print(f"{name}: n {measured['n']}, accuracy {measured['accuracy']:.3f} (95 % {low:.3f} to {high:.3f})")
    console.print(card.intended_use)
    for limit in card.limits:
        console.print(f"- {limit}")
