"""The shadow model answers the images that the active one answers, is recorded, and is never reported.

Nothing here raises: whatever becomes of a shadow, the active model's answer stands, and the failure is words in a row.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Self

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from cxr_models.errors import ModelError
from cxr_models.predict import Predictor
from cxr_models.values import Card
from worker.db.models import RegisteredModel
from worker.log import traceback_of
from worker.registry import ModelFolder, find_exactly
from worker.settings import Settings
from worker.steps.predict import predict
from worker.values import Answer

log = structlog.get_logger()

_AGAIN_SECONDS = 600.0
UNLOADABLE = "cannot be loaded"
LEFT_OUT = "Left out: the study is tried again, and the shadow may be why the attempt before failed."


class Shadow:
    """A second model beside the active one. A failure of it is words in the place of an answer."""

    def __init__(self, predictor: Predictor | None, *, failure: str = "") -> None:
        self.failure = failure
        """Why it answers nothing; empty while it does."""
        self._predictor = predictor

    @classmethod
    def load(cls, model: ModelFolder, settings: Settings) -> Self:
        """Load and warm it up, or know why it cannot be."""
        device, batch_size = settings.inference.device, settings.inference.batch_size
        try:
            predictor = Predictor.load(str(model.path.resolve()), device=device, batch_size=batch_size)
            predictor.warm_up()
        except Exception as error:  # noqa: BLE001  a shadow may fail in any way, and the active model must answer
            return cls(None, failure=_failed(error, UNLOADABLE))
        log.info("shadow.loaded", model=predictor.card.name, version=predictor.card.version, device=str(predictor.device))
        return cls(predictor)

    def prepare(self, image: NDArray[np.float32]) -> torch.Tensor | str:
        """Turn an image into this model's own input, as `Predictor.prepare`, from any thread."""
        predictor = self._predictor
        if predictor is None:
            return self.failure
        try:
            return predictor.prepare(image)
        except Exception as error:  # noqa: BLE001  as in load
            return _failed(error, "cannot take the image")

    def answer(self, prepared: Sequence[torch.Tensor | str]) -> list[Answer | str]:
        """Answer what `prepare` returned, in its order."""
        tensors = [each for each in prepared if isinstance(each, torch.Tensor)]
        answers = iter(self._answers(tensors))
        return [next(answers) if isinstance(each, torch.Tensor) else each for each in prepared]

    def let_go(self) -> bool:
        """Give its memory back because the active model needs it; answer whether there was any."""
        held = self._predictor is not None
        self._predictor = None
        self.failure = "The shadow was put out of memory, which the active model needed."
        if held:
            log.warning("shadow.failed", error="DeviceBusy")
            torch.cuda.empty_cache()
        return held

    def _answers(self, tensors: Sequence[torch.Tensor]) -> list[Answer | str]:
        predictor = self._predictor
        if predictor is None:
            return [self.failure] * len(tensors)
        try:
            answers = predict(predictor, tensors)
        except Exception as error:  # noqa: BLE001  as in load
            return [_failed(error, "cannot answer")] * len(tensors)
        failures = [answer for answer in answers if isinstance(answer, str)]
        if failures:
            log.warning("shadow.failed", model=predictor.card.name, version=predictor.card.version, count=len(failures))
        return answers


class ShadowHolder:
    """Keeps the shadow that was named, and tries one that failed again after ten minutes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shadow: Shadow | None = None
        self._card: Card | None = None
        self._tried_at = 0.0

    def take_up(self, wanted: str | None, known: Sequence[RegisteredModel], *, active: Card) -> Shadow | None:
        """The shadow for this active model, loaded if need be; None where none is wanted, or none but the active one itself."""
        if wanted is None:
            self.close()
            return None
        try:
            model = find_exactly(wanted, known, data_dir=self._settings.data_dir)
            card = model.read_card()
        except Exception as error:  # noqa: BLE001  as in Shadow.load
            if self._shadow is None or self._shadow.failure != _words(error, UNLOADABLE):  # said once, not at each batch
                self._shadow, self._card = Shadow(None, failure=_failed(error, UNLOADABLE)), None
            return self._shadow
        if card == active:
            self.close()
            return None
        failed = self._shadow is not None and self._shadow.failure != ""
        if card != self._card or (failed and monotonic() - self._tried_at > _AGAIN_SECONDS):
            self.close()
            self._shadow, self._card, self._tried_at = Shadow.load(model, self._settings), card, monotonic()
        return self._shadow

    def close(self) -> None:
        """Let it go."""
        self._shadow = self._card = None


def _failed(error: Exception, what: str) -> str:
    log.warning("shadow.failed", error=type(error).__name__, where=traceback_of(error))
    return _words(error, what)


def _words(error: Exception, what: str) -> str:
    cause = str(error) if isinstance(error, ModelError) else f"{type(error).__name__} at {traceback_of(error)}"
    return f"The shadow {what}: {cause}"
