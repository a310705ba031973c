"""Which models there are: those that ship, those that the site registered, and any folder; and which of them is to answer."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Connection

from cxr_models.checkpoint import CARD, read_card
from cxr_models.errors import InvalidModel, UnknownModel
from cxr_models.values import Card
from cxr_models.zoo import find_model as find_shipped
from cxr_models.zoo import shipped_models
from worker.db import models
from worker.db.models import RegisteredModel
from worker.settings import Settings
from worker.values import ModelIdentity


class Origin(StrEnum):
    """Where a model comes from."""

    SHIPPED = "shipped"
    """It is part of the package and changes with it."""
    REGISTERED = "registered"
    """The site's own, copied into the data folder, where nothing changes it."""
    FOLDER = "folder"
    """Wherever the configuration points; whoever edits the folder changes what answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A model that can be asked for, and where it lies. Whether it is whole is known when its card is read."""

    reference: str
    """By which it is found again."""
    origin: Origin
    path: Path
    registered: RegisteredModel | None = None

    def read_card(self) -> Card:
        """Read its card, which for a registered model must be the one that was registered.

        Raises
        ------
        cxr_models.errors.InvalidModel
            The card is missing, wrong or another one.
        """
        card = read_card(self.path)
        if self.registered is not None and _sha256(self.path / CARD) != self.registered.card_sha256:
            raise InvalidModel(f"{self.path} is not as it was registered: restore it, or register it again from its source.")
        return card


def all_models(known: Sequence[RegisteredModel], *, data_dir: Path) -> list[ModelFolder]:
    """Every model that has a name: the shipped ones, then the registered ones."""
    shipped = [ModelFolder(reference=name, origin=Origin.SHIPPED, path=find_shipped(name)) for name in shipped_models()]
    return shipped + [
        ModelFolder(reference=row.reference, origin=Origin.REGISTERED, path=data_dir / row.folder, registered=row)
        for row in known
    ]


def find_exactly(wanted: str, known: Sequence[RegisteredModel], *, data_dir: Path) -> ModelFolder:
    """Find a model by what can mean only one, whatever is registered later: a shipped name, NAME@VERSION, or a folder.

    Raises
    ------
    cxr_models.errors.UnknownModel
        There is none.
    """
    there = all_models(known, data_dir=data_dir)
    for model in there:
        if model.reference == wanted:
            return model
    name, _, version = wanted.partition("@")
    if name in shipped_models() and read_card(find_shipped(name)).version == version:
        return ModelFolder(reference=wanted, origin=Origin.SHIPPED, path=find_shipped(name))
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        return ModelFolder(reference=wanted, origin=Origin.FOLDER, path=folder)
    raise UnknownModel(
        f"There is no model {wanted!r}: it is no folder, and the models are {', '.join(model.reference for model in there)}."
    )


def find_model(wanted: str, known: Sequence[RegisteredModel], *, data_dir: Path) -> ModelFolder:
    """Find a model by what a person types: as `find_exactly`, or the name alone of what was registered once.

    Raises
    ------
    cxr_models.errors.UnknownModel
        There is none, or several versions have the name.
    """
    named = [row for row in known if row.name == wanted]
    if wanted in shipped_models() or not named:
        return find_exactly(wanted, known, data_dir=data_dir)
    if len(named) > 1:
        raise UnknownModel(f"Which {wanted}? Say one of {', '.join(row.reference for row in named)}.")
    return find_exactly(named[0].reference, known, data_dir=data_dir)


def active_model(connection: Connection, settings: Settings) -> ModelFolder:
    """The model that is to answer: the last one activated, else the configured one.

    Raises
    ------
    cxr_models.errors.UnknownModel
        There is none.
    """
    wanted = models.activated(connection) or settings.inference.model
    return find_exactly(wanted, models.registered(connection), data_dir=settings.data_dir)


def shadow_model(connection: Connection, settings: Settings) -> ModelFolder | None:
    """The model that is to answer without being reported, if there is to be one.

    Raises
    ------
    cxr_models.errors.UnknownModel
        One was named that does not exist.
    """
    wanted = models.shadow(connection, configured=settings.inference.shadow)
    return None if wanted is None else find_exactly(wanted, models.registered(connection), data_dir=settings.data_dir)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def active_identity(connection: Connection, settings: Settings) -> ModelIdentity:
    """Which weights are to answer, by their card; nothing is loaded.

    Raises
    ------
    cxr_models.errors.ModelError
        There is no such model, or its card is wrong.
    """
    return identity_of(active_model(connection, settings).read_card())


def identity_of(card: Card) -> ModelIdentity:
    """Which weights a card describes."""
    return ModelIdentity(name=card.name, version=card.version, weights_sha256=card.weights_sha256)
