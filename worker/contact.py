"""Whether a destination that could not be reached can be again: it is asked every so often while something waits for that."""

from datetime import datetime, timedelta

import structlog

from dicom_io.errors import AssociationRejected, DicomError, PeerRefused
from worker.db import delivering
from worker.destination import Destination
from worker.pipeline import Parts
from worker.steps.deliver import greet

log = structlog.get_logger()

ECHO_EVERY = timedelta(seconds=15)


class Contact:
    """Asks one destination.

    One that comes back is sent at once what waited for it. One that answers all the while, and yet lets nobody in who wants to
    send, is not back when it answers: what it was to be sent keeps its own times.
    """

    def __init__(self, destination: Destination, parts: Parts) -> None:
        self._destination = destination
        self._parts = parts
        self._answered = False  # of what was before this process nothing is known: the first answer counts as a return
        self.next_echo: datetime | None = None
        """When it is to be asked again; None while nothing waits for that."""

    def renew(self) -> int:
        """Ask, if it is time to; answer how many reports are due at once because of the answer."""
        with self._parts.database.read() as connection:
            awaited = delivering.awaits_answer(connection, self._destination.name)
        now = self._parts.clock()
        if not awaited:
            self.next_echo = None
        elif self.next_echo is None or self.next_echo > now + ECHO_EVERY:  # the clock was set back
            self.next_echo = now + ECHO_EVERY
        elif self.next_echo <= now:
            self.next_echo = now + ECHO_EVERY
            return self.ask()
        return 0

    def ask(self) -> int:
        """Ask now; answer how many reports are due at once because of the answer."""
        was_away, self._answered = not self._answered, self._answers()
        if not self._answered:
            return 0
        name = self._destination.name
        with self._parts.database.write() as connection:
            if not was_away:
                delivering.destination_answers_as_before(connection, name)
                return 0
            resumed = delivering.destination_answers(connection, name, now=self._parts.clock())
        log.info("destination.answers", destination=name, count=resumed)
        return resumed

    def _answers(self) -> bool:
        try:
            greet(self._destination, self._parts.settings)
        except AssociationRejected:
            return False
        except PeerRefused:  # it can be talked to, only not about this
            return True
        except DicomError:
            return False
        return True
