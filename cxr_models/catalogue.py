"""Which radiographs there are for training and testing, with label and patient, and how they are parted. Reads no pixels."""

import csv
import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
    group
        Images that share a patient or their bytes have the same group, and so have images of one film after
        `cxr_models.films.group_by_film`. What must not stand on two sides of a split is a group.
    """

    path: Path
    label: str
    patient: str
    source: str
    sha256: str
    group: str


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
    """Three sets of images of which no two share a group.

    Attributes
    ----------
    dropped
        Images left out of train and val because their group also stands in test, and out of train because it stands in val.
    """

    train: tuple[LabelledImage, ...]
    val: tuple[LabelledImage, ...]
    test: tuple[LabelledImage, ...]
    dropped: tuple[LabelledImage, ...]


def read_catalogue(folders: Sequence[Path]) -> Catalogue:
    """List the images of data folders: one folder per class, optionally under train/, val/ and test/.

    Raises
    ------
    InvalidData
        A folder is missing, named after no class, or empty; a file is given twice; or all images are of a single class.
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
    catalogue = grouped(Catalogue(**{part: tuple(images) for part, images in parts.items()}))
    twice = [path for path, times in Counter(image.path.resolve() for image in catalogue.all).items() if times > 1]
    if twice:
        raise InvalidData(f"{len(twice)} files are given twice, among them {twice[0]}; name each folder once.")
    labels = {image.label for image in catalogue.all}
    if len(labels) < 2:
        raise InvalidData(f"All images are of one class, {', '.join(labels)}; add the folders of the others.")
    return catalogue


def grouped(catalogue: Catalogue, pairs: Iterable[tuple[LabelledImage, LabelledImage]] = ()) -> Catalogue:
    """Give one group to all images that belong together: by patient, bytes, the group they had, or as one of `pairs`.

    A group is named after the lowest SHA-256 in it, so the order of the folders does not matter.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while (above := parent.setdefault(key, key)) != key:
            parent[key] = parent[above]
            key = parent[above]
        return key

    for image in catalogue.all:
        for key in (f"patient {image.patient}", f"group {image.group}"):
            parent[root(key)] = root(image.sha256)
    for first, second in pairs:
        parent[root(first.sha256)] = root(second.sha256)
    names: dict[str, str] = {}
    for sha256 in sorted(image.sha256 for image in catalogue.all):
        names.setdefault(root(sha256), sha256)
    return Catalogue(
        **{
            part: tuple(replace(image, group=names[root(image.sha256)]) for image in getattr(catalogue, part))
            for part in (*PARTS, "unparted")
        }
    )


def split(catalogue: Catalogue, *, val_share: float, test_share: float, seed: int) -> Split:
    """Part the images, by group, where the folders do not do so themselves.

    Images in train, val and test folders stay there, but what shares a group with test is left out of train and val, and what
    shares one with val is left out of train. Unparted images give their shares to val and test, of each source and label
    alike; so does train to val where there is no val folder.
    """
    held = _groups(catalogue.test)
    drawn = _draw([image for image in catalogue.unparted if image.group not in held], share=test_share, seed=seed)
    held |= drawn
    test = catalogue.test + tuple(image for image in catalogue.unparted if image.group in drawn)
    val = [image for image in catalogue.val if image.group not in held]
    rest = [image for image in catalogue.train + catalogue.unparted if image.group not in held]
    ours = [image for image in catalogue.unparted if image.group not in held] if catalogue.val else rest
    drawn = _draw(ours, share=val_share, seed=seed + 1)
    val += [image for image in ours if image.group in drawn]
    train = [image for image in rest if image.group not in _groups(val)]
    kept = {image.path for image in (*train, *val, *test)}
    dropped = tuple(image for image in catalogue.all if image.path not in kept)
    return Split(train=tuple(train), val=tuple(val), test=test, dropped=dropped)


def folds(images: Sequence[LabelledImage], *, count: int = 5, seed: int = 0) -> tuple[tuple[LabelledImage, ...], ...]:
    """Part images into `count` sets of about equal size, by group, each source and label spread evenly over them.

    Large groups are placed first, each where its sources and labels are rarest so far.

    Raises
    ------
    InvalidData
        There are fewer groups than folds.
    """
    members: dict[str, list[LabelledImage]] = defaultdict(list)
    for image in images:
        members[image.group].append(image)
    if count < 2 or len(members) < count:
        raise InvalidData(f"{len(members)} groups of images cannot be parted into {count} folds.")
    order = sorted(members)
    random.Random(seed).shuffle(order)  # noqa: S311  a draw that can be repeated, not a secret  # nosec B311
    order.sort(key=lambda group: len(members[group]), reverse=True)
    totals = Counter((image.source, image.label) for image in images)
    filled: list[Counter[tuple[str, str]]] = [Counter() for _ in range(count)]
    fold_of: dict[str, int] = {}
    for group in order:
        strata = Counter((image.source, image.label) for image in members[group])
        loads = [
            (sum(each * fold[stratum] / totals[stratum] for stratum, each in strata.items()), fold.total()) for fold in filled
        ]
        chosen = loads.index(min(loads))
        filled[chosen] += strata
        fold_of[group] = chosen
    return tuple(tuple(image for image in images if fold_of[image.group] == fold) for fold in range(count))


def count(images: Iterable[LabelledImage]) -> dict[str, int]:
    """Return how many images there are of each label."""
    counts = Counter(image.label for image in images)
    return {label: counts[label] for label in LABELS}


def _groups(images: Iterable[LabelledImage]) -> set[str]:
    return {image.group for image in images}


def _draw(images: Sequence[LabelledImage], *, share: float, seed: int) -> set[str]:
    """Draw whole groups until each source and label has given its share."""
    strata: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for image in images:
        strata[image.source, image.label][image.group] += 1
    chosen: set[str] = set()
    for stratum in sorted(strata):
        groups = strata[stratum]
        wanted = round(share * groups.total())
        order = sorted(groups)
        random.Random(f"{seed} {stratum}").shuffle(order)  # noqa: S311  a draw that can be repeated, not a secret  # nosec B311
        drawn = sum(groups[group] for group in chosen)
        for group in order:
            if drawn >= wanted:
                break
            if group not in chosen:
                chosen.add(group)
                drawn += groups[group]
    return chosen


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
            images.append(LabelledImage(path=file, label=label, patient=patient, source=source, sha256=sha256, group=sha256))
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
