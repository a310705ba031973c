"""Engines do the heavy work: select, decode, prepare and predict, for many studies at once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cxr_models.errors import DeviceBusy
from cxr_models.gate import FrontalGate
from cxr_models.predict import Predictor
from cxr_models.saliency import explain
from dicom_io.decoders import decoders
from dicom_io.status import is_transient
from worker.log import traceback_of
from worker.registry import identity_of
from worker.shadow import Shadow
from worker.steps.predict import predict
from worker.steps.prepare import PreparedImage, prepare, undecodable
from worker.steps.select import newest_contents, select
from worker.values import Answer, ImageOutcome, ModelIdentity, ReadyStudy, StoredInstance, StudyOutcome, Unanswered


class Engine(Protocol):
    """Where studies are analysed: this process, or a cluster behind the same verb."""

    def analyse(self, studies: Sequence[ReadyStudy]) -> Iterator[StudyOutcome]:
        """Answer one outcome for each study, in any order.

        Raises
        ------
        cxr_models.errors.Retryable
            The device cannot take it now; the studies not yet answered stay due.
        """

    def explain(self, pixels: NDArray[np.float32], model: ModelIdentity, label: str) -> NDArray[np.float32] | None:
        """Say what in an image spoke for a label: a map of 0..1 over the whole image; None if the engine has other weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What decides which images are analysed, beside the rules of `dicom_io.eligibility`."""

    minimum_age_years: int = 0
    pixels: FrontalGate | None = None
    """Looks at the decoded picture; None where headers alone are believed."""


BY_HEADER: Final = Gate()


class LocalEngine:
    """Decodes in threads and predicts on one warm model, batching images of different studies into one forward pass.

    A shadow model, where there is one, answers after it on the same decoded images, and is waited for only so long.
    """

    def __init__(
        self, predictor: Predictor, *, decode_threads: int, gate: Gate = BY_HEADER, shadow: Shadow | None = None
    ) -> None:
        self.predictor = predictor
        self.shadow = shadow
        self._gate = gate
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

    def explain(self, pixels: NDArray[np.float32], model: ModelIdentity, label: str) -> NDArray[np.float32] | None:
        """See `Engine.explain`."""
        if identity_of(self.predictor.card) != model:
            return None
        return explain(self.predictor, self.predictor.prepare(pixels), label=label)

    def close(self) -> None:
        """Let the decoding threads go, and the processes that decode for them."""
        self._pool.shutdown(cancel_futures=True)
        decoders.close()

    def _open_all(self, study: ReadyStudy) -> list[PreparedImage | ImageOutcome]:
        chosen, set_aside = newest_contents(study.instances)
        return [*self._pool.map(self._open, chosen), *set_aside]

    def _open(self, instance: StoredInstance) -> PreparedImage | ImageOutcome:
        shadow = None if self.shadow is None else self.shadow.prepare
        try:
            selected = select(instance, minimum_age_years=self._gate.minimum_age_years)
            if isinstance(selected, ImageOutcome):
                return selected
            return prepare(selected, self.predictor.prepare, gate=self._gate.pixels, shadow=shadow)
        except FileNotFoundError:
            return undecodable(instance, "The received file is gone from the disk: send the image again.")
        except Exception as error:
            if is_transient(error):
                raise  # the study is tried again later
            # One image must not spoil its study, whatever it does to a decoder.
            return undecodable(instance, f"Internal error: {type(error).__name__} at {traceback_of(error)}")

    def _answer(self, images: Sequence[PreparedImage]) -> Iterator[ImageOutcome]:
        answers = self._predict([image.tensor for image in images])
        for image, answer, shadow in zip(images, answers, self._shadow_answers(images), strict=True):
            if isinstance(answer, str):
                yield replace(undecodable(image.instance, answer), shadow=shadow)
                continue
            yield ImageOutcome(
                instance=image.instance,
                eligible=True,
                reason_code="eligible",
                reason="; ".join(image.notes),
                answer=answer,
                shadow=shadow,
                correction=image.correction,
            )

    def _predict(self, tensors: Sequence[torch.Tensor]) -> list[Answer | str]:
        try:
            return predict(self.predictor, tensors)
        except DeviceBusy:
            if self.shadow is None or not self.shadow.let_go():
                raise
            return predict(self.predictor, tensors)

    def _shadow_answers(self, images: Sequence[PreparedImage]) -> Sequence[Answer | Unanswered | None]:
        shadowed = [image.shadow for image in images if image.shadow is not None]
        answers = iter(self.shadow.answer(shadowed) if self.shadow is not None and shadowed else ())
        return [None if image.shadow is None else next(answers) for image in images]
