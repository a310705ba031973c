"""``cxr-worker doctor``: what is wrong, and what cures it."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cxr_models.errors import ModelError
from dicom_io.errors import DicomError
from worker.cli import checks, record_checks
from worker.cli.printing import print_json, print_table
from worker.db.retention import Ending
from worker.errors import WorkerError
from worker.log import traceback_of
from worker.settings import Settings
from worker.tls import certificate_files, known_certificate, server_context

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


def examine(settings: Settings, *, config: Path | None = None, deep: bool = False) -> list[Check]:
    """Look at all that the worker needs, `config` being the file it was read from; deep: read every stored file too."""
    cure = "chmod o= FILE; where the worker runs under an account of its own, first chgrp FILE to its group"
    kept = replace(_tried("secrets", partial(checks.secrets, settings, config), cure), advisory=True)
    found = [Check(name="configuration", ok=True, detail="read"), kept, *_checks(settings)]
    if deep:
        cure = "stop the worker and put a backup in its place: 'cxr-worker db restore FILE'"
        found.append(_tried("database's pages", partial(record_checks.pages, settings), cure))
        cure = (
            "start 'serve' or 'run', which mends files without rows and rows without files; what changed: restore it, or "
            "have it sent again, and a report: 'cxr-worker reprocess UID'; what is open to others: chmod -R go= data_dir"
        )
        found.append(_tried("files", partial(record_checks.files, settings), cure))
    return found


def show(found: list[Check], *, as_json: bool) -> int:
    """Print the checks; answer the exit code, 1 where one failed."""
    if as_json:
        print_json([asdict(check) for check in found])
    else:
        print_table(("", "check", "found", "cure"), ((_word(check), check.name, check.detail, check.cure) for check in found))
    return 0 if all(check.ok or check.advisory for check in found) else 1


def _word(check: Check) -> str:
    if check.ok:
        return "ok"
    return "warning" if check.advisory else "FAILED"


def _checks(settings: Settings) -> Iterator[Check]:
    cure = "free some space, lower minimum_free_bytes where the words name it, or point data_dir at another disk"
    yield _tried("disk", partial(checks.disk, settings), cure)
    yield _tried("database", partial(record_checks.schema, settings), "run 'cxr-worker db upgrade', or look at database_url")
    yield _tried("refused", partial(record_checks.refused, settings), "see 'database'")
    cure = "look at the disk, and have these studies sent again: 'cxr-worker studies show UID' names the images"
    yield replace(_tried("lost files", partial(record_checks.lost, settings), cure), advisory=True)
    if settings.keeping.deletes:
        cure = "set the clock right; where it is, they go by themselves a day later, and 'cxr-worker db clean' deletes them now"
        yield replace(_tried("clock", partial(record_checks.clock, settings), cure), advisory=True)
    yield _tried("runner", partial(record_checks.runner, settings), "see 'database'")
    cure = "'cxr-worker deliveries list' tells why; 'deliveries retry --all-failed' sends again; or name the destination again"
    yield _tried("deliveries", partial(record_checks.deliveries, settings), cure)
    yield _tried("failed studies", partial(record_checks.kept, settings, Ending.FAILED), "see 'database'")
    yield _tried("undelivered studies", partial(record_checks.kept, settings, Ending.UNDELIVERED), "see 'database'")
    cure = "'cxr-worker models list' shows those there are; 'models activate' names another, or set inference.model"
    yield _tried("model", partial(record_checks.model, settings), cure)
    cure = (
        "'cxr-worker models activate MODEL --shadow' names another, 'models deactivate-shadow' none; nothing else depends on it"
    )
    yield replace(_tried("shadow", partial(record_checks.shadow, settings), cure), advisory=True)
    if settings.gate.pixels:
        yield _tried(
            "gate", checks.gate, "install cxr-worker again: the gate's weights ship with it; or set gate.pixels to false"
        )
    yield _tried(
        "decoders", checks.decoders, "install cxr-worker again, with what it depends on; or give the machine more memory"
    )
    cure = "run Linux 5.13 or newer with Landlock (lsm=landlock,... on its command line); nothing else depends on it"
    yield replace(_tried("confinement", checks.confinement, cure), advisory=True)
    yield _tried("device", partial(checks.device, settings), "set inference.device to auto or cpu, or look at nvidia-smi")
    yield from _tls(settings)
    if settings.audit is not None:
        cure = "start the audit repository and open its port, or correct [audit]; nothing is lost, and no study waits for it"
        yield _tried("audit", partial(record_checks.audit, settings, settings.audit), cure)
    if not settings.destinations:
        cure = "add a [[destinations]] block, or results stay in data_dir/reports"
        yield Check(name="destinations", ok=False, detail="none", cure=cure)
    for destination in settings.destinations:
        cure = f"start {destination.ae_title}, open the port, and register AE title {settings.dicom.ae_title} there"
        if destination.url:
            cure = f"start the service at {destination.url}, open its port, and look at token, username and password"
        yield _tried(f"destination {destination.name}", partial(checks.echo, destination, settings), cure)


def _tried(name: str, look: Callable[[], str], cure: str) -> Check:
    try:
        return Check(name=name, ok=True, detail=look())
    except _FORESEEN as error:
        return Check(name=name, ok=False, detail=str(error) or type(error).__name__, cure=cure)
    except Exception as error:  # noqa: BLE001  whatever is wrong is the finding; its words may quote a password
        return Check(name=name, ok=False, detail=f"Internal error: {type(error).__name__} at {traceback_of(error)}", cure=cure)


def _tls(settings: Settings) -> Iterator[Check]:
    def listens() -> str:
        server_context(settings)
        return "certificate, key and ca fit together"

    if settings.dicom.tls is not None:
        yield _tried("tls", listens, "the words say which file; a worker that runs reads it when it changes")
    now, cure = datetime.now(UTC), "renew it: it is read without a restart"
    for path, key in certificate_files(settings).items():
        check = _tried(f"certificate {key}", partial(checks.valid, path, key, now=now), cure)
        soon = check.ok and known_certificate(path, key).not_after < now + _RENEWED_BEFORE
        yield replace(check, ok=False, advisory=True, cure=cure) if soon else check
