"""The page of a model's card."""

import json
from dataclasses import replace
from pathlib import Path

from cxr_models.card_page import render_card
from cxr_models.checkpoint import read_card
from cxr_models.zoo import find_model

PAGES = Path(__file__).parents[2] / "docs" / "model_cards"
CARD = read_card(find_model("lenet5"))


def test_the_page_in_the_documentation_is_that_of_the_shipped_card() -> None:
    crossvalidation = json.loads((PAGES / "lenet5" / "crossvalidation.json").read_bytes())
    page = render_card(CARD, crossvalidation=crossvalidation)
    # cxr-models show lenet5 --page --crossvalidation docs/model_cards/lenet5/crossvalidation.json writes it.
    assert (PAGES / "lenet5.md").read_text(encoding="utf-8") == page


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
    page = render_card(replace(CARD, training=training, biases=biases))
    assert "on the validation images" in page
    assert "; biases COVID-19 0.000, Normal -1.411, Pneumonia -0.522 |" in page


def test_figures_of_the_recipe_are_there_only_where_it_was_cross_validated() -> None:
    assert "cxr-models crossvalidate" not in render_card(CARD)
