"""Settings: one frozen object; `worker.configuration` reads it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from worker.destination import Destination, one_for_each_caller, require_different
from worker.setting_types import (
    AETitle,
    CertificateSettings,
    Crontab,
    Folder,
    Host,
    Network,
    Port,
    Seconds,
    Section,
)


class TlsSettings(CertificateSettings):
    """The second port, where DICOM is spoken over TLS. `ca` signed the certificates of those who may call."""

    ca: Path
    host: Host = "127.0.0.1"
    port: Port = 2762
    require_client_certificate: bool = True


class DicomSettings(Section):
    """Who we are on the DICOM network."""

    ae_title: AETitle = "CXRWORKER"
    host: Host = "127.0.0.1"
    port: Port = 11112
    called_ae_titles: tuple[AETitle, ...] = ()
    calling_ae_titles: tuple[AETitle, ...] = ()
    addresses: tuple[Network, ...] = ()
    maximum_associations: Annotated[int, Field(ge=1, le=1000)] = 64
    maximum_associations_per_caller: Annotated[int, Field(ge=0, le=1000)] = 0
    maximum_object_bytes: Annotated[int, Field(ge=1)] = 4 * 1024**3
    minimum_free_bytes: Annotated[int, Field(ge=0)] = 256 * 1024**2
    receivers: Annotated[int, Field(ge=1, le=32)] = 1
    """Processes that receive, on the same ports."""
    tls: TlsSettings | None = None


class QueryPeer(Section):
    """An application entity that answers C-FIND."""

    ae_title: AETitle
    host: Host
    port: Annotated[int, Field(ge=1, le=65535)]


class SenderSettings(Section):
    """What is different for one sender."""

    calling_ae_title: AETitle
    quiet_seconds: Seconds | None = None
    """By default that of ``[study]``."""
    query: QueryPeer | None = None
    """Its PACS, which is asked how many images a study has."""


class StudySettings(Section):
    """When a study counts as complete."""

    quiet_seconds: Seconds = 5.0
    minimum_quiet_seconds: Seconds = 1.0
    senders: tuple[SenderSettings, ...] = ()

    @field_validator("senders")
    @classmethod
    def _senders_differ(cls, value: tuple[SenderSettings, ...]) -> tuple[SenderSettings, ...]:
        if len({sender.calling_ae_title for sender in value}) != len(value):
            raise ValueError("a sender is named twice")
        return value


class InferenceSettings(Section):
    """Which model runs where."""

    model: str = "lenet5"
    shadow: str = ""
    device: str = "auto"
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    decode_threads: Annotated[int, Field(ge=1, le=64)] = 2


class GateSettings(Section):
    """Which images are analysed at all."""

    minimum_age_years: Annotated[int, Field(ge=0, le=120)] = 0
    pixels: bool = True


class ScheduleSettings(Section):
    """What runs when. Cron expressions are in local time."""

    interval_seconds: Annotated[float, Field(gt=0, le=3600)] = 1.0
    reprocess_cron: Crontab = "0 22 * * *"
    reprocess: bool = True


class KeepingSettings(Section):
    """When the files of finished and delivered studies are deleted, and of those that came to another end; 0: no such rule."""

    days: Annotated[int, Field(ge=0, le=36500)] = 0
    failed_days: Annotated[int, Field(ge=0, le=36500)] = 0
    undelivered_days: Annotated[int, Field(ge=0, le=36500)] = 0
    """Of reported studies that go nowhere: there is no destination, or it refused them, or has been away all the while."""
    maximum_bytes: Annotated[int, Field(ge=0)] = 0
    minimum_free_bytes: Annotated[int, Field(ge=0)] = 0

    @property
    def deletes(self) -> bool:
        """Whether there is any rule."""
        rules = (self.days, self.failed_days, self.undelivered_days, self.maximum_bytes, self.minimum_free_bytes)
        return any(rules)


class WebSettings(Section):
    """The status page. Its port 0 takes a free one."""

    host: Host = "127.0.0.1"
    port: Port = 8080
    names: tuple[str, ...] = ()
    """That browsers call it by, beside its addresses, ``localhost`` and the machine's own name."""


class MetricsSettings(Section):
    """Where a process that shows no page gives its figures. Its port 0 takes a free one."""

    host: Host = "127.0.0.1"
    port: Port = 9112


class AuditSettings(Section):
    """The audit repository, which is sent DICOM audit messages by syslog."""

    host: Annotated[Host, Field(max_length=240)]
    port: Annotated[int, Field(ge=1, le=65535)] = 6514
    transport: Literal["tls", "udp"] = "tls"
    ca: Path | None = None
    """Signed the repository's certificate; by default that of ``[dicom.tls]``."""
    client_certificate: CertificateSettings | None = None
    """By default that of ``[dicom.tls]``."""
    check_name: bool = True
    source: Annotated[str, Field(max_length=64)] = ""
    """Names this worker to the repository; by default its AE title."""
    site: Annotated[str, Field(max_length=64)] = ""

    @property
    def address(self) -> str:
        """Names the repository."""
        return f"{self.transport}://{self.host}:{self.port}"


class Settings(Section):
    """All settings. `worker.configuration.read_settings` makes them."""

    data_dir: Folder = Path("var")
    database_url: Annotated[SecretStr, Field(validate_default=True)] = SecretStr("")
    """By default an embedded one in `data_dir`."""
    dicom: DicomSettings = DicomSettings()
    study: StudySettings = StudySettings()
    gate: GateSettings = GateSettings()
    inference: InferenceSettings = InferenceSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    keeping: KeepingSettings = KeepingSettings()
    web: WebSettings = WebSettings()
    metrics: MetricsSettings | None = None
    audit: AuditSettings | None = None
    destinations: tuple[Destination, ...] = ()

    @field_validator("destinations", mode="before")
    @classmethod
    def _one_for_each_caller(cls, value: Any) -> Any:
        return one_for_each_caller(value)

    @field_validator("destinations")
    @classmethod
    def _can_be_told_apart(cls, value: tuple[Destination, ...]) -> tuple[Destination, ...]:
        require_different(value)
        return value

    @field_validator("destinations")
    @classmethod
    def _tls_knows_whom_to_trust(cls, value: tuple[Destination, ...], info: ValidationInfo) -> tuple[Destination, ...]:
        dicom = info.data.get("dicom")
        if dicom is not None and dicom.tls is None:
            for destination in value:
                if destination.tls and destination.ca is None:
                    raise ValueError(f"{destination.name}: tls needs a ca, there or in [dicom.tls]")
        return value

    @field_validator("audit")
    @classmethod
    def _repository_can_be_trusted(cls, value: AuditSettings | None, info: ValidationInfo) -> AuditSettings | None:
        dicom = info.data.get("dicom")
        if value is not None and value.transport == "tls" and value.ca is None and dicom is not None and dicom.tls is None:
            raise ValueError('needs a ca, there or in [dicom.tls]; or transport = "udp"')
        return value

    @field_validator("database_url")
    @classmethod
    def _embedded_database_by_default(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        if value.get_secret_value() or "data_dir" not in info.data:
            return value
        return SecretStr(f"sqlite:///{info.data['data_dir'] / 'worker.db'}")

    @property
    def embedded(self) -> bool:
        """Whether the database is the embedded default (SQLite)."""
        return self.database_url.get_secret_value().startswith("sqlite")
