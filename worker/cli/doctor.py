"""``cxr-worker doctor``: what is wrong, and what cures it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import torch

from cxr_models.errors import ModelError
from cxr_models.gate import FrontalGate
from cxr_models.predict import Predictor, choose_device
from cxr_models.values import Card
from dicom_io.errors import DicomError
from worker.cli.printing import print_json, print_table, progressing
from worker.db import audit_positions, events, figures, files
from worker.db.database import Database, open_database
from worker.db.migrate import current_revision, require_newest
from worker.db.retention import Ending
from worker.errors import AnotherRunner, ConfigurationError, WorkerError
from worker.keeping.deep_check import check_files
from worker.keeping.retention import kept_in_words
from worker.leader import leadership
from worker.log import traceback_of
from worker.register import require_meanings
from worker.registry import ModelFolder, active_model, find_exactly, shadow_model
from worker.service import make_data_dir
from worker.settings import AuditSettings, Destination, Settings
from worker.steps.deliver import greet
from worker.tls import certificate_files, known_certificate, server_context
from worker.values import DeliveryState

_LOW_SPACE_BYTES = 5 * 1024**3
_AUDITOR_BEHIND = timedelta(minutes=10)
_LOST_SHOWN = timedelta(days=30)
_NAMED = 3
_RENEWED_BEFORE = timedelta(days=30)
_FORESEEN = (OSError, DicomError, ModelError, WorkerError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    cure: str = ""
    """What to do, where it is not ok."""
    advisory: bool = False
    """Nothing that is reported depends on it: not ok is a warning, and changes no exit code."""


def examine(settings: Settings, *, deep: bool = False) -> list[Check]:
    """Look at everything that the worker needs; where it is to be deep, read every stored file too."""
    checks = [Check(name="configuration", ok=True, detail="read"), *_checks(settings)]
    if deep:
        cure = (
            "start 'serve' or 'run', which mends files without rows and rows without files; what changed: restore it, or "
            "have it sent again; what is open to others: chmod -R go= data_dir"
        )
        checks.append(_tried("files", partial(_files, settings), cure))
    return checks


def show(checks: list[Check], *, as_json: bool) -> int:
    """Print the checks; answer the exit code, 1 where one failed."""
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(("", "check", "found", "cure"), ((_word(check), check.name, check.detail, check.cure) for check in checks))
    return 0 if all(check.ok or check.advisory for check in checks) else 1


def _word(check: Check) -> str:
    if check.ok:
        return "ok"
    return "warning" if check.advisory else "FAILED"


def _checks(settings: Settings) -> Iterator[Check]:
    yield _disk(settings)
    yield _tried("database", partial(_database, settings), "run 'cxr-worker db upgrade', or look at database_url")
    yield _tried("refused", partial(_refused, settings), "see 'database'")
    cure = "look at the disk, and have these studies sent again: 'cxr-worker studies show UID' names the images"
    yield replace(_tried("lost files", partial(_lost, settings), cure), advisory=True)
    yield _tried("runner", partial(_runner, settings), "see 'database'")
    cure = "'cxr-worker deliveries list' tells why; 'deliveries retry --all-failed' sends again; or name the destination again"
    yield _tried("deliveries", partial(_deliveries, settings), cure)
    yield _tried("failed studies", partial(_kept, Ending.FAILED, settings), "see 'database'")
    yield _tried("undelivered studies", partial(_kept, Ending.UNDELIVERED, settings), "see 'database'")
    cure = "'cxr-worker models list' shows those there are; 'models activate' names another, or set inference.model"
    yield _tried("model", partial(_model, settings), cure)
    cure = (
        "'cxr-worker models activate MODEL --shadow' names another, 'models deactivate-shadow' none; nothing else depends on it"
    )
    yield replace(_tried("shadow", partial(_shadow, settings), cure), advisory=True)
    if settings.gate.pixels:
        yield _tried("gate", _gate, "install cxr-worker again: the gate's weights ship with it; or set gate.pixels to false")
    yield _device(settings)
    yield from _tls(settings)
    if settings.audit is not None:
        cure = "start the audit repository and open its port, or correct [audit]; nothing is lost, and no study waits for it"
        yield _tried("audit", partial(_audit, settings.audit, settings), cure)
    if not settings.destinations:
        cure = "add a [[destinations]] block, or results stay in data_dir/reports"
        yield Check(name="destinations", ok=False, detail="none", cure=cure)
    for destination in settings.destinations:
        cure = f"start {destination.ae_title}, open the port, and register AE title {settings.dicom.ae_title} there"
        yield _tried(f"destination {destination.name}", partial(_echo, destination, settings), cure)


def _tried(name: str, look: Callable[[], str], cure: str) -> Check:
    try:
        return Check(name=name, ok=True, detail=look())
    except Exception as error:  # noqa: BLE001  whatever is wrong is the finding
        place = "" if isinstance(error, _FORESEEN) else f"Internal error: {type(error).__name__} at {traceback_of(error)}: "
        return Check(name=name, ok=False, detail=f"{place}{error}" or type(error).__name__, cure=cure)


def _disk(settings: Settings) -> Check:
    def look() -> str:
        make_data_dir(settings)
        free = shutil.disk_usage(settings.data_dir).free
        words = f"{settings.data_dir.resolve()}: {free / 1024**3:.1f} GiB free"
        if free < _LOW_SPACE_BYTES:
            raise OSError(f"{words}, less than {_LOW_SPACE_BYTES // 1024**3}")
        return words

    return _tried("disk", look, "free some space, or point data_dir at another disk")


def _database(settings: Settings) -> str:
    database = open_database(settings.database_url.get_secret_value())
    try:
        if settings.embedded and current_revision(database) is None:
            return "embedded, new: 'serve' makes it"
        require_newest(database)
        return f"{database.dialect} at migration {current_revision(database)}"
    finally:
        database.close()


def _files(settings: Settings) -> str:
    with _existing(settings) as database:
        if database is None:
            return "none yet"
        with progressing("reading files") as progress:
            return check_files(database, settings.data_dir, progress=progress)


def _refused(settings: Settings) -> str:
    with _existing(settings) as database:
        if database is None:
            return "none in the last 24 hours"
        with database.read() as connection:
            count, newest = events.count_since(connection, "refused", since=datetime.now(UTC) - timedelta(days=1))
        return f"{count} in the last 24 hours" + (f", the last: {newest}" if newest else "")


def _lost(settings: Settings) -> str:
    with _existing(settings) as database:
        if database is None:
            return "none"
        with database.read() as connection:
            count, uids = files.lost(connection, since=datetime.now(UTC) - _LOST_SHOWN)
    if count:
        more = f" and {len(uids) - _NAMED} more" if len(uids) > _NAMED else ""
        raise WorkerError(f"{count} stored files are missing, of {', '.join(uids[:_NAMED])}{more}")
    return f"none in the last {_LOST_SHOWN.days} days"


def _runner(settings: Settings) -> str:
    with _existing(settings) as database:
        if database is None:
            return "none has run yet: start 'serve' or 'run'"
        try:
            with leadership(database, data_dir=settings.data_dir):
                return "none is running: start 'serve' or 'run'"
        except AnotherRunner:
            return "one is running"


def _deliveries(settings: Settings) -> str:
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
            + [f"{held} on hold until their destination answers or takes one"] * bool(held)
            + [f"some wait for {name}, which is not configured" for name in sorted(lost)]
        )
        raise WorkerError(", ".join(words))
    return f"{sum(counted.values())} pending, none given up"


def _kept(ending: Ending, settings: Settings) -> str:
    with _existing(settings) as database:
        if database is None:
            return "none yet"
        with database.read() as connection:
            return kept_in_words(connection, settings, ending, now=datetime.now(UTC))


def _audit(audit: AuditSettings, settings: Settings) -> str:
    with _existing(settings) as database:
        if database is None:
            return f"{audit.address} was told nothing yet"
        with database.read() as connection:
            oldest = audit_positions.oldest_untold(connection, audit.address)
    if oldest is not None and datetime.now(UTC) - oldest > _AUDITOR_BEHIND:
        raise WorkerError(f"{audit.address} was not told what happened since {oldest.astimezone():%Y-%m-%d %H:%M}")
    return f"{audit.address} is told"


def _tls(settings: Settings) -> Iterator[Check]:
    def listens() -> str:
        server_context(settings)
        return "certificate, key and ca fit together"

    if settings.dicom.tls is not None:
        yield _tried("tls", listens, "the words say which file; restart afterwards")
    now = datetime.now(UTC)
    for path, key in certificate_files(settings).items():
        check = _tried(f"certificate {key}", partial(_valid, path, key, now=now), "renew it, and restart")
        soon = check.ok and known_certificate(path, key).not_after < now + _RENEWED_BEFORE
        yield replace(check, ok=False, advisory=True, cure="renew it in time, and restart") if soon else check


def _valid(path: Path, key: str, *, now: datetime) -> str:
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


def _model(settings: Settings) -> str:
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


def _shadow(settings: Settings) -> str:
    with _existing(settings) as database:
        if database is None:
            return "none yet"
        with database.read() as connection:
            shadow, active = shadow_model(connection, settings), active_model(connection, settings)
            since = datetime.now(UTC) - timedelta(days=1)
            count, newest = events.count_since(connection, events.SHADOW_FAILED, since=since)
    if shadow is None:
        return "none"
    card = _loaded(shadow)
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


def _gate() -> str:
    card = FrontalGate.load().card
    return f"{card.name} {card.version} looks at pixels, weights {card.weights_sha256[:12]}"


def _device(settings: Settings) -> Check:
    def look() -> str:
        device = choose_device(settings.inference.device)
        return f"{device}: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else "cpu: no GPU is used"

    return _tried("device", look, "set inference.device to auto or cpu, or look at nvidia-smi")


def _echo(destination: Destination, settings: Settings) -> str:
    greet(destination, settings)
    if destination.url:
        return f"{destination.url} answers"
    over = " over TLS" if destination.tls else ""
    return f"{destination.ae_title} at {destination.host}:{destination.port} answers C-ECHO{over}"
