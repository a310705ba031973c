"""Models that a site registers: tried, copied, and from then on nobody changes what answers."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
from safetensors.torch import load_file, save

from cxr_models import forward
from cxr_models.checkpoint import read_card
from cxr_models.errors import InvalidModel
from cxr_models.zoo import find_model
from tests.conftest import Run, TestDatabase
from tests.factories import make_dx, study_uid, write_model
from tests.fakes import make_site
from worker import register
from worker.models import ModelHolder
from worker.pipeline import Parts
from worker.settings import InferenceSettings, Settings

_CARD = read_card(find_model("lenet5"))
LENET5 = f"{_CARD.name}@{_CARD.version}"


def _listed(cxr_worker: Run) -> dict[str, dict[str, Any]]:
    code, out, _ = cxr_worker("models", "list", "--json")
    assert code == 0
    return {f"{row['model']}@{row['version']}": row for row in json.loads(out)}


def _copies(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "var" / "models").glob("*") if path.is_dir())


def _settings(tmp_path: Path, **inference: Any) -> Settings:
    return Settings(data_dir=tmp_path / "var", inference=InferenceSettings(device="cpu", **inference))


def _answering(database: TestDatabase, tmp_path: Path, **inference: Any) -> str:
    """Name and version of the model that a worker would answer with."""
    holder = ModelHolder(database.opened, _settings(tmp_path, **inference))
    card = holder.engine().predictor.card
    holder.close()
    return f"{card.name}@{card.version}"


def test_a_registered_model_is_listed_and_answers_only_once_it_is_activated(cxr_worker: Run, tmp_path: Path) -> None:
    card = write_model(tmp_path / "trained")
    code, out, err = cxr_worker("models", "register", "trained", "--note", "from the night of the 3rd")
    assert (code, err) == (0, "")
    assert out.startswith("own@1.0 is registered: ")
    row = _listed(cxr_worker)["own@1.0"]
    assert (row["origin"], row["note"], row["active"], row["shadow"]) == (
        "registered", "from the night of the 3rd", False, False,
    )  # fmt: skip
    assert (row["weights_sha256"], row["problem"]) == (card.weights_sha256, None)
    assert [path.name for path in _copies(tmp_path)] == [f"own-1.0-{card.weights_sha256[:12]}"]
    assert _listed(cxr_worker)[LENET5]["active"]
    assert cxr_worker("models", "activate", "own")[0] == 0
    listed = _listed(cxr_worker)
    assert {name: row["active"] for name, row in listed.items()} == {LENET5: False, "own@1.0": True}


def test_shipped_models_are_listed_with_their_held_out_figures_and_not_those_of_validation(cxr_worker: Run) -> None:
    figures = _listed(cxr_worker)[LENET5]["metrics"]
    assert figures
    assert "validation" not in figures
    assert all(0 < of["accuracy"] < 1 and of["n"] > 0 for of in figures.values())


def test_the_copy_answers_when_the_source_is_edited_and_deleted(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path
) -> None:
    write_model(tmp_path / "trained")
    assert cxr_worker("models", "activate", "trained")[0] == 0
    write_model(tmp_path / "trained", seed=1, version="2.0")
    assert _answering(test_database, tmp_path) == "own@1.0"
    shutil.rmtree(tmp_path / "trained")
    assert _answering(test_database, tmp_path) == "own@1.0"


def test_predictions_name_the_registered_model_its_version_and_weights(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path
) -> None:
    card = write_model(tmp_path / "trained")
    assert cxr_worker("models", "register", "trained", "--name", "ours")[0] == 0
    assert cxr_worker("models", "activate", "ours@1.0")[0] == 0
    holder = ModelHolder(test_database.opened, _settings(tmp_path))
    site = make_site(test_database.opened, tmp_path / "var")
    site.parts = Parts(settings=site.parts.settings, database=site.database, clock=site.clock, engine=holder.engine)
    site.receive(make_dx())
    site.settle()
    holder.close()
    (prediction,) = site.study(study_uid())["images"][0]["predictions"]
    assert (prediction["model"], prediction["version"], prediction["weights_sha256"]) == ("ours", "1.0", card.weights_sha256)


def test_the_same_model_twice_is_said_and_is_one(cxr_worker: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "trained")
    assert cxr_worker("models", "register", "trained")[0] == 0
    code, out, err = cxr_worker("models", "register", "trained")
    assert (code, out, err) == (0, "own@1.0 was registered before, the same.\n", "")
    assert len(_copies(tmp_path)) == 1


@pytest.mark.parametrize(
    ("other", "says"), [({"seed": 1}, "with other weights"), ({"temperature": 2.0}, "with another card of the same weights")]
)
def test_another_model_under_a_name_and_version_is_refused_with_the_cure(
    other: dict[str, Any], says: str, cxr_worker: Run, tmp_path: Path
) -> None:
    write_model(tmp_path / "trained")
    assert cxr_worker("models", "register", "trained")[0] == 0
    before = {path: path.read_bytes() for path in _copies(tmp_path)[0].iterdir()}
    write_model(tmp_path / "trained", **other)
    code, out, err = cxr_worker("models", "register", "trained")
    assert (code, out) == (1, "")
    assert says in err
    assert "--name" in err
    assert {path: path.read_bytes() for path in _copies(tmp_path)[0].iterdir()} == before
    assert cxr_worker("models", "register", "trained", "--name", "own-b")[0] == 0


def test_nobody_takes_the_name_and_version_of_a_shipped_model(cxr_worker: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "trained", name="lenet5", version=LENET5.partition("@")[2])
    code, _, err = cxr_worker("models", "activate", "trained")
    assert code == 1
    assert f"{LENET5} ships with other weights" in err


def _pickled(folder: Path) -> None:
    torch.save({"weights": 1}, folder / "weights.safetensors")
    _describe(folder, (folder / "weights.safetensors").read_bytes())


def _plain_pickle(folder: Path) -> None:
    _describe(folder, pickle.dumps({"weights": 1}))


def _describe(folder: Path, weights: bytes) -> None:
    (folder / "weights.safetensors").write_bytes(weights)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"weights_sha256": hashlib.sha256(weights).hexdigest()}))


def _tampered(folder: Path) -> None:
    with (folder / "weights.safetensors").open("ab") as file:
        file.write(b"\0")


def _card_of_another(folder: Path) -> None:
    write_model(folder.with_name("another"), seed=1)
    shutil.copy(folder.with_name("another") / "card.json", folder)


def _says(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps(card | changes))

    return change


def _not_a_number(folder: Path) -> None:
    tensors = {name: tensor * float("nan") for name, tensor in load_file(folder / "weights.safetensors").items()}
    _describe(folder, save(tensors))


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_tampered, "its SHA-256 differs"),
        (_card_of_another, "its SHA-256 differs"),
        (_pickled, "is not a safetensors file"),
        (_plain_pickle, "is not a safetensors file"),
        (_not_a_number, "not a number"),
        (_says(architecture="vgg16"), "does not fit the architecture vgg16"),
        (_says(architecture="resnet"), "resnet"),
        (lambda folder: (folder / "card.json").unlink(), "card.json"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors"),
        (_says(name="../../elsewhere"), "is no name"),
        (_says(version="1.0 beta"), "is no version"),
    ],
    ids=["tampered", "card of others", "torch pickle", "pickle", "nan", "architecture", "unknown architecture", "no card",
         "no weights", "name", "version"],
)  # fmt: skip
def test_what_is_no_model_is_refused_in_one_line_and_leaves_nothing(
    spoil: Callable[[Path], None], says: str, cxr_worker: Run, tmp_path: Path
) -> None:
    write_model(tmp_path / "trained")
    spoil(tmp_path / "trained")
    code, out, err = cxr_worker("models", "register", "trained")
    assert (code in {1, 2}, out) == (True, "")
    assert says in err
    assert len(err.splitlines()) == 1
    assert _copies(tmp_path) == []
    assert set(_listed(cxr_worker)) == {LENET5}


def test_a_checkpoint_file_is_refused_with_what_a_model_is(cxr_worker: Run, tmp_path: Path) -> None:
    torch.save({"weights": 1}, tmp_path / "model.pt")
    code, _, err = cxr_worker("models", "register", "model.pt")
    assert code == 1
    assert "A model is a folder" in err
    assert len(err.splitlines()) == 1


def test_a_model_is_activated_by_version_and_a_name_of_several_asks_which(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path
) -> None:
    for number, version in enumerate(("1.0", "1.1")):
        write_model(tmp_path / version, seed=number, version=version)
        assert cxr_worker("models", "register", version)[0] == 0
    code, _, err = cxr_worker("models", "activate", "own")
    assert (code, err) == (2, "cxr-worker: Which own? Say one of own@1.0, own@1.1.\n")
    for version in ("1.1", "1.0"):
        assert cxr_worker("models", "activate", f"own@{version}")[0] == 0
        assert _answering(test_database, tmp_path) == f"own@{version}"
    code, _, err = cxr_worker("models", "activate", "own@2.0")
    assert code == 2
    assert "the models are lenet5, own@1.0, own@1.1" in err
    assert cxr_worker("models", "activate", "lenet5")[0] == 0
    assert _answering(test_database, tmp_path) == LENET5


def test_registering_never_changes_which_model_answers(cxr_worker: Run, test_database: TestDatabase, tmp_path: Path) -> None:
    write_model(tmp_path / "other", name="lenet5", version="9.9")
    assert cxr_worker("models", "register", "other")[0] == 0
    assert _answering(test_database, tmp_path) == LENET5
    assert _answering(test_database, tmp_path, model="lenet5@9.9") == "lenet5@9.9"


def test_a_shipped_version_named_by_its_number_is_kept_when_the_package_ships_another(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cxr_worker("models", "activate", LENET5)[0] == 0
    assert len(_copies(tmp_path)) == 1
    monkeypatch.setattr("worker.registry.shipped_models", lambda: ())
    assert _answering(test_database, tmp_path) == LENET5


@pytest.mark.parametrize("part", ["card.json", "weights.safetensors"])
def test_a_copy_that_somebody_changed_does_not_answer_and_registering_again_restores_it(
    part: str, cxr_worker: Run, test_database: TestDatabase, tmp_path: Path
) -> None:
    write_model(tmp_path / "trained")
    assert cxr_worker("models", "activate", "trained")[0] == 0
    (copy,) = _copies(tmp_path)
    _says(thresholds={"COVID-19": 0.99, "Pneumonia": 0.99})(copy) if part == "card.json" else _tampered(copy)
    with pytest.raises(InvalidModel, match=r"as it was registered|SHA-256"):
        _answering(test_database, tmp_path)
    code, out, _ = cxr_worker("doctor", "--json")
    assert code == 1
    assert not {check["name"]: check["ok"] for check in json.loads(out)}["model"]
    assert cxr_worker("models", "register", "trained")[0] == 0
    assert _answering(test_database, tmp_path) == "own@1.0"


def test_a_registration_cut_off_before_its_row_is_made_again(
    cxr_worker: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "trained")

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(register.models, "add", cut_off)
        assert cxr_worker("models", "register", "trained")[0] == 130
    assert set(_listed(cxr_worker)) == {LENET5}
    assert cxr_worker("models", "register", "trained")[0] == 0
    assert len(_copies(tmp_path)) == 1


def test_labels_that_no_report_can_say_are_for_a_shadow_only(cxr_worker: Run, tmp_path: Path) -> None:
    strange = {"labels": ("Normal", "Tuberculosis"), "thresholds": {"Tuberculosis": 0.5}}
    write_model(tmp_path / "trained", classes=2, **strange)
    code, _, err = cxr_worker("models", "activate", "trained")
    assert code == 1
    assert "answers Tuberculosis, which no report can say" in err
    assert cxr_worker("models", "activate", "trained", "--shadow")[0] == 0


def test_a_model_that_is_gone_is_listed_with_what_is_wrong(cxr_worker: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "trained")
    assert cxr_worker("models", "activate", "trained")[0] == 0
    shutil.rmtree(_copies(tmp_path)[0])
    code, out, _ = cxr_worker("models", "list", "--json")
    assert code == 0
    (row,) = [row for row in json.loads(out) if row["active"]]
    assert "card.json" in row["problem"]
    assert cxr_worker("models", "list")[0] == 0


def test_a_card_is_shown_to_people_with_figures_thresholds_and_limits(cxr_worker: Run) -> None:
    code, out, _ = cxr_worker("models", "show")
    assert code == 0
    for words in (
        LENET5.replace("@", " "),
        "Not a medical device",
        "- Three labels only",
        "flagged from",
        "sensitivity (95 %)",
        "kermany",
    ):
        assert words in out


@pytest.mark.parametrize(("computes", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_a_worker_computes_as_its_processor_is_quicker_and_says_so(
    test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, computes: bool, chosen: str
) -> None:
    monkeypatch.setattr(forward, "_computes_bfloat16", lambda _: computes)
    monkeypatch.setattr(forward, "_is_worth_it", lambda *_, **__: True)
    holder = ModelHolder(test_database.opened, _settings(tmp_path))
    with structlog.testing.capture_logs() as logs:
        assert holder.engine().predictor.precision == chosen
    holder.close()
    assert [line["precision"] for line in logs if line["event"] == "model.loaded"] == [chosen]
