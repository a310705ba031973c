"""How a shadow model's answers compare with the active one's on the same images."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, select

from worker.db.events import SHADOW_FAILED
from worker.db.schema import events, predictions
from worker.values import ModelRole

_COLUMNS = ("model", "version", "weights_sha256", "label", "probabilities", "undetermined", "flagged")
_Model = tuple[str, str, str]


def compare(connection: Connection, *, since: datetime | None) -> list[dict[str, Any]]:
    """One entry for each active model and shadow that answered the same images, in the order they first did.

    An image that a pair answered more than once counts once, with its newest answers.

    Returns
    -------
    list[dict]
        active, shadow (model, version, weights_sha256), unanswered (images that the active model answered, and the shadow was
        asked and did not), n, agreement (share of equal labels, 0..1), confusion (images by the
        active model's label, then the shadow's), mean_absolute_difference (by label, of probabilities), flagged (both,
        active_only, shadow_only, neither) and undetermined (active, shadow).
    """
    active, shadow = predictions.alias("active"), predictions.alias("shadow")
    chosen = (
        select(
            active.c.instance_id,
            *(active.c[name].label(f"active_{name}") for name in _COLUMNS),
            *(shadow.c[name].label(f"shadow_{name}") for name in _COLUMNS),
        )
        .join(shadow, and_(shadow.c.instance_id == active.c.instance_id, shadow.c.generation == active.c.generation))
        .where(active.c.role == ModelRole.ACTIVE, shadow.c.role == ModelRole.SHADOW)
        .order_by(active.c.id)
    )
    if since is not None:
        chosen = chosen.where(active.c.predicted_at >= since)
    failures = select(events.c.facts).where(events.c.kind == SHADOW_FAILED)
    if since is not None:
        failures = failures.where(events.c.at >= since)
    unanswered: defaultdict[tuple[_Model, _Model], set[int]] = defaultdict(set)
    for facts in connection.execute(failures).scalars():
        if facts:
            unanswered[_known(facts["active"]), _known(facts["shadow"])].update(facts["instances"])
    newest: defaultdict[tuple[_Model, _Model], dict[int, RowMapping]] = defaultdict(dict)
    for row in connection.execute(chosen).mappings():
        newest[_model(row, "active"), _model(row, "shadow")][row["instance_id"]] = row
    return [
        {
            "active": _named(pair[0]),
            "shadow": _named(pair[1]),
            "unanswered": len(unanswered[pair] - rows.keys()),
            **_agreement(list(rows.values())),
        }
        for pair, rows in newest.items()
    ]


def _model(row: RowMapping, role: str) -> _Model:
    return row[f"{role}_model"], row[f"{role}_version"], row[f"{role}_weights_sha256"]


def _known(facts: dict[str, str]) -> _Model:
    return facts["name"], facts["version"], facts["weights_sha256"]


def _named(model: _Model) -> dict[str, str]:
    return dict(zip(("model", "version", "weights_sha256"), model, strict=True))


def _agreement(rows: Sequence[RowMapping]) -> dict[str, Any]:
    counted = Counter((row["active_label"], row["shadow_label"]) for row in rows)
    confusion: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for (of_active, of_shadow), count in sorted(counted.items()):
        confusion[of_active][of_shadow] = count
    flagged = Counter((row["active_flagged"], row["shadow_flagged"]) for row in rows)
    common = sorted(set(rows[0]["active_probabilities"]) & set(rows[0]["shadow_probabilities"]))
    return {
        "n": len(rows),
        "agreement": sum(count for (one, other), count in counted.items() if one == other) / len(rows),
        "confusion": dict(confusion),
        "mean_absolute_difference": {
            label: sum(abs(row["active_probabilities"][label] - row["shadow_probabilities"][label]) for row in rows) / len(rows)
            for label in common
        },
        "flagged": {
            "both": flagged[True, True],
            "active_only": flagged[True, False],
            "shadow_only": flagged[False, True],
            "neither": flagged[False, False],
        },
        "undetermined": {role: sum(row[f"{role}_undetermined"] for row in rows) for role in ("active", "shadow")},
    }
