"""Which images a model has seen in training, so that an evaluation can say so and leave them out."""

from collections.abc import Iterable
from pathlib import Path

from cxr_models.catalogue import LabelledImage, Split

SEEN = "seen.txt"


def write_seen(folder: Path, parts: Split) -> None:
    """Write the SHA-256 of each image file of training and validation into the model folder, one a line, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    hashes = sorted({image.sha256 for image in parts.train + parts.val})
    (folder / SEEN).write_text("".join(f"{each}\n" for each in hashes), encoding="ascii")


def read_seen(folder: Path) -> frozenset[str]:
    """Return the SHA-256 of each image the model was trained or validated on; empty where the folder does not tell."""
    path = folder / SEEN
    return frozenset(path.read_text(encoding="ascii").split()) if path.is_file() else frozenset()


def find_seen(images: Iterable[LabelledImage], hashes: frozenset[str]) -> frozenset[str]:
    """Return the groups of which the model has seen an image: another film of a patient it knows is no new case."""
    return frozenset(image.group for image in images if image.sha256 in hashes)
