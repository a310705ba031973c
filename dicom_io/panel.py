"""The column of words and bars beside the radiograph, written from the top down and as long as what there is to say.

Letters are as high as 9 pixels where a viewer shows the page 512 pixels wide. Blue and orange (Okabe and Ito 2008) are told
apart by every kind of colour vision, and no colour says what words do not.
"""

from functools import cache
from pathlib import Path
from typing import Final

import reportlab
from PIL import Image, ImageDraw, ImageFont

from dicom_io.codes import Assessment, Condition, Presence
from dicom_io.film import Shown, draw_scale
from dicom_io.values import ClassFinding, ImageFindings, Saliency, StudyFindings
from dicom_io.wording import Wording

FONT: Final = str(Path(reportlab.__file__).parent / "fonts" / "Vera.ttf")
"""Pillow's own has no accents. Bitstream Vera comes with the library that writes our PDF documents."""

MARGIN: Final = 24
SMALL: Final = 37
"""Of the smallest letters; a capital is 27 pixels high, a third of that on a page of 512 pixels."""
LINE_HEIGHT: Final = 46
_BODY: Final = 40
_LARGE: Final = 60
_GAP: Final = 20
_LONGEST: Final = 4096
_UNBROKEN: Final = "\N{NO-BREAK SPACE}"
_MOST_OTHERS: Final = 6

BLACK: Final = (0, 0, 0)
PANEL: Final = (20, 24, 30)
GREY: Final = (168, 176, 188)
WHITE: Final = (240, 243, 247)
_TRACK: Final = (58, 64, 74)
_ORANGE: Final = (230, 159, 0)
_BLUE: Final = (86, 180, 233)

Colour = tuple[int, int, int]


def draw_panel(findings: StudyFindings, shown: Shown, *, width: int) -> Image.Image:
    """Draw triage level, impression, the probabilities on the shown image, and the other images in brief."""
    words, image = findings.wording, findings.images[shown.number]
    column = _Column(width)
    column.text(words.triage, GREY)
    column.headline(words.levels[findings.assessment], findings.assessment)
    column.paragraph(findings.impression, WHITE)
    if findings.assessment is Assessment.NORMAL:
        column.paragraph(words.not_ruled_out, WHITE)
    column.gap()
    if len(findings.images) > 1:
        column.text(words.shown.format(shown.number + 1, len(findings.images)), WHITE)
    if corrected := words.told(image.correction, number=shown.number):
        column.paragraph(corrected, WHITE)
        column.gap()
    column.text(words.probability, GREY)
    for finding in image.findings:
        said = words.presences[image.presence(finding)]
        threshold = "" if finding.threshold is None else words.threshold.format(_percent(finding.threshold))
        column.bar(finding, _colour(image, finding), name=words.conditions[finding.condition], below=(said, threshold))
    _others(column, findings, shown.number)
    return column.cut()


def draw_legend(words: Wording, saliency: Saliency, *, width: int) -> Image.Image:
    """Draw which condition a map speaks for, its colours, and what it is not."""
    column = _Column(width)
    column.paragraph(words.spoke_for.format(words.conditions[saliency.condition]), WHITE)
    if saliency.map.any():
        column.scale(words.little, words.most)
    else:
        column.paragraph(words.nothing_spoke, WHITE)
    column.paragraph(words.caution, WHITE)
    return column.cut()


def wrapped(text: str, size: int, width: int) -> list[str]:
    """Break a text into lines no wider than `width` pixels: never before a %, within a word only where the word is wider."""
    font, lines = _font(size), [""]
    for word in text.replace(" %", _UNBROKEN + "%").split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            lines += [""] if font.getlength(lines[-1] + letter) > width else []
            lines[-1] += letter
    return [line.replace(_UNBROKEN, " ") for line in lines]


def write_line(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: Colour) -> None:
    """Write small letters, the place their upper left corner."""
    pen.text(place, text, font=_font(SMALL), fill=colour)


def _others(column: "_Column", findings: StudyFindings, shown: int) -> None:
    """Write a row for each image that is not shown: what is flagged on it, else its most probable abnormal class."""
    words = findings.wording
    others = [(place, image) for place, image in enumerate(findings.images) if place != shown]
    if not others:
        return
    others.sort(key=lambda other: not _is_flagged(other[1]))
    column.gap()
    column.text(words.others, GREY)
    for place, image in others[:_MOST_OTHERS]:
        name = words.image.format(place + 1)
        for finding in _telling(image):
            said = f"{words.conditions[finding.condition]} {_percent(finding.probability)}"
            if image.presence(finding) is Presence.UNDETERMINED:
                said = words.presences[Presence.UNDETERMINED]
            column.row(name, said, _colour(image, finding), filled=finding.raises_concern)
            name = ""
    if len(others) > _MOST_OTHERS:
        column.text(words.more.format(len(others) - _MOST_OTHERS), WHITE)


