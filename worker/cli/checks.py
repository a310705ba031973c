"""What `doctor` looks at: each answers what it found in words, or raises what is wrong."""

import re
import shutil
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit

from cxr_models.gate import FrontalGate
from cxr_models.predict import Predictor, choose_device
from cxr_models.values import Card
from dicom_io.confinement import landlock_version
from dicom_io.decoders import Decoders
from dicom_io.frame import Frame
from worker.cli.printing import progressing
from worker.configuration import DEFAULT_FILE
from worker.db import audit_positions, events, figures
from worker.db import files as kept_files
from worker.db.database import Database, open_database
from worker.db.migrate import current_revision, require_newest
from worker.db.retention import Ending, doubt
from worker.db.soundness import require_whole
from worker.errors import AnotherRunner, ConfigurationError, WorkerError
from worker.keeping.deep_check import check_files
from worker.keeping.retention import kept_in_words
from worker.leader import leadership
from worker.register import require_meanings
from worker.registry import ModelFolder, active_model, find_exactly, shadow_model
from worker.service import make_data_dir
from worker.settings import AuditSettings, Destination, Settings
from worker.steps.deliver import greet
from worker.tls import key_files, known_certificate
from worker.values import DeliveryState

_LOW_SPACE_BYTES = 5 * 1024**3
_AUDITOR_BEHIND = timedelta(minutes=10)
_LOST_SHOWN = timedelta(days=30)
_NAMED = 3


def disk(settings: Settings) -> str:
    """How much of it is free."""
    make_data_dir(settings)
    usage = shutil.disk_usage(settings.data_dir)
    for section, wanted in (("keeping", settings.keeping.minimum_free_bytes), ("dicom", settings.dicom.minimum_free_bytes)):
        if wanted > usage.total:
            raise ConfigurationError(f"{section}.minimum_free_bytes is {wanted}, and all of the disk has {usage.total} bytes")
    words = f"{settings.data_dir.resolve()}: {usage.free / 1024**3:.1f} GiB free"
    if usage.free < _LOW_SPACE_BYTES:
        raise OSError(f"{words}, less than {_LOW_SPACE_BYTES // 1024**3}")
    return words


def secrets(settings: Settings, config: Path | None) -> str:
    """Whether keys and passwords are kept from other accounts."""
    files = key_files(settings)
    path = config or DEFAULT_FILE
    if path.exists() and _holds_a_secret(tomllib.loads(path.read_text(encoding="utf-8"))):
        files.append(path)
    shown = [str(file) for file in files if file.exists() and file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)]
    if shown:
        raise ConfigurationError(f"every account of this machine may read or write {', '.join(shown)}")
    return "keys and passwords in files are not for every account"


def _holds_a_secret(value: Any, key: str = "") -> bool:
    if isinstance(value, dict):
        return any(_holds_a_secret(value[each], each) for each in value)
    if isinstance(value, list):
        return any(_holds_a_secret(each) for each in value)
    if key == "database_url":
        return re.search("://[^/@]*:[^@]+@", str(value)) is not None
    return key in {"password", "token", "key_password"} and value != ""


def database(settings: Settings) -> str:
    """Which, and at which migration."""
    opened = open_database(settings.database_url.get_secret_value())
    try:
        if settings.embedded and current_revision(opened) is None:
            return "embedded, new: 'serve' makes it"
        require_newest(opened)
        return f"{opened.dialect} at migration {current_revision(opened)}"
    finally:
        opened.close()


def pages(settings: Settings) -> str:
    """Every page of the database, read."""
    with _existing(settings) as database:
        if database is None:
            return "none yet"
        require_whole(database)
        return "agree" if database.dialect == "sqlite" else "are PostgreSQL's own matter"


def files(settings: Settings) -> str:
    """Every stored file, read."""
    with _existing(settings) as database:
        if database is None:
            return "none yet"
        with progressing("reading files") as progress:
            return check_files(database, settings.data_dir, progress=progress)


def refused(settings: Settings) -> str:
    """What senders were refused lately."""
    with _existing(settings) as database:
        if database is None:
            return "none in the last 24 hours"
        with database.read() as connection:
            count, newest = events.count_since(connection, "refused", since=datetime.now(UTC) - timedelta(days=1))
        return f"{count} in the last 24 hours" + (f", the last: {newest}" if newest else "")


def lost(settings: Settings) -> str:
    """Stored files that are missing."""
    with _existing(settings) as database:
        if database is None:
            return "none"
        with database.read() as connection:
            count, uids = kept_files.lost(connection, since=datetime.now(UTC) - _LOST_SHOWN)
    if count:
        more = f" and {len(uids) - _NAMED} more" if len(uids) > _NAMED else ""
        raise WorkerError(f"{count} stored files are missing, of {', '.join(uids[:_NAMED])}{more}")
    return f"none in the last {_LOST_SHOWN.days} days"


def clock(settings: Settings) -> str:
    """Whether files wait to be deleted until it is known that it is right."""
    with _existing(settings) as database:
        if database is None:
            return "no files wait for it"
        with database.read() as connection:
            found = doubt(connection, now=datetime.now(UTC))
    if found is not None:
        raise WorkerError(found)
    return "no files wait for it"


def runner(settings: Settings) -> str:
    """Whether one runs."""
    with _existing(settings) as database:
        if database is None:
            return "none has run yet: start 'serve' or 'run'"
        try:
            with leadership(database, data_dir=settings.data_dir):
                return "none is running: start 'serve' or 'run'"
        except AnotherRunner:
            return "one is running"


