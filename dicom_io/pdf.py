"""The pages of the PDF document, with text that can be searched and copied."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from reportlab import rl_config
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Image, Paragraph, SimpleDocTemplate, Spacer, Table

from dicom_io.codes import Assessment, Presence
from dicom_io.film import Shown, draw_film
from dicom_io.panel import FONT
from dicom_io.sr_document import readable_time
from dicom_io.uids import MANUFACTURER
from dicom_io.values import ClassFinding, ImageFindings, StudyFindings
from dicom_io.wording import Wording

_MARGIN: Final = 18 * mm
_FRAME_PADDING: Final = 6
_WIDTH: Final = A4[0] - 2 * _MARGIN
_FILM: Final = (88 * mm, 104 * mm)
_BESIDE: Final = _WIDTH - _FILM[0] - 12
_PIXELS_PER_POINT: Final = 3
_QUALITY: Final = 85
"""Of the JPEG picture; the radiograph itself is in the study."""

_INK: Final = HexColor(0x14181E)
_GREY: Final = HexColor(0x5A616B)
_LINE: Final = HexColor(0xC8CDD4)
_TRACK: Final = HexColor(0xE3E6EA)
_ORANGE: Final = HexColor(0xE69F00)
_PALE_ORANGE: Final = HexColor(0xFBE8BF)
_BLUE: Final = HexColor(0x0072B2)
_PLAIN, _BOLD = "Vera", "VeraBd"


def write_pdf(findings: StudyFindings, shown: Shown, views: Sequence[str], *, made_at: datetime) -> bytes:
    """Write the document, A4.

    Parameters
    ----------
    views
        View Position (0018,5101) of each image, perhaps empty.

    Returns
    -------
    bytes
        A PDF file; equal arguments give equal bytes. No identity of the patient is in it.
    """
    _prepare_reportlab()
    words, file = findings.wording, BytesIO()

    def footer(canvas: Canvas, _: object) -> None:
        canvas.setFont(_PLAIN, 8)
        canvas.setFillColor(_GREY)
        canvas.drawString(_MARGIN, _MARGIN - 6, words.disclaimer)
        canvas.drawRightString(A4[0] - _MARGIN, _MARGIN - 6, words.page.format(canvas.getPageNumber()))

    document = SimpleDocTemplate(
        file,
        pagesize=A4,
        leftMargin=_MARGIN - _FRAME_PADDING,
        rightMargin=_MARGIN - _FRAME_PADDING,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN + 10,
        title=words.document,
        author=MANUFACTURER,
        subject=words.disclaimer,
        lang=words.code.value,
        invariant=1,
    )
    story = [
        _text(words.document, size=15, font=_BOLD),
        _text(words.disclaimer),
        Spacer(0, 8),
        _first_sight(findings, shown),
        *_section(words.all_images, [_table(findings, views)]),
        *_corrections(findings),
        *_section(words.parameters, map(_text, _parameters(findings, made_at))),
        *_section(words.limits, map(_text, _limits(words, findings.images[0]))),
    ]
    document.build(story, onFirstPage=footer, onLaterPages=footer)
    return file.getvalue()


def _first_sight(findings: StudyFindings, shown: Shown) -> Table:
    """Show the radiograph, and beside it the level, the impression and the probabilities."""
    words, image = findings.wording, findings.images[shown.number]
    which = [_text(words.shown.format(shown.number + 1, len(findings.images)))] if len(findings.images) > 1 else []
    beside = [
        _text(words.triage, colour=_GREY),
        Spacer(0, 2),
        _level(findings),
        Spacer(0, 6),
        _text(findings.impression, size=11),
        Spacer(0, 8),
        *which,
        _text(words.probability, colour=_GREY),
        *(_Bar(words, image, finding) for finding in image.findings),
    ]
    table = Table([[_picture(shown), beside]], hAlign="LEFT", colWidths=[_FILM[0] + 12, _BESIDE])
    table.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP")])
    for side in ("LEFT", "RIGHT", "TOP", "BOTTOM"):
        table.setStyle([(f"{side}PADDING", (0, 0), (-1, -1), 0)])
    return table


def _picture(shown: Shown) -> Image:
    film = draw_film(shown, (round(_FILM[0] * _PIXELS_PER_POINT), round(_FILM[1] * _PIXELS_PER_POINT)))
    encoded = BytesIO()
    film.save(encoded, "JPEG", quality=_QUALITY)
    return Image(encoded, film.width / _PIXELS_PER_POINT, film.height / _PIXELS_PER_POINT, hAlign="LEFT")


def _level(findings: StudyFindings) -> Table:
    flagged = findings.assessment not in {Assessment.NORMAL, Assessment.UNDETERMINED}
    colour = _ORANGE if flagged else _GREY if findings.assessment is Assessment.UNDETERMINED else _BLUE
    level = Table([[_text(findings.wording.levels[findings.assessment], size=17, font=_BOLD)]], colWidths=[_BESIDE])
    level.setStyle(
        [("BOX", (0, 0), (0, 0), 2, colour), ("TOPPADDING", (0, 0), (0, 0), 4), ("BOTTOMPADDING", (0, 0), (0, 0), 9)]
    )
    if flagged:
        level.setStyle([("BACKGROUND", (0, 0), (0, 0), colour)])
    return level


class _Bar(Flowable):
    """One class: its name, its probability, a bar with a mark at the threshold, and what is said of it."""

    def __init__(self, words: Wording, image: ImageFindings, finding: ClassFinding) -> None:
        super().__init__()
        self.width, self.height = _BESIDE, 42
        self._finding = finding
        self._name = words.conditions[finding.condition]
        self._said = words.presences[image.presence(finding)]
        self._threshold = _threshold(words, finding)
        calm = _GREY if image.presence(finding) is Presence.UNDETERMINED else _BLUE
        self._colour = _ORANGE if finding.raises_concern else calm

    def draw(self) -> None:
        """Draw it; reportlab calls this with the origin at the lower left corner."""
        canvas = self.canv
        canvas.setFillColor(_INK)
        canvas.setFont(_BOLD, 10)
        canvas.drawString(0, 31, self._name)
        canvas.drawRightString(self.width, 31, _percent(self._finding.probability))
        canvas.setFont(_PLAIN, 8)
        canvas.drawString(0, 8, self._said)
        canvas.drawRightString(self.width, 8, self._threshold)
        canvas.setFillColor(_TRACK)
        canvas.rect(0, 18, self.width, 8, stroke=0, fill=1)
        canvas.setFillColor(self._colour)
        canvas.rect(0, 18, self.width * self._finding.probability, 8, stroke=0, fill=1)
        if self._finding.threshold is not None:
            canvas.setFillColor(_INK)
            canvas.rect(self.width * self._finding.threshold - 0.75, 16, 1.5, 12, stroke=0, fill=1)


def _table(findings: StudyFindings, views: Sequence[str]) -> Table:
    """List every class of every image with its threshold and what is said of it; what raises concern is shaded."""
    words = findings.wording
    columns = max(len(image.findings) for image in findings.images)
    rows: list[list[Any]] = []
    style: list[Any] = [("LINEBELOW", (0, 0), (-1, -1), 0.5, _LINE), ("VALIGN", (0, 0), (-1, -1), "TOP")]
    for row, (image, view) in enumerate(zip(findings.images, views, strict=True)):
        cells: list[Any] = [_text(words.image.format(row + 1) + (f" ({view})" if view else ""))]
        for column, finding in enumerate(image.findings, start=1):
            said = f"{_percent(finding.probability)}, {words.presences[image.presence(finding)]}"
            name, threshold = words.conditions[finding.condition], _threshold(words, finding)
            cells.append([_text(name, font=_BOLD), _text(said), _text(threshold, colour=_GREY)])
            if finding.raises_concern:
                style.append(("BACKGROUND", (column, row), (column, row), _PALE_ORANGE))
        rows.append([*cells, *[""] * (columns + 1 - len(cells))])
    table = Table(rows, colWidths=[_WIDTH * 0.19, *[_WIDTH * 0.81 / columns] * columns])
    table.setStyle(style)
    return table


def _corrections(findings: StudyFindings) -> list[Flowable]:
    told = (findings.wording.told(image.correction, number=number) for number, image in enumerate(findings.images))
    return [Spacer(0, 6), *map(_text, sentences)] if (sentences := [*filter(None, told)]) else []


def _parameters(findings: StudyFindings, made_at: datetime) -> list[str]:
    algorithm = findings.algorithm
    name = findings.wording.model.format(f"{algorithm.name} {algorithm.version}")
    return [f"{name}, {algorithm.manufacturer}", readable_time(made_at), *algorithm.parameters]


def _limits(words: Wording, image: ImageFindings) -> list[str]:
    known = ", ".join(words.conditions[finding.condition] for finding in image.findings)
    return [words.disclaimer, words.scope.format(known), words.not_ruled_out]


def _section(title: str, content: Iterable[Flowable]) -> list[Flowable]:
    return [Spacer(0, 10), _text(title, size=11, font=_BOLD), Spacer(0, 2), *content]


def _text(text: str, *, size: float = 9, font: str = _PLAIN, colour: Color = _INK) -> Paragraph:
    # What is one word too long for its line, such as a hash, is broken rather than cut.
    style = ParagraphStyle("", fontName=font, fontSize=size, leading=size * 1.3, textColor=colour, splitLongWords=1)
    return Paragraph(escape(text), style)


def _threshold(words: Wording, finding: ClassFinding) -> str:
    return "" if finding.threshold is None else words.threshold.format(_percent(finding.threshold))


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %"


@cache
def _prepare_reportlab() -> None:
    rl_config.useA85 = 0  # its streams as text would be a quarter longer, and take half of the time
    for name in (_PLAIN, _BOLD):
        pdfmetrics.registerFont(TTFont(name, Path(FONT).with_name(f"{name}.ttf")))
