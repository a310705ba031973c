"""The published comparison's way to score, kept to show what it does: leaks stay in training, test images are augmented."""

from dataclasses import replace

import torch

from cxr_models.augment import augment
from cxr_models.catalogue import LabelledImage, Split
from cxr_models.data import load_pixels
from cxr_models.evaluate import Evaluation, measure
from cxr_models.predict import Predictor
from cxr_models.recipe import Recipe


def keep_leaks(parts: Split) -> Split:
    """Put into training what was left out of it for also standing in test; test keeps the images that do not."""
    leaked = {image.group for image in parts.dropped}
    honest = tuple(image for image in parts.test if image.group not in leaked)
    return replace(parts, train=parts.train + parts.dropped, test=honest, dropped=())


def score_as_published(predictor: Predictor, images: tuple[LabelledImage, ...], recipe: Recipe) -> Evaluation:
    """Measure on images that are augmented as in training, by one draw that the recipe's seed decides."""
    preparation = predictor.card.preparation
    pixels, _ = load_pixels(images, preparation, recipe=recipe).tensors
    torch.manual_seed(recipe.seed)
    moved = augment(pixels, recipe.augmentation, preparation=preparation)
    return measure(predictor.predict(list(moved)), images, labels=predictor.card.labels)
