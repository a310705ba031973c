"""Processes: the receiver, the runner, or both, until a signal ends them."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event
from typing import TYPE_CHECKING, NoReturn

import structlog

from cxr_models.errors import ModelError, UnknownDevice
from worker.audit.presence import noted
from worker.db.database import Database, open_database
from worker.db.migrate import current_revision, require_newest, upgrade
from worker.errors import AnotherRunner, ConfigurationError, DatabaseUnavailable
from worker.files import make_folder, remove_parts
from worker.heartbeat import Heartbeat, pet_watchdog
from worker.leader import leadership
from worker.log import hide_words_of_errors
from worker.metrics import Metrics
from worker.pipeline import Parts
from worker.receivers import Doors, open_doors, receiver, tls_receiver
from worker.schedule import Schedule
from worker.settings import Settings
from worker.siblings import run_side_by_side
from worker.standing import Standing
from worker.tally import count_in, tally
from worker.web.server import figures, page

if TYPE_CHECKING:
    from worker.engine import Engine

log = structlog.get_logger()

_STANDBY_SECONDS = 2.0
_ABANDONED_AFTER = timedelta(hours=1)


def utc_now() -> datetime:
    """The one clock of a running worker."""
    return datetime.now(UTC)


@contextmanager
def opened(settings: Settings, *, migrate: bool | None = None) -> Iterator[Database]:
    """The database, at the newest migration: the embedded default is brought there, another must be there already."""
    make_data_dir(settings)
    database = open_database(settings.database_url.get_secret_value())
    try:
        if migrate if migrate is not None else settings.embedded:
            upgrade(database)
            log.info("database.ready", database=database.dialect, revision=current_revision(database))
        require_newest(database)
        yield database
    finally:
        database.close()


def make_data_dir(settings: Settings) -> None:
    """Make the data folder.

    Raises
    ------
    ConfigurationError
        It cannot be made or written to.
    """
    try:
        make_folder(settings.data_dir)
        TemporaryFile(dir=settings.data_dir).close()  # of a name that no receiver beside it takes away
    except OSError as error:
        raise ConfigurationError(f"data_dir: {settings.data_dir} cannot be written to: {error.strerror}.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What a process does."""

    receive: bool = False
    run: bool = False
    web: bool = False

    def named(self) -> list[str]:
        """The names of what it does."""
        return [field.name for field in fields(self) if getattr(self, field.name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of several processes side by side, and what it has in common with them."""

    number: int = 0
    doors: Doors | None = None
    tally: Path | None = None
    """Where they count together, if anybody asks."""


_ALONE = Side()


def serve(settings: Settings, roles: Roles) -> None:
    """Do what is asked for until SIGTERM or SIGINT; then finish what is in hand and return."""
    hide_words_of_errors()
    if not roles.receive or settings.dicom.receivers == 1:
        _serve(settings, roles)
        return
    with opened(settings):  # the newest migration, once for all
        doors = open_doors(settings.dicom)
    count = settings.dicom.receivers
    with tally(count) if roles.web or settings.metrics is not None else nullcontext() as counted:
        first, *others = [Side(number=number, doors=doors, tally=counted) for number in range(count)]
        beside = partial(_serve, settings.model_copy(update={"metrics": None}), Roles(receive=True))  # the first tells for all
        run_side_by_side([partial(_serve, settings, roles, first), *(partial(beside, other) for other in others)])


def _serve(settings: Settings, roles: Roles, side: Side = _ALONE) -> None:
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if side.tally is not None:
        count_in(side.tally, side.number)
    with ExitStack() as stack:
        database = stack.enter_context(opened(settings))
        metrics = Metrics(settings.dicom.calling_ae_titles, tally=side.tally)
        metrics.registry.register(Standing(settings, database, utc_now))
        heartbeat = Heartbeat(timedelta(seconds=settings.schedule.interval_seconds), clock=utc_now)
        metrics.registry.register(heartbeat)
        parts = Parts(settings=settings, database=database, clock=utc_now, engine=_no_engine, metrics=metrics)
        if roles.run:
            parts = replace(parts, engine=stack.enter_context(loaded(database, settings)))
        stack.enter_context(noted(parts, roles=roles.named()))
        if roles.web:
            stack.enter_context(page(database, metrics, settings.web, trouble=heartbeat.trouble))
        elif settings.metrics is not None:
            stack.enter_context(figures(database, metrics, settings.metrics, trouble=heartbeat.trouble))
        wake = Waker()
        if roles.receive:
            stack.enter_context(_receiving(parts, arrived=wake, doors=side.doors))
        if roles.run:
            lead_until(stop, parts, wake, heartbeat)
        elif side.number:
            stop.wait()
        else:  # one alone answers for all: the first
            while not stop.wait(_STANDBY_SECONDS):
                pet_watchdog()
        log.info("stopping")


@contextmanager
def _receiving(parts: Parts, *, arrived: Callable[[], None], doors: Doors | None) -> Iterator[None]:
    settings = parts.settings
    removed = remove_parts(settings.data_dir, written_before=utc_now() - _ABANDONED_AFTER)
    log.info("leftovers.removed", count=removed)
    with ExitStack() as stack:
        secure = tls_receiver(parts, arrived=arrived, doors=doors)
        if secure is not None:
            stack.enter_context(secure)
            log.info("tls.ready", ae_title=settings.dicom.ae_title, port=secure.port)
        listener = stack.enter_context(receiver(parts, arrived=arrived, doors=doors))
        log.info("ready", ae_title=settings.dicom.ae_title, host=settings.dicom.host, port=listener.port)
        yield


@contextmanager
def loaded(database: Database, settings: Settings) -> Iterator[Callable[[], "Engine"]]:
    """The active model, loaded before the first study waits for it.

    Raises
    ------
    ConfigurationError
        It cannot be loaded, or not on that device.
    """
    from worker.models import ModelHolder  # noqa: PLC0415  brings torch, for which a process that only receives has no room

    holder = ModelHolder(database, settings)
    with closing(holder):
        try:
            holder.engine()
        except UnknownDevice as error:
            raise ConfigurationError(f"inference.device: {error}") from error
        except ModelError as error:
            raise ConfigurationError(f"inference.model: {error}") from error
        yield holder.engine


def _no_engine() -> NoReturn:
    raise AssertionError("A process that does not run the steps has no engine.")


class Waker:
    """Tells the running schedule, where there is one in this process, that something came."""

    def __init__(self) -> None:
        self.schedule: Schedule | None = None

    def __call__(self) -> None:
        """Wake it."""
        schedule = self.schedule  # the runner may take it away meanwhile
        if schedule is not None:
            schedule.wake()


def lead_until(stop: Event, parts: Parts, wake: Waker, heartbeat: Heartbeat) -> None:
    """Run the schedule while this is the one runner; stand by while another is."""
    standing_by = False
    while not stop.is_set():
        try:
            with leadership(parts.database, data_dir=parts.data_dir) as still_leading:
                standing_by = False
                log.info("runner.leads")
                _run_while(still_leading, stop, parts, wake, heartbeat)
        except (AnotherRunner, DatabaseUnavailable) as error:
            if not standing_by:
                log.info("runner.standby", error=type(error).__name__)
            standing_by = True
            pet_watchdog()
            stop.wait(_STANDBY_SECONDS)


def _run_while(leading: Callable[[], bool], stop: Event, parts: Parts, wake: Waker, heartbeat: Heartbeat) -> None:
    schedule = Schedule(parts, turned=heartbeat.turned)
    schedule.start()
    wake.schedule = schedule
    heartbeat.lead()
    try:
        while leading() and not stop.wait(_STANDBY_SECONDS):
            schedule.keep_time()
            heartbeat.pass_on()
    finally:
        wake.schedule = None
        schedule.close()
        heartbeat.rest()
