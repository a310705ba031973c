"""Models: which ones a site registered, which one answers, and which one answers in its shadow."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, insert, select

from worker.db.database import insert_if_absent
from worker.db.schema import activations, models, shadows


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """A model of the site's own, whose copy lies in the data folder."""

    name: str
    version: str
    architecture: str
    weights_sha256: str
    card_sha256: str
    folder: Path
    """Relative to the data folder."""
    registered_at: datetime
    note: str

    @property
    def reference(self) -> str:
        """Names this model and no other."""
        return f"{self.name}@{self.version}"


def registered(connection: Connection) -> list[RegisteredModel]:
    """Every registered model, by name and in the order they were registered."""
    rows = connection.execute(select(models).order_by(models.c.name, models.c.id)).mappings()
    return [
        RegisteredModel(
            name=row["name"],
            version=row["version"],
            architecture=row["architecture"],
            weights_sha256=row["weights_sha256"],
            card_sha256=row["card_sha256"],
            folder=Path(row["folder"]),
            registered_at=row["registered_at"],
            note=row["note"],
        )
        for row in rows
    ]


def add(connection: Connection, model: RegisteredModel) -> bool:
    """Register a model, unless one of this name and version is there; answer whether it was added."""
    return insert_if_absent(connection, models, asdict(model) | {"folder": str(model.folder)}) is not None


def activated(connection: Connection) -> str | None:
    """What the operator named last as the model to answer, if ever."""
    newest = select(activations.c.model).order_by(activations.c.id.desc()).limit(1)
    found: str | None = connection.execute(newest).scalar()
    return found


def activate(connection: Connection, model: str, *, now: datetime) -> None:
    """Make a model the active one."""
    connection.execute(insert(activations).values(at=now, model=model))


def shadow(connection: Connection, *, configured: str) -> str | None:
    """What the operator named last as the shadow, else the configured one; None where there is none."""
    row = connection.execute(select(shadows.c.model).order_by(shadows.c.id.desc()).limit(1)).first()
    named: str | None = configured if row is None else row.model
    return named or None


def set_shadow(connection: Connection, model: str | None, *, now: datetime) -> None:
    """Make a model the shadow, or have none, whatever is configured."""
    connection.execute(insert(shadows).values(at=now, model=model))
