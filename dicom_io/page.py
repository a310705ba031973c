"""The page that a person looks at: the radiograph, beside it, never over it, what the classifier said, below it its limits."""

from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dicom_io.film import Shown, draw_film
from dicom_io.panel import (
    BLACK,
    FONT,
    GREY,
    LINE_HEIGHT,
    MARGIN,
    PANEL,
    SMALL,
    WHITE,
    draw_legend,
    draw_panel,
    wrapped,
    write_line,
)
from dicom_io.sr_document import readable_time
from dicom_io.values import StudyFindings

__all__ = ["FONT", "HEIGHT", "WIDTH", "Pixels", "Shown", "draw_page"]

WIDTH: Final = 1536
HEIGHT: Final = 1152
"""At least: the page grows with what there is to say, since a sentence that is cut says something else."""
_FILM_WIDTH: Final = 896

Pixels = NDArray[np.uint8]


def draw_page(findings: StudyFindings, shown: Shown, *, made_at: datetime) -> Pixels:
    """Draw the page.

    Returns
    -------
    Pixels
        `HEIGHT` or more, `WIDTH`, 3; RGB. No identity of the patient is drawn.
    """
    panel = draw_panel(findings, shown, width=WIDTH - _FILM_WIDTH)
    limits = _limits(findings, made_at)
    below = _legend(findings, shown)
    above = max(panel.height, HEIGHT - limits.height, _FILM_WIDTH + below.height)
    page = Image.new("RGB", (WIDTH, above + limits.height), BLACK)
    film = draw_film(shown, (_FILM_WIDTH, above - below.height))
    page.paste(film, ((_FILM_WIDTH - film.width) // 2, (above - below.height - film.height) // 2))
    page.paste(below, (0, above - below.height))
    page.paste(PANEL, (_FILM_WIDTH, 0, WIDTH, above))
    page.paste(panel, (_FILM_WIDTH, 0))
    page.paste(limits, (0, above))
    return np.asarray(page)


def _legend(findings: StudyFindings, shown: Shown) -> Image.Image:
    if shown.saliency is None:
        return Image.new("RGB", (_FILM_WIDTH, 0))
    return draw_legend(findings.wording, shown.saliency, width=_FILM_WIDTH)


def _limits(findings: StudyFindings, made_at: datetime) -> Image.Image:
    """Draw what the page is not, what the model knows, what made it and when, over the whole width."""
    words = findings.wording
    known = ", ".join(words.conditions[finding.condition] for finding in findings.images[0].findings)
    model = words.model.format(f"{findings.algorithm.name} {findings.algorithm.version}")
    lines = [
        (line, colour)
        for text, colour in (
            (words.disclaimer, WHITE),
            (words.scope.format(known), WHITE),
            (f"{model}, {readable_time(made_at)}", GREY),
        )
        for line in wrapped(text, SMALL, WIDTH - 2 * MARGIN)
    ]
    strip = Image.new("RGB", (WIDTH, LINE_HEIGHT * len(lines) + MARGIN), PANEL)
    pen = ImageDraw.Draw(strip)
    for number, (line, colour) in enumerate(lines):
        write_line(pen, (MARGIN, MARGIN // 2 + number * LINE_HEIGHT), line, colour)
    return strip
