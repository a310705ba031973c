"""Reports sent to Orthanc over one association: our sender against DCMTK's storescu, in turns, each round other reports."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dicom_io.report import build_structured_report
from dicom_io.sender import send
from dicom_io.values import Peer
from tests.factories import write
from tests.servers import Orthanc, orthanc
from tests.studies import findings_on, radiograph

REPORTS = 200
ROUNDS = 7
TARGET_RATIO = 1.1


def run(folder: Path) -> None:
    """Send reports by turns; print the ratio of the medians."""
    image = radiograph(folder)
    with orthanc(folder) as pacs:
        ours, theirs = [], []
        for number in range(ROUNDS):
            ours.append(_seconds(_ours, pacs, _reports(folder, image, f"ours {number}")))
            theirs.append(_seconds(_storescu, pacs, _reports(folder, image, f"theirs {number}")))
        kept = len(pacs.get("/instances"))
    assert kept == 2 * ROUNDS * REPORTS, kept
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"{REPORTS} reports to Orthanc over one association, median of {ROUNDS} rounds:")
    print(f"  {statistics.median(ours):.3f} s, storescu {statistics.median(theirs):.3f} s: ratio {ratio:.2f}")
    print(f"  the ratio must not be over {TARGET_RATIO}: {'yes' if ratio <= TARGET_RATIO else 'NO'}")


def _reports(folder: Path, image: Path, name: str) -> list[Path]:
    place = folder / name
    place.mkdir()
    return [
        write(build_structured_report(findings_on(image, result_key=f"{name} {number}")), place / f"{number}.dcm")
        for number in range(REPORTS)
    ]


def _seconds(transfer: Callable[[Orthanc, Sequence[Path]], None], pacs: Orthanc, paths: Sequence[Path]) -> float:
    started = time.perf_counter()
    transfer(pacs, paths)
    return time.perf_counter() - started


def _ours(pacs: Orthanc, paths: Sequence[Path]) -> None:
    peer = Peer(ae_title="ORTHANC", host="127.0.0.1", port=pacs.dicom_port)
    errors = [outcome.error for outcome in send(peer, paths, calling_ae_title="BENCH") if outcome.error is not None]
    assert not errors, errors


def _storescu(pacs: Orthanc, paths: Sequence[Path]) -> None:
    command = ["storescu", "-aet", "BENCH", "-aec", "ORTHANC", "127.0.0.1", str(pacs.dicom_port), *map(str, paths)]
    subprocess.run(command, check=True, env=os.environ | {"TCP_NODELAY": "1"})
