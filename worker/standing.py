"""How things stand, asked anew at each scrape: studies, queues, disk, certificates, model, database."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from cxr_models.errors import ModelError
from worker.db import figures
from worker.db.database import Database
from worker.db.figures import Group
from worker.errors import ConfigurationError, DatabaseUnavailable
from worker.registry import active_identity
from worker.settings import Settings
from worker.tls import certificate_files, known_certificate
from worker.values import DeliveryState, StudyState

_WAITING = (StudyState.ARRIVING, StudyState.READY, StudyState.ANALYSED)


class Standing(Collector):
    """Answers a scrape. What the database would have to say is left out while it is away, and ``cxr_database_up`` is 0."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give every gauge."""
        yield self._free_bytes()
        yield self._certificates()
        found: list[GaugeMetricFamily] = []
        answers = True
        try:
            with self._database.read() as connection:
                found = [*self._studies(connection), *self._deliveries(connection), self._model(connection)]
        except DatabaseUnavailable:
            answers = False
        yield GaugeMetricFamily("cxr_database_up", "1 while the database answers, else 0.", value=int(answers))
        yield from found

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing, so that registering it asks nobody anything."""
        return []

    def _free_bytes(self) -> GaugeMetricFamily:
        free = GaugeMetricFamily("cxr_free_bytes", "Free space where data_dir is.")
        try:
            free.add_metric([], shutil.disk_usage(self._settings.data_dir).free)
        except OSError:  # not mounted: the figure is missing, and its absence is what an alert sees
            return free
        return free

    def _certificates(self) -> GaugeMetricFamily:
        ends = GaugeMetricFamily(
            "cxr_certificate_expires_timestamp_seconds", "When a certificate ends; 0: its file cannot be read.", labels=["key"]
        )
        for path, key in certificate_files(self._settings).items():
            try:
                ends.add_metric([key], known_certificate(path, key).not_after.timestamp())
            except ConfigurationError:
                ends.add_metric([key], 0)
        return ends

    def _studies(self, connection: Connection) -> Iterator[GaugeMetricFamily]:
        groups: Mapping[StudyState, Group] = figures.studies_by_state(connection)
        count = GaugeMetricFamily("cxr_studies", "Studies in each state.", labels=["state"])
        oldest = GaugeMetricFamily(
            "cxr_oldest_study_seconds", "Since the last image of the study that waits longest in a state.", labels=["state"]
        )
        last = GaugeMetricFamily("cxr_last_received_timestamp_seconds", "When the newest image came.")
        for state in StudyState:
            count.add_metric([state], groups[state].count if state in groups else 0)
        for state in _WAITING:
            oldest.add_metric([state], self._age(groups.get(state)))
        if groups:
            last.add_metric([], max(group.newest for group in groups.values()).timestamp())
        yield from (count, oldest, last)

    def _deliveries(self, connection: Connection) -> Iterator[GaugeMetricFamily]:
        groups = figures.undelivered(connection)
        labels = ["destination", "state"]
        count = GaugeMetricFamily("cxr_deliveries", "Reports that a destination does not keep yet.", labels=labels)
        oldest = GaugeMetricFamily("cxr_oldest_delivery_seconds", "Since the oldest of them was made.", labels=labels)
        named = {(destination.name, DeliveryState.PENDING) for destination in self._settings.destinations}
        for destination, state in sorted(named | set(groups)):
            group = groups.get((destination, state))
            count.add_metric([destination, state], group.count if group else 0)
            oldest.add_metric([destination, state], self._age(group))
        yield from (count, oldest)

    def _model(self, connection: Connection) -> GaugeMetricFamily:
        info = GaugeMetricFamily("cxr_model_info", "1 for the active model.", labels=["model", "version", "weights_sha256"])
        try:
            model = active_identity(connection, self._settings)
        except ModelError:
            return info
        info.add_metric([model.name, model.version, model.weights_sha256], 1)
        return info

    def _age(self, group: Group | None) -> float:
        return 0.0 if group is None else max(0.0, (self._clock() - group.oldest).total_seconds())
