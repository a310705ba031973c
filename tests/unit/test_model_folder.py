import hashlib
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from cxr_models.catalogue import count, read_catalogue
from cxr_models.checkpoint import CARD, WEIGHTS, load_network, read_card, save_card, save_model
from cxr_models.errors import InvalidModel, UnknownModel
from cxr_models.networks import build_network
from cxr_models.seen import read_seen
from cxr_models.values import LABELS, UNSAVED, Card, Prediction
from cxr_models.zoo import find_model, shipped_models
from tests.factories import data_folder

CPU = torch.device("cpu")


def plain_card() -> Card:
    return Card(
        name="plain",
        version="0.1.0",
        architecture="lenet5",
        labels=LABELS,
        input_side=32,
        mean=0.5,
        std=0.5,
        temperature=1.5,
        thresholds={"COVID-19": 0.2, "Pneumonia": 0.3},
        weights_sha256=UNSAVED,
        intended_use="tests",
        limits=("not trained",),
        training={"train": {"Normal": 1}},
        metrics={"none": {"n": 0}},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "plain", network=build_network("lenet5", classes=3), card=plain_card())
    return tmp_path / "plain"


def rewrite(folder: Path, **changes: Any) -> None:
    written = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(written | changes))


def put_weights(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS).write_bytes(content)
    rewrite(folder, weights_sha256=hashlib.sha256(content).hexdigest())


def test_a_saved_model_comes_back_with_the_same_card_and_weights(tmp_path: Path) -> None:
    network = build_network("lenet5", classes=3)
    saved = save_model(tmp_path / "model", network=network, card=plain_card())
    loaded, card = load_network(tmp_path / "model", CPU)
    assert card == saved == replace(plain_card(), weights_sha256=saved.weights_sha256)
    assert saved.weights_sha256 == hashlib.sha256((tmp_path / "model" / WEIGHTS).read_bytes()).hexdigest()
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_biases_come_back_with_the_card_and_a_card_without_any_has_none(folder: Path) -> None:
    assert read_card(folder).biases == {}
    biases = {"COVID-19": 0.0, "Normal": -1.411, "Pneumonia": 0.25}
    save_card(folder, replace(read_card(folder), biases=biases))
    assert read_card(folder).biases == biases
    written = json.loads((folder / CARD).read_text())
    del written["biases"]
    (folder / CARD).write_text(json.dumps(written))
    assert read_card(folder).biases == {}


