"""A training from folders of images to a model folder."""

import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from cxr_models.calibrate import choose_thresholds, fit_temperature, softmax
from cxr_models.catalogue import Catalogue, LabelledImage, Split, count, split
from cxr_models.checkpoint import save_model
from cxr_models.classifier import Classifier
from cxr_models.data import Radiographs
from cxr_models.errors import UnknownDevice
from cxr_models.evaluate import evaluate
from cxr_models.films import group_by_film
from cxr_models.limits import INTENDED_USE, state_limits
from cxr_models.networks import INPUT_SIDES
from cxr_models.predict import Predictor
from cxr_models.recipe import Recipe
from cxr_models.seen import write_seen
from cxr_models.values import LABELS, UNSAVED, Card, Preparation

log = logging.getLogger(__name__)

HISTORY = "history.json"
UNVERSIONED = "0"
"""Stands for the version of a model that is not saved yet."""

Attempt = tuple[float, Classifier, tuple[dict[str, float], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a training runs on, in Lightning's words, and whether it only tries one batch of everything."""

    accelerator: str = "auto"
    devices: str = "1"
    precision: str = "32-true"
    fast_dev_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What `fit` gives.

    Attributes
    ----------
    network
        On the CPU, in evaluation mode, with the weights that were validated best.
    card
        Calibrated on the validation images, with no metrics, not saved yet.
    history
        For each epoch of the attempt that was kept what was logged, such as epoch, train_loss and valid_loss.
    """

    network: nn.Module
    card: Card
    history: tuple[dict[str, float], ...]


def train(catalogue: Catalogue, *, recipe: Recipe, output: Path, machine: Machine, version: str) -> Card:
    """Train by a recipe, calibrate on the validation images, measure on the test images, and write the model folder.

    TensorBoard's events go to `output`/logs.

    Raises
    ------
    InvalidData, UnreadableImage
        The images do not make a training.
    """
    catalogue = group_by_film(catalogue)
    parts = split(catalogue, val_share=recipe.val_share, test_share=recipe.test_share, seed=recipe.split_seed)
    for name, images in (("training", parts.train), ("validation", parts.val), ("test", parts.test)):
        log.info("%s: %d images, %s", name, len(images), count(images))
    if parts.dropped:
        log.warning("%d images left out of training: their film or patient is also measured on.", len(parts.dropped))
    fitted = fit(parts, recipe=recipe, machine=machine, output=output)
    predictor = Predictor(fitted.network, fitted.card, device=torch.device("cpu"))
    metrics = {name: asdict(evaluate(predictor, images)) for name, images in _measured(parts, catalogue).items()}
    card = replace(fitted.card, version=version, metrics=metrics)
    if getattr(rank_zero_only, "rank", 0):
        return card
    write_seen(output, parts)
    (output / HISTORY).write_text(json.dumps(fitted.history, indent=1) + "\n", encoding="ascii")
    return save_model(output, network=fitted.network, card=card)


def fit(parts: Split, *, recipe: Recipe, machine: Machine, output: Path) -> Fitted:
    """Train on parts.train by a recipe, choose weights and calibrate on parts.val; parts.test may be empty.

    TensorBoard's events go to `output`/logs.

    Raises
    ------
    InvalidData, UnreadableImage
        The images do not make a training.
    """
    if recipe.architecture == "lenet5":
        # Too small to share out: on a busy machine, threads waiting for each other made an epoch fifteen times as long.
        torch.set_num_threads(1)
    preparation = Preparation(side=INPUT_SIDES[recipe.architecture], mean=recipe.mean, std=recipe.std)
    data = Radiographs(parts, recipe=recipe, preparation=preparation)
    attempts = [
        _attempt(data, recipe=recipe.model_copy(update={"seed": recipe.seed + more}), output=output, machine=machine)
        for more in range(1 if machine.fast_dev_run else recipe.attempts)
    ]
    choose = min if _mode(recipe) == "min" else max
    score, classifier, history = choose(attempts, key=lambda attempt: attempt[0])
    log.info("%s %.4f with seed %d.", recipe.monitor, score, classifier.recipe.seed)
    return Fitted(network=classifier.network, card=_calibrated(classifier, data), history=history)


class History(Callback):
    """Keeps what was logged of each epoch as plain numbers."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the epoch's metrics; those of validation are there by now."""
        del pl_module
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.epochs.append({"epoch": trainer.current_epoch} | metrics)


def _attempt(data: Radiographs, *, recipe: Recipe, output: Path, machine: Machine) -> Attempt:
    """Train from one seed; return the best validation score, the network that had it, and the epochs."""
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    counts = count(data.split.train)
    data.recipe = recipe
    classifier = Classifier(recipe.model_dump(), [counts[label] for label in LABELS])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # All images lie in memory; worker processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Lightning 2.6 with torch 2.14; its own affair.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        # Not save_weights_only: Lightning leaves the averaged weights, which were validated, out of such checkpoints.
        best = ModelCheckpoint(folder, monitor=recipe.monitor, mode=_mode(recipe))
        history = History()
        trainer = _trainer(recipe, callbacks=[best, history], output=output, machine=machine)
        trainer.fit(classifier, datamodule=data)
        if best.best_model_path:
            state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
            classifier.load_state_dict(state)
        # No process may clear the folder while another still reads the checkpoint.
        trainer.strategy.barrier()
    score = float(best.best_model_score) if best.best_model_score is not None else float("nan")
    return score, classifier.cpu().eval(), tuple(history.epochs)


def _mode(recipe: Recipe) -> Literal["min", "max"]:
    return "min" if recipe.monitor == "valid_loss" else "max"


def _trainer(recipe: Recipe, *, callbacks: list[Callback], output: Path, machine: Machine) -> lightning.Trainer:
    callbacks = [
        *callbacks,
        EarlyStopping(recipe.monitor, mode=_mode(recipe), patience=recipe.patience),
        RichProgressBar(console_kwargs={"stderr": True}),
    ]
    if recipe.average:
        callbacks.append(EMAWeightAveraging(decay=recipe.average))
    try:
        return lightning.Trainer(
            accelerator=machine.accelerator,
            devices=machine.devices,
            precision=machine.precision,  # type: ignore[arg-type]  # checked by Lightning, which names the choices
            max_epochs=recipe.epochs,
            callbacks=callbacks,
            logger=TensorBoardLogger(output / "logs", name=f"seed-{recipe.seed}"),
            fast_dev_run=machine.fast_dev_run,
            log_every_n_steps=10,
            deterministic="warn",
            use_distributed_sampler=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UnknownDevice(f"Lightning cannot train like this: {error}") from error


@torch.inference_mode()
def _calibrated(classifier: Classifier, data: Radiographs) -> Card:
    logits, truths = [], []
    for images, truth in data.val_dataloader():
        logits.append(classifier(images).double().numpy())
        truths.append(truth.numpy())
    recipe, parts = classifier.recipe, data.split
    temperature = fit_temperature(np.concatenate(logits), np.concatenate(truths))
    probabilities = softmax(np.concatenate(logits), temperature)
    truth = np.concatenate(truths)
    return Card(
        name=recipe.architecture,
        version=UNVERSIONED,
        architecture=recipe.architecture,
        labels=LABELS,
        input_side=data.preparation.side,
        mean=recipe.mean,
        std=recipe.std,
        temperature=temperature,
        thresholds=choose_thresholds(probabilities, truth, labels=LABELS, sensitivity=recipe.sensitivity),
        weights_sha256=UNSAVED,
        intended_use=INTENDED_USE,
        limits=state_limits(parts.train + parts.val),
        training=_described(parts, recipe),
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
        "recipe": recipe.model_dump(),
    }


def _measured(parts: Split, catalogue: Catalogue) -> dict[str, Sequence[LabelledImage]]:
    """Name the sets to measure on: validation, each source's test folder, and what was drawn for test from each source."""
    given = {image.path for image in catalogue.test}
    sets: dict[str, list[LabelledImage]] = {"validation": list(parts.val)}
    for image in parts.test:
        kind = "test folder" if image.path in given else "held-out patients"
        sets.setdefault(f"{image.source}, {kind}", []).append(image)
    return {name: tuple(images) for name, images in sets.items()}
