"""`cxr-models calibrate`: a model with a new card on the same weights."""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cxr_models.catalogue import read_catalogue
from cxr_models.checkpoint import CARD, read_card
from cxr_models.cli import main
from cxr_models.crossvalidate import OUT_OF_FOLD, SUMMARY
from cxr_models.films import group_by_film
from cxr_models.predictions_file import PredictedImage, short_group, write_predictions
from cxr_models.recalibrate import fit_reading
from cxr_models.recipe import Recipe
from cxr_models.values import LABELS
from tests.factories import write_films

RECIPE = "architecture = 'lenet5'\nepochs = 2\nbatch_size = 16\nval_share = 0.2\ntest_share = 0.2\n"
TRAINED = Recipe(architecture="lenet5", epochs=2, batch_size=16, val_share=0.2, test_share=0.2)
BIASED = TRAINED.model_copy(update={"calibration": "biases", "answer_accuracy": 0.95})
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    torch.set_num_threads(1)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cxr-models", *map(str, arguments)])
        with warnings.catch_warnings():
            # Lightning's and TensorBoard's own use of what newer torch and NumPy deprecate.
            warnings.simplefilter("ignore")
            with pytest.raises(SystemExit) as end:
                main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return write_films(tmp_path / "films", each=10)


@pytest.fixture
def model(call: Call, films: Path, tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    arguments = ("--recipe", tmp_path / "tiny.toml", "--output", tmp_path / "model", "--accelerator", "cpu")
    code, _, err = call("train", "--architecture", "lenet5", "--data", films, *arguments)
    assert code == 0, err
    return tmp_path / "model"


@pytest.fixture
def rows(films: Path) -> list[PredictedImage]:
    """Out-of-fold predictions of the films, made up, that lean to Normal."""
    generator = np.random.default_rng(0)
    made = []
    for number, image in enumerate(group_by_film(read_catalogue([films])).unparted):
        powers = np.exp(generator.normal(size=3) + 1.5 * (np.array(LABELS) == image.label) + np.array([0, 1.5, 0]))
        made.append(
            PredictedImage(
                sha256=image.sha256,
                source=image.source,
                label=image.label,
                group=short_group(image.group),
                fold=number % 3 + 1,
                probabilities=dict(zip(LABELS, (powers / powers.sum()).round(6).tolist(), strict=True)),
            )
        )
    return sorted(made, key=lambda row: row.sha256)


@pytest.fixture
def validated(rows: list[PredictedImage], tmp_path: Path) -> Path:
    write_predictions(tmp_path / "cv" / OUT_OF_FOLD, rows)
    (tmp_path / "cv" / SUMMARY).write_text(json.dumps({"recipe": BIASED.model_dump(mode="json")}))
    return tmp_path / "cv"


@pytest.fixture
def calibrate(call: Call, model: Path, validated: Path, films: Path) -> Call:
    def calibrate(output: Path, *flags: str | Path, data: Path = films) -> tuple[int, str, str]:
        places = ("--model", model, "--crossvalidation", validated, "--data", data, "--output", output)
        return call("calibrate", *places, "--version", "3.1.4", *flags)

    return calibrate


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_card_is_read_anew_and_weights_history_and_seen_images_stay(
    calibrate: Call, call: Call, model: Path, rows: list[PredictedImage], tmp_path: Path
) -> None:
    before, old = contents(model), read_card(model)
    code, out, err = calibrate(tmp_path / "new" / "model", "--json")
    assert code == 0, err
    card = read_card(tmp_path / "new" / "model")
    assert json.loads(out)["thresholds"] == card.thresholds
    reading = fit_reading(rows, recipe=BIASED)
    assert card.version == "3.1.4"
    assert card.temperature == pytest.approx(old.temperature * reading.calibration.temperature)
    assert list(card.biases.values()) == pytest.approx(reading.calibration.biases)
    assert card.biases["Normal"] < -0.5
    assert (card.thresholds, card.abstain_below) == (reading.thresholds, reading.abstain_below)
    assert contents(model) == before
    after = contents(tmp_path / "new" / "model")
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == [CARD]
    # The card's figures are those of its own answers.
    _, out, _ = call("evaluate", "--model", tmp_path / "new" / "model", "--data", tmp_path / "films", "--unseen", "--json")
    measured, written = json.loads(out), card.metrics["films, held-out patients"]
    assert card.metrics.keys() == old.metrics.keys()
    assert measured["confusion_matrix"] == written["confusion_matrix"]
    assert measured["brier"] == pytest.approx(written["brier"], abs=1e-6)
    assert written["brier"] != old.metrics["films, held-out patients"]["brier"]


def test_a_model_is_calibrated_in_its_own_folder_and_again_without_moving(calibrate: Call, model: Path) -> None:
    before = contents(model)
    code, out, err = calibrate(model)
    assert code == 0, err
    assert "3.1.4" in out
    assert "biases COVID-19 0.000, Normal -" in " ".join(out.split())
    once = contents(model)
    assert [name for name in once if once[name] != before[name]] == [CARD]
    assert calibrate(model)[0] == 0
    assert contents(model) == once


def test_what_does_not_belong_together_is_refused_in_one_line_and_nothing_is_written(
    calibrate: Call, validated: Path, rows: list[PredictedImage], tmp_path: Path
) -> None:
    def refused(*words: str, data: str = "films") -> None:
        code, out, err = calibrate(tmp_path / "new", data=tmp_path / data)
        assert (code, out) == (2, "")
        assert all(word in err.splitlines()[-1] for word in words), err
        assert "Traceback" not in err
        assert not (tmp_path / "new").exists()

    summary = (validated / SUMMARY).read_text()
    (validated / SUMMARY).write_text(json.dumps({"recipe": BIASED.model_copy(update={"epochs": 9}).model_dump(mode="json")}))
    refused("differs from the model's in epochs")
    (validated / SUMMARY).unlink()
    refused(str(validated), "no finished cross-validation")
    (validated / SUMMARY).write_text(summary)
    write_predictions(validated / OUT_OF_FOLD, rows[1:])
    refused("1 among the images, but not in the file")
    (validated / OUT_OF_FOLD).unlink()
    refused("There is no file of predictions")
    write_predictions(validated / OUT_OF_FOLD, rows)
    write_films(tmp_path / "others", each=10, seed=5)
    refused("does not belong to these images", data="others")


def test_a_model_whose_card_tells_no_recipe_is_refused(calibrate: Call, model: Path, tmp_path: Path) -> None:
    for recipe in ({}, {"recipe": {"architecture": "abacus"}}):
        written = json.loads((model / CARD).read_text())
        (model / CARD).write_text(json.dumps(written | {"training": recipe}))
        code, out, err = calibrate(tmp_path / "new")
        assert (code, out) == (1, "")
        assert "tells no recipe" in err.splitlines()[-1]


def test_a_model_folder_without_history_is_calibrated_too(calibrate: Call, model: Path, tmp_path: Path) -> None:
    (model / "history.json").unlink()
    shutil.rmtree(model / "logs")
    assert calibrate(tmp_path / "new")[0] == 0
    assert set(contents(tmp_path / "new")) == {CARD, "weights.safetensors", "seen.txt"}
