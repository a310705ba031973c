"""The soak in small: each scenario once, and proof that its verdict can fail. ``make soak`` does the same for long."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from urllib.request import Request, urlopen

import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.requirements import lacking, need
from tests.servers import Orthanc, wait_for
from tests.soak.document import written
from tests.soak.films import Study, make_studies
from tests.soak.scenario import Result, Size, run
from tests.soak.scenarios import SCENARIOS
from tests.soak.senders import SENDERS, Load, Sender
from tests.soak.system import Deployment, running
from tests.soak.verdict import Place, judge
from tests.studies import encoded

DISTURBANCES = {"kills": 3, "pacs": 1}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_nothing_is_lost_and_every_report_arrives_once_under(scenario: type, tmp_path: Path) -> None:
    need("Orthanc")
    trouble = scenario()
    if missing := trouble.lacks():
        if trouble.name in {"disk", "power"}:
            pytest.skip(missing)  # nobody can install the right to mount
        lacking(missing)

    disturbances = DISTURBANCES.get(trouble.name, 2)
    result = run(trouble, Size(studies=12, disturbances=disturbances, seed=1), tmp_path)

    assert result.complaints == ()
    assert sum(result.disturbances.values()) == disturbances
    assert result.answers["0x0000"] == result.films == 14
    assert result.reports >= 2 * result.studies
    assert Result.read(json.dumps(asdict(result))).sent == result.sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A soak that has come to its end, undisturbed."""

    place: Place
    studies: list[Study]

    def complaints(self, place: Place | None = None) -> list[str]:
        return list(judge(place or self.place, self.studies).complaints)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    need("Orthanc")
    folder = tmp_path_factory.mktemp("soak")
    (folder / "films").mkdir()
    studies = make_studies(folder / "films", SENDERS, seed=2)
    load = Load(studies, folder / "acknowledged.jsonl")
    with running(folder, Deployment()) as system:
        for number in range(SENDERS):
            Sender(number, load, port=next(iter(system.receivers)), seed=2).start()
        load.release(1.0)

        def is_delivered() -> bool:
            standing = system.standing()
            return standing is not None and standing.studies == {"delivered": len(studies)}

        wait_for(lambda: load.acknowledged == load.films and is_delivered(), "every study is delivered", seconds=60)
        load.close()
        for process in system.processes:
            assert process.stop() == 0
        place = Place(
            database_url=system.worker.database_url,
            data_dir=folder / "var",
            ledger=folder / "acknowledged.jsonl",
            pacs=system.pacs.running,
        )
        yield Finished(place=place, studies=studies)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Place:
    """The same, with files, database and ledger of its own that a test may spoil."""
    shutil.copytree(finished.place.data_dir, tmp_path / "var")
    shutil.copy(finished.place.ledger, tmp_path / "acknowledged.jsonl")
    return replace(
        finished.place,
        database_url=f"sqlite:///{tmp_path / 'var' / 'worker.db'}",
        data_dir=tmp_path / "var",
        ledger=tmp_path / "acknowledged.jsonl",
    )


def test_an_undisturbed_soak_is_without_complaint(finished: Finished, copied: Place) -> None:
    assert finished.complaints() == []
    assert finished.complaints(copied) == []


SPOILT_ROWS = {
    "DELETE FROM instances WHERE sop_instance_uid = '{film}'": "0 rows: object {film}",
    "UPDATE instances SET gone_at = received_at WHERE sop_instance_uid = '{film}'": "its row is of other bytes",
    "UPDATE instances SET sop_instance_uid = '1.2.3' WHERE sop_instance_uid = '{film}'": "never acknowledged: object 1.2.3",
    "UPDATE studies SET state = 'failed', reason = 'no' WHERE study_uid = '{study}'": "failed (no): study {study}",
    "UPDATE studies SET patient_id = 'OTHER' WHERE study_uid = '{study}'": "its row is of another patient: study {study}",
    "UPDATE deliveries SET state = 'on_hold' WHERE id = 1": "deliveries on_hold: 1",
    "UPDATE reports SET sop_instance_uid = '1.2.3' WHERE id = 1": "called delivered, not in the PACS: report 1.2.3",
    "UPDATE predictions SET study_id = 999 WHERE id = 1": "foreign_key_check",
}


