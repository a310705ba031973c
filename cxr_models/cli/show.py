import dataclasses
from typing import Annotated

import typer

from cxr_models.cli.options import Json
from cxr_models.cli.printing import print_card, print_json


def show(
    model: Annotated[str, typer.Argument(metavar="NAME|DIR", help="Name of a model that ships, or a model folder.")],
    *,
    as_json: Json = False,
) -> None:
    """Print the card of a model."""
    from cxr_models.checkpoint import read_card
    from cxr_models.zoo import find_model

    card = read_card(find_model(model))
    if as_json:
        print_json(dataclasses.asdict(card))
    else:
        print_card(card)
