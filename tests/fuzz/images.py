"""Received files as images: what is made of them, and what is told of them."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Final
from unittest.mock import patch

import numpy as np

from cxr_models.gate import FrontalGate
from cxr_models.prepare import prepare as to_tensor
from cxr_models.values import Preparation
from dicom_io.decoders import decoders
from dicom_io.decoding import decode
from dicom_io.errors import InvalidReport, NotDicom, UndecodablePixels
from dicom_io.errors import Permanent as PermanentDicomError
from dicom_io.header import read_header
from dicom_io.identity import read_source_image, shared_identity
from dicom_io.not_analysed import build_not_analysed_report
from dicom_io.pixels import image_from
from dicom_io.presentation_state import build_presentation_state
from dicom_io.report import build_structured_report
from dicom_io.sameness import same_content
from tests import fakes, studies
from tests.fuzz.associations import storable
from tests.fuzz.files import HEAD_BYTES, LONGEST_REAL_BYTES, file_in_memory, real_files, sound_files, written
from tests.fuzz.hostile_images import hostile_films, hostile_headers, hostile_pictures
from tests.fuzz.pictures import EXAMINED, SMALL, objects
from tests.fuzz.pictures import part10 as file_of
from tests.fuzz.target import Broken, Target
from worker.steps.prepare import PreparedImage, prepare
from worker.steps.select import SelectedImage, select
from worker.values import ImageOutcome

_TO_TENSOR: Final = Preparation(side=32)


def _in_this_process(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Have frames decoded where a crash is seen; a process that is replaced after each damaged one would take all the time."""

    def run_here(data: bytes) -> None:
        with patch.object(decoders, "decode", decode):
            run(data)

    return run_here


def _decode(data: bytes) -> None:
    pixels = image_from(read_header(written(data))).pixels
    if pixels.dtype != np.float32 or not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 1:
        raise Broken("a picture that is not finite and within 0 and 1")


PIXELS = Target(
    name="pixels",
    says=(
        "Files to pictures: `header.read_header` and `pixels.image_from`, small images in every transfer syntax that is "
        "decoded; a picture must be finite and within 0 and 1. The libraries run in this process, not apart as in the worker."
    ),
    run=_in_this_process(_decode),
    allowed=(NotDicom, UndecodablePixels),
    seeds=sound_files,
    hostile=hostile_pictures,
    longest=LONGEST_REAL_BYTES,
)


_gate = cache(FrontalGate.load)


def _analyse(data: bytes) -> None:
    path = written(data)
    selected = select(fakes.stored_instance(path=path))
    if isinstance(selected, SelectedImage):
        prepared = prepare(selected, lambda pixels: to_tensor(pixels, _TO_TENSOR), gate=_gate())
        if isinstance(prepared, PreparedImage) and prepared.tensor.shape != (1, 32, 32):
            raise Broken("a tensor of another shape")
        reason = "" if isinstance(prepared, PreparedImage) else prepared.reason
    else:
        reason = selected.reason
    if "\0" in reason or not isinstance(reason, str):
        raise Broken("a reason that no column takes")
    same_content(path, file_in_memory("other"))
    same_content(path, path)
    assert isinstance(selected, SelectedImage | ImageOutcome)


def _analysed_files() -> Iterable[bytes]:
    files = [file_of(ds) for ds in objects(*EXAMINED)]
    file_in_memory("other").write_bytes(files[1])
    return [*files, *(content for content in real_files() if len(content) < 64 * 1024)]


ANALYSIS = Target(
    name="analysis",
    says=(
        "Received files as the pipeline takes them: `select`, then decode, examine by the gate, and `prepare`; and whether one "
        "says the same as another (`sameness.same_content`). Nothing may be raised: every end is a reason."
    ),
    run=_in_this_process(_analyse),
    allowed=(),
    seeds=_analysed_files,
    hostile=hostile_films,
    longest=64 * 1024,
)


def _tell(data: bytes) -> None:
    path = written(data)
    source = read_source_image(path)
    storable(source.reference.sop_instance_uid, source.study_uid)
    shared_identity([source])
    findings = studies.findings_on(path)
    for build in (build_structured_report, build_presentation_state):
        try:
            file_of(build(findings))
        except PermanentDicomError:
            continue
    file_of(build_not_analysed_report(studies.refusal_of(path)))


def _told_files() -> list[bytes]:
    plain = [file_of(ds) for ds in objects(*SMALL)]
    return [*(plain[place] for place in (0, 8, 9, 10, -1)), *(content[:HEAD_BYTES] for content in real_files())]


OUTPUTS = Target(
    name="outputs",
    says=(
        "What reports copy from a received header: `identity.read_source_image`, and a Structured Report, a presentation "
        "state and a refusal made and written from it."
    ),
    run=_tell,
    allowed=(InvalidReport, PermanentDicomError),
    seeds=_told_files,
    hostile=hostile_headers,
)
