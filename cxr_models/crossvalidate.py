"""How good a recipe is: each image is predicted once, by a network that was trained on no image of its group."""

import hashlib
import json
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cxr_models.catalogue import Catalogue, LabelledImage, Split, count, folds, split
from cxr_models.errors import InvalidData
from cxr_models.evaluate import classify, measure
from cxr_models.predict import Predictor, choose_device
from cxr_models.predictions_file import PredictedImage, as_predicted, read_predictions, short_group, write_predictions
from cxr_models.recalibrate import read_across_folds
from cxr_models.recipe import FILES, READING, Recipe, as_written
from cxr_models.teacher import Teacher, read_teacher
from cxr_models.train import Machine, fit
from cxr_models.values import LABELS

OUT_OF_FOLD = "out_of_fold.csv"
SUMMARY = "crossvalidation.json"

Done = tuple[tuple[PredictedImage, ...], dict[str, Any]]
"""A fold's predictions, and what became of its training."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is cross-validated: a recipe by its name, in how many folds, drawn with which seed."""

    name: str
    recipe: Recipe
    count: int = 5
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One part of the images, and what its network is trained and calibrated on.

    Attributes
    ----------
    number
        From 1.
    images
        What is predicted; no image of another fold shares a group with one of these.
    parts
        Train and validation; test is empty. No image here shares a group with `images` or with a test folder.
    """

    number: int
    images: tuple[LabelledImage, ...]
    parts: Split


def plan_folds(catalogue: Catalogue, plan: Plan) -> tuple[Fold, ...]:
    """Part all images outside test folders into folds, and the rest of each fold into train and validation.

    What shares a group with an image of a test folder is predicted, but never trained on: no choice that is made by these
    figures has seen the test.

    Raises
    ------
    InvalidData
        There are fewer groups than folds.
    """
    outside = catalogue.train + catalogue.val + catalogue.unparted
    tested = {image.group for image in catalogue.test}
    result = []
    for number, images in enumerate(folds(outside, count=plan.count, seed=plan.seed), start=1):
        barred = tested | {image.group for image in images}
        rest = Catalogue(unparted=tuple(image for image in outside if image.group not in barred))
        parts = split(rest, val_share=plan.recipe.val_share, test_share=0, seed=plan.recipe.split_seed)
        result.append(Fold(number=number, images=images, parts=parts))
    return tuple(result)


def train_fold(fold: Fold, *, recipe: Recipe, machine: Machine, output: Path, teacher: Teacher | None = None) -> Done:
    """Train without a fold and predict it as serving would; return the predictions and what became of the training."""
    started = time.monotonic()
    fitted = fit(fold.parts, recipe=recipe, machine=machine, output=output, teacher=teacher)
    predictor = Predictor(fitted.network, fitted.card, device=choose_device("cpu" if machine.accelerator == "cpu" else "auto"))
    rows = as_predicted(fold.images, list(classify(predictor, fold.images)), fold=fold.number)
    return rows, {
        "fold": fold.number,
        "n": len(fold.images),
        "training": count(fold.parts.train),
        "validation": count(fold.parts.val),
        "temperature": fitted.card.temperature,
        "thresholds": dict(fitted.card.thresholds),
        "abstain_below": fitted.card.abstain_below,
        "epochs": len(fitted.history),
        "seconds": round(time.monotonic() - started, 1),
        "initial": fitted.card.training.get("initial"),
        "teacher": fitted.card.training.get("teacher"),
    }


def crossvalidate(
    catalogue: Catalogue, *, plan: Plan, machine: Machine, output: Path, only: Collection[int] = ()
) -> dict[str, Any] | None:
    """Train and predict the folds that `output` does not hold yet; when all are there, write out_of_fold.csv and the figures.

    Parameters
    ----------
    only
        Numbers of the folds to train now; empty for all. Several processes may so share the folds.

    Returns
    -------
    dict[str, Any] or None
        What crossvalidation.json holds; None while folds are missing.

    Raises
    ------
    InvalidData
        `output` holds folds of another recipe, other images or other folds; or the images do not make a cross-validation.
    """
    planned = plan_folds(catalogue, plan)
    tested = {image.group for image in catalogue.test}
    log.info(
        "%d images of test folders take no part; %d others share film or patient with one: predicted, but never trained on.",
        *(len(catalogue.test), sum(image.group in tested for fold in planned for image in fold.images)),
    )
    if unknown := set(only) - {fold.number for fold in planned}:
        raise InvalidData(f"There is no fold {min(unknown)}; the folds are 1 to {plan.count}.")
    identity = identify(plan, planned)
    done = _read_folds(output, planned, identity)
    if done:
        log.info("folds %s are there already.", ", ".join(map(str, done)))
    todo = [fold for fold in planned if fold.number not in done and (not only or fold.number in only)]
    started = time.monotonic()
    teacher = read_teacher(plan.recipe) if todo else None
    for ended, fold in enumerate(todo, start=1):
        rows, facts = train_fold(fold, recipe=plan.recipe, machine=machine, output=_home(output, fold), teacher=teacher)
        _write_fold(_home(output, fold), rows, {"plan": identity, **facts})
        # A VGG16's are gigabytes.
        shutil.rmtree(_home(output, fold) / "checkpoints", ignore_errors=True)
        done[fold.number] = rows, facts
        so_far = [row for those, _ in done.values() for row in those]
        left = (time.monotonic() - started) / ended * (len(todo) - ended)
        log.info(
            "fold %d of %d: %d images, balanced accuracy %.3f, %.0f s; with %d folds: accuracy %.3f, balanced %.3f; %s",
            *(fold.number, plan.count, len(rows), balanced_accuracy(rows), facts["seconds"]),
            *(len(done), accuracy(so_far), balanced_accuracy(so_far), f"about {duration(left)} left" if left else "done"),
        )
    # Another process may have written the others meanwhile.
    done = _read_folds(output, planned, identity)
    if missing := [fold.number for fold in planned if fold.number not in done]:
        log.info("folds %s are still missing.", ", ".join(map(str, missing)))
        return None
    return _summarise(output, plan=plan, identity=identity, done=[done[fold.number] for fold in planned])


def read_recipe_of(folder: Path, *, training: Recipe) -> Recipe:
    """Return the recipe of a finished cross-validation that trained as a model was trained; it may read the answers otherwise.

    Parameters
    ----------
    training
        The model's recipe. Its files of weights may have other names.

    Raises
    ------
    InvalidData
        The folder holds no finished cross-validation, or one of another recipe.
    """
    try:
        found = Recipe.model_validate(json.loads((folder / SUMMARY).read_bytes())["recipe"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidData(f"{folder} holds no finished cross-validation; 'cxr-models crossvalidate' writes one.") from error
    written, asked = as_written(found), as_written(training)
    if differing := sorted(key for key in asked.keys() - READING - FILES if written[key] != asked[key]):
        raise InvalidData(f"{folder} is of a recipe that differs from the model's in {', '.join(differing)}.")
    return found


def duration(seconds: float) -> str:
    """Say how long something takes, as one would to a person who waits."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def accuracy(rows: Sequence[PredictedImage]) -> float:
    """Return the share of images whose most probable label is right."""
    return sum(_right(row) for row in rows) / len(rows)


