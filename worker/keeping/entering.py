"""Entering: a received file without a row gets one again, or is moved aside where nobody can say whose it is."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import structlog

from dicom_io.errors import DicomError, InvalidObject
from dicom_io.found import FoundFile, dataset_digest, read_found
from worker.db import arrivals, events, files
from worker.db.arrivals import Arrival
from worker.files import make_folder, sync_file, sync_folder
from worker.keeping.removal import is_young
from worker.pipeline import Parts
from worker.values import StoredFile

log = structlog.get_logger()

ASIDE = Path("aside")
"""Where in the data folder what cannot be entered is moved."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """When an object came, and from where."""

    at: datetime
    peer_address: str = ""


def enter(path: Path, parts: Parts, came: Came | None = None) -> Fate:
    """Give a received file its row, or move it aside.

    Parameters
    ----------
    path
        Relative to the data folder.
    parts
        The path's.
    came
        Where it is known.
    """
    whole = parts.data_dir / path
    try:
        found, file = _read(whole, path)
    except DicomError as error:
        return set_aside(path, str(error), parts)
    except FileNotFoundError:  # whoever deletes what is gone was here
        return Fate.LEFT
    except OSError as error:  # the disk does not give it now, and the others must be mended
        log.warning("file.unreadable", where=str(path), error=type(error).__name__)
        return Fate.LEFT
    moment = whole.stat().st_mtime if came is None else came.at.timestamp()
    with parts.database.write() as connection:
        newer = files.other_came_since(connection, found.identity.sop_instance_uid, file.sha256, moment)
        if not newer:
            arrivals.add_arrival(connection, _arrival(found, file, came or Came(at=parts.clock())))
    if newer:  # its sender never heard that it was stored, and sent something else
        return set_aside(path, "Other content came later under its SOP Instance UID.", parts)
    log.warning("file.entered", calling_ae_title=found.source_ae_title)
    return Fate.ENTERED


def _read(whole: Path, path: Path) -> tuple[FoundFile, StoredFile]:
    found = read_found(whole)
    sha256, size = dataset_digest(whole)
    if sha256 != path.stem:
        raise InvalidObject("Its bytes are not those that its name tells.")
    sync_file(whole)  # its receiver may have ended before it was durable
    return found, StoredFile(path=path, sha256=sha256, size=size)


def _arrival(found: FoundFile, file: StoredFile, came: Came) -> Arrival:
    return Arrival(
        identity=found.identity,
        file=file,
        transfer_syntax=found.transfer_syntax,
        calling_ae_title=found.source_ae_title,
        peer_address=came.peer_address,
        at=came.at,
    )


def set_aside(path: Path, why: str, parts: Parts) -> Fate:
    """Move a file to where nothing looks for any, unless it is young."""
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
