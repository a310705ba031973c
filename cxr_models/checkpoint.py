"""A model is a folder: `weights.safetensors` and `card.json`. Nothing is ever unpickled."""

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from cxr_models.errors import InvalidModel
from cxr_models.values import Card

if TYPE_CHECKING:
    import torch
    from torch import nn

CARD = "card.json"
WEIGHTS = "weights.safetensors"


def read_card(folder: Path) -> Card:
    """Read what a model says of itself, without loading it (and without importing torch).

    Raises
    ------
    InvalidModel
        The card is missing, is not JSON, or lacks or contradicts something.
    """
    path = folder / CARD
    try:
        written = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidModel(f"{path} is not JSON: {error}.") from error
    unknown = sorted(set(written) - set(Card.__dataclass_fields__)) if isinstance(written, dict) else []
    if unknown:
        raise InvalidModel(f"{path} has unknown keys: {', '.join(unknown)}.")
    try:
        return TypeAdapter(Card).validate_python(written)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidModel(f"{path} is not a model card: {wrong}.") from error
    except InvalidModel as error:
        raise InvalidModel(f"{path}: {error}") from error


def load_network(folder: Path, device: "torch.device") -> "tuple[nn.Module, Card]":
    """Load a model's network, ready to predict.

    The bytes that are hashed are the bytes that are loaded, so weights cannot be exchanged in between.

    Raises
    ------
    InvalidModel
        Card or weights are missing, the card does not describe these weights, or they do not fit the architecture.
    """
    import safetensors  # noqa: PLC0415  torch takes seconds to import, and read_card does not need it
    import safetensors.torch  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from cxr_models.networks import build_skeleton  # noqa: PLC0415

    card = read_card(folder)
    path = folder / WEIGHTS
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(weights).hexdigest() != card.weights_sha256:
        raise InvalidModel(f"{path} is not the file that {folder / CARD} describes: its SHA-256 differs.")
    network = build_skeleton(card.architecture, classes=len(card.labels))
    try:
        tensors = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise InvalidModel(f"{path} is not a safetensors file.") from error
    if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise InvalidModel(f"{path} holds weights that are not float32.")
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        first, *more = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        others = f" And {len(more)} more." if more else ""
        raise InvalidModel(f"{path} does not fit the architecture {card.architecture}: {first}{others}") from error
    return network.eval().requires_grad_(requires_grad=False).to(device), card


def save_model(folder: Path, *, network: "nn.Module", card: Card) -> Card:
    """Write a model folder and return its card with the hash of the weights.

    The card comes last: a folder cut off in between has no card that describes its weights, and is refused.
    """
    import safetensors.torch  # noqa: PLC0415  as in load_network

    tensors = {name: tensor.detach().cpu().float().contiguous() for name, tensor in network.state_dict().items()}
    weights = safetensors.torch.save(tensors)
    card = replace(card, weights_sha256=hashlib.sha256(weights).hexdigest())
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS, weights)
    save_card(folder, card)
    return card


def save_card(folder: Path, card: Card) -> None:
    """Write a card beside the weights that it describes."""
    _write(folder / CARD, (json.dumps(asdict(card), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
