"""Weights that a training starts from: ImageNet's, a file's, or those of a model of our own.

The first convolution is folded to one grey channel such that it computes what the source's computes on the grey image repeated
in three channels and normalised in the source's way.
"""

import hashlib
import io
import pickle  # for its error alone: nothing is unpickled  # nosec B403
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cxr_models.checkpoint import load_network
from cxr_models.errors import InvalidModel
from cxr_models.recipe import Recipe
from cxr_models.values import LABELS, Preparation

IMAGENET = "imagenet"
IMAGENET_FEATURES = "imagenet-features"
FIRST = "features.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """What a network was trained on: (x - mean) / std of values 0..1, for each input channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


NORMALISATIONS = {
    "imagenet": Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "caffe": Normalisation(mean=(0.48235, 0.45882, 0.40784), std=(1 / 255, 1 / 255, 1 / 255)),
    "none": Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
}
"""By their name in a recipe: torchvision's; that of its IMAGENET1K_FEATURES, the VGG16 first published; values 0..1 as such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWeights:
    """Weights to start from.

    Attributes
    ----------
    name
        "imagenet", "imagenet-features", a file's name without its folder, or a model's name and version.
    sha256
        Of the file's bytes, in hexadecimal.
    tensors
        By the parameters' names, as torchvision and our networks have them.
    option
        By which a person names others.
    """

    name: str
    sha256: str
    tensors: Mapping[str, Tensor]
    normalisation: Normalisation
    option: str = "--initial"


def read_initial(recipe: Recipe, *, option: str = "--initial") -> InitialWeights:
    """Read the weights that `recipe.initial` names.

    "imagenet" and "imagenet-features" (the convolutions alone, from the first VGG16) come through torch.hub's cache. A file is
    .safetensors, or a state dict that torch.load reads with weights_only. A folder is a model of ours.

    Parameters
    ----------
    option
        By which a person names a file instead.

    Raises
    ------
    InvalidModel
        There are no such weights here and none can be fetched, or the file holds something else.
    """
    initial = recipe.initial or ""
    path = Path(initial).expanduser()
    if path.is_dir():
        return _read_model(path, option=option)
    kind: str = recipe.initial_normalisation
    if initial in {IMAGENET, IMAGENET_FEATURES}:
        kind = "imagenet" if initial == IMAGENET else "caffe"
        path = _fetch(initial, architecture=recipe.architecture, option=option)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidModel(
            f"There are no initial weights {initial}: it is neither {IMAGENET}, {IMAGENET_FEATURES}, a file nor a model folder"
            f" ({error.strerror}); name one of these with {option}."
        ) from error
    tensors = _unpack(content, name=path.name, option=option)
    if initial == IMAGENET_FEATURES:
        # Its file has a head as well, of values that are no numbers.
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("features.")}
    return InitialWeights(
        name=initial if initial in {IMAGENET, IMAGENET_FEATURES} else path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        tensors=tensors,
        normalisation=NORMALISATIONS[kind],
        option=option,
    )


def _read_model(folder: Path, *, option: str) -> InitialWeights:
    network, card = load_network(folder, torch.device("cpu"))
    tensors = network.state_dict()
    if card.labels != LABELS:
        last = [name for name in tensors if name.startswith("classifier.")][-1].rpartition(".")[0]
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{last}.")}
    return InitialWeights(
        name=f"{card.name} {card.version}",
        sha256=card.weights_sha256,
        tensors=tensors,
        normalisation=Normalisation(mean=(card.mean,), std=(card.std,)),
        option=option,
    )


def take_over(initial: InitialWeights, *, network: nn.Module, preparation: Preparation) -> str:
    """Put weights into a network by name and shape, and say what was taken and what stays new.

    Raises
    ------
    InvalidModel
        The weights lack some of the network's convolutions, or are not all numbers.
    """
    own = network.state_dict()
    given = dict(initial.tensors)
    if f"{FIRST}.weight" in given:
        given |= _fold(initial, preparation)
    taken = {name: given[name] for name, tensor in own.items() if name in given and given[name].shape == tensor.shape}
    # The number of batches that a batch normalisation saw is in older files not there, and nothing depends on it.
    body = [name for name in own if name.startswith("features.") and not name.endswith("num_batches_tracked")]
    missing = [name for name in body if name not in taken]
    if missing:
        raise InvalidModel(
            f"The initial weights {initial.name} do not fit: of the {len(body)} tensors of the convolutions they lack"
            f" {len(missing)}, or have them in another shape, such as {missing[0]}; name others with {initial.option}."
        )
    if wrong := [name for name, tensor in taken.items() if not tensor.isfinite().all()]:
        raise InvalidModel(
            f"The initial weights {initial.name} hold values that are no numbers, such as in {wrong[0]};"
            f" name others with {initial.option}."
        )
    network.load_state_dict(taken, strict=False)
    head = [name for name in own if name.startswith("classifier.")]
    new = [name for name in head if name not in taken]
    told = "head taken" if not new else "head new" if len(new) == len(head) else f"of the head {', '.join(new)} new"
    return f"{FIRST} folded, {len(taken)} tensors taken, {told}"


def _fold(initial: InitialWeights, ours: Preparation) -> dict[str, Tensor]:
    """Return the first convolution for one channel z = (x - ours.mean) / ours.std.

    Its source sees (x - mean) / std = z * ours.std / std + (ours.mean - mean) / std in each channel: the factor goes into the
    weights, the summand into the bias. At the border the two differ, as a padding of 0 stands for another grey.
    """
    source, weight = initial.normalisation, initial.tensors[f"{FIRST}.weight"].float()
    bias = initial.tensors.get(f"{FIRST}.bias", torch.zeros(len(weight))).float()
    channels = len(source.mean)
    if weight.shape[1:2] != (channels,) or bias.shape != weight.shape[:1]:
        raise InvalidModel(
            f"The first convolution of the initial weights {initial.name} has weights of shape {tuple(weight.shape)} and biases"
            f" of shape {tuple(bias.shape)}, not one bias for each output and {channels} channels;"
            f" name others with {initial.option}."
        )
    std = torch.tensor(source.std).view(1, -1, 1, 1)
    mean = torch.tensor(source.mean).view(1, -1, 1, 1)
    return {
        f"{FIRST}.weight": (weight * (ours.std / std)).sum(dim=1, keepdim=True),
        f"{FIRST}.bias": bias + (weight * ((ours.mean - mean) / std)).sum(dim=(1, 2, 3)),
    }


def _fetch(name: str, *, architecture: str, option: str) -> Path:
    """Return the file of torchvision's weights in torch.hub's cache; where it is not there, fetch it."""
    from torchvision.models import VGG16_BN_Weights, VGG16_Weights  # type: ignore[import-untyped]  # noqa: PLC0415

    if name == IMAGENET_FEATURES:
        url = VGG16_Weights.IMAGENET1K_FEATURES.url
    else:
        url = (VGG16_BN_Weights if architecture == "vgg16_bn" else VGG16_Weights).IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2])
        except (URLError, OSError, RuntimeError) as error:
            raise InvalidModel(
                f"The weights {name} are not in torch.hub's cache and cannot be fetched from {url} ({error});"
                f" fetch {path.name} elsewhere and name it with {option} FILE."
            ) from error
    return path


def _unpack(content: bytes, *, name: str, option: str) -> Mapping[str, Tensor]:
    try:
        found: Any
        if name.endswith(".safetensors"):
            found = safetensors.torch.load(content)
        else:
            with warnings.catch_warnings():
                # torch wonders at a pickle of another kind before it refuses it.
                warnings.simplefilter("ignore")
                found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            found = found.get("state_dict", found)
        return {key: each for key, each in found.items() if isinstance(each, Tensor)}
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        raise InvalidModel(
            f"The initial weights {name} are no file of tensors alone; save the network's state_dict(), or a .safetensors file,"
            f" and name it with {option}."
        ) from error
