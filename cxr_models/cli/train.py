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


class Normalisation(StrEnum):
    """What the network of a weights file was trained on."""

    IMAGENET = "imagenet"
    CAFFE = "caffe"
    NONE = "none"


def train(  # noqa: PLR0913  each parameter is an option of the command line
    *,
    architecture: Annotated[Architecture, typer.Option(help="The network to train.")],
    data: DataFolders,
    output: Annotated[Path, typer.Option(help="Model folder to write.")],
    recipe: Annotated[
        str | None, typer.Option(help="Name of a recipe that ships, or a TOML file (default: --architecture).")
    ] = None,
    initial: Annotated[
        str | None,
        typer.Option(
            help="Weights to start from: imagenet, imagenet-features, a .safetensors or state-dict file, or a model folder."
        ),
    ] = None,
    initial_normalisation: Annotated[
        Normalisation | None, typer.Option(help="What a file's network was trained on (default: the recipe's).")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="VGG16's weights for the recipe's teacher: imagenet-features, or a file of them.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most this many epochs (default: the recipe's).")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="First seed (default: the recipe's).")] = None,
    version: Annotated[str, typer.Option(help="Version for the card.")] = "1.0.0",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --output.")] = False,
    as_published: Annotated[
        bool,
        typer.Option(
            "--as-published",
            help="Also score as the published comparison did: leaks stay in training, validation and test are augmented.",
        ),
    ] = False,
    accelerator: Annotated[str, typer.Option(help="Lightning's: auto, cpu, gpu …")] = "auto",
    devices: Annotated[str, typer.Option(help="Lightning's: auto, a number, or a list such as 0,1.")] = "1",
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines that train together.")] = 1,
    strategy: Annotated[str, typer.Option(help="Lightning's: auto, ddp, fsdp …")] = "auto",
    precision: Annotated[str, typer.Option(help="Lightning's: 32-true, bf16-mixed, 16-mixed …")] = "32-true",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Fail rather than compute what may differ from run to run.")
    ] = False,
    fast_dev_run: Annotated[bool, typer.Option("--fast-dev-run", help="One batch of everything, to try the set-up.")] = False,
) -> None:
    """Train a network, calibrate it on validation images, measure it on test images, and write the model folder."""
    from cxr_models.recipe import change_recipe, read_recipe

    chosen = read_recipe(recipe or architecture.value)
    if chosen.family != architecture.value:
        raise InvalidRecipe(
            f"The recipe {recipe} is for {chosen.architecture}, not {architecture.value}; name another with --recipe."
        )
    chosen = change_recipe(
        chosen,
        epochs=epochs,
        seed=seed,
        initial=initial,
        teacher=teacher,
        initial_normalisation=initial_normalisation.value if initial_normalisation else None,
        as_published=as_published or None,
    )
    from cxr_models.catalogue import read_catalogue

    catalogue = read_catalogue(data)
    from cxr_models.train import Machine, train

    # Lightning sets its level as it is imported; its remarks say nothing that the progress bar and our own lines do not.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    machine = Machine(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        precision=precision,
        deterministic=deterministic,
        resume=resume,
        fast_dev_run=fast_dev_run,
    )
    card = train(catalogue, recipe=chosen, output=output, machine=machine, version=version)
    # In a training of several processes one writes the folder; the others have nothing to show.
    if card.weights_sha256 != UNSAVED:
        print_card(card)
