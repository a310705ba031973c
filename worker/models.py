"""The active model: which one it is, and holding it ready."""

from datetime import datetime

import structlog
import torch
from sqlalchemy import Connection, insert, select

from cxr_models.checkpoint import read_card
from cxr_models.predict import Predictor
from cxr_models.zoo import find_model
from worker.db.database import Database
from worker.db.schema import activations
from worker.engine import LocalEngine, identity_of
from worker.settings import InferenceSettings
from worker.values import ModelIdentity

log = structlog.get_logger()

_SMALL_SIDE = 64


def active_model(connection: Connection, settings: InferenceSettings) -> str:
    """Name or folder of the model that is to answer: the last one activated, else the configured one."""
    activated = connection.execute(select(activations.c.model).order_by(activations.c.id.desc()).limit(1)).scalar()
    return activated or settings.model


def activate(connection: Connection, model: str, *, now: datetime) -> None:
    """Make a model the active one; a running worker takes it up at its next step."""
    connection.execute(insert(activations).values(at=now, model=model))


def active_identity(connection: Connection, settings: InferenceSettings) -> ModelIdentity:
    """Which weights are to answer, by their card; nothing is loaded.

    Raises
    ------
    cxr_models.errors.ModelError
        There is no such model, or its card is wrong.
    """
    return identity_of(read_card(find_model(active_model(connection, settings))))


class ModelHolder:
    """Keeps an engine with the active model warm, and changes it when another one was activated."""

    def __init__(self, database: Database, settings: InferenceSettings) -> None:
        self._database = database
        self._settings = settings
        self._loaded: ModelIdentity | None = None
        self._engine: LocalEngine | None = None

    def engine(self) -> LocalEngine:
        """The engine of the active model, loaded if need be.

        Raises
        ------
        cxr_models.errors.ModelError
            The active model cannot be loaded; the one before is not used in its place.
        """
        with self._database.read() as connection:
            model = active_model(connection, self._settings)
        wanted = identity_of(read_card(find_model(model)))
        if self._engine is None or wanted != self._loaded:  # another model, or other weights in the same folder
            self.close()
            self._engine = self._load(model)
            self._loaded = wanted
        return self._engine

    def close(self) -> None:
        """Let the model go."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    def _load(self, model: str) -> LocalEngine:
        predictor = Predictor.load(model, device=self._settings.device, batch_size=self._settings.batch_size)
        if predictor.device.type == "cpu" and predictor.card.input_side <= _SMALL_SIDE:
            # A network this small loses more to waking threads than it gains: 0.4 ms with one, 0.9 with two, 105 at worst.
            torch.set_num_threads(1)
        predictor.warm_up()
        card = predictor.card
        log.info("model.loaded", model=card.name, version=card.version, device=str(predictor.device))
        return LocalEngine(predictor, decode_threads=self._settings.decode_threads)
