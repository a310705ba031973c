import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from cxr_models.cli.options import Json
from cxr_models.cli.printing import print_card, print_json


def show(
    model: Annotated[str, typer.Argument(metavar="NAME|DIR", help="Name of a model that ships, or a model folder.")],
    *,
    page: Annotated[bool, typer.Option("--page", help="Print the card as a page of Markdown.")] = False,
    crossvalidation: Annotated[
        Path | None, typer.Option(help="crossvalidation.json of the recipe, for the page.", exists=True, dir_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the card of a model."""
    from cxr_models.checkpoint import read_card
    from cxr_models.zoo import find_model

    card = read_card(find_model(model))
    if as_json:
        print_json(dataclasses.asdict(card))
    elif page:
        from cxr_models.card_page import render_card

        measured = json.loads(crossvalidation.read_bytes()) if crossvalidation else None
        typer.echo(render_card(card, crossvalidation=measured), nl=False)
    else:
        print_card(card)
