"""Questions: the PACS of a sender is asked how many images the studies have that come from there."""

from datetime import datetime, timedelta

import structlog

from dicom_io.errors import DicomError, PeerRefused
from dicom_io.query import count_instances
from dicom_io.values import Peer, StudyUID
from worker.db import evidence
from worker.errors import ConfigurationError
from worker.pipeline import STUDIES_AT_ONCE, Parts
from worker.settings import SenderSettings
from worker.steps.deliver import peer_of
from worker.tls import client_context

log = structlog.get_logger()


def ask_about_studies(sender: SenderSettings, parts: Parts) -> int:
    """Ask a sender's PACS how many images the studies have that come from there; answer how many it was asked about.

    It is asked once after each pause. Where it does not answer, the study waits for its quiet time as any other.
    """
    if sender.query is None:
        return 0
    now, pause = parts.clock(), timedelta(seconds=parts.settings.study.minimum_quiet_seconds)
    source, peer = sender.query.ae_title, Peer(**sender.query.model_dump())
    with parts.database.read() as connection:
        waiting = evidence.to_ask(connection, sender.calling_ae_title, source, limit=STUDIES_AT_ONCE)
    due = [study_uid for study_uid, last_received_at in waiting if last_received_at <= now - pause]
    if not due:
        return 0
    counts: dict[StudyUID, int | None] = dict.fromkeys(due)
    there = [known for known in parts.settings.destinations if peer_of(known) == peer]
    try:
        tls = client_context(parts.settings, there[0]) if there else None
        for study_uid, said in count_instances(peer, due, calling_ae_title=parts.settings.dicom.ae_title, tls=tls):
            if isinstance(said, PeerRefused):
                _warn(sender, said)
            else:
                counts[study_uid] = said
    except (DicomError, ConfigurationError) as error:
        _warn(sender, error)
    with parts.database.write() as connection:
        for study_uid, count in counts.items():
            ours = evidence.reports_there(connection, study_uid, [known.name for known in there])
            images = None if count is None or count < ours else count - ours
            evidence.note_count(connection, source, study_uid, images, now=now)
    return len(due)


def _warn(sender: SenderSettings, error: Exception) -> None:
    log.warning("query.failed", calling_ae_title=sender.calling_ae_title, error=type(error).__name__)


def next_question(sender: SenderSettings, parts: Parts) -> datetime | None:
    """When a sender's PACS is to be asked next, if no image comes."""
    if sender.query is None:
        return None
    with parts.database.read() as connection:
        waiting = evidence.to_ask(connection, sender.calling_ae_title, sender.query.ae_title, limit=1)
    pause = timedelta(seconds=parts.settings.study.minimum_quiet_seconds)
    return min((last_received_at + pause for _, last_received_at in waiting), default=None)
