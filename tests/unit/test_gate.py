"""The gate's folder, what it sees, how its errors are counted, and how it is trained."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_models import cli, gate_crossvalidate, gate_data
from cxr_models.errors import InvalidModel, UnreadableImage
from cxr_models.gate import FOLDER, FrontalGate, GateThresholds, looks, read_gate_card, standardised
from cxr_models.gate_composites import COMPOSITES, FILM_SIDE, composed
from cxr_models.gate_data import KINDS
from cxr_models.gate_drawings import DRAWINGS, drawn
from cxr_models.gate_measure import Seen, measure, thresholds_of
from cxr_models.gate_page import render_gate_card
from cxr_models.zoo import shipped_models
from tests.factories import radiograph, write_films

PAGE = Path(__file__).parents[2] / "docs/model_cards/frontal_gate.md"


@pytest.fixture(scope="module")
def gate() -> FrontalGate:
    return FrontalGate.load()


def test_the_gate_that_ships_is_small_described_and_no_classifier() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 500_000
    assert read_gate_card().name not in shipped_models()
    # cxr-models gate show --page writes it.
    assert PAGE.read_text(encoding="utf-8") == render_gate_card(read_gate_card())


def test_weights_that_the_card_does_not_describe_are_refused(tmp_path: Path) -> None:
    for file in FOLDER.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert FrontalGate.load(tmp_path).card == read_gate_card()
    weights = bytearray((FOLDER / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(weights)
    with pytest.raises(InvalidModel, match="SHA-256"):
        FrontalGate.load(tmp_path)
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(InvalidModel, match="not a gate's card"):
        FrontalGate.load(tmp_path)


@pytest.mark.parametrize("factor", [1.0, 0.3])
@pytest.mark.parametrize("gamma", [0.7, 1.0, 1.5])
def test_a_chest_is_one_however_it_is_exposed(gate: FrontalGate, factor: float, gamma: float) -> None:
    look = gate.look((factor * (radiograph() / 255) ** gamma).astype(np.float32))
    assert look.frontal > gate.card.thresholds.refuse
    assert look.quarter_turns == 0
    assert look.inverted < 0.5


def test_the_same_picture_looks_the_same_twice_and_what_is_none_is_refused(gate: FrontalGate) -> None:
    picture = (radiograph() / 255).astype(np.float32)
    assert gate.look(picture) == gate.look(picture)
    for broken in (np.full((200, 200), np.nan), np.zeros((0, 5)), np.zeros((4, 4, 4))):
        with pytest.raises(UnreadableImage):
            gate.look(broken.astype(np.float32))
    gate.look(np.zeros((200, 200), np.float32))


def test_logits_are_read_in_their_order() -> None:
    (look,) = looks(torch.tensor([[9.0, -9.0, 0.0, 0.0, 0.0, 0.0, 9.0]]))
    assert (look.quarter_turns, look.mirrored) == (3, 0.5)
    assert min(look.frontal, look.turn) > 0.99
    assert look.inverted < 0.01


def test_contrast_and_level_do_not_matter_and_inversion_is_a_change_of_sign() -> None:
    pixels = torch.rand(3, 1, 64, 64)
    torch.testing.assert_close(standardised(pixels), standardised(0.2 * pixels + 0.5), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardised(1 - pixels), -standardised(pixels), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_anew_each_time_and_the_same_by_the_same_draw(kind: str) -> None:
    def make(seed: int) -> np.ndarray:
        draw, film = np.random.default_rng(seed), np.random.default_rng(7).random((2, FILM_SIDE, FILM_SIDE), np.float32)
        return drawn(kind, draw) if kind in DRAWINGS else composed(kind, film[0], film[1], draw)

    first, again, other = make(1), make(1), make(2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.shape == (128, 128)
    assert first.min() >= 0
    assert first.max() <= 1
    assert set(KINDS) == {*DRAWINGS, *COMPOSITES}


def _seen(films: int = 1000, others: int = 1000) -> Seen:
    count, is_film = films + others, np.arange(films + others) < films
    return Seen(
        kinds=np.where(is_film, "hospital", "limb"),
        groups=np.arange(count).astype(str),
        is_film=is_film,
        unseen=np.arange(count) >= count - 100,
        frontal=np.where(is_film, 0.8, 0.1) + np.arange(count) % films / (10 * films),
        spoiled=np.full(count, 0.9),
        upright=np.where(np.arange(count) == 0, 0.01, 0.999),
        inverted=np.zeros(count),
        mirrored=np.zeros(count),
        corrected=np.ones(count),
    )


def test_thresholds_let_hardly_a_film_go_and_hardly_anything_else_in() -> None:
    thresholds = thresholds_of(_seen())
    assert 0.79 <= thresholds.refuse <= 0.801
    assert thresholds.accept >= thresholds.refuse
    assert min(thresholds.turned, thresholds.inverted, thresholds.mirrored) >= 0.95


def test_errors_are_counted_by_source_and_by_kind_with_intervals() -> None:
    limits = GateThresholds(refuse=0.81, accept=0.15, turned=0.95, inverted=0.95, mirrored=0.95)
    measured = measure(_seen(), limits)
    film, limb = measured["films"]["hospital"], measured["others"]["limb"]
    assert (film["n"], limb["n"], limb["never_learnt_from"]["n"]) == (1000, 1000, 100)
    assert film["refused"]["share"] == pytest.approx(0.1, abs=0.002)
    assert film["refused"]["interval"][0] < 0.1 < film["refused"]["interval"][1]
    assert film["called_turned"]["share"] == pytest.approx(0.001)
    assert film["called_inverted"]["share"] == 0
    assert limb["accepted_without_header"]["share"] == pytest.approx(0.5, abs=0.002)
    assert limb["never_learnt_from"]["accepted_without_header"]["share"] == 1


def test_a_gate_is_trained_measured_and_shown_by_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module, name, value in (
        *((gate_crossvalidate, name, 2) for name in ("STEPS", "FOLD_STEPS")),
        *((gate_data, name, 3) for name in ("DRAWN", "DRAWN_CHESTS")),
    ):
        monkeypatch.setattr(module, name, value)
    data, output = write_films(tmp_path / "films", each=2), tmp_path / "gate"

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["cxr-models", "gate", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    printed = run("train", "--data", str(data), "--output", str(output), "--version", "0.0.1")
    assert "frontal_gate 0.0.1" in printed
    card = read_gate_card(output)
    assert card.training["films"] == {"films": 6}
    again = json.loads(run("evaluate", "--data", str(data), "--gate", str(output), "--json"))
    assert again["films"]["films"]["n"] == 6
    assert set(again["others"]) == set(KINDS)
    assert "# frontal_gate, version 0.0.1" in run("show", "--gate", str(output), "--page")
    assert json.loads(run("show", "--gate", str(output), "--json"))["weights_sha256"] == card.weights_sha256