def test_weights_other_than_the_card_describes_are_refused(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(InvalidModel, match="SHA-256"):
        load_network(folder, CPU)


def test_weights_of_other_shapes_are_refused_though_their_hash_is_on_the_card(folder: Path) -> None:
    put_weights(folder, safetensors.torch.save(build_network("lenet5", classes=2).state_dict()))
    with pytest.raises(InvalidModel, match="does not fit the architecture lenet5"):
        load_network(folder, CPU)


def test_weights_with_one_tensor_missing_are_refused(folder: Path) -> None:
    tensors = build_network("lenet5", classes=3).state_dict()
    tensors.popitem()
    put_weights(folder, safetensors.torch.save(tensors))
    with pytest.raises(InvalidModel, match="does not fit"):
        load_network(folder, CPU)


def test_weights_of_half_precision_are_refused(folder: Path) -> None:
    put_weights(folder, safetensors.torch.save(build_network("lenet5", classes=3).half().state_dict()))
    with pytest.raises(InvalidModel, match="float32"):
        load_network(folder, CPU)


class Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch sprung",)


def test_a_pickle_given_as_weights_is_refused_and_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put_weights(folder, pickle.dumps(Trap()))
    with pytest.raises(InvalidModel, match="not a safetensors file"):
        load_network(folder, CPU)
    torch.save({"weights": Trap()}, tmp_path / "checkpoint")
    put_weights(folder, (tmp_path / "checkpoint").read_bytes())
    with pytest.raises(InvalidModel, match="not a safetensors file"):
        load_network(folder, CPU)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("missing", [CARD, WEIGHTS])
def test_a_folder_without_card_or_weights_is_refused_by_the_missing_name(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(InvalidModel, match=missing):
        load_network(folder, CPU)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": ["Normal"]}, "labels"),
        ({"labels": ["COVID-19", "Pneumonia"]}, "labels"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"thresholds": {"COVID-19": 0.5}}, "threshold"),
        ({"thresholds": {"COVID-19": 0.5, "Pneumonia": 1.5}}, "threshold"),
        ({"biases": {"COVID-19": 0, "Normal": 1}}, "bias"),
        ({"biases": {"COVID-19": 0, "Normal": 1, "Pneumonia": float("inf")}}, "bias"),
        ({"biases": {"COVID-19": 0, "Normal": 1, "Fracture": 1}}, "bias"),
        ({"input_side": "wide"}, "input_side"),
        ({"input_side": 0}, "side"),
        ({"std": 0}, "std"),
        ({"weights_sha256": "abc"}, "SHA-256"),
        ({"colour": "blue"}, "colour"),
        ({"name": None}, "name"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_card_that_lacks_or_contradicts_something_is_refused_with_the_reason(
    folder: Path, changes: dict[str, Any], reason: str
) -> None:
    rewrite(folder, **changes)
    with pytest.raises(InvalidModel, match=reason):
        read_card(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"name": "x"}', b"null"])
def test_a_card_that_is_no_card_is_refused(folder: Path, content: bytes) -> None:
    (folder / CARD).write_bytes(content)
    with pytest.raises(InvalidModel, match=CARD):
        read_card(folder)


def test_a_model_of_an_unknown_architecture_is_refused(folder: Path) -> None:
    rewrite(folder, architecture="resnet")
    with pytest.raises(InvalidModel, match="resnet"):
        load_network(folder, CPU)


def test_reading_a_card_and_finding_a_model_do_not_import_torch() -> None:
    code = (
        "import sys; from cxr_models.checkpoint import read_card; from cxr_models.zoo import find_model, shipped_models;"
        "print([read_card(find_model(name)).name for name in shipped_models()]); assert 'torch' not in sys.modules"
    )
    assert "lenet5" in subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_serving_imports_nothing_of_training() -> None:
    code = (
        "import sys; from cxr_models import checkpoint, errors, predict, prepare, values, zoo;"
        "predict.Predictor.load('lenet5', device='cpu').warm_up();"
        "trained = {'lightning', 'torchmetrics', 'tensorboard', 'torchvision', 'cxr_models.data', 'cxr_models.classifier',"
        "'cxr_models.train', 'cxr_models.evaluate'} & set(sys.modules); assert not trained, trained"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_model_that_ships_loads_and_says_what_it_is() -> None:
    assert "lenet5" in shipped_models()
    for name in shipped_models():
        _, card = load_network(find_model(name), CPU)
        assert card.name == name
        assert card.labels == LABELS
        assert card.limits
        assert all(measured["n"] > 0 for measured in card.metrics.values())


def test_a_model_is_found_by_name_or_by_folder_and_else_the_names_are_told(folder: Path) -> None:
    assert find_model("lenet5").name == "lenet5"
    assert find_model(str(folder)) == folder
    with pytest.raises(UnknownModel, match=r"lenet6.*lenet5"):
        find_model("lenet6")


def test_a_prediction_never_names_a_finding_and_calls_the_image_normal() -> None:
    high = {"COVID-19": 0.9, "Pneumonia": 0.9}
    doubtful = Prediction.read({"COVID-19": 0.4, "Normal": 0.35, "Pneumonia": 0.25}, thresholds=high)
    assert (doubtful.label, doubtful.flagged) == ("COVID-19", True)
    assert doubtful.present == {"COVID-19": True, "Normal": False, "Pneumonia": False}


def test_a_threshold_that_is_reached_flags_an_image_whose_label_is_normal() -> None:
    low = {"COVID-19": 0.2, "Pneumonia": 0.2}
    prediction = Prediction.read({"COVID-19": 0.2, "Normal": 0.7, "Pneumonia": 0.1}, thresholds=low)
    assert (prediction.label, prediction.flagged) == ("Normal", True)
    assert prediction.present == {"COVID-19": True, "Normal": False, "Pneumonia": False}


def test_nothing_abnormal_present_is_normal() -> None:
    low = {"COVID-19": 0.2, "Pneumonia": 0.2}
    prediction = Prediction.read({"COVID-19": 0.05, "Normal": 0.9, "Pneumonia": 0.05}, thresholds=low)
    assert not prediction.flagged
    assert prediction.present == {"COVID-19": False, "Normal": True, "Pneumonia": False}


def test_the_shipped_model_lists_the_files_that_its_card_says_it_was_trained_on_and_no_others() -> None:
    home, data = find_model("lenet5"), data_folder()
    training, seen = read_card(home).training, read_seen(home)
    catalogue = read_catalogue([data / source for source in training["sources"]])
    used = [image for image in catalogue.train + catalogue.unparted if image.sha256 in seen]
    assert count(used) == {label: training["train"][label] + training["validation"][label] for label in LABELS}
    assert {image.sha256 for image in used} == seen
    assert not seen & {image.sha256 for image in catalogue.test}
