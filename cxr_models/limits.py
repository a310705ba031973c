"""What a model card says a model is for and cannot do, drawn from what the model was trained on."""

from collections import defaultdict
from collections.abc import Sequence

from cxr_models.catalogue import LabelledImage
from cxr_models.values import LABELS

INTENDED_USE = (
    "Research and demonstration: sorting frontal chest radiographs for reading order. "
    "Not a medical device; a radiologist reads every image."
)

OF_SOURCES = {
    "covid19-dataset": "Images of covid19-dataset are of mixed, mostly unknown origin and age, reduced to patches of a "
    "few grey values; patients are not known.",
    "covid-nih-mix": "Normal and Pneumonia of covid-nih-mix are from NIH ChestX-ray8, whose labels were mined from reports.",
    "kermany": "All images of kermany are of children; a child's chest says little about an adult's.",
}
"""For the public collections, by folder name, what their publications tell."""


def state_limits(images: Sequence[LabelledImage]) -> tuple[str, ...]:
    """Return the limits of a model that was trained on these images, a sentence or two each."""
    labels: dict[str, set[str]] = defaultdict(set)
    for image in images:
        labels[image.source].add(image.label)
    trained = f"Trained on {len(images)} images of these collections: {', '.join(sorted(labels))}."
    limits = [
        f"{trained} Other hospitals, scanners and films were never seen; figures measured here do not carry over to them.",
        "Three labels only: whatever else a film shows is forced into one of them.",
    ]
    for source in sorted(labels):
        missing = [label for label in LABELS if label not in labels[source]]
        if missing:
            limits.append(
                f"{source} has no {' or '.join(missing)}: the look of that collection itself speaks against it (shortcut)."
            )
    if sum("COVID-19" in there for there in labels.values()) > 1:
        limits.append(
            "COVID-19 collections overlap: copies, scaled or cropped by up to 15 % a side, were kept on one side of the split; "
            "tighter crops, turned copies and other films of one patient may stand on both."
        )
    return (*limits, *(OF_SOURCES[source] for source in sorted(labels) if source in OF_SOURCES))
