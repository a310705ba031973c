"""Where the time of one image goes: decode, prepare, predict, report; as shares of their sum."""

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cxr_models.predict import Predictor
from dicom_io.header import read_header
from dicom_io.pixels import image_from
from dicom_io.values import SOPInstanceUID, StudyUID
from tests.factories import make_dx, radiograph, write
from worker.engine import LocalEngine
from worker.steps.predict import answer_of
from worker.steps.report import Pictures, build, keep, wanted
from worker.values import AnalysedStudy, ImageOutcome, InstanceId, Output, StoredInstance, StudyId, Triage

ROUNDS = 15


def run() -> None:
    """Time each stage on a 2,500 x 2,048 film of 16 bits, uncompressed."""
    with tempfile.TemporaryDirectory(prefix="cxr-stages-") as name:
        folder = Path(name)
        predictor = Predictor.load("lenet5", device="cpu", precision="auto")
        predictor.warm_up()
        study = analysed_film(folder, predictor)
        path = study.images[0].instance.path
        pixels = image_from(read_header(path)).pixels
        tensor = predictor.prepare(pixels)
        engine = LocalEngine(predictor, decode_threads=1)
        (output,) = wanted((), study)
        stages = {
            "header and pixels": _median(lambda: image_from(read_header(path))),
            "prepare": _median(lambda: predictor.prepare(pixels)),
            "predict": _median(lambda: predictor.predict([tensor])),
            "report, written durably": _median(
                lambda: _make(study, output, engine, folder),
            ),
        }
    total = sum(stages.values())
    print(f"one 2500x2048 film, uncompressed, lenet5: {total * 1000:.0f} ms, of which")
    for stage, seconds in stages.items():
        print(f"  {stage:24} {seconds / total:5.0%}  ({seconds * 1000:.1f} ms)")


def analysed_film(folder: Path, predictor: Predictor) -> AnalysedStudy:
    """Write a film and let a model answer."""
    ds = make_dx(radiograph(2500, 2048).astype("uint16") * 16)
    path = write(ds, folder / "film.dcm")
    (prediction,) = predictor.predict([predictor.prepare(image_from(read_header(path)).pixels)])
    instance = StoredInstance(
        id=InstanceId(1),
        sop_instance_uid=SOPInstanceUID(ds.SOPInstanceUID),
        path=path,
        sha256="0" * 64,
        patient_id="TEST-0001",
        issuer_of_patient_id="",
        received_at=datetime.now(UTC),
    )
    image = ImageOutcome(
        instance=instance, eligible=True, reason_code="eligible", reason="", answer=answer_of(prediction, predictor.card)
    )
    return AnalysedStudy(
        id=StudyId(1),
        study_uid=StudyUID(ds.StudyInstanceUID),
        generation=1,
        attempts=0,
        analysed_at=datetime.now(UTC),
        triage=Triage.HIGH,
        images=(image,),
    )


def _make(study: AnalysedStudy, output: Output, engine: LocalEngine, folder: Path) -> None:
    ds = build(study, output, Pictures(study, lambda: engine), name="bench", predecessor=None)
    assert ds is not None
    keep(ds, output, result_key="bench", data_dir=folder)


def _median(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
