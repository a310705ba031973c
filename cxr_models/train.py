"""A training from folders of images to a model folder."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import nn

from cxr_models.calibrate import choose_abstention, choose_thresholds, fit_temperature, softmax
from cxr_models.catalogue import Catalogue, LabelledImage, Split, count, split
from cxr_models.checkpoint import save_model
from cxr_models.classifier import Classifier
from cxr_models.data import Radiographs
from cxr_models.evaluate import evaluate
from cxr_models.films import group_by_film
from cxr_models.history import HISTORY
from cxr_models.initial import InitialWeights, read_initial, take_over
from cxr_models.limits import INTENDED_USE, state_limits
from cxr_models.predict import Predictor
from cxr_models.published import keep_leaks, score_as_published
from cxr_models.recipe import Recipe, as_written, change_recipe
from cxr_models.seen import write_seen
from cxr_models.teacher import Teacher, read_teacher
from cxr_models.trainer import Machine, Run, check_resumable, mode, prepare_run
from cxr_models.values import LABELS, UNSAVED, Card
from cxr_models.views import averaged_logits

__all__ = ["Fitted", "Machine", "fit", "train"]

log = logging.getLogger(__name__)

AS_PUBLISHED = "as published (augmented test images, leaks kept)"
UNVERSIONED = "0"
"""Stands for the version of a model that is not saved yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What `fit` gives.

    Attributes
    ----------
    network
        On the CPU, in evaluation mode, with the weights that were validated best.
    card
        Calibrated on the validation images where there are any, with no metrics, not saved yet.
    history
        For each epoch of the attempt that was kept what was logged, such as epoch, train_loss and valid_loss.
    """

    network: nn.Module
    card: Card
    history: tuple[dict[str, float], ...]


def train(catalogue: Catalogue, *, recipe: Recipe, output: Path, machine: Machine, version: str) -> Card:
    """Train by a recipe, calibrate on the validation images if any, measure on the test images, and write the model folder.

    What was logged of each epoch goes to `output`/history.json, the rest as `fit` says.

    Raises
    ------
    InvalidData, UnreadableImage
        The images do not make a training.
    InvalidModel, InvalidRecipe, UnknownDevice
        As `fit`.
    """
    teacher = read_teacher(recipe)
    catalogue = group_by_film(catalogue)
    parts = _split(catalogue, recipe)
    for name, images in (("training", parts.train), ("validation", parts.val), ("test", parts.test)):
        log.info("%s: %d images, %s", name, len(images), count(images))
    if parts.dropped:
        log.warning("%d images left out of training: their film or patient is also measured on.", len(parts.dropped))
    fitted = fit(parts, recipe=recipe, machine=machine, output=output, teacher=teacher)
    predictor = Predictor(fitted.network, fitted.card, device=torch.device("cpu"))
    metrics = measure_parts(predictor, catalogue, recipe=recipe)
    if recipe.as_published:
        published = replace(parts, test=split(catalogue, **_how(recipe)).test)
        for name, images in _measured(published, catalogue).items():
            metrics[f"{name}, {AS_PUBLISHED}"] = score_as_published(predictor, images, recipe).summary()
    card = replace(fitted.card, version=version, metrics=metrics)
    if getattr(rank_zero_only, "rank", 0):
        return card
    write_seen(output, parts)
    (output / HISTORY).write_text(json.dumps(fitted.history, indent=1) + "\n", encoding="ascii")
    return save_model(output, network=fitted.network, card=card)


def measure_parts(predictor: Predictor, catalogue: Catalogue, *, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Measure a model on what its recipe kept out of training: validation, test folders, held-out patients.

    Parameters
    ----------
    catalogue
        What it was trained from, grouped by film.
    """
    named = _measured(_split(catalogue, recipe), catalogue)
    return {name: evaluate(predictor, images).summary() for name, images in named.items()}


def _split(catalogue: Catalogue, recipe: Recipe) -> Split:
    parts = split(catalogue, **_how(recipe))
    return keep_leaks(parts) if recipe.as_published else parts


def _how(recipe: Recipe) -> dict[str, Any]:
    return {"val_share": recipe.val_share, "test_share": recipe.test_share, "seed": recipe.split_seed}


