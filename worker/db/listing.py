"""What operators ask for: studies and deliveries as plain values, ready for a table or JSON."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, select

from worker.db.schema import deliveries, events, instances, predictions, reports, studies
from worker.retry import MAX_ATTEMPTS
from worker.values import DeliveryState, ModelRole

Listed = dict[str, Any]

_WAITS_FOR = {
    DeliveryState.PENDING: "its next attempt",
    DeliveryState.STORED: "the destination's commitment",
    DeliveryState.ON_HOLD: "the destination to take one of those on hold; tried every 10 minutes",
    DeliveryState.FAILED: "somebody: cure the cause, then 'cxr-worker deliveries retry'",
}
"""What has to happen before a report goes on its way; nothing where it has arrived or was taken back."""
_WAITS_FOR_ANSWER = {
    **_WAITS_FOR,
    DeliveryState.PENDING: "its next attempt, or the destination to answer",
    DeliveryState.ON_HOLD: "the destination to answer",
}


def list_studies(connection: Connection, *, state: str | None, since: datetime | None, limit: int) -> list[Listed]:
    """Studies with their images, reports and deliveries, the newest first."""
    chosen = select(studies).order_by(studies.c.received_at.desc(), studies.c.id.desc()).limit(limit)
    if state is not None:
        chosen = chosen.where(studies.c.state == state)
    if since is not None:
        chosen = chosen.where(studies.c.received_at >= since)
    return _described(connection, chosen)


def show_study(connection: Connection, study_uid: str) -> Listed | None:
    """One study, with what happened to it."""
    found = _described(connection, select(studies).where(studies.c.study_uid == study_uid))
    if not found:
        return None
    happened = (
        select(events)
        .join(studies, studies.c.id == events.c.study_id)
        .where(studies.c.study_uid == study_uid)
        .order_by(events.c.id)
    )
    return found[0] | {
        "events": [
            {"at": _moment(row["at"]), "kind": row["kind"], "detail": row["detail"]}
            for row in connection.execute(happened).mappings()
        ]
    }


def list_deliveries(
    connection: Connection, *, state: str | None = None, destination: str | None = None, limit: int | None = None
) -> list[Listed]:
    """Deliveries, the newest first."""
    chosen = (
        select(deliveries, reports.c.kind, studies.c.study_uid)
        .join(reports, reports.c.id == deliveries.c.report_id)
        .join(studies, studies.c.id == reports.c.study_id)
        .order_by(deliveries.c.id.desc())
        .limit(limit)
    )
    if state is not None:
        chosen = chosen.where(deliveries.c.state == state)
    if destination is not None:
        chosen = chosen.where(deliveries.c.destination == destination)
    return [{"id": row["id"], "study_uid": row["study_uid"], **_delivery(row)} for row in connection.execute(chosen).mappings()]


def destinations_due_since(connection: Connection, moment: datetime) -> list[str]:
    """Where something is pending that became due at exactly this moment."""
    became_due = (deliveries.c.state == DeliveryState.PENDING) & (deliveries.c.next_attempt_at == moment)
    chosen = select(deliveries.c.destination).where(became_due).distinct().order_by(deliveries.c.destination)
    return list(connection.execute(chosen).scalars())


def _described(connection: Connection, chosen: Select[Any]) -> list[Listed]:
    rows = connection.execute(chosen).mappings().all()
    ids = chosen.with_only_columns(studies.c.id).subquery().select()  # a list of ids could be longer than a statement may be
    images = _grouped(connection, select(instances).where(instances.c.study_id.in_(ids)).order_by(instances.c.id))
    answers = _grouped(connection, select(predictions).where(predictions.c.study_id.in_(ids)).order_by(predictions.c.id))
    made = _grouped(connection, select(reports).where(reports.c.study_id.in_(ids)).order_by(reports.c.id))
    sent = _grouped(
        connection,
        select(deliveries, reports.c.kind, reports.c.study_id)
        .join(reports, reports.c.id == deliveries.c.report_id)
        .where(reports.c.study_id.in_(ids))
        .order_by(deliveries.c.id),
    )
    return [
        {
            "study_uid": row["study_uid"],
            "patient_id": row["patient_id"],
            "accession_number": row["accession_number"],
            "state": row["state"],
            "reason": row["reason"],
            "received_at": _moment(row["received_at"]),
            "completed_at": _moment(row["completed_at"]),
            "analysed_at": _moment(row["analysed_at"]),
            "triage": row["triage"],
            "generation": row["generation"],
            "files_gone_at": _moment(max(filter(None, (image["gone_at"] for image in images[row["id"]])), default=None)),
            "images": [_image(image, answers[row["id"]]) for image in images[row["id"]]],
            "reports": [
                {key: report[key] for key in ("kind", "language", "sop_instance_uid", "sop_class_uid", "generation")}
                for report in made[row["id"]]
            ],
            "deliveries": [_delivery(delivery) for delivery in sent[row["id"]]],
        }
        for row in rows
    ]


def _image(image: RowMapping, answers: Sequence[RowMapping]) -> Listed:
    of_image = [answer for answer in answers if answer["instance_id"] == image["id"]]
    return {
        "sop_instance_uid": image["sop_instance_uid"],
        "modality": image["modality"],
        "eligible": image["eligible"],
        "reason_code": image["reason_code"],
        "reason": image["reason"],
        "conflict": image["conflict"],
        "file_gone_at": _moment(image["gone_at"]),
        "path": image["path"],
        "predictions": [_answer(answer) for answer in of_image if answer["role"] == ModelRole.ACTIVE],
        "shadow_predictions": [_answer(answer) for answer in of_image if answer["role"] == ModelRole.SHADOW],
    }


def _answer(row: RowMapping) -> Listed:
    return {
        "model": row["model"],
        "version": row["version"],
        "weights_sha256": row["weights_sha256"],
        "generation": row["generation"],
        "probabilities": row["probabilities"],
        "label": row["label"],
        "undetermined": row["undetermined"],
        "flagged": row["flagged"],
        "present": [label for label, present in row["present"].items() if present],
    }


def _delivery(row: RowMapping) -> Listed:
    return {
        "destination": row["destination"],
        "kind": row["kind"],
        "state": row["state"],
        "attempts": row["attempts"],
        "next_attempt_at": _moment(row["next_attempt_at"]) if row["state"] == "pending" else None,
        "waits_for": _waits_for(row),
        "last_error": row["last_error"],
        "delivered_at": _moment(row["delivered_at"]),
        "committed": row["committed"],
    }


def _waits_for(row: RowMapping) -> str | None:
    state = DeliveryState(row["state"])
    if state is DeliveryState.ON_HOLD and row["asked"] >= MAX_ATTEMPTS:
        return "the destination's commitment; asked every 10 minutes"
    return _WAITS_FOR_ANSWER.get(state) if row["unreachable"] else _WAITS_FOR.get(state)


def _grouped(connection: Connection, chosen: Select[Any]) -> defaultdict[int, list[RowMapping]]:
    groups: defaultdict[int, list[RowMapping]] = defaultdict(list)
    rows: Iterable[RowMapping] = connection.execute(chosen).mappings()
    for row in rows:
        groups[row["study_id"]].append(row)
    return groups


def _moment(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat(timespec="milliseconds")
