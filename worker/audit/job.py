"""Tells the audit repository what happened since it was told last. Studies never wait for it."""

from itertools import islice, takewhile

import structlog

from dicom_io.audit_message import encode
from worker.audit.messages import Reporter, messages_of, reporter_of
from worker.audit.syslog import send_over_tls, send_over_udp, syslog_message
from worker.db import audit_positions, events
from worker.db.events import Chosen, Recorded
from worker.errors import ConfigurationError
from worker.pipeline import Parts
from worker.settings import AuditSettings
from worker.tls import audit_context

log = structlog.get_logger()

_AT_ONCE = 200


class Auditor:
    """The one who tells; it says in the log when the repository begins not to listen, and when it listens again."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._waits = False

    def tell(self) -> bool:
        """Send the next events to the audit repository, in their order; answer whether there may be more.

        The position moves on only after they were sent: those of a connection that broke are sent again.
        """
        parts, audit = self._parts, self._parts.settings.audit
        if audit is None:
            return False
        untold = _untold(parts, audit)
        if not untold:
            return False
        reporter = reporter_of(parts.settings)
        try:
            _send([message for each in untold for message in _framed(each, reporter)], audit, parts)
        except (OSError, ConfigurationError) as error:
            if not self._waits:
                log.warning("audit.waits", host=audit.host, port=audit.port, error=type(error).__name__)
            self._waits = True
            return False
        if self._waits:
            log.info("audit.goes_on", host=audit.host, port=audit.port)
        self._waits = False
        with parts.database.write() as connection:
            audit_positions.move(connection, audit.address, event_id=untold[-1].id, now=parts.clock())
        return len(untold) == _AT_ONCE


def _untold(parts: Parts, audit: AuditSettings) -> list[Recorded]:
    with parts.database.read() as connection:
        after = audit_positions.told(connection, audit.address)
        if events.newest_id(connection) <= after:
            return []
    with parts.database.write() as connection:
        until = audit_positions.settled(connection)
    with parts.database.read() as connection:
        new = takewhile(lambda each: each.id <= until, events.recorded(connection, Chosen(after_id=after)))
        return list(islice(new, _AT_ONCE))


def _framed(recorded: Recorded, reporter: Reporter) -> list[bytes]:
    return [syslog_message(encode(message), at=message.at, host=reporter.host) for message in messages_of(recorded, reporter)]


def _send(messages: list[bytes], audit: AuditSettings, parts: Parts) -> None:
    if not messages:
        return
    if audit.transport == "udp":
        send_over_udp(messages, (audit.host, audit.port))
    else:
        send_over_tls(messages, (audit.host, audit.port), audit_context(parts.settings, audit))
