"""Several receivers on one port, as a busy site has them."""

from pathlib import Path

import psutil

from tests.factories import make_study, write
from tests.requirements import need
from tests.servers import storescu, wait_for, worker

STUDIES = 12


def test_whoever_takes_an_object_it_is_kept_and_analysed_and_a_killed_receiver_is_replaced(tmp_path: Path) -> None:
    need("storescu")
    films = [write(ds, tmp_path / f"{ds.SOPInstanceUID}.dcm") for number in range(STUDIES) for ds in make_study(str(number))]
    with worker(tmp_path, "[study]\nquiet_seconds = 0.2\n", dicom="receivers = 3\n") as running:
        running.start()
        assert running.process is not None
        first = psutil.Process(running.process.pid)
        for film in films[: len(films) // 2]:
            assert storescu(running.port, film).returncode == 0
        beside = first.children()[-1]
        beside.kill()
        wait_for(lambda: len(first.children()) == 3 and beside not in first.children(), "another", seconds=30)
        for film in films[len(films) // 2 :]:
            assert storescu(running.port, film).returncode == 0
        wait_for(lambda: {study["state"] for study in running.studies()} == {"reported"}, "they are reported", seconds=60)
        assert len(running.studies()) == STUDIES
        assert running.stop() == 0
