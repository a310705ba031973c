"""Tables. Migrations make them; `cxr-worker db check` and a test compare the two."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)

from dicom_io.kinds import Kind
from dicom_io.wording import Language
from worker.values import DeliveryState, ModelRole, StudyState, Triage


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: time zone aware in Python and PostgreSQL, UTC without a zone in SQLite, which has none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive moment; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone cannot be stored")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  as declared
        """Give back UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _one_of(column: str, members: type[StrEnum]) -> CheckConstraint:
    words = ", ".join(f"'{member.value}'" for member in members)
    return CheckConstraint(f"{column} IN ({words})", name=f"{column}_known")


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _study_id(**options: Any) -> Column[int]:
    return Column("study_id", Integer, ForeignKey("studies.id"), **options)


studies = Table(
    "studies",
    metadata,
    _id(),
    Column("study_uid", String(64), nullable=False, unique=True),
    Column("patient_id", String(64), nullable=False),
    Column("issuer_of_patient_id", String(64), nullable=False),
    Column("accession_number", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("triage", String(8), nullable=False, server_default=Triage.NONE.value),
    Column("generation", Integer, nullable=False, server_default="0"),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", UtcDateTime),
    Column("received_at", UtcDateTime, nullable=False),
    Column("last_received_at", UtcDateTime, nullable=False),
    Column("completed_at", UtcDateTime),
    Column("analysed_at", UtcDateTime),
    Column("untold", Boolean, nullable=False, server_default=false()),  # not analysed, and not all know who want to
    _one_of("state", StudyState),
    _one_of("triage", Triage),
    Index("ix_studies_state_last_received_at", "state", "last_received_at"),
)
Index("ix_studies_untold", studies.c.state, studies.c.untold, sqlite_where=studies.c.untold, postgresql_where=studies.c.untold)

instances = Table(
    "instances",
    metadata,
    _id(),
    _study_id(nullable=False, index=True),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("transfer_syntax", String(64), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("patient_id", String(64), nullable=False),
    Column("issuer_of_patient_id", String(64), nullable=False),
    Column("path", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("peer_address", String(64), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("turn", Integer, nullable=False, index=True),
    Column("conflict", Boolean, nullable=False, server_default=false()),
    Column("eligible", Boolean),
    Column("reason_code", String(32)),
    Column("reason", Text),
    Column("correction", String(32), nullable=False, server_default=""),
    Column("gone_at", UtcDateTime),  # when its file was deleted, or found missing; null: the file is there
    UniqueConstraint("sop_instance_uid", "sha256"),
)

predictions = Table(
    "predictions",
    metadata,
    _id(),
    _study_id(nullable=False, index=True),
    Column("instance_id", Integer, ForeignKey("instances.id"), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("role", String(8), nullable=False, server_default=ModelRole.ACTIVE.value),
    Column("model", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("weights_sha256", String(64), nullable=False),
    Column("temperature", Float, nullable=False),
    Column("thresholds", JSON, nullable=False),
    Column("probabilities", JSON, nullable=False),
    Column("present", JSON, nullable=False),
    Column("label", String(32), nullable=False),
    Column("undetermined", Boolean, nullable=False, server_default=false()),
    Column("flagged", Boolean, nullable=False),
    Column("parameters", JSON, nullable=False, server_default="[]"),
    Column("predicted_at", UtcDateTime, nullable=False),
    UniqueConstraint("instance_id", "generation", "role"),
    _one_of("role", ModelRole),
)

reports = Table(
    "reports",
    metadata,
    _id(),
    _study_id(nullable=False, index=True),
    Column("generation", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("language", String(8), nullable=False, server_default=Language.ENGLISH.value),
    Column("sop_instance_uid", String(64), nullable=False, unique=True),
    Column("sop_class_uid", String(64), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("result_key", String(64), nullable=False),
    Column("path", String(255), nullable=False),
    Column("sha256", String(64)),  # of the file; null: made before it was kept
    Column("made_at", UtcDateTime, nullable=False),
    Column("gone_at", UtcDateTime),
    _one_of("kind", Kind),
)

deliveries = Table(
    "deliveries",
    metadata,
    _id(),
    Column("report_id", Integer, ForeignKey("reports.id"), nullable=False),
    Column("destination", String(64), nullable=False),
    Column("state", String(16), nullable=False, server_default=DeliveryState.PENDING.value),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("asked", Integer, nullable=False, server_default="0"),  # how often to commit to it
    Column("next_attempt_at", UtcDateTime, nullable=False),
    Column("last_error", Text),
    Column("delivered_at", UtcDateTime),
    Column("committed", Boolean, nullable=False, server_default=false()),
    Column("unreachable", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("report_id", "destination"),
    _one_of("state", DeliveryState),
    Index("ix_deliveries_destination_state_next_attempt_at", "destination", "state", "next_attempt_at"),
)

commitments = Table(
    "commitments",
    metadata,
    _id(),
    Column("transaction_uid", String(64), nullable=False, unique=True),
    Column("destination", String(64), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("answered_at", UtcDateTime),
)

evidence = Table(
    "evidence",
    metadata,
    _id(),
    Column("kind", String(16), nullable=False),
    Column("source", String(64), nullable=False),
    Column("study_uid", String(64), nullable=False, index=True),  # the study may not have come yet
    Column("at", UtcDateTime, nullable=False),
    Column("growing", Boolean, nullable=False, server_default=false()),
    Column("instances", JSON, nullable=False, server_default="[]"),
    Column("count", Integer),
    UniqueConstraint("kind", "source", "study_uid"),
)

events = Table(
    "events",
    metadata,
    _id(),
    Column("at", UtcDateTime, nullable=False, index=True),
    _study_id(index=True),
    Column("kind", String(32), nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
    Column("facts", JSON, nullable=False, server_default="{}"),
    Column(
        "patient_id", String(64)
    ),  # this and the next two: of the study as it was then; null: no study, or noted before 0015
    Column("issuer_of_patient_id", String(64)),
    Column("accession_number", String(64)),
)

audit_positions = Table(
    "audit_positions",
    metadata,
    _id(),
    Column("repository", String(255), nullable=False, unique=True),
    Column("event_id", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

activations = Table(
    "activations",
    metadata,
    _id(),
    Column("at", UtcDateTime, nullable=False),
    Column("model", String(255), nullable=False),
)

shadows = Table(
    "shadows",
    metadata,
    _id(),
    Column("at", UtcDateTime, nullable=False),
    Column("model", String(255)),  # null: from here on none
)

models = Table(
    "models",
    metadata,
    _id(),
    Column("name", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("architecture", String(64), nullable=False),
    Column("weights_sha256", String(64), nullable=False),
    Column("card_sha256", String(64), nullable=False),
    Column("folder", String(255), nullable=False),
    Column("registered_at", UtcDateTime, nullable=False),
    Column("note", Text, nullable=False, server_default=""),
    UniqueConstraint("name", "version"),
)
