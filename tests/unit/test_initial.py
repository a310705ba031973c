import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from cxr_models.checkpoint import save_model
from cxr_models.errors import InvalidModel
from cxr_models.initial import NORMALISATIONS, read_initial, take_over
from cxr_models.limits import INTENDED_USE
from cxr_models.networks import build_network
from cxr_models.recipe import Recipe
from cxr_models.values import LABELS, UNSAVED, Card, Preparation

SIDE = 64


def colour_network() -> nn.Module:
    """The convolutions of a VGG16 for three channels, with made weights and torchvision's names."""
    torch.manual_seed(1)
    network = build_network("vgg16_pooled", classes=3)
    features = network.get_submodule("features")
    features.register_module("0", nn.Conv2d(3, 64, kernel_size=3, padding=1))
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.bias, 0, 0.05)
    return network.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def colour() -> nn.Module:
    return colour_network()


@pytest.fixture(scope="module")
def tensors(colour: nn.Module) -> dict[str, Tensor]:
    features = {name: each for name, each in colour.state_dict().items() if name.startswith("features.")}
    return features | {"classifier.6.weight": torch.zeros(1000, 8)}


@pytest.fixture
def weights(tensors: dict[str, Tensor], tmp_path: Path) -> Path:
    file = tmp_path / "colour.safetensors"
    safetensors.torch.save_file(tensors, file)
    return file


def recipe(initial: Path | str, **more: object) -> Recipe:
    return Recipe.model_validate({"architecture": "vgg16_pooled", "input_side": SIDE, "initial": str(initial)} | more)


def start_from(initial: Path | str, **more: object) -> tuple[nn.Module, str]:
    how = recipe(initial, **more)
    network = build_network(how.architecture, classes=3).eval().requires_grad_(requires_grad=False)
    return network, take_over(read_initial(how), network=network, preparation=how.preparation)


