"""The models in use: the active one, and its shadow where there is one, held ready."""

import structlog
import torch

from cxr_models.gate import FrontalGate
from cxr_models.predict import Predictor
from worker.db import models
from worker.db.database import Database
from worker.engine import Gate, LocalEngine
from worker.register import require_meanings
from worker.registry import ModelFolder, active_model
from worker.settings import Settings
from worker.shadow import ShadowHolder

log = structlog.get_logger()

_SMALL_SIDE = 64


class ModelHolder:
    """Keeps an engine with the active model and its shadow warm, and changes it when another one was named."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._threads = torch.get_num_threads()
        self._active: Predictor | None = None
        self._shadow = ShadowHolder(settings)
        self._engine: LocalEngine | None = None
        self._gate = Gate(
            minimum_age_years=settings.gate.minimum_age_years, pixels=FrontalGate.load() if settings.gate.pixels else None
        )

    def engine(self) -> LocalEngine:
        """The engine of the active model, loaded if need be.

        Raises
        ------
        cxr_models.errors.ModelError
            The active model cannot be loaded; the one before is not used in its place. A shadow that cannot be is no error.
        """
        with self._database.read() as connection:
            active = active_model(connection, self._settings)
            shadow_wanted = models.shadow(connection, configured=self._settings.inference.shadow)
            known = models.registered(connection)
        card = active.read_card()
        if self._active is None or card != self._active.card:
            self.close()
            self._active = self._load(active)
        shadow = self._shadow.take_up(shadow_wanted, known, active=card)
        if self._engine is None or self._engine.shadow is not shadow:
            self._close_engine()
            threads = self._settings.inference.decode_threads
            self._engine = LocalEngine(self._active, decode_threads=threads, gate=self._gate, shadow=shadow)
        return self._engine

    def close(self) -> None:
        """Let the models go."""
        self._close_engine()
        self._shadow.close()
        self._active = None

    def _close_engine(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    def _load(self, model: ModelFolder) -> Predictor:
        inference = self._settings.inference
        folder, device, batch_size = str(model.path.resolve()), inference.device, inference.batch_size
        predictor = Predictor.load(folder, device=device, batch_size=batch_size, precision="auto")
        card = predictor.card
        require_meanings(card)
        # A network this small loses more to waking threads than it gains: 0.4 ms with one, 0.9 with two, 105 at worst.
        small = predictor.device.type == "cpu" and card.input_side <= _SMALL_SIDE
        torch.set_num_threads(1 if small else self._threads)
        predictor.warm_up()
        log.info(
            "model.loaded",
            model=card.name,
            version=card.version,
            device=str(predictor.device),
            precision=predictor.precision,
        )
        return predictor
