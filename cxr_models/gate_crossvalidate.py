"""A gate from data folders: cross-validated for its thresholds and error rates, then trained on everything, with its card."""

import hashlib
import json
import logging
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import safetensors.torch

from cxr_models.catalogue import LabelledImage, folds
from cxr_models.checkpoint import CARD, WEIGHTS
from cxr_models.gate import GateCard
from cxr_models.gate_data import DRAWN_CHEST, KINDS, Pictures, gather
from cxr_models.gate_measure import Seen, joined, measure, see, thresholds_of
from cxr_models.gate_train import train_gate

log = logging.getLogger(__name__)

FOLDS: Final = 3
STEPS: Final = 1500
FOLD_STEPS: Final = 800
INTENDED_USE: Final = (
    "Decides whether a decoded picture is a frontal chest radiograph before a classifier sees it, where the header says so and "
    "where it says nothing; tells polarity and turning. Research use only: not a medical device."
)
LIMITS: Final = (
    "It never learnt from a real picture that is no chest film: those are drawn, or made of films.",
    "Its errors on real pictures of other things are not known: a dozen public files is all that it was tried on.",
    "A scout of a scanner that shows just the chest looks like a film to it. Headers refuse scouts that say what they are.",
    "The lateral views that it learnt from are drawn. A lateral film that its header calls PA may pass.",
    "Mirrored films are told by the shadow of the heart, and situs inversus looks the same: a note, and nothing is flipped.",
)


def build_gate(images: Sequence[LabelledImage], *, output: Path, version: str, seed: int = 0) -> GateCard:
    """Train and measure a gate, and write its folder.

    In each fold a gate is trained without the fold's films and without some kinds of other pictures, and shown both: its error
    rates are those on films of other patients and on kinds of pictures that it never learnt from.

    Parameters
    ----------
    images
        With groups that join what shows one film (`cxr_models.films.group_by_film`).

    Raises
    ------
    UnreadableImage
        A file is cut off or no image.
    """
    pictures = gather(images, seed=seed)
    seen = joined([_fold(pictures, images, fold, seed=seed) for fold in range(FOLDS)])
    thresholds = thresholds_of(seen)
    network = train_gate(pictures, steps=STEPS, seed=seed)
    weights = safetensors.torch.save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    card = GateCard(
        name="frontal_gate",
        version=version,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        thresholds=thresholds,
        intended_use=INTENDED_USE,
        limits=LIMITS,
        training={
            "films": dict(sorted(Counter(image.source for image in images).items())),
            "others": {kind: int((pictures.kinds == kind).sum()) for kind in (*KINDS, DRAWN_CHEST)},
            "steps": STEPS,
            "fold_steps": FOLD_STEPS,
            "folds": FOLDS,
            "seed": seed,
        },
        metrics=measure(seen, thresholds),
    )
    output.mkdir(parents=True, exist_ok=True)
    (output / WEIGHTS).write_bytes(weights)
    (output / CARD).write_text(json.dumps(asdict(card), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return card


def _fold(pictures: Pictures, images: Sequence[LabelledImage], fold: int, *, seed: int) -> Seen:
    held = {image.group for image in folds(images, count=FOLDS, seed=seed)[fold]}
    is_drawn = ~np.isin(pictures.groups, [image.group for image in images])
    drawn_fold = np.array([zlib.crc32(group.encode()) % FOLDS for group in pictures.groups.tolist()])
    held_out = np.isin(pictures.groups, list(held)) | (is_drawn & (drawn_fold == fold))
    unseen = KINDS[fold::FOLDS]
    network = train_gate(pictures.among(~held_out & ~np.isin(pictures.kinds, unseen)), steps=FOLD_STEPS, seed=seed + fold)
    log.info("fold %d of %d is trained", fold + 1, FOLDS)
    return see(network, pictures.among(held_out), unseen=unseen, seed=seed)