@pytest.mark.parametrize("statement", SPOILT_ROWS)
def test_the_verdict_sees_a_row_that_is_lost_or_wrong(statement: str, finished: Finished, copied: Place) -> None:
    names = {"film": finished.studies[0][0].sop_instance_uid, "study": finished.studies[0][0].study_uid}
    with closing(sqlite3.connect(copied.data_dir / "worker.db")) as connection, connection:
        assert connection.execute(statement.format(**names)).rowcount == 1

    complaints = finished.complaints(copied)

    assert any(SPOILT_ROWS[statement].format(**names) in each for each in complaints), complaints


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (Path.unlink, "no file (No such file or directory)"),
        (_cut, "its file has other bytes"),
        (_change, "its file has other bytes"),
    ],
)
def test_the_verdict_sees_a_file_that_is_lost_or_changed(
    spoil: Callable[[Path], None], fault: str, finished: Finished, copied: Place
) -> None:
    film = finished.studies[1][0]
    spoil(copied.data_dir / "received" / film.sha256[:2] / f"{film.sha256}.dcm")

    assert finished.complaints(copied) == [f"{fault}: object {film.sop_instance_uid}"]


def test_the_verdict_sees_what_was_left_behind_and_what_was_never_acknowledged(finished: Finished, copied: Place) -> None:
    part = copied.data_dir / "received" / "0.part"
    part.touch()
    assert finished.complaints(copied) == []
    os.utime(part, (0, 0))
    lines = copied.ledger.read_text().splitlines(keepends=True)
    copied.ledger.write_text("".join(lines[1:]))
    unsent = json.loads(lines[0])["sop_instance_uid"]

    assert finished.complaints(copied) == [
        f"acknowledged 0 times: {unsent}",
        f"a row of what was never acknowledged: object {unsent}",
        f"left behind: {part}",
    ]


def _report_of(pacs: Orthanc, study_uid: str) -> tuple[str, Dataset]:
    (orthanc_id, *_) = pacs.instances_of(study_uid, "SR")
    return orthanc_id, pydicom.dcmread(BytesIO(pacs.get(f"/instances/{orthanc_id}/file")))


def _add(pacs: Orthanc, ds: Dataset) -> str:
    request = Request(f"http://127.0.0.1:{pacs.http_port}/instances", data=encoded(ds), method="POST")
    with urlopen(request, timeout=10) as answer:
        return str(json.loads(answer.read())["ID"])


def test_the_verdict_sees_a_report_that_is_told_twice(finished: Finished) -> None:
    study = finished.studies[1][0].study_uid
    _, ds = _report_of(finished.place.pacs, study)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "2.25.77"
    added = _add(finished.place.pacs, ds)
    try:
        assert finished.complaints() == [
            f"2 times the same {'sr' if ds.SeriesNumber == 9001 else 'text_sr'}: study {study}",
            "in the PACS, not in the database: report 2.25.77",
        ]
    finally:
        finished.place.pacs.delete(f"/instances/{added}")


def test_the_verdict_sees_a_report_that_is_missing_and_one_of_another_patient(finished: Finished) -> None:
    pacs, study = finished.place.pacs, finished.studies[2][0].study_uid
    there, ds = _report_of(pacs, study)
    kind, patient_id = "sr" if ds.SeriesNumber == 9001 else "text_sr", ds.PatientID
    pacs.delete(f"/instances/{there}")
    ds.PatientID = "OTHER"
    added = _add(pacs, ds)
    try:
        assert finished.complaints() == [f"a report of another patient, {ds.SOPInstanceUID}: study {study}"]
        pacs.delete(f"/instances/{added}")
        assert finished.complaints() == [
            f"no {kind} in the PACS tells of all images: study {study}",
            f"called delivered, not in the PACS: report {ds.SOPInstanceUID}",
        ]
    finally:
        ds.PatientID = patient_id
        _add(pacs, ds)


def test_the_document_tells_what_was_found() -> None:
    good = Result(
        scenario="kills",
        machine="made up",
        seed=7,
        studies=1234,
        films=1400,
        sent=1500,
        answers={"0x0000": 1400, "none": 100},
        unreachable=3,
        disturbances={"runner killed": 5},
        reports=2468,
        told_again=0,
        parts=0,
        seconds=61.0,
        calm_seconds=2.0,
        complaints=(),
    )
    bad = replace(good, scenario="clock", complaints=("no file: object 1.2.3",))

    page = written([good, bad], {each.name: each() for each in SCENARIOS})

    assert "| kills | 1,234, 1,400 | runner killed: 5 | 1,500 | 0x0000: 1,400, none: 100 | 2,468 | nothing |" in page
    assert "| **1** |" in page
    assert "- no file: object 1.2.3" in page
    assert "$" not in page
