"""The verdict: what was acknowledged is here, whole, and told once. It asks files, tables and the PACS, not our own code."""

import hashlib
import json
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from time import time
from typing import Any

import pydicom
from sqlalchemy import Connection, text

from dicom_io.kinds import SERIES, Kind
from tests.servers import Orthanc
from tests.soak.films import Study
from tests.soak.system import OUTPUTS
from worker.db.database import open_database

_YOUNG_SECONDS = 3600
_PAGE = 500
_LOOKED_AT = ["PatientID", "StudyInstanceUID", "SOPInstanceUID", "SeriesNumber", "CurrentRequestedProcedureEvidenceSequence"]
_KINDS = {SERIES[Kind(output)].number: output for output in OUTPUTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where everything lies when it has calmed down."""

    database_url: str
    data_dir: Path
    ledger: Path
    pacs: Orthanc


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report as the PACS has it."""

    orthanc_id: str
    study_uid: str
    patient_id: str
    sop_instance_uid: str
    series_number: int
    films: frozenset[str]
    """SOP Instance UIDs of the images that it tells of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is wrong, one line each, by UID; and what was counted on the way."""

    complaints: tuple[str, ...]
    reports: int
    told_again: int
    """Studies of which an image came after the others were reported: a newer report names the older one."""
    parts: int
    """Files of writes that a kill broke off: younger than an hour, or there would be a complaint."""


def judge(place: Place, studies: Sequence[Study]) -> Verdict:
    """Look at everything."""
    acknowledged = [json.loads(line) for line in place.ledger.read_text().splitlines()]
    complaints = list(_unsent(acknowledged, studies))
    with closing(open_database(place.database_url)) as database, database.read() as connection:
        complaints += _kept(acknowledged, connection, place.data_dir)
        complaints += _open_ends(connection, studies)
        complaints += _damage(connection)
        known = _reports_of(connection)
    told = list(_reports_in(place.pacs))
    complaints += _told_once(told, studies)
    complaints += _known_to_both(told, known)
    parts = list(place.data_dir.rglob("*.part"))
    complaints += [f"left behind: {part}" for part in parts if part.stat().st_mtime < time() - _YOUNG_SECONDS]
    by_study = Counter((report.study_uid, report.series_number) for report in told)
    return Verdict(
        complaints=tuple(complaints),
        reports=len(told),
        told_again=len({study for (study, _), count in by_study.items() if count > 1}),
        parts=len(parts),
    )


def _unsent(acknowledged: Sequence[Mapping[str, str]], studies: Sequence[Study]) -> Iterator[str]:
    """The load itself: every film was acknowledged once."""
    times = Counter(line["sop_instance_uid"] for line in acknowledged)
    for film in (film for study in studies for film in study):
        if times[film.sop_instance_uid] != 1:
            yield f"acknowledged {times[film.sop_instance_uid]} times: {film.sop_instance_uid}"


def _kept(acknowledged: Sequence[Mapping[str, str]], connection: Connection, data_dir: Path) -> Iterator[str]:
    """Every object that was answered with 0x0000 has one row, and one file with the bytes that were sent; nothing else has."""
    rows: defaultdict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(text("SELECT sop_instance_uid, sha256, path, gone_at FROM instances")):
        rows[row.sop_instance_uid].append(row)
    for line in acknowledged:
        uid = line["sop_instance_uid"]
        found = rows.pop(uid, [])
        if len(found) != 1:
            yield f"{len(found)} rows: object {uid}"
        for row in found:
            if row.sha256 != line["sha256"] or row.gone_at is not None:
                yield f"its row is of other bytes, or says that they are gone: object {uid}"
            if (fault := _fault_of(data_dir / row.path, line["sha256"])) is not None:
                yield f"{fault}: object {uid}"
    for uid in rows:
        yield f"a row of what was never acknowledged: object {uid}"


def _fault_of(path: Path, sha256: str) -> str | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"no file ({error.strerror})"
    begin = 144 + struct.unpack("<I", content[140:144])[0]  # preamble, DICM, length of the file meta group (PS3.10 7.1)
    return None if hashlib.sha256(content[begin:]).hexdigest() == sha256 else "its file has other bytes"


def _open_ends(connection: Connection, studies: Sequence[Study]) -> Iterator[str]:
    """Every study is delivered, and nothing waits."""
    rows = {row.study_uid: row for row in connection.execute(text("SELECT study_uid, patient_id, state, reason FROM studies"))}
    for study in studies:
        row = rows.pop(study[0].study_uid, None)
        if row is None:
            yield f"no row: study {study[0].study_uid}"
        elif row.state != "delivered":
            yield f"{row.state} ({row.reason}): study {study[0].study_uid}"
        elif row.patient_id != study[0].patient_id:
            yield f"its row is of another patient: study {study[0].study_uid}"
    for uid in rows:
        yield f"a row of what was never sent: study {uid}"
    waiting = "SELECT state, count(*) AS number FROM deliveries WHERE state NOT IN ('delivered', 'superseded') GROUP BY state"
    for row in connection.execute(text(waiting)):
        yield f"deliveries {row.state}: {row.number}"


def _damage(connection: Connection) -> Iterator[str]:
    if connection.dialect.name != "sqlite":
        return
    for row in connection.execute(text("PRAGMA integrity_check")):
        if row[0] != "ok":
            yield f"integrity_check: {row[0]}"
    for row in connection.execute(text("PRAGMA foreign_key_check")):
        yield f"foreign_key_check: {tuple(row)}"


def _reports_of(connection: Connection) -> dict[str, bool]:
    """The SOP Instance UIDs of all reports that were made, and whether the PACS is said to have them."""
    rows = connection.execute(
        text("SELECT sop_instance_uid, state FROM reports LEFT JOIN deliveries ON deliveries.report_id = reports.id")
    )
    return {row.sop_instance_uid: row.state == "delivered" for row in rows}


def _reports_in(pacs: Orthanc) -> Iterator[Report]:
    since = 0
    while page := pacs.get(f"/instances?since={since}&limit={_PAGE}"):
        for orthanc_id in page:
            ds = pydicom.dcmread(BytesIO(pacs.get(f"/instances/{orthanc_id}/file")), specific_tags=_LOOKED_AT)
            yield Report(
                orthanc_id=orthanc_id,
                study_uid=str(ds.StudyInstanceUID),
                patient_id=str(ds.PatientID),
                sop_instance_uid=str(ds.SOPInstanceUID),
                series_number=int(ds.SeriesNumber),
                films=frozenset(
                    str(item.ReferencedSOPInstanceUID)
                    for study in ds.get("CurrentRequestedProcedureEvidenceSequence", [])
                    for series in study.ReferencedSeriesSequence
                    for item in series.ReferencedSOPSequence
                ),
            )
        since += len(page)


def _told_once(told: Sequence[Report], studies: Sequence[Study]) -> Iterator[str]:
    """The PACS has the reports of each study, and no others."""
    by_study: defaultdict[str, list[Report]] = defaultdict(list)
    for report in told:
        by_study[report.study_uid].append(report)
    for study in studies:
        for fault in _faults_of(by_study.pop(study[0].study_uid, []), study):
            yield f"{fault}: study {study[0].study_uid}"
    for uid in by_study:
        yield f"the PACS has reports of what was never sent: study {uid}"


def _faults_of(found: Sequence[Report], study: Study) -> Iterator[str]:
    """One report of each kind, of its patient and all of its films; one more for each late film."""
    films = frozenset(film.sop_instance_uid for film in study)
    for report in found:
        if report.patient_id != study[0].patient_id:
            yield f"a report of another patient, {report.sop_instance_uid}"
        if report.series_number not in _KINDS:
            yield f"a report that nobody asked for, {report.sop_instance_uid}"
        if not report.films <= films:
            yield f"a report that tells of others' images, {report.sop_instance_uid}"
    for number, kind in _KINDS.items():
        tell = [report.films for report in found if report.series_number == number]
        if films not in tell:
            yield f"no {kind} in the PACS tells of all images"
        for same in {each for each in tell if tell.count(each) > 1}:
            yield f"{tell.count(same)} times the same {kind}"


def _known_to_both(told: Sequence[Report], known: Mapping[str, bool]) -> Iterator[str]:
    """The database and the PACS know of the same reports; a superseded one may have arrived before it was."""
    there = {report.sop_instance_uid for report in told}
    for uid in sorted(there - known.keys()):
        yield f"in the PACS, not in the database: report {uid}"
    for uid, is_delivered in known.items():
        if is_delivered and uid not in there:
            yield f"called delivered, not in the PACS: report {uid}"