def balanced_accuracy(rows: Sequence[PredictedImage]) -> float:
    """Return the mean over the labels that occur of the share of their images that are called so."""
    of_label = defaultdict(list)
    for row in rows:
        of_label[row.label].append(_right(row))
    return sum(sum(each) / len(each) for each in of_label.values()) / len(of_label)


def _right(row: PredictedImage) -> bool:
    return max(LABELS, key=lambda label: row.probabilities[label]) == row.label


def _home(output: Path, fold: Fold) -> Path:
    return output / f"fold-{fold.number}"


def identify(plan: Plan, planned: Sequence[Fold]) -> dict[str, Any]:
    """Return what must be equal for two folds to belong to one cross-validation."""
    lines = sorted(
        f"{image.sha256} {image.label} {image.source} {short_group(image.group)} {fold.number}"
        for fold in planned
        for image in fold.images
    )
    return {
        "recipe": as_written(plan.recipe),
        "folds": plan.count,
        "seed": plan.seed,
        "images_sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def _write_fold(home: Path, rows: Sequence[PredictedImage], facts: Mapping[str, Any]) -> None:
    """Write the predictions, and last the facts: a fold without facts is not there."""
    write_predictions(home / "predictions.csv", rows)
    _write_json(home / "fold.json", facts)


def _read_folds(output: Path, planned: Sequence[Fold], identity: Mapping[str, Any]) -> dict[int, Done]:
    return {fold.number: found for fold in planned if (found := _read_fold(_home(output, fold), identity))}


def _read_fold(home: Path, identity: Mapping[str, Any]) -> Done | None:
    path = home / "fold.json"
    if not path.is_file():
        return None
    facts = json.loads(path.read_bytes())
    written = facts.pop("plan")
    trained = {**identity, "recipe": _of_training(identity["recipe"])}
    written["recipe"] = _of_training(_with_later_defaults(written["recipe"]))
    if differing := [key for key in trained if written[key] != trained[key]]:
        what = ", ".join(differing).replace("images_sha256", "images or groups")
        raise InvalidData(
            f"{home} holds a fold of another cross-validation (other {what}); take another --output or delete it."
        )
    return read_predictions(home / "predictions.csv"), facts


def _of_training(written: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in written.items() if key not in READING}


def _with_later_defaults(written: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's values as they are written today: it may have been written before there was one of them."""
    try:
        return as_written(Recipe.model_validate(written))
    except ValidationError:
        return written


def _write_json(path: Path, value: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def _summarise(output: Path, *, plan: Plan, identity: Mapping[str, Any], done: Sequence[Done]) -> dict[str, Any]:
    """Write out_of_fold.csv, and the figures that follow from it as it was written."""
    write_predictions(output / OUT_OF_FOLD, [row for rows, _ in done for row in rows])
    rows = read_predictions(output / OUT_OF_FOLD)
    predictions = read_across_folds(rows, recipe=plan.recipe)
    summary = {
        "recipe_name": plan.name,
        **identity,
        "versions": {name: version(name) for name in ("cxr-worker", "torch", "lightning")},
        "each_fold": [facts for _, facts in done],
        "figures": asdict(measure(predictions, rows, labels=LABELS)),
    }
    _write_json(output / SUMMARY, summary)
    return summary