def fit(parts: Split, *, recipe: Recipe, machine: Machine, output: Path, teacher: Teacher | None = None) -> Fitted:
    """Train on parts.train by a recipe, choose weights and calibrate on parts.val; parts.test may be empty.

    TensorBoard's events go to `output`/logs, the last and the best checkpoint to `output`/checkpoints.

    Parameters
    ----------
    teacher
        The recipe's, where it was read before. It sees parts.train alone.

    Raises
    ------
    InvalidData, UnreadableImage
        The images do not make a training, or there is none to resume.
    InvalidModel
        The initial weights, or the teacher's, are not there or do not fit.
    InvalidRecipe
        The training to resume is of another recipe.
    UnknownDevice
        Lightning knows no such machine.
    """
    teacher = teacher or read_teacher(recipe)
    taught = teacher.label(parts.train) if teacher else None
    if recipe.family == "lenet5":
        # Too small to share out: on a busy machine, threads waiting for each other made an epoch fifteen times as long.
        torch.set_num_threads(1)
    if machine.resume:
        check_resumable(output)
    data = Radiographs(parts, recipe=recipe, preparation=recipe.preparation, taught=taught)
    initial = read_initial(recipe) if recipe.initial else None
    attempts = [
        _attempt(data, recipe=change_recipe(recipe, seed=recipe.seed + more), initial=initial, output=output, machine=machine)
        for more in range(1 if machine.fast_dev_run else recipe.attempts)
    ]
    choose = min if mode(recipe.monitor) == "min" else max
    kept = choose(attempts, key=lambda attempt: attempt.score)
    if parts.val:
        log.info("%s %.4f with seed %d.", recipe.monitor, kept.score, kept.classifier.recipe.seed)
    if parts.test:
        with _quiet():
            kept.run.trainer.test(kept.classifier, datamodule=data, verbose=False)
    kept.classifier.cpu().eval()
    card = _calibrated(kept, data)
    if teacher:
        card = replace(card, training={**card.training, "teacher": teacher.described})
    return Fitted(network=kept.classifier.network, card=card, history=tuple(kept.run.history.epochs))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """A training from one seed: its best validation score, the network that had it, and what was taken over at its start."""

    score: float
    classifier: Classifier
    run: Run
    initial: dict[str, str] | None


def _attempt(data: Radiographs, *, recipe: Recipe, initial: InitialWeights | None, output: Path, machine: Machine) -> _Attempt:
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    counts = count(data.split.train)
    data.recipe = recipe
    classifier = Classifier(recipe.model_dump(), [counts[label] for label in LABELS])
    taken = None
    if initial is not None:
        how = take_over(initial, network=classifier.network, preparation=data.preparation)
        log.info("Initial weights %s: %s.", initial.name, how)
        taken = {"name": initial.name, "sha256": initial.sha256, "taken": how}
    run = prepare_run(recipe, machine=machine, output=output, validates=bool(data.split.val))
    with _quiet():
        run.trainer.fit(classifier, datamodule=data, ckpt_path=run.resumed, weights_only=True)
    if run.best and run.best.best_model_path and recipe.keep == "best":
        state = torch.load(run.best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        classifier.load_state_dict(state)
    score = run.history.epochs[-1].get(recipe.monitor, float("nan")) if run.history.epochs else float("nan")
    if run.best and run.best.best_model_score is not None and recipe.keep == "best":
        score = float(run.best.best_model_score)
    return _Attempt(score=score, classifier=classifier, run=run, initial=taken)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # All images lie in memory; worker processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Lightning 2.6 with torch 2.14; its own affair.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        yield


@torch.inference_mode()
def _answers(network: nn.Module, data: Radiographs) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the network's logits of the validation images, shape (images, labels), and their labels; there may be none."""
    images, labels = data.validation().tensors
    batches = torch.split(images, data.measured_at_once) if len(images) else ()
    answers = [averaged_logits(network, batch, data.recipe.views) for batch in batches]
    return torch.cat([torch.empty(0, len(LABELS)), *answers]).double().numpy(), labels.numpy()


def _calibrated(kept: _Attempt, data: Radiographs) -> Card:
    recipe, parts = kept.classifier.recipe, data.split
    logits, truth = _answers(kept.classifier.network, data)
    temperature = fit_temperature(logits, truth) if parts.val else 1.0
    probabilities = softmax(logits, temperature)
    abstain_below = choose_abstention(
        probabilities, truth, accuracy=recipe.answer_accuracy, least_coverage=recipe.answer_coverage
    )
    return Card(
        name=recipe.family,
        version=UNVERSIONED,
        architecture=recipe.architecture,
        labels=LABELS,
        input_side=data.preparation.side,
        mean=recipe.mean,
        std=recipe.std,
        views=recipe.views,
        abstain_below=abstain_below,
        temperature=temperature,
        thresholds=choose_thresholds(probabilities, truth, labels=LABELS, sensitivity=recipe.sensitivity),
        weights_sha256=UNSAVED,
        intended_use=INTENDED_USE,
        limits=state_limits(parts.train + parts.val),
        training=_described(parts, recipe) | ({"initial": kept.initial} if kept.initial else {}),
    )


def _described(parts: Split, recipe: Recipe) -> dict[str, Any]:
    sources = sorted({image.source for image in parts.train + parts.val})
    return {
        "sources": {source: count(image for image in parts.train if image.source == source) for source in sources},
        "train": count(parts.train),
        "validation": count(parts.val),
        "test": count(parts.test),
        "left_out": {"film or patient stands in test or validation": len(parts.dropped)},
        "split": "by patient where known, and by film: no two images of one on two sides",
        "recipe": as_written(recipe),
    }


def _measured(parts: Split, catalogue: Catalogue) -> dict[str, tuple[LabelledImage, ...]]:
    """Name the sets to measure on: validation, each source's test folder, and what was drawn for test from each source."""
    given = {image.path for image in catalogue.test}
    sets: dict[str, list[LabelledImage]] = {"validation": list(parts.val)} if parts.val else {}
    for image in parts.test:
        kind = "test folder" if image.path in given else "held-out patients"
        sets.setdefault(f"{image.source}, {kind}", []).append(image)
    return {name: tuple(images) for name, images in sets.items()}
