"""What is wrong with folders of images, before anything is trained or measured on them."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Literal

from PIL import Image
from torch import Tensor

from cxr_models.catalogue import Catalogue, LabelledImage
from cxr_models.errors import UnreadableImage
from cxr_models.films import FilmPair, find_pairs, thumbnail
from cxr_models.images import read_radiograph
from cxr_models.progress import shown

FEW = 30
"""Images of a class in one part below which a figure says little: of 30 right ones, 95 % may be as bad as 0.88."""
GREY = frozenset({"L", "1"})
PLACES = ("train", "val", "test", "unparted")

Link = Literal["bytes", "film", "patient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file that is no image, and why."""

    image: LabelledImage
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Two images that must not both be there: in train and test, or under two labels. `link` is what they share."""

    first: LabelledImage
    second: LabelledImage
    link: Link


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The least, the middle and the greatest of some numbers."""

    least: float
    middle: float
    greatest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of a source's images: pixels across and down, and width over height."""

    width: Range
    height: Range
    aspect: Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What `examine` found.

    Attributes
    ----------
    counts
        Images by source, part (train, val, test or unparted) and label.
    duplicates
        Files with the same bytes, a tuple for each content.
    films
        Near duplicates: pairs of images with other bytes that show one film.
    leaks
        For each image of train or val that shares bytes, film or patient with test, or of train with val, the pair.
    conflicts
        Images of the same bytes or film under two labels.
    modes
        Images that are not 8-bit grey, by Pillow's name of their pixels, such as RGB, CMYK or I;16.
    lone_labels
        Labels that come from a single one of several sources: a network may learn the source instead.
    lacking
        Labels that a source lacks and others have: the look of that source speaks against them.
    few
        Source, part and label with less than `FEW` images.
    """

    counts: dict[tuple[str, str, str], int]
    unreadable: tuple[Unreadable, ...]
    duplicates: tuple[tuple[LabelledImage, ...], ...]
    films: tuple[FilmPair, ...]
    leaks: tuple[Shared, ...]
    conflicts: tuple[Shared, ...]
    sizes: dict[str, Sizes]
    modes: dict[str, tuple[LabelledImage, ...]]
    lone_labels: dict[str, str]
    lacking: dict[str, tuple[str, ...]]
    few: dict[tuple[str, str, str], int]

    @property
    def spoilt(self) -> bool:
        """Whether a figure measured on these images would be wrong."""
        return bool(self.unreadable or self.leaks or self.conflicts)


def examine(catalogue: Catalogue) -> Findings:
    """Decode every image once and say what would spoil a training or a measurement."""
    part_of = {image.path: part for part in PLACES for image in getattr(catalogue, part)}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        looks = list(shown(threads.map(_look, catalogue.all), total=len(catalogue.all), words="Reading images"))
    seen = [look for look in looks if isinstance(look, _Seen)]
    readable = [look.image for look in seen]
    contents: dict[str, list[LabelledImage]] = defaultdict(list)
    for image in readable:
        contents[image.sha256].append(image)
    distinct = list({look.image.sha256: look for look in reversed(seen)}.values())[::-1]
    films = find_pairs([look.image for look in distinct], thumbnails=[look.thumbnail for look in distinct])
    same = [Shared(first=first, second=second, link="bytes") for files in contents.values() for first, second in _pairs(files)]
    same += [
        Shared(first=first, second=second, link="film")
        for pair in films
        for first in contents[pair.first.sha256]
        for second in contents[pair.second.sha256]
    ]
    counts = Counter((image.source, part_of[image.path], image.label) for image in catalogue.all)
    sources, labels = defaultdict(set), defaultdict(set)
    for source, _, label in counts:
        sources[label].add(source)
        labels[source].add(label)
    return Findings(
        counts=dict(sorted(counts.items())),
        unreadable=tuple(look for look in looks if isinstance(look, Unreadable)),
        duplicates=tuple(tuple(files) for files in contents.values() if len(files) > 1),
        films=films,
        leaks=_leaks(readable, same, part_of),
        conflicts=tuple(each for each in same if each.first.label != each.second.label),
        sizes=_sizes(seen),
        modes={
            mode: tuple(look.image for look in seen if look.mode == mode)
            for mode in sorted({look.mode for look in seen} - GREY)
        },
        lone_labels={label: min(where) for label, where in sorted(sources.items()) if len(where) == 1 < len(labels)},
        lacking={source: tuple(sorted(sources.keys() - has)) for source, has in sorted(labels.items()) if sources.keys() - has},
        few={key: number for key, number in sorted(counts.items()) if number < FEW},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    image: LabelledImage
    thumbnail: Tensor
    mode: str
    width: int
    height: int


def _look(image: LabelledImage) -> _Seen | Unreadable:
    try:
        pixels = read_radiograph(image.path)
        with Image.open(image.path) as file:
            mode = file.mode
        return _Seen(image=image, thumbnail=thumbnail(pixels), mode=mode, width=pixels.shape[1], height=pixels.shape[0])
    except UnreadableImage as error:
        return Unreadable(image=image, reason=str(error))


def _pairs(files: Sequence[LabelledImage]) -> Iterable[tuple[LabelledImage, LabelledImage]]:
    return ((first, second) for place, first in enumerate(files) for second in files[place + 1 :])


def _leaks(images: Sequence[LabelledImage], same: Sequence[Shared], part_of: dict[object, str]) -> tuple[Shared, ...]:
    """Find for each image the strongest link to a part that is measured on: bytes before film before patient."""
    linked: dict[object, list[tuple[LabelledImage, Link]]] = defaultdict(list)
    for each in same:
        linked[each.first.path].append((each.second, each.link))
        linked[each.second.path].append((each.first, each.link))
    of_patient: dict[tuple[str, str], LabelledImage] = {}
    for image in images:
        of_patient.setdefault((image.patient, part_of[image.path]), image)
    leaks = []
    for image in images:
        later = {"train": ("test", "val"), "val": ("test",)}.get(part_of[image.path], ())
        for part in later:
            links = [(other, link) for other, link in linked[image.path] if part_of[other.path] == part]
            if (image.patient, part) in of_patient:
                links.append((of_patient[image.patient, part], "patient"))
            if links:
                leaks.append(Shared(first=image, second=links[0][0], link=links[0][1]))
                break
    return tuple(leaks)


def _sizes(seen: Sequence[_Seen]) -> dict[str, Sizes]:
    of_source: dict[str, list[_Seen]] = defaultdict(list)
    for look in seen:
        of_source[look.image.source].append(look)
    return {
        source: Sizes(
            width=_range([look.width for look in looks]),
            height=_range([look.height for look in looks]),
            aspect=_range([look.width / look.height for look in looks]),
        )
        for source, looks in sorted(of_source.items())
    }


def _range(numbers: Sequence[float]) -> Range:
    return Range(least=min(numbers), middle=median(numbers), greatest=max(numbers))
