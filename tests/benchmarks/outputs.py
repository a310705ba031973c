"""What making each output of a study costs, in milliseconds of processor time: what else the machine does counts little."""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from cxr_models.predict import Predictor
from dicom_io.kinds import Kind
from tests.benchmarks.stages import analysed_film
from worker.destination import Destination
from worker.engine import LocalEngine
from worker.steps.report import Pictures, build, keep, wanted
from worker.values import AnalysedStudy

ROUNDS = 15


def run() -> None:
    """Make every output of a flagged 2,500 x 2,048 film of 16 bits, on one core, its pixels decoded once for all of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="cxr-outputs-") as name:
            predictor = Predictor.load("lenet5", device="cpu", precision="auto")
            study = _flagged(analysed_film(Path(name), predictor))
            engine = LocalEngine(predictor, decode_threads=1)
            rounds = [_milliseconds(study, engine, Path(name)) for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    total = statistics.median(sum(each.values()) for each in rounds)
    print(f"all outputs of one 2500x2048 film, lenet5, one core: {total:.0f} ms, of which")
    for part in rounds[0]:
        print(f"  {part:24} {statistics.median(each[part] for each in rounds):6.1f} ms")


def _milliseconds(study: AnalysedStudy, engine: LocalEngine, folder: Path) -> dict[str, float]:
    kinds = tuple(kind for kind in Kind if kind is not Kind.NOT_ANALYSED)
    destination = Destination(name="bench", ae_title="BENCH", host="127.0.0.1", port=104, outputs=kinds)
    pictures = Pictures(study, lambda: engine)
    spent: dict[str, float] = {}
    started = time.process_time()
    for part in ("pixels", "saliency"):
        getattr(pictures, part)
        spent[part] = _since(started)
        started = time.process_time()
    for output in wanted((destination,), study):
        ds = build(study, output, pictures, name="bench", predecessor=None)
        assert ds is not None
        keep(ds, output, result_key="bench", data_dir=folder)
        spent[output.kind] = _since(started)
        started = time.process_time()
    return spent


def _since(started: float) -> float:
    return 1000 * (time.process_time() - started)


def _flagged(study: AnalysedStudy) -> AnalysedStudy:
    (image,) = study.images
    assert image.answer is not None
    answer = replace(image.answer, present={**image.answer.present, "COVID-19": True}, flagged=True)
    return replace(study, images=(replace(image, answer=answer),))
