"""A gate's card as a page of Markdown: what docs/model_cards/frontal_gate.md is."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from cxr_models.gate import GateCard


def render_gate_card(card: GateCard) -> str:
    """Write a gate's card as a page."""
    environment = Environment(
        loader=PackageLoader("cxr_models"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  Markdown, from our own card  # nosec B701
    )
    environment.filters["percent"] = _percent
    return environment.get_template("gate_card.md").render(card=card).rstrip() + "\n"


def _percent(figure: dict[str, float | list[float] | None]) -> str:
    share, interval = figure["share"], figure["interval"]
    if not isinstance(share, float) or not isinstance(interval, list):
        return "-"
    return f"{100 * share:.2f} % ({100 * interval[0]:.2f} to {100 * interval[1]:.2f})"
