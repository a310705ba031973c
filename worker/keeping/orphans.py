"""Orphans: files without rows are entered again or moved aside, rows without files make their study fail visibly."""

from collections import Counter, defaultdict
from enum import StrEnum
from pathlib import Path

import structlog

from dicom_io.errors import DicomError, InvalidObject
from dicom_io.found import FoundFile, dataset_digest, read_found
from worker.db import arrivals, events, files
from worker.db.arrivals import Arrival
from worker.files import make_folder, sync_file, sync_folder
from worker.keeping.removal import discard, is_young, put_back
from worker.pipeline import Parts
from worker.steps import report
from worker.steps.store import FOLDER
from worker.values import InstanceId, StoredFile, StudyId

log = structlog.get_logger()

ASIDE = Path("aside")
"""Where in the data folder what cannot be entered is moved."""

_MANY = 10


class Fate(StrEnum):
    """What became of a file or a row that had lost the other."""

    ENTERED = "entered"
    """The file has a row again."""
    SET_ASIDE = "set_aside"
    """The file was moved: nobody can say whose it is, or its sender has sent other content since."""
    DISCARDED = "discarded"
    """The file was deleted: its row says that it is gone."""
    LEFT = "left"
    """The file is so young that its receiver may still be at work, or cannot be read now."""
    LOST = "lost"
    """The row's file is missing."""


def mend(parts: Parts) -> Counter[Fate]:
    """Put the received files, the reports and their rows in step; receivers may be at work meanwhile."""
    fates: Counter[Fate] = Counter()
    missing: defaultdict[StudyId, list[InstanceId]] = defaultdict(list)
    present = 0
    put_back(parts.data_dir / FOLDER)
    fates.update(_mend_reports(parts))
    for digit in "0123456789abcdef":
        there = {path.relative_to(parts.data_dir) for path in (parts.data_dir / FOLDER).glob(f"{digit}*/*.dcm")}
        with parts.database.read() as connection:  # after the folder: what was stored in between has a row and is no orphan
            rows = {kept.path: kept for kept in files.received(connection, sha256_begins=digit)}
        fates.update(_enter(path, parts) for path in sorted(there - rows.keys()))
        for path, kept in rows.items():
            if kept.gone and path in there:
                fates[Fate.DISCARDED] += discard(parts.data_dir / path, now=parts.clock())
            elif not kept.gone:
                if path in there or (parts.data_dir / path).exists():
                    present += 1
                else:
                    missing[kept.study_id].append(kept.id)
    lost = sum(map(len, missing.values()))
    if not (parts.data_dir / FOLDER).is_dir() or (lost > _MANY and lost > present):
        if lost:
            log.error("files.unreachable", where=str(FOLDER), count=lost)  # a disk that is not mounted has lost nothing
        return fates
    for study_id, ids in missing.items():
        with parts.database.write() as connection:
            count = files.lose(connection, study_id, ids, now=parts.clock())
        if count:
            log.error("files.lost", study_id=study_id, count=count)
            fates[Fate.LOST] += count
    log.info("files.mended", count=fates.total() - fates[Fate.LEFT])
    return fates


def _mend_reports(parts: Parts) -> Counter[Fate]:
    """Delete the reports whose rows say that they are gone, and move aside what has none: what is due is made again."""
    fates: Counter[Fate] = Counter()
    there = {path.relative_to(parts.data_dir) for path in (parts.data_dir / report.FOLDER).glob("*.dcm")}
    with parts.database.read() as connection:  # after the folder, as below
        kept, gone = files.made_and_gone(connection)
    for path in sorted(there & gone):
        (parts.data_dir / path).unlink(missing_ok=True)
        fates[Fate.DISCARDED] += 1
    fates.update(_set_aside(path, "No row tells of it.", parts) for path in sorted(there - kept - gone))
    return fates


def _enter(path: Path, parts: Parts) -> Fate:
    """Give a file its row, or move it aside."""
    whole = parts.data_dir / path
    try:
        found, file = _read(whole, path)
    except DicomError as error:
        return _set_aside(path, str(error), parts)
    except FileNotFoundError:  # whoever deletes what is gone was here
        return Fate.LEFT
    except OSError as error:  # the disk does not give it now, and the others must be mended
        log.warning("file.unreadable", where=str(path), error=type(error).__name__)
        return Fate.LEFT
    with parts.database.write() as connection:
        newer = files.other_came_since(connection, found.identity.sop_instance_uid, file.sha256, whole.stat().st_mtime)
        if not newer:
            arrivals.add_arrival(connection, _arrival(found, file, parts))
    if newer:  # its sender never heard that it was stored, and sent something else
        return _set_aside(path, "Other content came later under its SOP Instance UID.", parts)
    log.warning("file.entered", calling_ae_title=found.source_ae_title)
    return Fate.ENTERED


def _read(whole: Path, path: Path) -> tuple[FoundFile, StoredFile]:
    found = read_found(whole)
    sha256, size = dataset_digest(whole)
    if sha256 != path.stem:
        raise InvalidObject("Its bytes are not those that its name tells.")
    sync_file(whole)  # its receiver may have ended before it was durable
    return found, StoredFile(path=path, sha256=sha256, size=size)


def _arrival(found: FoundFile, file: StoredFile, parts: Parts) -> Arrival:
    return Arrival(
        identity=found.identity,
        file=file,
        transfer_syntax=found.transfer_syntax,
        calling_ae_title=found.source_ae_title,
        peer_address="",
        at=parts.clock(),
    )


def _set_aside(path: Path, why: str, parts: Parts) -> Fate:
    if is_young(parts.data_dir / path, now=parts.clock()):
        return Fate.LEFT
    folder = parts.data_dir / ASIDE
    make_folder(folder)
    (parts.data_dir / path).rename(folder / path.name)
    sync_folder(folder)
    with parts.database.write() as connection:
        events.add(connection, "file_set_aside", at=parts.clock(), detail=f"{ASIDE / path.name}: {why}")
    log.warning("file.set_aside", where=str(ASIDE / path.name))
    return Fate.SET_ASIDE
