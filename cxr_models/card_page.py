"""A model's card as a page of Markdown: what docs/model_cards/ holds."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cxr_models.values import Card

Interval = tuple[float, float] | list[float] | None


def render_card(card: Card, *, crossvalidation: Mapping[str, Any] | None = None) -> str:
    """Write a card as a page.

    Parameters
    ----------
    crossvalidation
        What crossvalidation.json holds (`cxr_models.crossvalidate`) of the recipe that the model was trained by.
    """
    environment = Environment(
        loader=PackageLoader("cxr_models"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  Markdown, from our own card  # nosec B701
    )
    environment.filters["figure"] = _figure
    page = environment.get_template("card.md").render(card=card, crossvalidation=crossvalidation)
    return page.rstrip() + "\n"


def _figure(value: float | None, interval: Interval) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if interval is None else f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
