"""Which radiographs there are for training and testing, with label and patient, and how they are parted. Reads no pixels."""

import csv
import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_models.errors import InvalidData
from cxr_models.images import SUFFIXES
from cxr_models.values import LABELS

FOLDER_LABELS = {
    "covid": "COVID-19",
    "covid-19": "COVID-19",
    "normal": "Normal",
    "no_findings": "Normal",
    "pneumonia": "Pneumonia",
    "viral pneumonia": "Pneumonia",
}
PARTS = ("train", "val", "test")
MANIFEST = "manifest.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """A file whose label is known.

    Attributes
    ----------
    patient
        The patient or case from the manifest; where there is none, the file's hash, so byte-identical files are one patient.
    source
        The name of the data set's folder: images of one source share scanner, population and label noise.
    """

    path: Path
    label: str
    patient: str
    source: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The images of one or more data folders, by the part they were found in; `unparted` were in no train, val or test."""

    train: tuple[LabelledImage, ...] = ()
    val: tuple[LabelledImage, ...] = ()
    test: tuple[LabelledImage, ...] = ()
    unparted: tuple[LabelledImage, ...] = ()

    @property
    def all(self) -> tuple[LabelledImage, ...]:
        """Every image, whatever its part."""
        return self.train + self.val + self.test + self.unparted


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Three sets of images of which no two share a patient or a byte-identical file.

    Attributes
    ----------
    dropped
        Images left out of train and val because the patient or the very file also stands in test.
    lookalikes
        Images left out because they look like one of another set; see `cxr_models.lookalikes`.
    """

    train: tuple[LabelledImage, ...]
    val: tuple[LabelledImage, ...]
    test: tuple[LabelledImage, ...]
    dropped: tuple[LabelledImage, ...]
    lookalikes: tuple[LabelledImage, ...] = ()


def read_catalogue(folders: Sequence[Path]) -> Catalogue:
    """List the images of data folders: one folder per class, optionally under train/, val/ and test/.

    Raises
    ------
    InvalidData
        A folder is missing, named after no class, or empty; or all images are of a single class.
    """
    parts: dict[str, list[LabelledImage]] = defaultdict(list)
    for folder in folders:
        if not folder.is_dir():
            raise InvalidData(f"There is no folder {folder}.")
        found = [part for part in sorted(folder.iterdir()) if part.is_dir() and part.name.lower() in PARTS]
        patients = _patients(folder)
        if found:
            stray = [each.name for each in folder.iterdir() if each.is_dir() and each not in found]
            if stray:
                raise InvalidData(
                    f"{folder} has {', '.join(PARTS)} folders and beside them {', '.join(sorted(stray))}; move them in."
                )
            for part in found:
                parts[part.name.lower()] += _read_classes(part, source=_source(folder), patients=patients)
        else:
            name = folder.name.lower()
            source = _source(folder.parent if name in PARTS else folder)
            parts[name if name in PARTS else "unparted"] += _read_classes(folder, source=source, patients=patients)
    catalogue = Catalogue(**{part: tuple(images) for part, images in parts.items()})
    labels = {image.label for image in catalogue.all}
    if len(labels) < 2:
        raise InvalidData(f"All images are of one class, {', '.join(labels)}; add the folders of the others.")
    return catalogue


def split(catalogue: Catalogue, *, val_share: float, test_share: float, seed: int) -> Split:
    """Part the images, by patient, where the folders do not do so themselves.

    Images in train, val and test folders stay there. What stands in test as well, by patient or byte for byte, is left out of
    train and val. Unparted images give their shares to val and test, of each source and label alike; so does train to val where
    there is no val folder.
    """
    held = _keys(catalogue.test)
    dropped = [image for image in catalogue.train + catalogue.val + catalogue.unparted if held & _keys([image])]
    kept_out = {image.path for image in dropped}
    train = [image for image in catalogue.train if image.path not in kept_out]
    val = [image for image in catalogue.val if image.path not in kept_out]
    unparted = [image for image in catalogue.unparted if image.path not in kept_out]
    test_drawn, unparted = _draw(unparted, share=test_share, seed=seed)
    val_drawn, unparted = _draw(unparted, share=val_share, seed=seed + 1)
    if not catalogue.val:
        more, train = _draw(train, share=val_share, seed=seed + 2)
        val_drawn += more
    rest = train + unparted
    return Split(
        train=_distinct(rest, _keys(test_drawn) | _keys(val + val_drawn)),
        val=_distinct(val + val_drawn, _keys(test_drawn)),
        test=catalogue.test + tuple(test_drawn),
        dropped=tuple(dropped),
    )


def count(images: Iterable[LabelledImage]) -> dict[str, int]:
    """Return how many images there are of each label."""
    counts = Counter(image.label for image in images)
    return {label: counts[label] for label in LABELS}


def _keys(images: Iterable[LabelledImage]) -> set[str]:
    return {key for image in images for key in (image.patient, image.sha256)}


def _distinct(images: Iterable[LabelledImage], elsewhere: set[str]) -> tuple[LabelledImage, ...]:
    return tuple(image for image in images if not elsewhere & _keys([image]))


def _draw(images: Sequence[LabelledImage], *, share: float, seed: int) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Draw whole patients until each source and label has given its share."""
    strata: dict[tuple[str, str], dict[str, list[LabelledImage]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        strata[image.source, image.label][image.patient].append(image)
    chosen: set[str] = set()
    for stratum in sorted(strata):
        patients = strata[stratum]
        wanted = round(share * sum(map(len, patients.values())))
        order = sorted(patients)
        random.Random(f"{seed} {stratum}").shuffle(order)  # noqa: S311  a draw that can be repeated, not a secret
        drawn = 0
        for patient in order:
            if drawn >= wanted:
                break
            chosen.add(patient)
            drawn += len(patients[patient])
    return [each for each in images if each.patient in chosen], [each for each in images if each.patient not in chosen]


def _read_classes(folder: Path, *, source: str, patients: dict[Path, str]) -> list[LabelledImage]:
    classes = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not classes:
        raise InvalidData(
            f"{folder} holds no class folders; put the images into one folder per class, such as Covid and Normal."
        )
    images = []
    for each in classes:
        label = FOLDER_LABELS.get(each.name.lower())
        if label is None:
            raise InvalidData(f"{each} is named after no class; the names are {', '.join(FOLDER_LABELS)}.")
        files = sorted(file for file in each.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise InvalidData(f"{each} holds no PNG or JPEG file; add some, or remove the folder.")
        for file in files:
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
            patient = patients.get(file.resolve()) or sha256
            images.append(LabelledImage(path=file, label=label, patient=patient, source=source, sha256=sha256))
    return images


def _source(folder: Path) -> str:
    return folder.resolve().name


def _patients(folder: Path) -> dict[Path, str]:
    """Read the patients of the nearest manifest, in this folder or at most three above it."""
    home = folder.resolve()
    for place in (home, *list(home.parents)[:3]):
        manifest = place / MANIFEST
        if manifest.is_file():
            with manifest.open(newline="", encoding="utf-8") as file:
                rows = csv.DictReader(file)
                if not {"file", "patient"} <= set(rows.fieldnames or ()):
                    raise InvalidData(f"{manifest} has no columns file and patient.")
                return {(place / row["file"]).resolve(): row["patient"] for row in rows if row["patient"]}
    return {}
