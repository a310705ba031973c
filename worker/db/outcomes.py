"""Outcomes: what became of a study is written down as a whole, or not at all."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from worker.db import events
from worker.db.analyses import still_due
from worker.db.schema import instances, predictions, studies
from worker.values import Answer, Conclusion, ImageOutcome, ModelRole, StudyOutcome, StudyState, Triage, Unanswered


def record(connection: Connection, outcome: StudyOutcome, conclusion: Conclusion, *, now: datetime) -> bool:
    """Write down what became of a study, unless it was reopened meanwhile; answer whether it was written.

    The triage level never falls.
    """
    study = outcome.study
    before = connection.execute(select(studies.c.triage).where(studies.c.id == study.id)).scalar_one()
    changed = connection.execute(
        update(studies)
        .where(still_due(study))
        .values(
            state=conclusion.state,
            reason=conclusion.reason,
            triage=max(Triage(before), conclusion.triage, key=lambda level: level.rank),
            attempts=0,
            next_attempt_at=None,
            analysed_at=now,
            untold=conclusion.state is StudyState.NOT_ANALYSED,
        )
    )
    if changed.rowcount == 0:
        return False
    for image in outcome.images:
        connection.execute(
            update(instances)
            .where(instances.c.id == image.instance.id)
            .values(
                eligible=image.eligible,
                reason_code=image.reason_code,
                reason=image.reason,
                correction=image.correction.code,
                **_conflict(image),
            )
        )
        for answer, role in ((image.answer, ModelRole.ACTIVE), (image.shadow, ModelRole.SHADOW)):
            if isinstance(answer, Answer):
                row = _prediction(answer, role) | {"instance_id": image.instance.id, "generation": study.generation}
                connection.execute(insert(predictions).values(study_id=study.id, predicted_at=now, **row))
    facts = _facts_of(outcome) | {"triage": conclusion.triage.value}
    decided = events.Event(kind=conclusion.state.value, at=now, study_id=study.id, detail=conclusion.reason or "", facts=facts)
    events.record(connection, decided)
    for shadow, images in _unanswered(outcome).items():
        facts = _facts_of_shadow(shadow, images)
        failed = events.Event(kind=events.SHADOW_FAILED, at=now, study_id=study.id, detail=shadow.reason, facts=facts)
        events.record(connection, failed)
    return True


def _facts_of(outcome: StudyOutcome) -> dict[str, Any]:
    """Which model said what of how many images."""
    answers = [image.answer for image in outcome.images if image.answer is not None]
    labels = Counter("undetermined" if answer.undetermined else answer.label for answer in answers)
    facts: dict[str, Any] = {"images": len(outcome.images), "labels": dict(sorted(labels.items()))}
    if answers:
        model = answers[0].model
        facts |= {"model": model.name, "version": model.version, "weights_sha256": model.weights_sha256}
    return facts


def _conflict(image: ImageOutcome) -> dict[str, bool]:
    """A repetition in another encoding turned out to be no other content."""
    return {"conflict": False} if image.reason_code == "repeated" else {}


def _prediction(answer: Answer, role: ModelRole) -> dict[str, Any]:
    return {
        "role": role,
        "model": answer.model.name,
        "version": answer.model.version,
        "weights_sha256": answer.model.weights_sha256,
        "temperature": answer.temperature,
        "thresholds": dict(answer.thresholds),
        "probabilities": dict(answer.probabilities),
        "present": dict(answer.present),
        "label": answer.label,
        "undetermined": answer.undetermined,
        "flagged": answer.flagged,
        "parameters": list(answer.parameters),
    }


def _unanswered(outcome: StudyOutcome) -> dict[Unanswered, list[ImageOutcome]]:
    """The images of which the shadow said nothing, by why."""
    images: dict[Unanswered, list[ImageOutcome]] = {}
    for image in outcome.images:
        if isinstance(image.shadow, Unanswered):
            images.setdefault(image.shadow, []).append(image)
    return images


def _facts_of_shadow(shadow: Unanswered, images: Sequence[ImageOutcome]) -> dict[str, Any]:
    """Which shadow said nothing of what which active model answered; nothing where either is unknown."""
    answered = [(image.answer.model, image.instance.id) for image in images if image.answer is not None]
    if shadow.model is None or not answered:
        return {}
    return {"active": asdict(answered[0][0]), "shadow": asdict(shadow.model), "instances": [id_ for _, id_ in answered]}
