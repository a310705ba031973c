"""What a process counts of its own work, for Prometheus. Labels are AE titles, states and codes: nothing of a patient.

Each process counts for itself, and receivers side by side for all of them (`worker.tally`); what all processes would say alike
(studies, queues, disk) is read anew at each scrape, by `worker.standing`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from worker.values import Answer, Unanswered

OTHER = "other"
"""Stands for every caller beyond the first few, so that strangers cannot fill the memory with their names."""
_CALLERS = 64
_STORE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ANALYSIS_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The counters of a process, and the registry that they are read from.

    Parameters
    ----------
    callers
        AE titles that keep their name however many others come.
    tally
        Where this process counts beside others (`worker.tally.count_in`): the registry then has the sums.
    """

    def __init__(self, callers: Iterable[str] = (), *, tally: Path | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # offered only as a switch for the whole process
        self.registry = CollectorRegistry()
        self._own = self.registry if tally is None else None
        if tally is not None:
            MultiProcessCollector(self.registry, str(tally))  # type: ignore[no-untyped-call]
        self._callers = _Callers(callers)
        self._open = Gauge(
            "cxr_associations_open", "Associations that are open now.", registry=self._own, multiprocess_mode="sum"
        )
        self._open.set(0)  # a process that died left its own open
        self._accepted = self._counter("cxr_associations_accepted", "Associations that were accepted.", "caller")
        self._rejected = self._counter("cxr_associations_rejected", "Associations that were refused.", "caller", "reason")
        self._aborted = self._counter("cxr_associations_aborted", "Connections that were broken off.", "caller", "reason")
        self._objects = self._counter("cxr_objects", "C-STORE requests that were answered.", "caller", "status")
        self._bytes = self._counter("cxr_received_bytes", "Bytes of the data sets that were kept.", "caller")
        self._stores: dict[tuple[str, int], tuple[Counter, Histogram, Counter]] = {}
        self._store_seconds = Histogram(
            "cxr_store_seconds",
            "From a C-STORE request to its answer.",
            ["caller"],
            buckets=_STORE_BUCKETS,
            registry=self._own,
        )
        self._analysis_seconds = Histogram(
            "cxr_analysis_seconds",
            "Of one batch of studies, prepared and predicted.",
            buckets=_ANALYSIS_BUCKETS,
            registry=self._own,
        )
        self._analysed = self._counter("cxr_studies_analysed", "Studies that the engine answered.")
        self._shadow_images = self._counter("cxr_shadow_images", "Images that the shadow model was asked about.", "outcome")
        self._attempts = self._counter("cxr_delivery_attempts", "Reports sent to a destination.", "destination", "outcome")

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(name, says, labels, registry=self._own)

    def accepted(self, caller: str) -> None:
        """Count an association that was accepted, and is open from here on."""
        self._accepted.labels(self._callers.admitted(caller)).inc()
        self._open.inc()

    def closed(self) -> None:
        """Count an accepted association as closed, however it ended."""
        self._open.dec()

    def rejected(self, caller: str, reason: str) -> None:
        """Count an association that was refused. `reason` is one of a few words, never the sender's own."""
        self._rejected.labels(self._callers.known(caller), reason).inc()

    def aborted(self, caller: str, reason: str) -> None:
        """Count a connection that was broken off. `reason` is as of `rejected`."""
        self._aborted.labels(self._callers.known(caller), reason).inc()

    def stored(self, caller: str, seconds: float, status: int, *, size: int = 0) -> None:
        """Count a C-STORE request and its answer; `size` in bytes where it was kept."""
        count, duration, kept = self._of_store(self._callers.known(caller), status)
        count.inc()
        duration.observe(seconds)
        kept.inc(size)

    def _of_store(self, name: str, status: int) -> tuple[Counter, Histogram, Counter]:
        """Found once: each object waits for it."""
        if (found := self._stores.get((name, status))) is None:
            code = f"0x{status:04X}"
            found = self._objects.labels(name, code), self._store_seconds.labels(name), self._bytes.labels(name)
            self._stores[name, status] = found
        return found

    def analysed(self, count: int, seconds: float) -> None:
        """Count the studies of a batch that were answered, and what it took."""
        self._analysed.inc(count)
        self._analysis_seconds.observe(seconds)

    def shadowed(self, said: Sequence[Answer | Unanswered]) -> None:
        """Count images that the shadow model was asked about, by whether it answered."""
        for each in said:
            self._shadow_images.labels("answered" if isinstance(each, Answer) else "unanswered").inc()

    def sent(self, destination: str, error: Exception | None) -> None:
        """Count an attempt to deliver a report, as ``kept`` or by the name of its error."""
        self._attempts.labels(destination, "kept" if error is None else type(error).__name__).inc()

    def text(self, accept: str) -> tuple[bytes, str]:
        """Everything, in the format that a scraper accepts, and that format's content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _Callers:
    """Which AE titles may be labels: those of the configuration, and the first few that were let in."""

    def __init__(self, configured: Iterable[str]) -> None:
        self._lock = Lock()
        self._names = set(configured)
        self._room = _CALLERS

    def admitted(self, caller: str) -> str:
        with self._lock:
            if caller not in self._names and self._room:
                self._names.add(caller)
                self._room -= 1
        return self.known(caller)

    def known(self, caller: str) -> str:
        return caller if caller in self._names else OTHER
