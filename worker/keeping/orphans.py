"""Orphans: files without rows are entered again or moved aside, rows without files make their study fail visibly."""

from collections import Counter, defaultdict

import structlog

from worker.db import files
from worker.db.files import KeptFile
from worker.journal.owned import give_files
from worker.keeping.entering import Fate, enter, set_aside
from worker.keeping.removal import discard, put_back
from worker.keeping.replay import replay
from worker.pipeline import Parts
from worker.steps import report
from worker.steps.store import FOLDER
from worker.values import InstanceId, StudyId

log = structlog.get_logger()

_MANY = 10


def mend(parts: Parts) -> Counter[Fate]:
    """Put the received files, the reports and their rows in step; receivers may be at work meanwhile."""
    fates: Counter[Fate] = Counter()
    missing: defaultdict[StudyId, list[InstanceId]] = defaultdict(list)
    present = 0
    replay(parts)
    put_back(parts.data_dir / FOLDER)
    fates.update(_mend_reports(parts))
    for digit in "0123456789abcdef":
        there = {path.relative_to(parts.data_dir) for path in (parts.data_dir / FOLDER).glob(f"{digit}*/*.dcm")}
        with parts.database.read() as connection:  # after the folder: what was stored in between has a row and is no orphan
            rows = {kept.path: kept for kept in files.received(connection, sha256_begins=digit)}
        fates.update(enter(path, parts) for path in sorted(there - rows.keys()))
        absent = [kept for path, kept in rows.items() if not kept.gone and path not in there]
        _fetch(absent, parts)
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


def _fetch(absent: list[KeptFile], parts: Parts) -> None:
    """Have files made of what came just now, and is in a receiver's journal."""
    if absent:
        give_files(parts.data_dir, {kept.sha256: parts.data_dir / kept.path for kept in absent})


def _mend_reports(parts: Parts) -> Counter[Fate]:
    """Delete the reports whose rows say that they are gone, and move aside what has none: what is due is made again."""
    fates: Counter[Fate] = Counter()
    there = {path.relative_to(parts.data_dir) for path in (parts.data_dir / report.FOLDER).glob("*.dcm")}
    with parts.database.read() as connection:  # after the folder, as below
        kept, gone = files.made_and_gone(connection)
    for path in sorted(there & gone):
        (parts.data_dir / path).unlink(missing_ok=True)
        fates[Fate.DISCARDED] += 1
    fates.update(set_aside(path, "No row tells of it.", parts) for path in sorted(there - kept - gone))
    return fates
