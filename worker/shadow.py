"""The shadow model answers the images that the active one answers, is recorded, and is never reported.

Nothing here raises: whatever becomes of a shadow, the active model's answer stands, and the failure is words in a row.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, time
from typing import Self

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from cxr_models.errors import InvalidModel, ModelError
from cxr_models.predict import Predictor
from cxr_models.values import Card
from worker.db.models import RegisteredModel
from worker.files import make_folder
from worker.log import traceback_of
from worker.registry import ModelFolder, find_exactly
from worker.settings import Settings
from worker.steps.predict import predict
from worker.values import Answer

log = structlog.get_logger()

_AGAIN_SECONDS = 600.0
UNLOADABLE = "cannot be loaded"
AT_WORK = Path("models") / ".shadow-at-work"
"""In the data folder; locked and not empty while a shadow loads or predicts, only not empty where the process ended so."""
_LEFT_ALONE_SECONDS = 3600.0


class Shadow:
    """A second model beside the active one. A failure of it is words in the place of an answer."""

    def __init__(self, predictor: Predictor | None, *, data_dir: Path, failure: str = "") -> None:
        self.failure = failure
        """Why it answers nothing; empty while it does."""
        self._predictor = predictor
        self._data_dir = data_dir

    @classmethod
    def load(cls, model: ModelFolder, settings: Settings) -> Self:
        """Load and warm it up, or know why it cannot be."""
        device, batch_size = settings.inference.device, settings.inference.batch_size
        try:
            with _at_work(settings.data_dir):
                predictor = Predictor.load(str(model.path.resolve()), device=device, batch_size=batch_size)
                predictor.warm_up()
        except Exception as error:  # noqa: BLE001  a shadow may fail in any way, and the active model must answer
            return cls(None, data_dir=settings.data_dir, failure=_failed(error, UNLOADABLE))
        log.info("shadow.loaded", model=predictor.card.name, version=predictor.card.version, device=str(predictor.device))
        return cls(predictor, data_dir=settings.data_dir)

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
            with _at_work(self._data_dir):
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
                failure = _failed(error, UNLOADABLE)
                self._shadow, self._card = Shadow(None, data_dir=self._settings.data_dir, failure=failure), None
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


@contextmanager
def _at_work(data_dir: Path) -> Iterator[None]:
    """Leave a trace where the process ends in here, for want of memory for one: it must not end so again at once.

    Raises
    ------
    InvalidModel
        The process ended in here less than an hour ago.
    """
    path = data_dir / AT_WORK
    make_folder(path.parent)
    with path.open("a+b") as trace:
        try:
            fcntl.flock(trace, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a standby loads its shadow meanwhile; of two, one trace is enough
            yield
            return
        found = os.fstat(trace.fileno())
        if found.st_size and time() - found.st_mtime < _LEFT_ALONE_SECONDS:
            raise InvalidModel("The worker was killed while the shadow was at work, which now rests for an hour.")
        trace.truncate(0)
        trace.write(b"at work\n")
        trace.flush()
        try:
            yield
        finally:
            trace.truncate(0)


def _failed(error: Exception, what: str) -> str:
    log.warning("shadow.failed", error=type(error).__name__, where=traceback_of(error))
    return _words(error, what)


def _words(error: Exception, what: str) -> str:
    cause = str(error) if isinstance(error, ModelError) else f"{type(error).__name__} at {traceback_of(error)}"
    return f"The shadow {what}: {cause}"
