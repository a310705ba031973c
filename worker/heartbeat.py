"""Whether the runner still turns: told to Prometheus, to whoever asks ``/readyz``, and to systemd."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from time import monotonic

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

log = structlog.get_logger()

LONGEST_TURN = timedelta(minutes=15)
"""Several times what a turn of full batches takes with the slowest model on a slow CPU."""


class Heartbeat(Collector):
    """The turns of this process's runner: each as many studies as the steps take at a time, or none if none are due.

    Parameters
    ----------
    interval
        Between turns when nothing is due.
    clock
        Tells when a turn ended.
    elapsed
        In seconds since whenever, and never set.
    """

    def __init__(self, interval: timedelta, *, clock: Callable[[], datetime], elapsed: Callable[[], float] = monotonic) -> None:
        self._patience = (interval + LONGEST_TURN).total_seconds()
        self._clock = clock
        self._elapsed = elapsed
        self._last_turn: datetime | None = None
        self._since: float | None = None
        self._told = False

    def lead(self) -> None:
        """Expect turns from here on."""
        self._since = self._elapsed()

    def rest(self) -> None:
        """Expect none: another runner leads, or this one ends."""
        self._since = None

    def turned(self) -> None:
        """Note that a turn ended, well or not."""
        self._last_turn = self._clock()
        self._since = self._elapsed()

    def trouble(self) -> str | None:
        """Say that no turn has ended for too long."""
        since = self._since
        if since is None or (seconds := self._elapsed() - since) <= self._patience:
            return None
        return f"The runner has not finished a turn for {seconds / 60:.0f} minutes."

    def pass_on(self) -> None:
        """Tell systemd that all is well; if not, the log, once."""
        hung = self.trouble() is not None
        if not hung:
            pet_watchdog()
        elif not self._told:
            log.error("runner.hangs")
        self._told = hung

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give the moment of the last turn, if there was one."""
        if (last := self._last_turn) is not None:
            yield GaugeMetricFamily(
                "cxr_runner_last_turn_timestamp_seconds", "When the runner last finished a turn.", value=last.timestamp()
            )

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing, so that registering it asks nobody anything."""
        return []


def pet_watchdog() -> None:
    """Tell systemd, where it keeps a watchdog on this process, that all is well: sd_notify(3), sd_watchdog_enabled(3)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or "WATCHDOG_USEC" not in os.environ:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.setblocking(False)  # a systemd that is behind must not hold this up
        sending.sendto(b"WATCHDOG=1", f"\0{address[1:]}" if address.startswith("@") else address)