def _is_flagged(image: ImageFindings) -> bool:
    return any(finding.raises_concern for finding in image.findings)


def _telling(image: ImageFindings) -> list[ClassFinding]:
    flagged = [finding for finding in image.findings if finding.raises_concern]
    abnormal = [finding for finding in image.findings if finding.condition is not Condition.NORMAL] or list(image.findings)
    return flagged or [max(abnormal, key=lambda finding: finding.probability)]


def _colour(image: ImageFindings, finding: ClassFinding) -> Colour:
    if finding.raises_concern:
        return _ORANGE
    return GREY if image.presence(finding) is Presence.UNDETERMINED else _BLUE


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT, size)


class _Column:
    """A pen that moves down."""

    def __init__(self, width: int) -> None:
        self._canvas = Image.new("RGB", (width, _LONGEST), PANEL)
        self._pen = ImageDraw.Draw(self._canvas)
        self._right = width - MARGIN
        self._y = MARGIN - 6

    def cut(self) -> Image.Image:
        """What was written, with a margin below."""
        return self._canvas.crop((0, 0, self._canvas.width, min(self._y + MARGIN, _LONGEST)))

    def gap(self) -> None:
        self._y += _GAP

    def text(self, text: str, colour: Colour) -> None:
        write_line(self._pen, (MARGIN, self._y), text, colour)
        self._y += LINE_HEIGHT + 4

    def paragraph(self, text: str, colour: Colour) -> None:
        for line in wrapped(text, SMALL, self._right - MARGIN):
            write_line(self._pen, (MARGIN, self._y), line, colour)
            self._y += LINE_HEIGHT

    def headline(self, level: str, assessment: Assessment) -> None:
        flagged = assessment not in {Assessment.NORMAL, Assessment.UNDETERMINED}
        colour = _ORANGE if flagged else GREY if assessment is Assessment.UNDETERMINED else _BLUE
        room = self._right - MARGIN
        size = min(_LARGE, int(_LARGE * (room - 36) / _font(_LARGE).getlength(level)))
        box = (MARGIN, self._y + 6, self._right, self._y + 98)
        self._pen.rounded_rectangle(box, radius=10, fill=colour if flagged else None, outline=colour, width=4)
        middle = (MARGIN + room // 2, self._y + 52)
        ink = BLACK if flagged else colour
        self._pen.text(middle, level, font=_font(size), fill=ink, anchor="mm", stroke_width=1)
        self._y += 98 + _GAP

    def bar(self, finding: ClassFinding, colour: Colour, *, name: str, below: tuple[str, str]) -> None:
        """Draw one class: its name, its probability, a bar with a mark at the threshold, and what is said of it."""
        pen, top, bottom = self._pen, self._y + 54, self._y + 78
        pen.text((MARGIN, self._y), name, font=_font(_BODY), fill=WHITE)
        pen.text((self._right, self._y), _percent(finding.probability), font=_font(_BODY), fill=WHITE, anchor="ra")
        pen.rectangle((MARGIN, top, self._right, bottom), fill=_TRACK)
        if finding.probability > 0:
            pen.rectangle((MARGIN, top, self._along(finding.probability), bottom), fill=colour)
        if finding.threshold is not None:
            mark = self._along(finding.threshold)
            pen.line((mark, top - 7, mark, bottom + 7), fill=BLACK, width=9)
            pen.line((mark, top - 7, mark, bottom + 7), fill=WHITE, width=5)
        write_line(pen, (MARGIN, bottom + 8), below[0], colour)
        pen.text((self._right, bottom + 8), below[1], font=_font(SMALL), fill=GREY, anchor="ra")
        self._y = bottom + 8 + LINE_HEIGHT + 14

    def row(self, name: str, said: str, colour: Colour, *, filled: bool) -> None:
        write_line(self._pen, (MARGIN, self._y), name, WHITE)
        if filled:
            left = self._right - 12 - _font(SMALL).getlength(said)
            self._pen.rounded_rectangle((left - 12, self._y - 2, self._right, self._y + 46), radius=6, fill=colour)
            self._pen.text((left, self._y), said, font=_font(SMALL), fill=BLACK)
        else:
            self._pen.text((self._right, self._y), said, font=_font(SMALL), fill=colour, anchor="ra")
        self._y += LINE_HEIGHT + 8

    def scale(self, little: str, most: str) -> None:
        """Draw the colours of the map between the words for its two ends."""
        font, top = _font(SMALL), self._y + 6
        left, right = MARGIN + round(font.getlength(little)) + 20, self._right - round(font.getlength(most)) - 20
        write_line(self._pen, (MARGIN, top), little, WHITE)
        self._pen.text((self._right, top), most, font=font, fill=WHITE, anchor="ra")
        self._canvas.paste(draw_scale((right - left, 32)), (left, top + 6))
        self._y = top + LINE_HEIGHT + 8

    def _along(self, share: float) -> int:
        return MARGIN + round(share * (self._right - MARGIN))
