"""Register a model of the site's own: try it, copy it to where nobody changes it, enter it."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from cxr_models.checkpoint import CARD, WEIGHTS, read_card
from cxr_models.errors import InvalidModel
from cxr_models.predict import Predictor
from cxr_models.values import Card
from cxr_models.zoo import find_model as find_shipped
from cxr_models.zoo import shipped_models
from worker.db import models
from worker.db.database import Database
from worker.db.models import RegisteredModel
from worker.errors import AnotherModel, ConfigurationError
from worker.files import write_durably
from worker.findings import MEANINGS
from worker.registry import ModelFolder, find_exactly

FOLDER = Path("models")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What an operator asks for."""

    source: Path
    """The model's folder."""
    name: str | None
    """Another name than its card has; predictions and reports will carry it."""
    note: str
    at: datetime


def register(wish: Registration, database: Database, *, data_dir: Path) -> tuple[ModelFolder, bool]:
    """Try a model, copy its weights and card into the data folder and enter it; answer it, and whether it is new.

    The row comes last: what dies before it leaves files that the next attempt writes again, byte by byte the same.

    Raises
    ------
    cxr_models.errors.ModelError
        The folder is no model, or it does not answer.
    ConfigurationError
        Its name or version can be no folder's, or is too long.
    AnotherModel
        Another model has this name and version.
    """
    card = tried(wish.source)
    content = (wish.source / CARD).read_bytes()
    if wish.name is not None:
        card = replace(card, name=wish.name)
        content = json.dumps(json.loads(content) | {"name": wish.name}, indent=2, ensure_ascii=False).encode()
    row = _entry(card, content, wish)
    with database.read() as connection:
        known = _require_free(row, models.registered(connection))
    weights = (wish.source / WEIGHTS).read_bytes()
    write_durably(data_dir / row.folder / WEIGHTS, (weights,))
    write_durably(data_dir / row.folder / CARD, (content,))
    if hashlib.sha256(weights).hexdigest() != card.weights_sha256 or read_card(data_dir / row.folder) != card:
        raise InvalidModel(f"{wish.source} changed while it was read: register it again.")
    with database.write() as connection:
        added = models.add(connection, row)
        _require_free(row, models.registered(connection))  # somebody may have been faster
        found = find_exactly(row.reference, models.registered(connection), data_dir=data_dir)
    return found, added and not known


def tried(source: Path) -> Card:
    """Load a model and let it answer a blank image; answer its card.

    Raises
    ------
    cxr_models.errors.ModelError
        It is no model folder, or it does not answer.
    """
    if source.is_file():
        raise InvalidModel(
            f"{source} is a file. A model is a folder with {WEIGHTS} and {CARD}, as 'cxr-models train' writes it; "
            "checkpoints and other pickles are never loaded."
        )
    predictor = Predictor.load(str(source.expanduser().resolve()), device="cpu")
    predictor.predict([predictor.prepare(np.zeros((8, 8), np.float32))])
    return predictor.card


def require_meanings(card: Card) -> None:
    """Go on only with a model whose every label can be reported.

    Raises
    ------
    cxr_models.errors.InvalidModel
        It answers with other labels.
    """
    strange = sorted(set(card.labels) - set(MEANINGS))
    if strange:
        raise InvalidModel(
            f"{card.name} {card.version} answers {', '.join(strange)}, which no report can say; as a shadow it may answer."
        )


def _entry(card: Card, content: bytes, wish: Registration) -> RegisteredModel:
    if not _NAME.fullmatch(card.name):
        raise ConfigurationError(
            f"models register: '{card.name}' is no name of 1 to 64 letters, digits and ._+-; give another with --name."
        )
    if not _VERSION.fullmatch(card.version):
        raise ConfigurationError(f"models register: '{card.version}' is no version of 1 to 32 letters, digits and ._+-.")
    return RegisteredModel(
        name=card.name,
        version=card.version,
        architecture=card.architecture,
        weights_sha256=card.weights_sha256,
        card_sha256=hashlib.sha256(content).hexdigest(),
        folder=FOLDER / f"{card.name}-{card.version}-{card.weights_sha256[:12]}",
        registered_at=wish.at,
        note=wish.note,
    )


def _require_free(row: RegisteredModel, known: list[RegisteredModel]) -> bool:
    """Answer whether this very model is known; raise `AnotherModel` where another one has its name and version."""
    cure = "Give it another version in its card, or another name with --name."
    for other in known:
        if other.reference == row.reference:
            if other.weights_sha256 != row.weights_sha256:
                raise AnotherModel(f"{row.reference} is registered with other weights ({other.weights_sha256[:12]}). {cure}")
            if other.card_sha256 != row.card_sha256:
                raise AnotherModel(f"{row.reference} is registered with another card of the same weights. {cure}")
            return True
    if row.name in shipped_models():
        shipped = read_card(find_shipped(row.name))
        if shipped.version == row.version and shipped.weights_sha256 != row.weights_sha256:
            raise AnotherModel(f"{row.reference} ships with other weights ({shipped.weights_sha256[:12]}). {cure}")
    return False
