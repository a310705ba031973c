"""How good a model is, as one HTML page that needs no other file, no script and no host."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from cxr_models.answers import Answers
from cxr_models.catalogue import LabelledImage
from cxr_models.evaluate import ON_A_CARD, Evaluation
from cxr_models.images import read_radiograph
from cxr_models.values import Card

MISTAKES = 12
THUMBNAIL_SIDE = 176


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the page tells.

    Attributes
    ----------
    answers, images
        In the same order.
    pictures
        PNG files by their names; see `cxr_models.pictures`.
    caveats
        What a reader must know before the figures, a sentence each.
    """

    card: Card
    measured: Evaluation
    answers: Answers
    images: Sequence[LabelledImage]
    pictures: Mapping[str, bytes]
    caveats: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A wrong answer; `file` are the last parts of the image's path, `thumbnail` is a JPEG in base64."""

    file: str
    truth: str
    answer: str
    confidence: float
    thumbnail: str


def render_page(report: Report) -> str:
    """Return the page.

    Raises
    ------
    UnreadableImage
        An image that is shown has gone since it was measured.
    """
    templates = Environment(loader=PackageLoader("cxr_models"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return templates.get_template("evaluation.html").render(
        card=report.card,
        measured=report.measured,
        caveats=report.caveats,
        pictures={name: b64encode(picture).decode() for name, picture in report.pictures.items()},
        coverages=[row for row in report.measured.coverage_accuracy if row["coverage"] in ON_A_CARD],
        mistakes=find_mistakes(report.answers, report.images),
        wrong=int((~report.answers.right).sum()),
    )


def find_mistakes(answers: Answers, images: Sequence[LabelledImage], *, most: int = MISTAKES) -> list[Mistake]:
    """Return the wrong answers that the model was surest of, the surest first."""
    wrong = np.flatnonzero(~answers.right & ~answers.undetermined)
    surest = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:most]
    return [
        Mistake(
            file="/".join(images[index].path.parts[-3:]),
            truth=answers.labels[answers.truth[index]],
            answer=answers.labels[answers.named[index]],
            confidence=float(answers.confidence[index]),
            thumbnail=_thumbnail(images[index]),
        )
        for index in surest
    ]


def _thumbnail(image: LabelledImage) -> str:
    small = Image.fromarray((read_radiograph(image.path) * 255).round().astype(np.uint8))
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    content = BytesIO()
    small.save(content, format="JPEG", quality=85)
    return b64encode(content.getvalue()).decode()
