import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_models.answers import Answers
from cxr_models.catalogue import LabelledImage
from cxr_models.checkpoint import read_card
from cxr_models.errors import InvalidModel
from cxr_models.evaluate import measure
from cxr_models.evaluation_page import Report, find_mistakes, render_page
from cxr_models.history import read_history
from cxr_models.pictures import draw_pictures
from cxr_models.values import LABELS, Prediction
from cxr_models.zoo import find_model

ROWS = {
    "COVID-19": ([0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2]),
    "Normal": ([0.1, 0.8, 0.1], [0.95, 0.03, 0.02], [0.2, 0.6, 0.2]),
    "Pneumonia": ([0.1, 0.1, 0.8], [0.0, 0.6, 0.4], [0.1, 0.2, 0.7]),
}
ALWAYS = {"confusion_matrix", "roc", "reliability", "coverage_accuracy"}
HISTORY = [
    {"epoch": epoch, "train_loss": 1 / (epoch + 1), "valid_loss": 1.0, "valid_acc": 0.5, "valid_balanced_acc": 0.5}
    for epoch in range(3)
]


class Links(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]


def made(folder: Path, *, labels: Sequence[str] = LABELS, abstain_below: float = 0.0) -> Report:
    """Make a report, without pictures yet, of nine small images of two sources."""
    card = replace(read_card(find_model("lenet5")), abstain_below=abstain_below)
    images, said = [], []
    for label in labels:
        for index, row in enumerate(ROWS[label]):
            path = folder / label / f"<b>{index}&.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((40, 30), 60 * index, dtype=np.uint8)).save(path)
            name = f"{label} {index}"
            source = "one" if index else "another"
            images.append(LabelledImage(path=path, label=label, patient=name, source=source, sha256=name, group=name))
            probabilities = dict(zip(LABELS, row, strict=True))
            said.append(Prediction.read(probabilities, thresholds=card.thresholds, abstain_below=abstain_below))
    measured = measure(said, images, labels=LABELS)
    answers = Answers.gather(said, images, labels=LABELS)
    return Report(card=card, measured=measured, answers=answers, images=images, pictures={}, caveats=("<i>Mind</i>",))


def illustrated(report: Report) -> Report:
    pictures = draw_pictures(report.measured, report.answers, card=report.card, history=HISTORY)
    return replace(report, pictures=pictures)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return illustrated(made(tmp_path_factory.mktemp("films")))


def test_every_picture_is_a_png_that_is_large_enough_to_read(report: Report) -> None:
    assert set(report.pictures) == ALWAYS | {"per_source", "learning_curves"}
    for picture in report.pictures.values():
        image = Image.open(io.BytesIO(picture))
        assert image.format == "PNG"
        assert min(image.size) >= 500
        assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_what_there_is_nothing_to_draw_of_is_not_drawn(report: Report) -> None:
    single = replace(report.measured, per_source={"one": report.measured.per_source["one"]})
    assert set(draw_pictures(single, report.answers, card=report.card)) == ALWAYS


def test_the_same_figures_make_the_same_picture(report: Report) -> None:
    assert illustrated(report) == report


def test_a_page_of_one_class_says_what_cannot_be_measured(tmp_path: Path) -> None:
    page = render_page(illustrated(made(tmp_path, labels=("Normal",))))
    assert "not measurable" in page
    assert "% sure" in page


def test_a_page_of_a_model_that_answers_nothing_shows_no_mistake(tmp_path: Path) -> None:
    page = render_page(illustrated(made(tmp_path, abstain_below=0.99)))
    assert "Every wrong answer is undetermined" in page
    assert "% sure" not in page


def test_the_page_needs_no_other_file_no_script_and_no_host(report: Report) -> None:
    links = Links(render_page(report))
    assert len(links.found) == len(report.pictures) + 3
    assert all(link.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for link in links.found)
    assert not links.tags & {"script", "link", "iframe", "object", "form"}
    assert "url(" not in render_page(report)


def test_the_page_tells_the_figures_their_intervals_the_card_and_its_limits(report: Report) -> None:
    page = render_page(report)
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page))
    low, high = report.measured.intervals["accuracy"]
    assert f"{report.measured.accuracy:.3f}" in words
    assert f"{low:.3f} to {high:.3f}; 6 of 9 right" in words
    assert "Research use only" in words
    assert report.card.weights_sha256 in words
    for limit in report.card.limits:
        assert limit.replace("'", "&#39;") in words
    for figures in report.measured.per_class.values():
        assert f"{figures['sensitivity']:.3f}" in words


def test_file_names_and_caveats_are_text_and_never_markup(report: Report) -> None:
    page = render_page(report)
    assert "<i>Mind" not in page
    assert "&lt;i&gt;Mind" in page
    assert "&lt;b&gt;1&amp;.png" in page


def test_the_surest_mistakes_come_first_each_with_its_image(report: Report) -> None:
    mistakes = find_mistakes(report.answers, report.images)
    assert [(each.truth, each.answer, each.confidence) for each in mistakes] == [
        ("Normal", "COVID-19", 0.95),
        ("COVID-19", "Normal", 0.7),
        ("Pneumonia", "Normal", 0.6),
    ]
    assert mistakes[0].file.endswith("Normal/<b>1&.png")
    assert [each.confidence for each in find_mistakes(report.answers, report.images, most=1)] == [0.95]


def test_what_the_model_left_undetermined_is_no_mistake(tmp_path: Path) -> None:
    report = made(tmp_path, abstain_below=0.65)
    assert [each.confidence for each in find_mistakes(report.answers, report.images)] == [0.95, 0.7]


def test_the_history_of_a_training_is_read_and_refused_when_it_is_none(tmp_path: Path) -> None:
    assert read_history(tmp_path) == ()
    (tmp_path / "history.json").write_text(json.dumps(HISTORY))
    assert list(read_history(tmp_path)) == HISTORY
    for wrong in ("{", '{"epoch": 1}', '[{"epoch": "first"}]'):
        (tmp_path / "history.json").write_text(wrong)
        with pytest.raises(InvalidModel, match="history"):
            read_history(tmp_path)
