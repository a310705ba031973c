"""Which images a model has seen in training, so that an evaluation can say so and leave them out."""

from pathlib import Path

from cxr_models.catalogue import Split

SEEN = "seen.txt"


def write_seen(folder: Path, parts: Split) -> None:
    """Write the SHA-256 of each image file into the model folder, one a line, sorted.

    What was left out of training, because another image of its group is measured on, is among them: it would count that film
    or patient twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    measured = {image.sha256 for image in parts.test}
    hashes = sorted({image.sha256 for image in parts.train + parts.val + parts.dropped} - measured)
    (folder / SEEN).write_text("".join(f"{each}\n" for each in hashes), encoding="ascii")


def read_seen(folder: Path) -> frozenset[str]:
    """Return the SHA-256 of each image the model was trained or validated on; empty where the folder does not tell."""
    path = folder / SEEN
    return frozenset(path.read_text(encoding="ascii").split()) if path.is_file() else frozenset()
