import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cxr_models.cli.options import DataFolders
from cxr_models.cli.printing import print_card
from cxr_models.errors import InvalidRecipe
from cxr_models.values import UNSAVED


class Architecture(StrEnum):
    """The networks there are."""

    LENET5 = "lenet5"
    VGG16 = "vgg16"


def train(  # noqa: PLR0913  each parameter is an option of the command line
    *,
    architecture: Annotated[Architecture, typer.Option(help="The network to train.")],
    data: DataFolders,
    output: Annotated[Path, typer.Option(help="Model folder to write.")],
    recipe: Annotated[
        str | None, typer.Option(help="Name of a recipe that ships, or a TOML file [default: --architecture].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most this many epochs [default: the recipe's].")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="First seed [default: the recipe's].")] = None,
    version: Annotated[str, typer.Option(help="Version for the card.")] = "1.0.0",
    accelerator: Annotated[str, typer.Option(help="Lightning's: auto, cpu, gpu …")] = "auto",
    devices: Annotated[str, typer.Option(help="Lightning's: auto, a number, or a list such as 0,1.")] = "1",
    precision: Annotated[str, typer.Option(help="Lightning's: 32-true, bf16-mixed, 16-mixed …")] = "32-true",
    fast_dev_run: Annotated[bool, typer.Option("--fast-dev-run", help="One batch of everything, to try the set-up.")] = False,
) -> None:
    """Train a network, calibrate it on validation images, measure it on test images, and write the model folder."""
    from cxr_models.recipe import read_recipe

    chosen = read_recipe(recipe or architecture.value)
    if chosen.architecture != architecture.value:
        raise InvalidRecipe(
            f"The recipe {recipe} is for {chosen.architecture}, not {architecture.value}; name another with --recipe."
        )
    changes = {"epochs": epochs, "seed": seed}
    chosen = chosen.model_copy(update={key: value for key, value in changes.items() if value is not None})
    from cxr_models.catalogue import read_catalogue

    catalogue = read_catalogue(data)
    from cxr_models.train import Machine, train

    # Lightning sets its level as it is imported; its remarks say nothing that the progress bar and our own lines do not.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    machine = Machine(accelerator=accelerator, devices=devices, precision=precision, fast_dev_run=fast_dev_run)
    card = train(catalogue, recipe=chosen, output=output, machine=machine, version=version)
    # In a training of several processes one writes the folder; the others have nothing to show.
    if card.weights_sha256 != UNSAVED:
        print_card(card)
