"""The figures that both networks must reach, computed from predictions that are held against the images first."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cxr_models.bootstrap import Bootstrap
from cxr_models.catalogue import Catalogue, LabelledImage
from cxr_models.errors import InvalidData
from cxr_models.evaluate import Evaluation, measure
from cxr_models.predictions_file import PredictedImage
from cxr_models.recalibrate import read_across_folds
from cxr_models.recipe import Recipe
from cxr_models.values import LABELS, NORMAL, Prediction

SOURCES = ("covid19-dataset", "covid-nih-mix", "kermany")
NETWORKS = ("lenet5", "vgg16")
RECIPES = {"lenet5": "lenet5-taught", "vgg16": "vgg16-imagenet"}
"""Which recipe each network's figures are of."""
PNEUMONIA = "Pneumonia"
SUREST = 0.7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Goal:
    """A row of the table; one of `GOALS`.

    Attributes
    ----------
    targets
        What each network must reach; empty where the row only explains another.
    at_most
        Less is better.
    """

    name: str
    targets: Mapping[str, float]
    at_most: bool = False


PUBLISHED = Goal(name="published test images without the leaks, accuracy", targets={"lenet5": 0.92, "vgg16": 0.95})
UNCOPIED = Goal(name="… on those that stand in no other folder", targets={})
MISSED = Goal(name="Pneumonia called Normal there", targets={"lenet5": 1, "vgg16": 0}, at_most=True)
CHILDREN = Goal(name="kermany, 5-fold, accuracy", targets={"lenet5": 0.96, "vgg16": 0.98})
FILMS = Goal(name="NIH films of covid-nih-mix, 5-fold, Pneumonia against Normal, AUC", targets={"lenet5": 0.86, "vgg16": 0.90})
ADULTS = Goal(name="covid-nih-mix, three classes, 5-fold, accuracy", targets={"lenet5": 0.76, "vgg16": 0.87})
CALIBRATION = Goal(name="expected calibration error there", targets={"lenet5": 0.05, "vgg16": 0.05}, at_most=True)
CONFIDENT = Goal(name="accuracy on the most confident 70 % there", targets={"lenet5": 0.87, "vgg16": 0.95})
GOALS = (PUBLISHED, UNCOPIED, MISSED, CHILDREN, FILMS, ADULTS, CALIBRATION, CONFIDENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A figure, the limits of its 95 % by bootstrap over groups (`cxr_models.bootstrap`), and how many images it is from."""

    value: float
    interval: tuple[float, float]
    n: int


def reached(goal: Goal, network: str, measured: Measured) -> bool | None:
    """Tell whether a network's figure is as good as its target; None where there is no target."""
    target = goal.targets.get(network)
    if target is None:
        return None
    return measured.value <= target if goal.at_most else measured.value >= target


def measure_published(rows: Sequence[PredictedImage], catalogue: Catalogue) -> dict[Goal, Measured]:
    """Measure predictions of the published test folder by a model that was trained without its images, copies and films.

    All 66 images count: it is the training that was cleaned, not the test. The second figure is of those that have no
    byte-identical copy outside the folder.
    """
    elsewhere = {image.sha256 for image in outside_tests(catalogue)}
    uncopied = [row for row in rows if row.sha256 not in elsewhere]
    ill = [row for row in rows if row.label == PNEUMONIA]
    missed = np.array([_prediction(row).label == NORMAL for row in ill])
    share = Bootstrap([row.group for row in ill]).share(missed, np.ones(len(ill), dtype=bool))
    low, high = share.interval or (0.0, 1.0)
    return {
        PUBLISHED: _accuracy(rows),
        UNCOPIED: _accuracy(uncopied),
        MISSED: Measured(value=float(missed.sum()), interval=(low * len(ill), high * len(ill)), n=len(ill)),
    }


def measure_out_of_fold(rows: Sequence[PredictedImage], *, recipe: Recipe) -> dict[Goal, Measured]:
    """Measure the predictions of a cross-validation over `SOURCES`, each fold calibrated by the others.

    The area under the curve is that of p(Pneumonia) / (p(Pneumonia) + p(Normal)); the calibration error, as in `evaluate`, that
    of ten bins of equal width.
    """
    predictions = read_across_folds(rows, recipe=recipe)
    rows = [replace(row, probabilities=each.probabilities) for row, each in zip(rows, predictions, strict=True)]
    adults = [row for row in rows if row.source == "covid-nih-mix"]
    whole = _measure(adults)
    films = sum(row.label in {PNEUMONIA, NORMAL} for row in adults)
    (surest,) = (each for each in whole.coverage_accuracy if each["coverage"] == SUREST)
    pair = f"{PNEUMONIA} against {NORMAL}"
    return {
        CHILDREN: _accuracy([row for row in rows if row.source == "kermany"]),
        FILMS: _measured(whole.pairwise[pair]["auc"], whole.intervals["pairwise"][pair]["auc"], films),
        ADULTS: _measured(whole.accuracy, whole.intervals["accuracy"], whole.n),
        CALIBRATION: _measured(whole.ece, whole.intervals["ece"], whole.n),
        CONFIDENT: _measured(surest["accuracy"], surest["interval"], surest["n"]),
    }


def outside_tests(catalogue: Catalogue) -> tuple[LabelledImage, ...]:
    """Return every image that a cross-validation predicts."""
    return catalogue.train + catalogue.val + catalogue.unparted


def hold_against(images: Iterable[LabelledImage], rows: Sequence[PredictedImage], *, file: Path) -> None:
    """Make sure that predictions are of just these images, each as often as it is there, with its label and source.

    Raises
    ------
    InvalidData
        They are not; the message tells how many differ, and one of them.
    """
    there = Counter((image.sha256, image.label, image.source) for image in images)
    predicted = Counter((row.sha256, row.label, row.source) for row in rows)
    labels = {(sha256, source): label for sha256, label, source in there}
    for sha256, label, source in predicted:
        if labels.get((sha256, source), label) != label:
            raise InvalidData(f"{file} calls {sha256} {label}, and its folder {labels[sha256, source]}.")
    for differing, words in (
        (predicted - there, "twice, or not among the images"),
        (there - predicted, "among the images, but not in the file"),
    ):
        if differing:
            raise InvalidData(
                f"{file} does not belong to these images: {differing.total()} {words}, such as {min(differing)[0]}."
            )


def check_folds(images: Iterable[LabelledImage], rows: Sequence[PredictedImage], *, file: Path) -> None:
    """Make sure that no group stands on two folds: neither a group of the file nor one that patients and bytes make now.

    Raises
    ------
    InvalidData
        One does, or an image was predicted in no fold.
    """
    of_image = {image.sha256: image.group for image in images}
    fold_of: dict[str, int] = {}
    for row in rows:
        if row.fold is None:
            raise InvalidData(f"{file} is of no cross-validation: {row.sha256} has no fold.")
        for group in (f"written {row.group}", f"found {of_image[row.sha256]}"):
            if fold_of.setdefault(group, row.fold) != row.fold:
                raise InvalidData(f"{file} has a patient, file or film on two folds: {row.sha256} and another of its group.")


def _prediction(row: PredictedImage) -> Prediction:
    # Which labels are flagged is not looked at here.
    return Prediction.read(row.probabilities, thresholds=dict.fromkeys(LABELS, 1.0))


def _measure(rows: Sequence[PredictedImage]) -> Evaluation:
    return measure([_prediction(row) for row in rows], rows, labels=LABELS)


def _accuracy(rows: Sequence[PredictedImage]) -> Measured:
    whole = _measure(rows)
    return _measured(whole.accuracy, whole.intervals["accuracy"], whole.n)


def _measured(value: float | None, interval: Sequence[float] | None, n: int) -> Measured:
    if value is None or interval is None:
        raise InvalidData("A class that the table needs has no images.")
    return Measured(value=value, interval=(interval[0], interval[1]), n=n)
