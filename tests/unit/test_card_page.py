"""The page of a model's card."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cxr_models.card_page import render_card
from cxr_models.checkpoint import read_card
from cxr_models.predictions_file import read_predictions
from cxr_models.recalibrate import recalibrate
from cxr_models.recipe import read_recipe
from cxr_models.table import RECIPES
from cxr_models.values import LABELS
from cxr_models.zoo import find_model

PAGES = Path(__file__).parents[2] / "docs" / "model_cards"
CARD = read_card(find_model("lenet5"))


# The weights of VGG16 do not ship; its card does.
CARDS = {"lenet5": CARD, "vgg16": read_card(PAGES / "vgg16")}


@pytest.mark.parametrize("name", CARDS)
def test_the_page_in_the_documentation_is_that_of_the_card(name: str) -> None:
    crossvalidation = json.loads((PAGES / name / "crossvalidation.json").read_bytes())
    page = render_card(CARDS[name], crossvalidation=crossvalidation)
    # cxr-models show lenet5 --page --crossvalidation docs/model_cards/lenet5/crossvalidation.json writes it; for VGG16
    # in the place of lenet5 docs/model_cards/vgg16.
    assert (PAGES / f"{name}.md").read_text(encoding="utf-8") == page


@pytest.mark.parametrize("name", CARDS)
def test_the_card_is_calibrated_on_the_out_of_fold_predictions_beside_it(name: str) -> None:
    rows = read_predictions(PAGES / name / "out_of_fold.csv")
    again = recalibrate(CARDS[name], rows, recipe=read_recipe(RECIPES[name]))
    assert again.temperature == pytest.approx(CARDS[name].temperature)
    assert again.biases == pytest.approx(CARDS[name].biases)
    assert again.thresholds == CARDS[name].thresholds
    assert again.abstain_below == pytest.approx(CARDS[name].abstain_below)
    assert again.training == CARDS[name].training


def test_vgg16s_predictions_of_the_published_test_are_those_its_card_was_measured_by() -> None:
    rows = read_predictions(PAGES / "vgg16" / "published_test.csv")
    matrix = [[0] * len(LABELS) for _ in LABELS]
    for row in rows:
        called = max(LABELS, key=lambda label: row.probabilities[label])
        matrix[LABELS.index(row.label)][LABELS.index(called)] += 1
    measured = CARDS["vgg16"].metrics["covid19-dataset, test folder"]
    assert measured["confusion_matrix"] == matrix
    off = [[row.probabilities[label] - (label == row.label) for label in LABELS] for row in rows]
    assert measured["brier"] == pytest.approx(sum(each**2 for three in off for each in three) / len(rows), abs=1e-5)


def test_the_page_states_every_limit_and_every_figure_with_its_interval() -> None:
    page = render_card(CARD)
    assert all(f"- {limit}" in page for limit in CARD.limits)
    for name, measured in CARD.metrics.items():
        low, high = measured["intervals"]["accuracy"]
        assert f"| {name} | {measured['n']} | {measured['accuracy']:.3f} ({low:.3f} to {high:.3f}) |" in page


def test_the_page_says_below_which_confidence_a_model_abstains() -> None:
    assert "below a confidence of 0.625" in render_card(replace(CARD, abstain_below=0.625))
    assert "| undetermined | never |" in render_card(replace(CARD, abstain_below=0.0))


def test_the_page_says_what_a_model_is_calibrated_on_and_its_biases() -> None:
    assert "on the 1515 out-of-fold predictions" in render_card(CARD)
    assert "biases" not in render_card(CARD)
    training = {name: value for name, value in CARD.training.items() if name != "calibration"}
    biases = {"COVID-19": 0.0, "Normal": -1.411, "Pneumonia": -0.522}
    assert "0.3332: not calibrated |" in render_card(replace(CARD, training=training))
    training["validation"] = {"COVID-19": 19, "Normal": 59, "Pneumonia": 79}
    page = render_card(replace(CARD, training=training, biases=biases))
    assert "on the validation images" in page
    assert "; biases COVID-19 0.000, Normal -1.411, Pneumonia -0.522 |" in page


def test_figures_of_the_recipe_are_there_only_where_it_was_cross_validated() -> None:
    assert "cxr-models crossvalidate" not in render_card(CARD)
