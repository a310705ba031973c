"""What a model said of each image, as a CSV file that figures can be computed from again. Free of torch."""

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_models.catalogue import LabelledImage
from cxr_models.errors import InvalidData
from cxr_models.values import LABELS, Prediction

ROUNDING = 1e-5
"""How far three probabilities of six digits may sum to something else than 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedImage:
    """A line of the file.

    Attributes
    ----------
    sha256
        Of the image file's bytes, in hexadecimal.
    label
        The truth.
    group
        `short_group` of the image's group: files name no patient.
    fold
        Which part of a cross-validation the image was predicted in, from 1; None where there was none.
    probabilities
        For each label 0..1, calibrated; they sum to 1.
    """

    sha256: str
    source: str
    label: str
    group: str
    fold: int | None = None
    probabilities: Mapping[str, float]


COLUMNS = ("sha256", "source", "label", "group", "fold", *LABELS)


def short_group(group: str) -> str:
    """Return a name for a group that does not tell the patient's, of 16 hexadecimal digits."""
    return hashlib.sha256(group.encode()).hexdigest()[:16]


def as_predicted(
    images: Sequence[LabelledImage], predictions: Sequence[Prediction], *, fold: int | None = None
) -> tuple[PredictedImage, ...]:
    """Join images with what a model said of them, in the same order."""
    return tuple(
        PredictedImage(
            sha256=image.sha256,
            source=image.source,
            label=image.label,
            group=short_group(image.group),
            fold=fold,
            probabilities=prediction.probabilities,
        )
        for image, prediction in zip(images, predictions, strict=True)
    )


def write_predictions(path: Path, rows: Iterable[PredictedImage]) -> None:
    """Write the lines sorted by hash, probabilities with six digits. A file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in sorted(rows, key=lambda row: row.sha256):
            known = (row.sha256, row.source, row.label, row.group, "" if row.fold is None else row.fold)
            writer.writerow((*known, *(f"{row.probabilities[label]:.6f}" for label in LABELS)))
    part.replace(path)


def read_predictions(path: Path) -> tuple[PredictedImage, ...]:
    """Read what `write_predictions` wrote.

    Raises
    ------
    InvalidData
        The file is missing, has other columns, or holds a line that is no prediction.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise InvalidData(f"{path} is no file of predictions: its columns are not {', '.join(COLUMNS)}.")
            lines = list(reader)
    except FileNotFoundError as error:
        raise InvalidData(f"There is no file of predictions {path}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidData(f"{path} is no CSV file: {error}.") from error
    try:
        return tuple(_read_line(line) for line in lines)
    except (TypeError, ValueError) as error:
        raise InvalidData(f"{path} holds a line that is no prediction: {error}.") from error


def _read_line(line: Mapping[str, str]) -> PredictedImage:
    probabilities = {label: float(line[label]) for label in LABELS}
    if not all(0 <= each <= 1 for each in probabilities.values()) or abs(sum(probabilities.values()) - 1) > ROUNDING:
        raise ValueError(f"the probabilities of {line['sha256']} are not numbers of 0..1 that sum to 1")
    if line["label"] not in LABELS:
        raise ValueError(f"{line['sha256']} has the label {line['label']!r}, which is none of {', '.join(LABELS)}")
    return PredictedImage(
        sha256=line["sha256"],
        source=line["source"],
        label=line["label"],
        group=line["group"],
        fold=int(line["fold"]) if line["fold"] else None,
        probabilities=probabilities,
    )
