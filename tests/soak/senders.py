"""Four senders that behave as a PACS does: what was not answered with success is sent again, until it is."""

import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR
from threading import Condition, Thread
from time import sleep

from numpy.random import default_rng
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

from tests.soak.films import Film, Study

SENDERS = 4
_MOST_STUDIES = 4
"""Of one association."""
_AGAIN_SECONDS = 0.2


class Load:
    """All that is to be sent, released bit by bit, and what was answered to it."""

    def __init__(self, studies: Sequence[Study], ledger: Path) -> None:
        self._fresh = [deque(studies[number::SENDERS]) for number in range(SENDERS)]
        self._again: list[deque[Study]] = [deque() for _ in range(SENDERS)]
        self._released = 0
        self._unanswered = self.films = sum(map(len, studies))
        self._studies = len(studies)
        self._ledger = ledger.open("a")
        self._changed = Condition()
        self.sent = 0
        self.unreachable = 0
        """Associations that did not come about."""
        self.answers: Counter[str] = Counter()
        """C-STORE responses by their status, and those that did not come."""

    @property
    def acknowledged(self) -> int:
        """How many films were answered with 0x0000."""
        return self.films - self._unanswered

    @property
    def refused(self) -> int:
        """How many C-STOREs were answered that there is no room, or no database."""
        return self.answers["0xA700"]

    @property
    def is_idle(self) -> bool:
        """Whether everything that was released is acknowledged."""
        with self._changed:
            at_rest = sum(len(study) for waiting in self._fresh for study in waiting)
            return self._unanswered == at_rest and self._next_number() >= self._released

    def release(self, share: float) -> None:
        """Let the senders have so much of all studies, from 0 to 1."""
        with self._changed:
            self._released = max(self._released, round(share * self._studies))
            self._changed.notify_all()

    def take(self, sender: int, most: int) -> list[Film]:
        """What a sender should send next, what failed first; wait for it. Nothing, when all of its films are acknowledged."""
        with self._changed:
            self._changed.wait_for(lambda: self._again[sender] or self._is_next_free(sender) or not self._fresh[sender])
            studies: list[Study] = []
            while len(studies) < most and self._again[sender]:
                studies.append(self._again[sender].popleft())
            while len(studies) < most and self._is_next_free(sender):
                studies.append(self._fresh[sender].popleft())
            return [film for study in studies for film in study]

    def note(self, film: Film, answer: str) -> None:
        """Write down what was answered to a film, durably where it is success."""
        with self._changed:
            self.sent += 1
            self.answers[answer] += 1
            if answer == "0x0000":
                self._unanswered -= 1
                line = {"study_uid": film.study_uid, "sop_instance_uid": film.sop_instance_uid, "sha256": film.sha256}
                self._ledger.write(json.dumps(line) + "\n")
                self._ledger.flush()
                os.fsync(self._ledger.fileno())

    def send_again(self, sender: int, films: Study) -> None:
        """Give back what got no success."""
        with self._changed:
            self._again[sender].append(films)

    def note_unreachable(self) -> None:
        """Nobody took the association."""
        with self._changed:
            self.unreachable += 1

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def _is_next_free(self, sender: int) -> bool:
        waiting = self._fresh[sender]
        return bool(waiting) and self._number_of(sender) < self._released

    def _number_of(self, sender: int) -> int:
        """The place among all studies of the next one of a sender."""
        of_sender = len(range(sender, self._studies, SENDERS))
        return sender + SENDERS * (of_sender - len(self._fresh[sender]))

    def _next_number(self) -> int:
        return min((self._number_of(sender) for sender in range(SENDERS) if self._fresh[sender]), default=self._studies)


class Sender(Thread):
    """Sends its share of a load to one receiver."""

    def __init__(self, number: int, load: Load, *, port: int, seed: int) -> None:
        super().__init__(name=f"sender {number}", daemon=True)
        self._number = number
        self._load = load
        self._port = port
        self._random = default_rng((seed, number))
        self._ae = AE(ae_title=f"SOAK{number}")
        self._ae.add_requested_context(DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian)
        self._ae.connection_timeout = 5
        self._ae.acse_timeout = 15
        self._ae.dimse_timeout = 60

    def run(self) -> None:
        """Send until everything is acknowledged."""
        AssociationSocket._shutdown_socket = _close  # noqa: SLF001  its own leaves open what is not connected any more
        _config.STORE_SEND_CHUNKED_DATASET = True  # the file's bytes as they are, not encoded anew
        while films := self._load.take(self._number, int(self._random.integers(1, _MOST_STUDIES + 1))):
            unanswered = {film.sop_instance_uid: film for film in films}
            for film, answer in self._send(films):
                self._load.note(film, answer)
                if answer == "0x0000":
                    del unanswered[film.sop_instance_uid]
            if unanswered:
                self._load.send_again(self._number, list(unanswered.values()))
                sleep(_AGAIN_SECONDS)

    def _send(self, films: Sequence[Film]) -> Iterator[tuple[Film, str]]:
        assoc = self._ae.associate("127.0.0.1", self._port, ae_title="CXRWORKER")
        if not assoc.is_established:
            self._load.note_unreachable()
            return
        _leave_answers_alone(assoc)
        for film in films:
            if not assoc.is_established:
                return
            try:
                status = assoc.send_c_store(film.path)
            except RuntimeError:  # it was broken off between the question and the call
                return
            yield film, f"0x{status.Status:04X}" if "Status" in status else "none"
        if assoc.is_established:
            assoc.release()


def _leave_answers_alone(assoc: Association) -> None:
    """Keep pynetdicom's own loop, which looks for requests, from taking the answer that `send_c_store` waits for."""
    next_message = assoc.dimse.get_msg
    assoc.dimse.get_msg = lambda block=False: next_message(block=True) if block else (None, None)


def _close(transport: AssociationSocket) -> None:
    if transport.socket is not None:
        with suppress(OSError):
            transport.socket.shutdown(SHUT_RDWR)
        transport.socket.close()
