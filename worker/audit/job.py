"""Tells the audit repository what happened since it was told last. Studies never wait for it."""

from itertools import islice, takewhile

import structlog

from dicom_io.audit_message import AuditMessage, encode
from worker.audit.messages import Reporter, in_short, messages_of, reporter_of
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
        self._at_once = _AT_ONCE

    def tell(self) -> bool:
        """Send the next events to the audit repository, in their order; answer whether there may be more.

        The position moves on only after they were sent: those of a connection that broke are sent again, half as many at once,
        so that what can be told gets through.
        """
        parts, audit = self._parts, self._parts.settings.audit
        if audit is None:
            return False
        at_once = self._at_once
        untold = _untold(parts, audit, at_once)
        if not untold:
            return False
        reporter = reporter_of(parts.settings)
        try:
            _send([message for each in untold for message in messages_of(each, reporter)], reporter, audit, parts)
        except (OSError, ConfigurationError) as error:
            if not self._waits:
                log.warning("audit.waits", host=audit.host, port=audit.port, error=type(error).__name__)
            self._waits = True
            self._at_once = max(len(untold) // 2, 1)
            return False
        if self._waits:
            log.info("audit.goes_on", host=audit.host, port=audit.port)
        self._waits, self._at_once = False, min(2 * at_once, _AT_ONCE)
        with parts.database.write() as connection:
            audit_positions.move(connection, audit.address, event_id=untold[-1].id, now=parts.clock())
        return len(untold) == at_once


def _untold(parts: Parts, audit: AuditSettings, at_once: int) -> list[Recorded]:
    with parts.database.read() as connection:
        after = audit_positions.told(connection, audit.address)
        if events.newest_id(connection) <= after:
            return []
    with parts.database.write() as connection:
        until = audit_positions.settled(connection)
    with parts.database.read() as connection:
        new = takewhile(lambda each: each.id <= until, events.recorded(connection, Chosen(after_id=after)))
        return list(islice(new, at_once))


def _send(messages: list[AuditMessage], reporter: Reporter, audit: AuditSettings, parts: Parts) -> None:
    if not messages:
        return
    address, framed = (audit.host, audit.port), [_framed(message, reporter) for message in messages]
    if audit.transport == "udp":
        too_long = send_over_udp(framed, address, instead=lambda index: _framed(in_short(messages[index]), reporter))
        if too_long:
            log.warning("audit.shortened", host=audit.host, port=audit.port, count=too_long)
    else:
        send_over_tls(framed, address, audit_context(parts.settings, audit))


def _framed(message: AuditMessage, reporter: Reporter) -> bytes:
    return syslog_message(encode(message), at=message.at, host=reporter.host)
