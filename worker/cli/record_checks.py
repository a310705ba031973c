"""What `doctor` reads in the database: each answers what it found in words, or raises what is wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Concatenate, ParamSpec

from worker.cli.checks import load
from worker.cli.printing import progressing
from worker.db import audit_positions, events, figures
from worker.db import files as kept_files
from worker.db.database import Database, open_database
from worker.db.migrate import current_revision, require_newest
from worker.db.retention import Ending, doubt
from worker.db.soundness import require_whole
from worker.errors import AnotherRunner, WorkerError
from worker.keeping.deep_check import check_files
from worker.keeping.retention import kept_in_words
from worker.leader import leadership
from worker.register import require_meanings
from worker.registry import active_model, find_exactly, shadow_model
from worker.settings import AuditSettings, Settings
from worker.values import DeliveryState

_AUDITOR_BEHIND = timedelta(minutes=10)
_LATELY = timedelta(days=1)
_LOST_SHOWN = timedelta(days=30)
_NAMED = 3

_Rest = ParamSpec("_Rest")
_OfDatabase = Callable[Concatenate[Database, Settings, _Rest], str]
_OfSettings = Callable[Concatenate[Settings, _Rest], str]


@contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    database = open_database(settings.database_url.get_secret_value())
    try:
        yield database
    finally:
        database.close()


def _reads(before_the_first: str) -> Callable[[_OfDatabase[_Rest]], _OfSettings[_Rest]]:
    """Hand the check the database; `before_the_first` is the answer where no migration has made one yet."""

    def decorate(check: _OfDatabase[_Rest]) -> _OfSettings[_Rest]:
        @wraps(check)
        def of_settings(settings: Settings, /, *args: _Rest.args, **kwargs: _Rest.kwargs) -> str:
            with _opened(settings) as database:
                if current_revision(database) is None:
                    return before_the_first
                return check(database, settings, *args, **kwargs)

        return of_settings

    return decorate


def schema(settings: Settings) -> str:
    """Which database, and at which migration."""
    with _opened(settings) as database:
        if settings.embedded and current_revision(database) is None:
            return "embedded, new: 'serve' makes it"
        require_newest(database)
        return f"{database.dialect} at migration {current_revision(database)}"


@_reads("none yet")
def pages(database: Database, _settings: Settings) -> str:
    """Every page of the database, read."""
    require_whole(database)
    return "agree" if database.dialect == "sqlite" else "are PostgreSQL's own matter"


@_reads("none yet")
def files(database: Database, settings: Settings) -> str:
    """Every stored file, read."""
    with progressing("reading files") as progress:
        return check_files(database, settings.data_dir, progress=progress)


@_reads("none in the last 24 hours")
def refused(database: Database, _settings: Settings) -> str:
    """What senders were refused lately."""
    with database.read() as connection:
        count, newest = events.count_since(connection, "refused", since=datetime.now(UTC) - _LATELY)
    return f"{count} in the last 24 hours" + (f", the last: {newest}" if newest else "")


@_reads("none")
def lost(database: Database, _settings: Settings) -> str:
    """Stored files that are missing."""
    with database.read() as connection:
        count, uids = kept_files.lost(connection, since=datetime.now(UTC) - _LOST_SHOWN)
    if count:
        more = f" and {len(uids) - _NAMED} more" if len(uids) > _NAMED else ""
        raise WorkerError(f"{count} stored files are missing, of {', '.join(uids[:_NAMED])}{more}")
    return f"none in the last {_LOST_SHOWN.days} days"


@_reads("no files wait for it")
def clock(database: Database, _settings: Settings) -> str:
    """Whether files wait to be deleted until it is known that it is right."""
    with database.read() as connection:
        found = doubt(connection, now=datetime.now(UTC))
    if found is not None:
        raise WorkerError(found)
    return "no files wait for it"


@_reads("none has run yet: start 'serve' or 'run'")
def runner(database: Database, settings: Settings) -> str:
    """Whether one runs."""
    try:
        with leadership(database, data_dir=settings.data_dir):
            return "none is running: start 'serve' or 'run'"
    except AnotherRunner:
        return "one is running"


@_reads("none yet")
def deliveries(database: Database, settings: Settings) -> str:
    """What waits, is on hold or was given up."""
    with database.read() as connection:
        counted = {key: group.count for key, group in figures.undelivered(connection).items()}
    known = {destination.name for destination in settings.destinations}
    failed = sum(count for (_, state), count in counted.items() if state is DeliveryState.FAILED)
    held = sum(count for (_, state), count in counted.items() if state is DeliveryState.ON_HOLD)
    waiting = {DeliveryState.PENDING, DeliveryState.STORED, DeliveryState.ON_HOLD}
    strangers = {name for name, state in counted if state in waiting and name not in known}
    if failed or held or strangers:
        words = (
            [f"{failed} given up"] * bool(failed)
            + [f"{held} on hold until their destination answers, takes one or commits to them"] * bool(held)
            + [f"some wait for {name}, which is not configured" for name in sorted(strangers)]
        )
        raise WorkerError(", ".join(words))
    return f"{sum(counted.values())} pending, none given up"


@_reads("none yet")
def kept(database: Database, settings: Settings, ending: Ending) -> str:
    """Of how many studies that ended so files are kept."""
    with database.read() as connection:
        return kept_in_words(connection, settings, ending, now=datetime.now(UTC))


@_reads("was told nothing yet")
def audit(database: Database, _settings: Settings, repository: AuditSettings) -> str:
    """Whether the repository is told in time."""
    with database.read() as connection:
        oldest = audit_positions.oldest_untold(connection, repository.address)
    if oldest is not None and datetime.now(UTC) - oldest > _AUDITOR_BEHIND:
        raise WorkerError(f"{repository.address} was not told what happened since {oldest.astimezone():%Y-%m-%d %H:%M}")
    return f"{repository.address} is told"


def model(settings: Settings) -> str:
    """The one that answers, loaded."""
    with _opened(settings) as database:
        if current_revision(database) is None:
            found, origin = find_exactly(settings.inference.model, (), data_dir=settings.data_dir), "configured"
        else:
            with database.read() as connection:
                found = active_model(connection, settings)
            origin = "configured" if found.reference == settings.inference.model else "activated"
    card = load(found)
    require_meanings(card)
    return f"{card.name} {card.version} ({origin}), weights {card.weights_sha256[:12]}"


@_reads("none yet")
def shadow(database: Database, settings: Settings) -> str:
    """The one beside it, loaded."""
    with database.read() as connection:
        found, active = shadow_model(connection, settings), active_model(connection, settings)
        count, newest = events.count_since(connection, events.SHADOW_FAILED, since=datetime.now(UTC) - _LATELY)
    if found is None:
        return "none"
    card = load(found)
    if card == active.read_card():
        return "the active model itself, which does not answer twice"
    if count:
        raise WorkerError(f"{card.name} {card.version} failed on {count} studies in the last 24 hours, the last: {newest}")
    return f"{card.name} {card.version}, weights {card.weights_sha256[:12]}: recorded, never reported"