@pytest.mark.parametrize("normalisation", sorted(NORMALISATIONS))
def test_away_from_the_border_the_folded_network_computes_what_the_colour_one_does(
    colour: nn.Module, weights: Path, normalisation: str
) -> None:
    network, told = start_from(weights, initial_normalisation=normalisation, mean=0.4, std=0.3)
    assert told == "features.0 folded, 26 tensors taken, head new"
    grey = torch.rand(2, 1, SIDE, SIDE)
    source = NORMALISATIONS[normalisation]
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (source.mean, source.std))
    # Six layers, two of them pooling: a border of 2 of the 16 pixels has seen the padding.
    upto = 10
    theirs = colour.get_submodule("features")[:upto]((grey - mean) / std)[..., 3:-3, 3:-3]
    ours = network.get_submodule("features")[:upto]((grey - 0.4) / 0.3)[..., 3:-3, 3:-3]
    assert theirs.abs().max() > 1e-3
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_a_state_dict_of_torch_is_taken_like_safetensors_and_named_with_its_hash(
    tensors: dict[str, Tensor], weights: Path, tmp_path: Path
) -> None:
    for name, content in (("plain.pth", tensors), ("nested.pt", {"state_dict": tensors, "epoch": 3})):
        torch.save(content, tmp_path / name)
        found = read_initial(recipe(tmp_path / name))
        assert (found.name, found.sha256) == (name, hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
        expected = read_initial(recipe(weights)).tensors
        assert all(torch.equal(found.tensors[key], each) for key, each in expected.items())


@pytest.mark.parametrize("name", ["imagenet", "imagenet-features"])
def test_weights_of_torchvision_come_from_the_cache_of_torch_hub(
    tensors: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    file = {"imagenet": "vgg16-397923af.pth", "imagenet-features": "vgg16_features-amdegroot-88682ab5.pth"}[name]
    torch.save(tensors, cache / file)
    found = read_initial(recipe(name))
    assert found.name == name
    assert found.normalisation == NORMALISATIONS["imagenet" if name == "imagenet" else "caffe"]
    assert ("classifier.6.weight" in found.tensors) == (name == "imagenet")


def test_without_a_network_the_error_names_the_option_that_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InvalidModel, match=r"vgg16-397923af.pth elsewhere and name it with --initial FILE"):
        read_initial(recipe("imagenet"))


def lenet(folder: Path, *, labels: tuple[str, ...] = LABELS, mean: float = 0.3) -> nn.Module:
    torch.manual_seed(2)
    network = build_network("lenet5", classes=len(labels)).eval().requires_grad_(requires_grad=False)
    card = Card(
        name="mine",
        version="2.0.0",
        architecture="lenet5",
        labels=labels,
        input_side=32,
        mean=mean,
        std=0.2,
        temperature=1.0,
        thresholds={label: 0.3 for label in labels if label != "Normal"},
        weights_sha256=UNSAVED,
        intended_use=INTENDED_USE,
        limits=(),
    )
    save_model(folder, network=network, card=card)
    return network


def test_a_model_of_our_own_gives_the_same_answers_under_another_normalisation(tmp_path: Path) -> None:
    theirs = lenet(tmp_path)
    found = read_initial(recipe(tmp_path, architecture="lenet5", input_side=None))
    ours = build_network("lenet5", classes=3).requires_grad_(requires_grad=False)
    assert take_over(found, network=ours, preparation=Preparation(side=32)) == (
        "features.0 folded, 10 tensors taken, head taken"
    )
    assert found.name == "mine 2.0.0"
    grey = torch.rand(5, 1, 32, 32)
    assert torch.allclose(ours((grey - 0.5) / 0.5), theirs((grey - 0.3) / 0.2), atol=1e-4)


@pytest.mark.parametrize("labels", [("Normal", "Pneumonia"), ("Normal", "COVID-19", "Pneumonia")], ids=len)
def test_the_last_layer_is_new_where_the_labels_differ(tmp_path: Path, labels: tuple[str, ...]) -> None:
    lenet(tmp_path, labels=labels)
    found = read_initial(recipe(tmp_path, architecture="lenet5", input_side=None))
    told = take_over(found, network=build_network("lenet5", classes=3), preparation=Preparation(side=32))
    assert told == "features.0 folded, 8 tensors taken, of the head classifier.2.weight, classifier.2.bias new"


def pickled(path: Path, _: dict[str, Tensor]) -> Path:
    path.with_suffix(".pth").write_bytes(pickle.dumps(print))
    return path.with_suffix(".pth")


def whole_network(path: Path, _: dict[str, Tensor]) -> Path:
    torch.save(build_network("lenet5", classes=3), path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def no_tensors(path: Path, _: dict[str, Tensor]) -> Path:
    path.with_suffix(".safetensors").write_bytes(b"not tensors at all")
    return path.with_suffix(".safetensors")


def cut_off(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, path.with_suffix(".pth"))
    whole = path.with_suffix(".pth").read_bytes()
    path.with_suffix(".pth").write_bytes(whole[: len(whole) // 2])
    return path.with_suffix(".pth")


def shallow(path: Path, tensors: dict[str, Tensor]) -> Path:
    some = {name: each for name, each in tensors.items() if not name.startswith("features.28")}
    safetensors.torch.save_file(some, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def no_dictionary(path: Path, _: dict[str, Tensor]) -> Path:
    torch.save({"state_dict": 3}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def of_too_many_outputs(path: Path, tensors: dict[str, Tensor]) -> Path:
    wide = torch.zeros(128, 3, 3, 3)
    safetensors.torch.save_file(tensors | {"features.0.weight": wide}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def of_one_dimension(path: Path, tensors: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file(tensors | {"features.0.weight": torch.zeros(64)}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def of_no_number(path: Path, tensors: dict[str, Tensor]) -> Path:
    spoilt = torch.full_like(tensors["features.28.bias"], torch.nan)
    safetensors.torch.save_file(tensors | {"features.28.bias": spoilt}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def of_two_channels(path: Path, tensors: dict[str, Tensor]) -> Path:
    safetensors.torch.save_file(tensors | {"features.0.weight": torch.zeros(64, 2, 3, 3)}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def missing(path: Path, _: dict[str, Tensor]) -> Path:
    return path.with_suffix(".nowhere")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (pickled, "are no file of tensors alone"),
        (whole_network, "are no file of tensors alone"),
        (no_tensors, "are no file of tensors alone"),
        (cut_off, "are no file of tensors alone"),
        (shallow, r"of the 26 tensors of the convolutions they lack 2.*features.28.weight"),
        (no_dictionary, "are no file of tensors alone"),
        (of_two_channels, r"weights of shape \(64, 2, 3, 3\) .* 3 channels"),
        (of_too_many_outputs, r"weights of shape \(128, 3, 3, 3\) and biases of shape \(64,\)"),
        (of_one_dimension, r"weights of shape \(64,\) "),
        (of_no_number, r"no numbers, such as in features.28.bias"),
        (missing, "it is neither imagenet, imagenet-features, a file nor a model folder"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_holds_no_fitting_weights_is_refused_in_one_clear_error(
    tensors: dict[str, Tensor], tmp_path: Path, make: Callable[[Path, dict[str, Tensor]], Path], told: str
) -> None:
    with pytest.raises(InvalidModel, match=rf"{told}.* with --initial"):
        start_from(make(tmp_path / "weights", tensors))


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, written: Path) -> None:
        self.written = written

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.written), "w")


def test_nothing_in_a_weights_file_is_ever_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "extra": Trap(tmp_path / "written")}, tmp_path / "weights.pth")
    with pytest.raises(InvalidModel, match="are no file of tensors alone"):
        read_initial(recipe(tmp_path / "weights.pth"))
    assert not (tmp_path / "written").exists()
