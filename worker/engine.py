"""Engines do the heavy work: select, decode, prepare and predict, for many studies at once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from cxr_models.errors import Permanent as PermanentModelError
from cxr_models.predict import Predictor
from cxr_models.values import Card, Prediction
from dicom_io.status import is_transient
from worker.log import traceback_of
from worker.steps.prepare import PreparedImage, prepare, undecodable
from worker.steps.select import newest_contents, select
from worker.values import Answer, ImageOutcome, ModelIdentity, ReadyStudy, StoredInstance, StudyOutcome


class Engine(Protocol):
    """Where studies are analysed: this process, or a cluster behind the same verb."""

    def analyse(self, studies: Sequence[ReadyStudy]) -> Iterator[StudyOutcome]:
        """Answer one outcome for each study, in any order.

        Raises
        ------
        cxr_models.errors.Retryable
            The device cannot take it now; the studies not yet answered stay due.
        """


class LocalEngine:
    """Decodes in threads and predicts on one warm model, batching images of different studies into one forward pass."""

    def __init__(self, predictor: Predictor, *, decode_threads: int) -> None:
        self.predictor = predictor
        self._pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")

    def analyse(self, studies: Sequence[ReadyStudy]) -> Iterator[StudyOutcome]:
        """See `Engine.analyse`."""
        images = {study.id: self._open_all(study) for study in studies}
        prepared = [image for opened in images.values() for image in opened if isinstance(image, PreparedImage)]
        answered = {outcome.instance.id: outcome for outcome in self._answer(prepared)}
        for study in studies:
            outcomes = tuple(
                answered[image.instance.id] if isinstance(image, PreparedImage) else image for image in images[study.id]
            )
            yield StudyOutcome(study=study, images=outcomes)

    def close(self) -> None:
        """Let the decoding threads go."""
        self._pool.shutdown(cancel_futures=True)

    def _open_all(self, study: ReadyStudy) -> list[PreparedImage | ImageOutcome]:
        chosen, set_aside = newest_contents(study.instances)
        return [*self._pool.map(self._open, chosen), *set_aside]

    def _open(self, instance: StoredInstance) -> PreparedImage | ImageOutcome:
        try:
            selected = select(instance)
            return selected if isinstance(selected, ImageOutcome) else prepare(selected, self.predictor.prepare)
        except FileNotFoundError:
            return undecodable(instance, "The received file is gone from the disk: send the image again.")
        except Exception as error:
            if is_transient(error):
                raise  # the study is tried again later
            # One image must not spoil its study, whatever it does to a decoder.
            return undecodable(instance, f"Internal error: {type(error).__name__} at {traceback_of(error)}")

    def _answer(self, images: Sequence[PreparedImage]) -> Iterator[ImageOutcome]:
        for image, prediction in zip(images, self._predict([image.tensor for image in images]), strict=True):
            if isinstance(prediction, str):
                yield undecodable(image.instance, prediction)
                continue
            yield ImageOutcome(
                instance=image.instance,
                eligible=True,
                reason_code="eligible",
                reason="; ".join(image.notes),
                answer=answer_of(prediction, self.predictor.card),
            )

    def _predict(self, tensors: Sequence[torch.Tensor]) -> list[Prediction | str]:
        """Predict together; where the batch fails for good, one by one, so that only the culprit gets the reason."""
        try:
            return list(self.predictor.predict(tensors))
        except PermanentModelError as error:
            if len(tensors) <= 1:
                return [str(error)]
            return [answer for tensor in tensors for answer in self._predict([tensor])]


def answer_of(prediction: Prediction, card: Card) -> Answer:
    """A prediction together with what made it."""
    return Answer(
        model=identity_of(card),
        temperature=card.temperature,
        thresholds=card.thresholds,
        probabilities=prediction.probabilities,
        present=prediction.present,
        label=prediction.label,
        flagged=prediction.flagged,
    )


def identity_of(card: Card) -> ModelIdentity:
    """Which weights a card describes."""
    return ModelIdentity(name=card.name, version=card.version, weights_sha256=card.weights_sha256)
