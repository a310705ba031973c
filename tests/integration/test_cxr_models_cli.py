import hashlib
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from cxr_models.checkpoint import read_card
from cxr_models.cli import main
from cxr_models.networks import build_network
from cxr_models.predictions_file import read_predictions
from cxr_models.recipe import HERE as RECIPES
from cxr_models.zoo import find_model
from tests.factories import data_folder

PUBLISHED_TEST = "covid19-dataset, test folder"


@dataclass(frozen=True)
class Answer:
    code: int
    stdout: str
    stderr: str


Call = Callable[..., Answer]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command in this process: another one would import torch for each call."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    torch.set_num_threads(1)

    def call(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["cxr-models", *map(str, arguments)])
        code: int | str | None = 0
        with warnings.catch_warnings():
            # Lightning's and TensorBoard's own use of what newer torch and NumPy deprecate.
            warnings.simplefilter("ignore")
            try:
                main()
            except SystemExit as end:
                code = end.code
        printed = capsys.readouterr()
        return Answer(int(code or 0), printed.out, printed.err)

    return call


@pytest.fixture
def film(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 60), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "film.png")
    return tmp_path / "film.png"


@pytest.fixture
def films(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for place, name in enumerate(("Covid", "Normal", "Pneumonia")):
        folder = tmp_path / "films" / name
        folder.mkdir(parents=True)
        for index in range(8):
            pixels = generator.integers(0, 90, (60, 50), dtype=np.uint8)
            pixels[20 * place : 20 * place + 20] += 120
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "films"


@pytest.fixture
def data() -> Path:
    return data_folder()


def assert_one_line(error: str, *words: str) -> None:
    assert "Traceback" not in error
    lines = error.strip().splitlines()
    assert len(lines) == 1, error
    assert all(word in lines[0] for word in words), error


def test_help_answers_without_torch_and_names_every_command() -> None:
    code = (
        "import sys\nfrom cxr_models.cli import main\nsys.argv = ['cxr-models', '--help']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'lightning', 'numpy'} & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(command in answer.stdout for command in ("train", "calibrate", "evaluate", "predict", "show"))


@pytest.mark.parametrize("command", ["train", "calibrate", "evaluate", "predict", "show"])
def test_every_command_has_help(call: Call, command: str) -> None:
    answer = call(command, "--help")
    assert answer.code == 0
    assert "Usage" in answer.stdout


def test_show_prints_the_card_that_ships(call: Call) -> None:
    answer = call("show", "lenet5", "--json")
    assert answer.code == 0
    card = json.loads(answer.stdout)
    assert card["weights_sha256"] == read_card(find_model("lenet5")).weights_sha256
    assert card["intended_use"]
    plain = call("show", "lenet5")
    assert card["weights_sha256"] in plain.stdout


def test_predict_gives_a_label_and_probabilities_for_each_file(call: Call, film: Path) -> None:
    answer = call("predict", "--model", "lenet5", film, film, "--json")
    assert answer.code == 0, answer.stderr
    first, second = json.loads(answer.stdout)
    assert first == second
    assert first["file"] == str(film)
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert first["label"] == max(first["probabilities"], key=first["probabilities"].get)
    assert first["label"] in call("predict", "--model", "lenet5", film).stdout


def test_predict_answers_the_readable_files_and_names_the_others(call: Call, film: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(film.read_bytes()[:300])
    answer = call("predict", "--model", "lenet5", tmp_path / "cut.png", film, "--json")
    assert answer.code == 1
    assert [each["file"] for each in json.loads(answer.stdout)] == [str(film)]
    assert_one_line(answer.stderr, "cut.png")


def test_a_model_that_is_not_there_is_bad_usage_and_the_names_are_told(call: Call, film: Path) -> None:
    for arguments in (("show", "lenet6"), ("predict", "--model", "lenet6", film)):
        answer = call(*arguments)
        assert (answer.code, answer.stdout) == (2, "")
        assert_one_line(answer.stderr, "lenet6", "lenet5")


def test_a_folder_that_holds_no_model_fails(call: Call, tmp_path: Path) -> None:
    answer = call("show", tmp_path)
    assert (answer.code, answer.stdout) == (1, "")
    assert_one_line(answer.stderr, "card.json")


def test_data_that_names_no_class_is_bad_usage(call: Call, films: Path) -> None:
    (films / "Normal").rename(films / "Healthy")
    for arguments in (
        ("evaluate", "--model", "lenet5", "--data", films),
        ("train", "--architecture", "lenet5", "--data", films, "--output", films.parent / "model"),
    ):
        answer = call(*arguments)
        assert (answer.code, answer.stdout) == (2, "")
        assert_one_line(answer.stderr, "Healthy", "no_findings")
    assert not (films.parent / "model").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "nothing"], ["nothing", "thesis-lenet5"]),
        (["--recipe", "vgg16"], ["vgg16", "lenet5"]),
        (["--accelerator", "abacus"], ["abacus"]),
    ],
)
def test_a_training_that_cannot_be_is_bad_usage(
    call: Call, films: Path, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    answer = call("train", "--architecture", "lenet5", "--data", films, "--output", tmp_path / "model", *options)
    assert (answer.code, answer.stdout) == (2, "")
    assert_one_line(answer.stderr.splitlines()[-1], *words)
    assert "Traceback" not in answer.stderr


def test_asking_for_a_gpu_that_is_not_there_is_bad_usage(call: Call, film: Path) -> None:
    answer = call("predict", "--model", "lenet5", "--device", "cuda:99", film)
    assert answer.code == 2
    assert_one_line(answer.stderr, "cuda:99", "cpu")


def test_an_output_that_cannot_be_written_fails_in_one_line(call: Call, films: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    answer = call(
        "train", "--architecture", "lenet5", "--data", films, "--output", tmp_path / "file" / "model", "--fast-dev-run"
    )
    assert (answer.code, answer.stdout) == (1, "")
    assert "Traceback" not in answer.stderr
    assert str(tmp_path / "file") in answer.stderr.splitlines()[-1]


def test_what_was_trained_can_be_shown_evaluated_and_used(call: Call, films: Path, tmp_path: Path, film: Path) -> None:
    model = tmp_path / "model"
    (tmp_path / "short.toml").write_text('architecture = "lenet5"\nbatch_size = 8\nval_share = 0.3\ntest_share = 0.3\n')
    trained = call(
        *("train", "--architecture", "lenet5", "--data", films, "--recipe", tmp_path / "short.toml"),
        *("--output", model, "--epochs", "3", "--seed", "5", "--accelerator", "cpu"),
    )
    assert trained.code == 0, trained.stderr
    assert "films, held-out patients: n 6" in trained.stdout
    assert "epoch" not in trained.stdout.lower()
    card = json.loads(call("show", model, "--json").stdout)
    assert card["training"]["recipe"]["seed"] == 5
    whole = call("evaluate", "--model", model, "--data", films, "--json")
    assert json.loads(whole.stdout)["n"] == 24
    assert "18 of these images were used in training" in whole.stderr
    unseen = call("evaluate", "--model", model, "--data", films, "--unseen", "--json")
    measured, written = json.loads(unseen.stdout), card["metrics"]["films, held-out patients"]
    figures = ("n", "accuracy", "confusion_matrix", "per_class", "operating", "ece", "brier")
    assert [measured[name] for name in figures] == [written[name] for name in figures]
    assert call("predict", "--model", model, film).code == 0
    drawn = call("evaluate", "--model", model, "--data", films, "--pictures", tmp_path / "drawn", "--json")
    assert drawn.code == 0, drawn.stderr
    assert (tmp_path / "drawn" / "learning_curves.png").is_file()


def test_evaluate_tells_everything_the_contract_names(call: Call, films: Path) -> None:
    answer = call("evaluate", "--model", "lenet5", "--data", films, "--json")
    assert answer.code == 0, answer.stderr
    measured = json.loads(answer.stdout)
    assert measured["n"] == 24
    assert np.array(measured["confusion_matrix"]).sum(axis=1).tolist() == [8, 8, 8]
    assert {"sensitivity", "specificity", "auc"} <= set(measured["per_class"]["Pneumonia"])
    assert {"accuracy", "balanced_accuracy", "ece", "labels", "intervals", "coverage_accuracy"} <= set(measured)
    assert {"per_source", "brier", "abstention", "reliability", "pairwise"} <= set(measured)
    low, high = measured["intervals"]["accuracy"]
    assert low <= measured["accuracy"] <= high
    assert "balanced_accuracy" in call("evaluate", "--model", "lenet5", "--data", films).stdout


def test_evaluate_writes_a_page_pictures_and_predictions_beside_its_figures(call: Call, films: Path, tmp_path: Path) -> None:
    page, pictures, table = tmp_path / "new" / "page.html", tmp_path / "pictures", tmp_path / "table.csv"
    places = ("--report", page, "--pictures", pictures, "--predictions", table)
    answer = call("evaluate", "--model", "lenet5", "--data", films, *places, "--json")
    assert answer.code == 0, answer.stderr
    measured = json.loads(answer.stdout)
    assert f"{measured['accuracy']:.3f}" in page.read_text(encoding="utf-8")
    names = {"learning_curves.png", "confusion_matrix.png", "roc.png", "reliability.png", "coverage_accuracy.png"}
    assert {each.name for each in pictures.iterdir()} == names
    rows = read_predictions(table)
    assert len(rows) == 24
    right = sum(row.label == max(row.probabilities, key=row.probabilities.__getitem__) for row in rows)
    assert right / 24 == pytest.approx(measured["accuracy"])


def test_a_report_that_cannot_be_written_is_told_before_anything_is_classified(
    call: Call, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("cxr_models.evaluate.classify", lambda *_: pytest.fail("classified in vain"))
    answer = call("evaluate", "--model", "lenet5", "--data", films, "--report", tmp_path / "file" / "page.html")
    assert (answer.code, answer.stdout) == (1, "")
    assert_one_line(answer.stderr, str(tmp_path / "file"))


def test_evaluate_says_what_it_leaves_out_and_what_it_cannot_measure(call: Call, films: Path, tmp_path: Path) -> None:
    home = tmp_path / "parted"
    for part, label in (("train", "Covid"), ("train", "Normal"), ("test", "Normal")):
        (home / part).mkdir(parents=True, exist_ok=True)
        shutil.copytree(films / label, home / part / label)
    answer = call("evaluate", "--model", "lenet5", "--data", home, "--json")
    assert answer.code == 0, answer.stderr
    measured = json.loads(answer.stdout)
    assert (measured["n"], measured["per_class"]["Normal"]["auc"]) == (8, None)
    assert "the other 16 in these folders take no part" in answer.stderr
    assert "no images of COVID-19 or Pneumonia" in answer.stderr


def test_a_file_among_the_images_that_is_none_is_named(call: Call, films: Path) -> None:
    (films / "Normal" / "cut.png").write_bytes((films / "Normal" / "0.png").read_bytes()[:300])
    answer = call("evaluate", "--model", "lenet5", "--data", films)
    assert (answer.code, answer.stdout) == (1, "")
    assert_one_line(answer.stderr, "cut.png")


def test_predict_says_undetermined_and_keeps_the_flag(call: Call, film: Path, tmp_path: Path) -> None:
    model = tmp_path / "hesitant"
    shutil.copytree(find_model("lenet5"), model)
    card = json.loads((model / "card.json").read_text(encoding="utf-8"))
    (model / "card.json").write_text(json.dumps(card | {"abstain_below": 0.9999}), encoding="utf-8")
    (sure,) = json.loads(call("predict", "--model", "lenet5", film, "--json").stdout)
    (unsure,) = json.loads(call("predict", "--model", model, film, "--json").stdout)
    assert (sure["undetermined"], unsure["undetermined"]) == (False, True)
    assert {name: value for name, value in unsure.items() if name != "undetermined"} == {
        name: value for name, value in sure.items() if name != "undetermined"
    }
    plain = " ".join(call("predict", "--model", model, film).stdout.split())
    assert "undetermined" in plain
    assert f"({sure['label']})" in plain


def test_evaluating_the_published_test_images_reproduces_the_card_that_ships(call: Call, data: Path) -> None:
    answer = call("evaluate", "--model", "lenet5", "--data", data / "covid19-dataset" / "test", "--json")
    assert answer.code == 0, answer.stderr
    assert "used in training" not in answer.stderr
    measured, written = json.loads(answer.stdout), read_card(find_model("lenet5")).metrics[PUBLISHED_TEST]
    assert measured["n"] == written["n"] == 66
    assert measured["confusion_matrix"] == written["confusion_matrix"]
    assert measured["accuracy"] == pytest.approx(written["accuracy"])
    assert measured["ece"] == pytest.approx(written["ece"], abs=1e-3)
    # The card's intervals also know which images share a film.
    assert measured["intervals"]["accuracy"] == pytest.approx(written["intervals"]["accuracy"], abs=0.03)


def test_the_recipe_that_ships_trains_and_is_cross_validated_with_a_teachers_file(
    call: Call, films: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    features = build_network("vgg16_pooled", classes=3).get_submodule("features")
    features.register_module("0", nn.Conv2d(3, 64, kernel_size=3, padding=1))
    file = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file({f"features.{name}": each for name, each in features.state_dict().items()}, file)
    recipe = tmp_path / "short.toml"
    recipe.write_text((RECIPES / "lenet5-taught.toml").read_text().replace("epochs = 120", "epochs = 1"))
    common = ("--recipe", recipe, "--teacher", file, "--data", films, "--accelerator", "cpu")
    told = {"name": "teacher.safetensors", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    trained = call("train", "--architecture", "lenet5", *common, "--output", tmp_path / "model")
    assert trained.code == 0, trained.stderr
    card = read_card(tmp_path / "model")
    assert card.training["teacher"] == told
    assert card.training["recipe"]["teacher"] == "teacher.safetensors"
    assert card.training["train"] == {"COVID-19": 8, "Normal": 8, "Pneumonia": 8}
    validated = call("crossvalidate", *common, "--folds", "2", "--output", tmp_path / "folds", "--json")
    assert validated.code == 0, validated.stderr
    summary = json.loads(validated.stdout)
    assert [fold["teacher"] for fold in summary["each_fold"]] == [told, told]
    assert summary["figures"]["n"] == 24
