"""What ``models list`` lists."""

from typing import Any

from sqlalchemy import Connection

from cxr_models.errors import ModelError
from worker.db import models
from worker.registry import ModelFolder, all_models, find_exactly
from worker.settings import Settings

_FITTED_ON = "validation"
"""Temperature, thresholds and epoch were chosen on these images: figures on them promise nothing."""


def model_rows(connection: Connection, settings: Settings) -> list[dict[str, Any]]:
    """Every shipped and registered model and what else is in use; what is wrong with one stands in its row."""
    known = models.registered(connection)
    used = {
        "active": models.activated(connection) or settings.inference.model,
        "shadow": models.shadow(connection, configured=settings.inference.shadow),
    }
    listed = all_models(known, data_dir=settings.data_dir)
    rows = [_row(model) | {role: wanted == model.reference for role, wanted in used.items()} for model in listed]
    for wanted in dict.fromkeys(used.values()):
        if wanted is not None and wanted not in {model.reference for model in listed}:
            try:
                row = _row(find_exactly(wanted, known, data_dir=settings.data_dir))
            except ModelError as error:
                row = _nothing(wanted) | {"problem": str(error)}
            rows.append(row | {role: named == wanted for role, named in used.items()})
    return rows


def _row(model: ModelFolder) -> dict[str, Any]:
    row = _nothing(model.reference) | {"origin": model.origin.value}
    if model.registered is not None:
        row |= {"registered_at": model.registered.registered_at.isoformat(), "note": model.registered.note}
    try:
        card = model.read_card()
    except ModelError as error:
        return row | {"problem": str(error)}
    return row | {
        "model": card.name,
        "version": card.version,
        "architecture": card.architecture,
        "weights_sha256": card.weights_sha256,
        "metrics": {
            name: {key: measured.get(key) for key in ("n", "accuracy", "balanced_accuracy")}
            for name, measured in card.metrics.items()
            if name != _FITTED_ON and measured.get("accuracy") is not None
        },
    }


def _nothing(reference: str) -> dict[str, Any]:
    return {
        "model": reference,
        "version": None,
        "architecture": None,
        "weights_sha256": None,
        "origin": None,
        "registered_at": None,
        "note": "",
        "problem": None,
        "metrics": {},
    }