def deliveries(settings: Settings) -> str:
    """What waits, is on hold or was given up."""
    with _existing(settings) as database:
        if database is None:
            return "none yet"
        with database.read() as connection:
            counted = {key: group.count for key, group in figures.undelivered(connection).items()}
    known = {destination.name for destination in settings.destinations}
    failed = sum(count for (_, state), count in counted.items() if state is DeliveryState.FAILED)
    held = sum(count for (_, state), count in counted.items() if state is DeliveryState.ON_HOLD)
    waiting = {DeliveryState.PENDING, DeliveryState.STORED, DeliveryState.ON_HOLD}
    lost = {name for name, state in counted if state in waiting and name not in known}
    if failed or held or lost:
        words = (
            [f"{failed} given up"] * bool(failed)
            + [f"{held} on hold until their destination answers, takes one or commits to them"] * bool(held)
            + [f"some wait for {name}, which is not configured" for name in sorted(lost)]
        )
        raise WorkerError(", ".join(words))
    return f"{sum(counted.values())} pending, none given up"


def kept(ending: Ending, settings: Settings) -> str:
    """Of how many studies that ended so files are kept."""
    with _existing(settings) as database:
        if database is None:
            return "none yet"
        with database.read() as connection:
            return kept_in_words(connection, settings, ending, now=datetime.now(UTC))


def audit(repository: AuditSettings, settings: Settings) -> str:
    """Whether the repository is told in time."""
    with _existing(settings) as database:
        if database is None:
            return f"{repository.address} was told nothing yet"
        with database.read() as connection:
            oldest = audit_positions.oldest_untold(connection, repository.address)
    if oldest is not None and datetime.now(UTC) - oldest > _AUDITOR_BEHIND:
        raise WorkerError(f"{repository.address} was not told what happened since {oldest.astimezone():%Y-%m-%d %H:%M}")
    return f"{repository.address} is told"


def valid(path: Path, key: str, *, now: datetime) -> str:
    """How long a certificate is valid."""
    certificate = known_certificate(path, key)
    if certificate.not_after <= now:
        raise ConfigurationError(f"{path} expired on {certificate.not_after:%Y-%m-%d}")
    if certificate.not_before > now:
        raise ConfigurationError(f"{path} is not valid before {certificate.not_before:%Y-%m-%d %H:%M} UTC")
    return f"{path} ends on {certificate.not_after:%Y-%m-%d}, in {(certificate.not_after - now).days} days"


@contextmanager
def _existing(settings: Settings) -> Iterator[Database | None]:
    """The database, or None before its first migration."""
    database = open_database(settings.database_url.get_secret_value())
    try:
        yield None if current_revision(database) is None else database
    finally:
        database.close()


def model(settings: Settings) -> str:
    """The one that answers, loaded."""
    with _existing(settings) as database:
        if database is None:
            found, origin = find_exactly(settings.inference.model, (), data_dir=settings.data_dir), "configured"
        else:
            with database.read() as connection:
                found = active_model(connection, settings)
            origin = "configured" if found.reference == settings.inference.model else "activated"
    card = _loaded(found)
    require_meanings(card)
    return f"{card.name} {card.version} ({origin}), weights {card.weights_sha256[:12]}"


def shadow(settings: Settings) -> str:
    """The one beside it, loaded."""
    with _existing(settings) as database:
        if database is None:
            return "none yet"
        with database.read() as connection:
            found, active = shadow_model(connection, settings), active_model(connection, settings)
            since = datetime.now(UTC) - timedelta(days=1)
            count, newest = events.count_since(connection, events.SHADOW_FAILED, since=since)
    if found is None:
        return "none"
    card = _loaded(found)
    if card == active.read_card():
        return "the active model itself, which does not answer twice"
    if count:
        raise WorkerError(f"{card.name} {card.version} failed on {count} studies in the last 24 hours, the last: {newest}")
    return f"{card.name} {card.version}, weights {card.weights_sha256[:12]}: recorded, never reported"


def _loaded(model: ModelFolder) -> Card:
    """Load it as the worker would, so that what is wrong with its weights shows; answer its card."""
    card = model.read_card()
    Predictor.load(str(model.path.resolve()), device="cpu")
    return card


def gate() -> str:
    """The one that looks at pixels, loaded."""
    card = FrontalGate.load().card
    return f"{card.name} {card.version} looks at pixels, weights {card.weights_sha256[:12]}"


def decoders() -> str:
    """Whether a compressed image is decoded, in the process apart that does it."""
    side, image = 8, BytesIO()
    Image.new("L", (side, side)).save(image, "JPEG")
    apart = Decoders()
    try:
        apart.decode(
            Frame(
                transfer_syntax=JPEGBaseline8Bit,
                rows=side,
                columns=side,
                bits_allocated=8,
                bits_stored=8,
                signed=False,
                data=image.getvalue(),
            )
        )
    finally:
        apart.close()
    return "a JPEG is read by a process apart"


def confinement() -> str:
    """What those processes can reach."""
    version = landlock_version()
    if not version:
        raise WorkerError("this kernel has no Landlock: a decoder that an image took over could end processes of this account")
    return f"by Landlock {version}: decoders reach no file, no network and no other process"


def device(settings: Settings) -> str:
    """On which the model answers."""
    chosen = choose_device(settings.inference.device)
    return f"{chosen}: {torch.cuda.get_device_name(chosen)}" if chosen.type == "cuda" else "cpu: no GPU is used"


def echo(destination: Destination, settings: Settings) -> str:
    """Whether a destination answers."""
    greet(destination, settings)
    if destination.url:
        return f"{destination.url} answers"
    over = " over TLS" if destination.tls else ""
    return f"{destination.ae_title} at {destination.host}:{destination.port} answers C-ECHO{over}"
