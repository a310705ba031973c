"""The page that a person looks at: the radiograph, and beside it, never over it, what the classifier said.

Drawn for a viewer that shows it at any size: the smallest letters are still 9 pixels high where the page is 512 pixels wide.
Blue and orange (Okabe and Ito 2008) are told apart by every kind of colour vision, and no colour says what words do not.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import reportlab
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dicom_io.codes import Assessment
from dicom_io.values import ClassFinding, ImageFindings, StudyFindings
from dicom_io.wording import Wording

FONT: Final = str(Path(reportlab.__file__).parent / "fonts" / "Vera.ttf")
"""Pillow's own has no accents. Bitstream Vera comes with the library that writes our PDF documents."""
WIDTH: Final = 1536
HEIGHT: Final = 1024
_IMAGE_WIDTH: Final = 960
_MARGIN: Final = 32
_LEFT: Final = _IMAGE_WIDTH + _MARGIN
_RIGHT: Final = WIDTH - _MARGIN

_SMALL: Final = 27
_BODY: Final = 32
_LARGE: Final = 60
_LINE_HEIGHT: Final = 36
_BAR_HEIGHT: Final = 122

_BLACK: Final = (0, 0, 0)
_PANEL: Final = (20, 24, 30)
_TRACK: Final = (58, 64, 74)
_GREY: Final = (168, 176, 188)
_WHITE: Final = (240, 243, 247)
_ORANGE: Final = (230, 159, 0)
_BLUE: Final = (86, 180, 233)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The radiograph on the page."""

    number: int
    """Which image of the findings, from 0."""
    pixels: NDArray[np.float32]
    """Rows, columns; 0 (black) to 1 (white) as displayed."""


def draw_page(findings: StudyFindings, shown: Shown, *, made_at: datetime) -> Pixels:
    """Draw the page.

    Returns
    -------
    Pixels
        `HEIGHT`, `WIDTH`, 3; RGB. No identity of the patient is drawn.
    """
    page = Image.new("RGB", (WIDTH, HEIGHT), _BLACK)
    page.paste(*_fitted(shown.pixels))
    pen = ImageDraw.Draw(page)
    pen.rectangle((_IMAGE_WIDTH, 0, WIDTH, HEIGHT), fill=_PANEL)
    _footer(pen, findings, made_at)
    y = _headline(pen, findings)
    y = _paragraph(pen, y + 20, findings.impression)
    words = findings.wording
    which = f" ({shown.number + 1}/{len(findings.images)})" if len(findings.images) > 1 else ""
    pen.text((_LEFT, y + 24), words.probability + which, font=_font(_SMALL), fill=_GREY)
    _bars(pen, y + 68, findings.images[shown.number], words)
    return np.asarray(page)


def _fitted(pixels: NDArray[np.float32]) -> tuple[Image.Image, tuple[int, int]]:
    """The radiograph in its own aspect ratio, as large as its part of the page, and where it goes."""
    image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    scale = min(_IMAGE_WIDTH / image.width, HEIGHT / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    left, top = (_IMAGE_WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2
    return image.resize(size, Image.Resampling.LANCZOS).convert("RGB"), (left, top)


def _headline(pen: ImageDraw.ImageDraw, findings: StudyFindings) -> int:
    """Draw the triage level; return where the next line goes."""
    pen.text((_LEFT, 28), findings.wording.triage, font=_font(_SMALL), fill=_GREY)
    level = findings.wording.levels[findings.assessment]
    flagged = findings.assessment not in {Assessment.NORMAL, Assessment.UNDETERMINED}
    size = _fitting(level, _LARGE, _RIGHT - _LEFT - 36)
    box = (_LEFT, 72, _RIGHT, 72 + 92)
    pen.rounded_rectangle(box, radius=10, fill=_ORANGE if flagged else None, outline=_ORANGE if flagged else _BLUE, width=4)
    middle = ((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)
    pen.text(middle, level, font=_font(size), fill=_BLACK if flagged else _BLUE, anchor="mm", stroke_width=1)
    return box[3]


def _bars(pen: ImageDraw.ImageDraw, y: int, image: ImageFindings, words: Wording) -> None:
    """Draw the classes in their order."""
    for finding in image.findings:
        _bar(pen, y, finding, words, said=words.presences[image.presence(finding)])
        y += _BAR_HEIGHT


def _bar(pen: ImageDraw.ImageDraw, y: int, finding: ClassFinding, words: Wording, *, said: str) -> None:
    """Draw one class: its name, its probability, a bar with a mark at the threshold, and what is said of it."""
    colour = _ORANGE if finding.raises_concern else _BLUE
    percent = f"{finding.probability * 100:.1f} %"
    room = _RIGHT - _LEFT - round(_font(_BODY).getlength(percent)) - 16
    pen.text((_LEFT, y), _shortened(words.conditions[finding.condition], _BODY, room), font=_font(_BODY), fill=_WHITE)
    pen.text((_RIGHT, y), percent, font=_font(_BODY), fill=_WHITE, anchor="ra")
    top, bottom = y + 44, y + 68
    pen.rectangle((_LEFT, top, _RIGHT, bottom), fill=_TRACK)
    pen.rectangle((_LEFT, top, _along(finding.probability), bottom), fill=colour)
    if finding.threshold is not None:
        mark = _along(finding.threshold)
        pen.line((mark, top - 7, mark, bottom + 7), fill=_BLACK, width=9)
        pen.line((mark, top - 7, mark, bottom + 7), fill=_WHITE, width=5)
        said += f", {words.threshold.format(f'{finding.threshold * 100:.1f} %')}"
    pen.text((_LEFT, bottom + 6), said, font=_font(_SMALL), fill=colour)


def _footer(pen: ImageDraw.ImageDraw, findings: StudyFindings, made_at: datetime) -> None:
    """Draw what made the page, when, and its limits."""
    offset = made_at.strftime("%z")
    model = _shortened(
        findings.wording.model.format(f"{findings.algorithm.name} {findings.algorithm.version}"), _SMALL, _RIGHT - _LEFT
    )
    time = f"{made_at:%Y-%m-%d %H:%M} UTC{offset[:3]}:{offset[3:5]}"
    limits = _wrapped(findings.wording.disclaimer, _SMALL, _RIGHT - _LEFT)
    y = HEIGHT - 24 - _LINE_HEIGHT * (2 + len(limits))
    for line, colour in [(model, _GREY), (time, _GREY), *((line, _WHITE) for line in limits)]:
        pen.text((_LEFT, y), line, font=_font(_SMALL), fill=colour)
        y += _LINE_HEIGHT


def _paragraph(pen: ImageDraw.ImageDraw, y: int, text: str) -> int:
    """Draw at most five lines; return where the next one goes."""
    lines = _wrapped(text, _BODY, _RIGHT - _LEFT)
    if len(lines) > 5:
        lines = [*lines[:4], _shortened(f"{lines[4]} {lines[5]}", _BODY, _RIGHT - _LEFT)]
    for line in lines:
        pen.text((_LEFT, y), line, font=_font(_BODY), fill=_WHITE)
        y += round(_BODY * 1.3)
    return y


def _along(share: float) -> int:
    return _LEFT + round(share * (_RIGHT - _LEFT))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT, size)


def _fitting(text: str, size: int, width: int) -> int:
    """The largest size, at most `size`, at which the text is no wider than `width`."""
    return min(size, int(size * width / max(1.0, _font(size).getlength(text))))


def _shortened(text: str, size: int, width: int) -> str:
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def _wrapped(text: str, size: int, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_shortened(word, size, width))
    return lines
