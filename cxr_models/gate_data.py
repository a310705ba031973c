"""What the gate learns from: films, and pictures that are none, all decoded or drawn once and kept small in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_models.catalogue import LabelledImage
from cxr_models.gate import SIDE as NETWORK_SIDE
from cxr_models.gate_composites import COMPOSITES, FILM_SIDE, composed
from cxr_models.gate_drawings import DRAWINGS, SIDE, drawn, drawn_chest, lettered
from cxr_models.images import read_radiograph
from cxr_models.progress import shown

Bytes = NDArray[np.uint8]

KINDS: Final = (*COMPOSITES, *DRAWINGS)
"""Kinds of pictures that are no frontal chest radiographs."""
DRAWN_CHEST: Final = "drawn chest"
DRAWN: Final = 400
"""Pictures of each drawn kind."""
DRAWN_CHESTS: Final = 100
STORED: Final = 96
"""Pixels a side; half as much again as the network takes, so that pictures can be enlarged a little."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """Pictures, and where each is from.

    Attributes
    ----------
    pixels
        Shape (pictures, 96, 96), 0..255.
    kinds
        For a film its source, for others the kind.
    groups
        Pictures that share a film have the same group; a drawn one has its own.
    frontal
        Whether it is a frontal chest radiograph.
    """

    pixels: Bytes
    kinds: NDArray[np.str_]
    groups: NDArray[np.str_]
    frontal: NDArray[np.bool_]

    def among(self, chosen: NDArray[np.bool_]) -> "Pictures":
        """Return some of the pictures."""
        return Pictures(
            pixels=self.pixels[chosen], kinds=self.kinds[chosen], groups=self.groups[chosen], frontal=self.frontal[chosen]
        )


def gather(images: Sequence[LabelledImage], *, seed: int = 0) -> Pictures:
    """Decode the films, compose one picture of each kind from each of them, and draw the others.

    Raises
    ------
    UnreadableImage
        A file is cut off or no image.
    """
    draw = np.random.default_rng(seed)
    films = [_bytes(_squashed(read_radiograph(image.path))) for image in shown(images, words="Reading films")]
    rows: list[tuple[Bytes, str, str, bool]] = []
    for image, film in zip(images, films, strict=True):
        rows.append((_small(film, STORED), image.source, image.group, True))
    for place, (image, film) in enumerate(zip(images, films, strict=True)):
        # Both films of a picture are of one group or next to each other: what is measured on one fold is of that fold.
        other = films[place - 1] if images[place - 1].group == image.group else film[:, ::-1]
        for kind in COMPOSITES:
            picture = composed(kind, film / np.float32(255), other / np.float32(255), draw)
            rows.append((_small(_bytes(picture), STORED), kind, image.group, False))
    for number in range(DRAWN):
        rows.extend((_small(_bytes(drawn(kind, draw)), STORED), kind, f"{kind} {number}", False) for kind in DRAWINGS)
        if number < DRAWN_CHESTS:
            rows.append((_small(_bytes(drawn_chest(draw)), STORED), DRAWN_CHEST, f"{DRAWN_CHEST} {number}", True))
    pixels, kinds, groups, frontal = zip(*rows, strict=True)
    return Pictures(pixels=np.stack(pixels), kinds=np.array(kinds), groups=np.array(groups), frontal=np.array(frontal))


def burned_in(count: int, *, seed: int = 0) -> Bytes:
    """Draw what is burned into films: letters, dates and boxes; shape (count, 64, 64), 255 where something is drawn."""
    draw = np.random.default_rng(seed)
    layers = []
    for _ in range(count):
        layer = lettered(draw, lines=int(draw.integers(1, 9)), size=(7, int(draw.choice([10, 16, 30]))))
        if draw.random() < 0.3:
            y, x = draw.integers(0, SIDE - 20, 2)
            layer[y : y + int(draw.integers(4, 20)), x : x + int(draw.integers(8, 50))] = 1
        layers.append(_small(_bytes(layer), NETWORK_SIDE))
    return np.stack(layers)


def _squashed(film: NDArray[np.float32]) -> NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(film, np.float32))
    return np.asarray(image.resize((FILM_SIDE, FILM_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0), np.float32)


def _bytes(picture: NDArray[np.float32]) -> Bytes:
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def _small(picture: Bytes, side: int) -> Bytes:
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR), np.uint8)
