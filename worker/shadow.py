"""The shadow model answers the images that the active one answers, is recorded, and is never reported.

Nothing here raises: whatever becomes of a shadow, the active model's answer stands, and the failure is words in a row.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from time import monotonic, time
from typing import Self, TypeVar

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
from worker.registry import ModelFolder, find_exactly, identity_of
from worker.settings import Settings
from worker.steps.predict import predict
from worker.values import Answer, ModelIdentity, Unanswered

log = structlog.get_logger()

Result = TypeVar("Result")

_AGAIN_SECONDS = 600.0
UNLOADABLE = "cannot be loaded"
AT_WORK = Path("models") / ".shadow-at-work"
"""In the data folder; locked and not empty while a shadow loads or predicts, only not empty where the process ended so."""
_LEFT_ALONE_SECONDS = 3600.0
PATIENCE_SECONDS = 5.0
"""For how long the results of the active model wait for those of the shadow on the same batch."""
_PARTING_SECONDS = 5.0
_AT_ONCE = 4
"""Images that are predicted before the shadow looks whether it is still waited for."""
_STILL_LOADING = "The shadow is still being loaded."
_STILL_AT_WORK = "The shadow is still at work on images before this one."
_TOO_SLOW = f"The shadow had no answer within {PATIENCE_SECONDS:g} seconds."


class Shadow:
    """A second model beside the active one. A failure of it is words in the place of an answer.

    It loads and predicts in a thread of its own, which is waited for only so long: one that is slow answers a part of a batch,
    one that hangs nothing until it is done. A thread that never ends ends with the process.
    """

    def __init__(self, *, data_dir: Path, model: ModelIdentity | None = None, failure: str = "") -> None:
        self.failure = failure
        """Why it answers nothing; empty while it does."""
        self._model = model
        self._predictor: Predictor | None = None
        self._data_dir = data_dir
        self._thread: Thread | None = None
        self._let_off = Event()

    @classmethod
    def load(cls, model: ModelFolder, card: Card, settings: Settings) -> Self:
        """Load and warm it up, or know why it cannot be, or not yet."""
        shadow = cls(data_dir=settings.data_dir, model=identity_of(card), failure=_STILL_LOADING)
        shadow._in_time(partial(shadow._load, model, settings))
        return shadow

    @property
    def at_work(self) -> bool:
        """Whether its thread has not come back."""
        return self._thread is not None and self._thread.is_alive()

    def prepare(self, image: NDArray[np.float32]) -> torch.Tensor | Unanswered:
        """Turn an image into this model's own input, as `Predictor.prepare`, from any thread."""
        predictor = self._predictor
        if predictor is None:
            return self._unanswered(self.failure)
        prepared = _tried(partial(predictor.prepare, image))
        return self._unanswered(prepared.tell("cannot take the image")) if isinstance(prepared, _Failure) else prepared

    def answer(self, prepared: Sequence[torch.Tensor | Unanswered]) -> list[Answer | Unanswered]:
        """Answer what `prepare` returned, in its order, or say why not."""
        tensors = [each for each in prepared if isinstance(each, torch.Tensor)]
        answers = iter(self._answers(tensors) if tensors else ())
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

    def close(self) -> None:
        """Let its thread off, and wait a little: torch ends the process noisily where one comes back to it too late."""
        self._let_off.set()
        if self._thread is not None:
            self._thread.join(_PARTING_SECONDS)

    def _load(self, model: ModelFolder, settings: Settings) -> None:
        predictor = _tried(partial(self._warm_predictor, model, settings))
        if isinstance(predictor, _Failure):
            self.failure = predictor.tell(UNLOADABLE)
            return
        self._predictor, self.failure = predictor, ""
        card, device, precision = predictor.card, str(predictor.device), predictor.precision
        log.info("shadow.loaded", model=card.name, version=card.version, device=device, precision=precision)

    def _warm_predictor(self, model: ModelFolder, settings: Settings) -> Predictor:
        folder, inference = str(model.path.resolve()), settings.inference
        with _at_work(self._data_dir):
            predictor = Predictor.load(folder, device=inference.device, batch_size=inference.batch_size, precision="auto")
            predictor.warm_up()
        return predictor

    def _answers(self, tensors: Sequence[torch.Tensor]) -> list[Answer | Unanswered]:
        predictor = self._predictor
        if predictor is None:
            return [self._unanswered(self.failure)] * len(tensors)
        if self.at_work:
            return [self._unanswered(_STILL_AT_WORK)] * len(tensors)
        found: list[Answer | Unanswered] = []
        if not self._in_time(partial(self._predict, predictor, tensors, found)):
            log.warning("shadow.overran", model=predictor.card.name, version=predictor.card.version, seconds=PATIENCE_SECONDS)
        answers = found[: len(tensors)]  # the thread may add to it yet
        answers += [self._unanswered(_TOO_SLOW)] * (len(tensors) - len(answers))
        failures = sum(isinstance(answer, Unanswered) for answer in answers)
        if failures:
            log.warning("shadow.failed", model=predictor.card.name, version=predictor.card.version, count=failures)
        return answers

    def _predict(self, predictor: Predictor, tensors: Sequence[torch.Tensor], found: list[Answer | Unanswered]) -> None:
        for first in range(0, len(tensors), _AT_ONCE):
            if self._let_off.is_set():
                return
            some = tensors[first : first + _AT_ONCE]
            answers = _tried(partial(self._predict_at_work, predictor, some))
            if isinstance(answers, _Failure):
                answers = [answers.tell("cannot answer")] * len(some)
            found += [self._unanswered(answer) if isinstance(answer, str) else answer for answer in answers]

    def _predict_at_work(self, predictor: Predictor, tensors: Sequence[torch.Tensor]) -> list[Answer | str]:
        with _at_work(self._data_dir):
            return predict(predictor, tensors)

    def _in_time(self, work: Callable[[], None]) -> bool:
        """Do something in the thread; answer whether it was done before it was let off."""
        self._let_off = Event()
        self._thread = Thread(target=work, name="shadow", daemon=True)
        self._thread.start()
        self._thread.join(PATIENCE_SECONDS)
        overran = self._thread.is_alive()
        if overran:
            self._let_off.set()
        return not overran

    def _unanswered(self, reason: str) -> Unanswered:
        return Unanswered(reason=reason, model=self._model)


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
        found = _tried(partial(self._find, wanted, known))
        if isinstance(found, _Failure):
            if self._shadow is None or self._shadow.failure != found.words(UNLOADABLE):  # said once, not at each batch
                self._shadow, self._card = Shadow(data_dir=self._settings.data_dir, failure=found.tell(UNLOADABLE)), None
            return self._shadow
        model, card = found
        if card == active:
            self.close()
            return None
        failed = self._shadow is not None and self._shadow.failure != ""
        waited_for = self._shadow is not None and self._shadow.at_work
        if card != self._card or (failed and not waited_for and monotonic() - self._tried_at > _AGAIN_SECONDS):
            self.close()
            self._shadow, self._card, self._tried_at = Shadow.load(model, card, self._settings), card, monotonic()
        return self._shadow

    def _find(self, wanted: str, known: Sequence[RegisteredModel]) -> tuple[ModelFolder, Card]:
        model = find_exactly(wanted, known, data_dir=self._settings.data_dir)
        return model, model.read_card()

    def close(self) -> None:
        """Let it go."""
        if self._shadow is not None:
            self._shadow.close()
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


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Exception

    def tell(self, what: str) -> str:
        log.warning("shadow.failed", error=type(self.error).__name__, where=traceback_of(self.error))
        return self.words(what)

    def words(self, what: str) -> str:
        error = self.error
        cause = str(error) if isinstance(error, ModelError) else f"{type(error).__name__} at {traceback_of(error)}"
        return f"The shadow {what}: {cause}"


def _tried(work: Callable[[], Result]) -> Result | _Failure:
    """Do what may fail in any way, and must not keep the active model from its answer."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001  the one place where whatever a shadow raises ends
        return _Failure(error)
