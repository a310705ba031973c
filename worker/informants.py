"""Informants: a modality's performed steps and an archive's notices say which images a study has."""

from collections.abc import Callable

import structlog

from dicom_io.availability import NOTICE, read_notice
from dicom_io.errors import InvalidObject
from dicom_io.mpps import STEP, read_step
from dicom_io.normalized import NormalizedRequest, NormalizedService
from dicom_io.values import ANY_UID
from worker.db import evidence
from worker.pipeline import Parts

log = structlog.get_logger()


def informants(parts: Parts, *, heard: Callable[[], None]) -> dict[str, NormalizedService]:
    """The services by which others tell us, by SOP class; `heard` is called when something was noted.

    Nothing but the time when a study is complete follows from what they say.
    """

    def on_step(request: NormalizedRequest) -> None:
        _require_a_name(request)
        step = read_step(request.dataset, request.transfer_syntax)
        with parts.database.write() as connection:
            told = evidence.note_step(connection, request.sop_instance_uid, step, now=parts.clock())
        # A step that began while we were away is no mistake of the modality's, which must not be held up.
        log.info("step.noted", calling_ae_title=request.calling_ae_title, state=step.status, count=told)
        heard()

    def on_notice(request: NormalizedRequest) -> None:
        _require_a_name(request)
        notice = read_notice(request.dataset, request.transfer_syntax)
        source = request.sop_instance_uid or notice.study_uid
        with parts.database.write() as connection:
            evidence.note_notice(connection, source, notice.study_uid, notice.instances, now=parts.clock())
        log.info("notice.noted", calling_ae_title=request.calling_ae_title, instances=len(notice.instances))
        heard()

    return {STEP: on_step, NOTICE: on_notice}


def _require_a_name(request: NormalizedRequest) -> None:
    """Refuse an instance that is named and by no UID; of an N-CREATE it may be left to us."""
    if request.sop_instance_uid and not ANY_UID.fullmatch(request.sop_instance_uid):
        raise InvalidObject("The request names no instance: digits and dots, at most 64.")
