import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from cxr_models.cli.options import DataFolders, Json
from cxr_models.cli.printing import print_card, print_json


def calibrate(  # noqa: PLR0913  each parameter is an option of the command line
    *,
    model: Annotated[Path, typer.Option(help="Folder of a model that was trained by the recipe of the cross-validation.")],
    crossvalidation: Annotated[Path, typer.Option(help="Folder with out_of_fold.csv and crossvalidation.json.")],
    data: DataFolders,
    output: Annotated[Path, typer.Option(help="Folder for the model with its new card; may be the same.")],
    version: Annotated[str, typer.Option(help="Of the model with its new card: it answers otherwise.")],
    as_json: Json = False,
) -> None:
    """Calibrate a model on the out-of-fold predictions of its recipe: of ten times as many images as validation has.

    Temperature, biases, operating thresholds and the confidence to abstain below are fitted anew, and the metrics of the card
    measured anew. The weights stay as they are. --data must be the images of the cross-validation.
    """
    import shutil

    import torch

    from cxr_models.catalogue import read_catalogue
    from cxr_models.checkpoint import WEIGHTS, load_network, save_card
    from cxr_models.crossvalidate import OUT_OF_FOLD, read_recipe_of
    from cxr_models.films import group_by_film
    from cxr_models.history import HISTORY
    from cxr_models.predict import Predictor
    from cxr_models.predictions_file import read_predictions
    from cxr_models.recalibrate import recalibrate
    from cxr_models.recipe import recipe_on_card
    from cxr_models.seen import SEEN
    from cxr_models.table import check_folds, hold_against, outside_tests
    from cxr_models.train import measure_parts

    network, card = load_network(model, torch.device("cpu"))
    recipe = read_recipe_of(crossvalidation, training=recipe_on_card(card))
    rows = read_predictions(crossvalidation / OUT_OF_FOLD)
    catalogue = group_by_film(read_catalogue(data))
    hold_against(outside_tests(catalogue), rows, file=crossvalidation / OUT_OF_FOLD)
    check_folds(outside_tests(catalogue), rows, file=crossvalidation / OUT_OF_FOLD)
    card = dataclasses.replace(recalibrate(card, rows, recipe=recipe), version=version)
    metrics = measure_parts(Predictor(network, card, device=torch.device("cpu")), catalogue, recipe=recipe)
    card = dataclasses.replace(card, metrics=metrics)
    output.mkdir(parents=True, exist_ok=True)
    if not output.samefile(model):
        for name in (WEIGHTS, HISTORY, SEEN):
            if (model / name).is_file():
                shutil.copyfile(model / name, output / name)
    save_card(output, card)
    if as_json:
        print_json(dataclasses.asdict(card))
    else:
        print_card(card)
