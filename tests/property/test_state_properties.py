"""Whatever comes in whatever order, the states of studies keep their promises."""

import shutil
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydicom.dataset import Dataset
from sqlalchemy import select

from cxr_models.errors import DeviceBusy
from dicom_io.errors import PeerUnavailable, PeerUnreachable
from dicom_io.sender import StoreOutcome
from tests.factories import make_study, study_uid
from tests.fakes import Site, make_site, model_identity
from worker import pipeline
from worker.db import delivering, studies
from worker.db.database import open_database
from worker.db.schema import instances, predictions, reports
from worker.destination import Destination
from worker.settings import Settings
from worker.values import DueDelivery, StudyState, Triage

NAMES = ("one", "two")
SETTLE = st.sampled_from([True, False])
"""Whether everything then goes as far as it can at once."""
DESTINATIONS = tuple(
    Destination(name=name, ae_title="PACS", host="127.0.0.1", port=1, outputs=("sr",)) for name in ("near", "far")
)

_AWAY = {"near": PeerUnavailable, "far": PeerUnreachable}


class Studies(RuleBasedStateMachine):
    """Two studies of two frontal views and a lateral, two destinations, one model after another."""

    root: ClassVar[Path]
    template: ClassVar[Path]
    """A migrated SQLite database to begin with."""
    objects: ClassVar[dict[str, list[Dataset]]]

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=self.root))
        shutil.copy(self.template, self.folder / "worker.db")
        self.database = open_database(f"sqlite:///{self.folder / 'worker.db'}")
        self.site: Site = make_site(self.database, self.folder / "var", destinations=DESTINATIONS)
        self.sent: dict[str, set[str]] = {}
        self.triage: dict[str, Triage] = {}
        self.away: set[str] = set()
        self.delivered: list[tuple[str, Path]] = []
        self.patcher = pytest.MonkeyPatch()
        self.patcher.setattr(pipeline, "deliver", self._deliver)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            try:
                self._everything_ends()
            finally:
                self.patcher.undo()
                self.database.close()
                shutil.rmtree(self.folder)

    def _deliver(
        self, due: list[DueDelivery], destination: Destination, _settings: Settings, *, is_wanted: Callable[[DueDelivery], bool]
    ) -> Any:
        for delivery in filter(is_wanted, due):
            if destination.name in self.away:
                yield delivery, StoreOutcome(path=delivery.path, error=_AWAY[destination.name]())
            else:
                self.delivered.append((destination.name, delivery.path))
                yield delivery, StoreOutcome(path=delivery.path, error=None)

    @rule(name=st.sampled_from(NAMES), image=st.integers(0, 2), settle=SETTLE)
    def arrive(self, name: str, image: int, *, settle: bool) -> None:
        ds = self.objects[name][image]
        self.site.receive(ds)
        self.sent.setdefault(name, set()).add(ds.SOPInstanceUID)
        if settle:
            self.site.settle()

    @rule(label=st.sampled_from(["COVID-19", "Normal", "Pneumonia"]), settle=SETTLE)
    def another_model_answers(self, label: str, *, settle: bool) -> None:
        for ds in [ds for name in NAMES for ds in self.objects[name][:2]]:
            self.site.engine.labels[ds.SOPInstanceUID] = label
        self.site.engine.model = model_identity(label)
        pipeline.reprocess_outdated(self.site.parts, self.site.engine.model)
        if settle:
            self.site.settle()

    @rule()
    def reprocess(self) -> None:
        with self.database.write() as connection:
            found = [studies.find(connection, study_uid(name)) for name in self.sent]
            studies.analyse_again(connection, [each for each in found if each], now=self.site.clock(), why="test")

    @rule(seconds=st.sampled_from([5, 1, 30, 600]))
    def wait_and_advance(self, seconds: int) -> None:
        self.site.clock.go_on(seconds=seconds)
        pipeline.advance(self.site.parts)

    @rule()
    def deliver(self) -> None:
        self.site.deliver()

    @rule(name=st.sampled_from(["near", "far"]))
    def lose_or_find_a_destination(self, name: str) -> None:
        self.away ^= {name}

    @rule(name=st.sampled_from(NAMES))
    def break_or_mend_the_engine(self, name: str) -> None:
        broken = self.site.engine.breaks_on
        if broken.pop(study_uid(name), None) is None:
            broken[study_uid(name)] = DeviceBusy()

    @rule()
    def retry_deliveries(self) -> None:
        with self.database.write() as connection:
            delivering.retry(connection, None, now=self.site.clock())

    @rule(name=st.sampled_from(["near", "far"]))
    def answer_again(self, name: str) -> None:
        if name not in self.away:
            with self.database.write() as connection:
                delivering.destination_answers(connection, name, now=self.site.clock())

    @invariant()
    def nothing_received_is_lost(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.read() as connection:
            rows = connection.execute(select(instances.c.sop_instance_uid, instances.c.path)).all()
        assert {row.sop_instance_uid for row in rows} == {uid for uids in self.sent.values() for uid in uids}
        assert len(rows) == len({row.sop_instance_uid for row in rows})
        assert all((self.site.parts.data_dir / row.path).is_file() for row in rows)

    @invariant()
    def states_keep_their_promises(self) -> None:
        for name in getattr(self, "sent", {}):
            shown = self.site.study(study_uid(name))
            state = StudyState(shown["state"])
            level = Triage(shown["triage"])
            assert level.rank >= self.triage.get(name, Triage.NONE).rank, "triage never falls"
            self.triage[name] = level
            if state in {StudyState.NOT_ANALYSED, StudyState.FAILED}:
                assert shown["reason"]
            if state in {StudyState.REPORTED, StudyState.DELIVERED}:
                assert shown["reports"]
                assert {delivery["destination"] for delivery in shown["deliveries"]} == {"near", "far"}
            if state is StudyState.DELIVERED:
                assert {"delivered"} <= {delivery["state"] for delivery in shown["deliveries"][-2:]}
                assert all(delivery["state"] in {"delivered", "superseded"} for delivery in shown["deliveries"])
            for delivery in shown["deliveries"]:
                assert delivery["state"] == "delivered" or delivery["attempts"] == 0 or delivery["last_error"]

    @invariant()
    def no_result_is_reported_or_sent_twice(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.read() as connection:
            made = connection.execute(select(reports.c.study_id, reports.c.generation).order_by(reports.c.id)).all()
            answers = connection.execute(
                select(
                    predictions.c.study_id, predictions.c.generation, predictions.c.instance_id, predictions.c.weights_sha256
                )
            ).all()
        results = [
            (study, frozenset(answer[2:] for answer in answers if answer[:2] == (study, generation)))
            for study, generation in made
        ]
        for study in {study for study, _ in results}:
            told = [result for of_study, result in results if of_study == study]
            assert all(first != second for first, second in pairwise(told)), "what was told last is not told again"
        assert len(self.delivered) == len(set(self.delivered))

    def _everything_ends(self) -> None:
        self.away.clear()
        self.site.engine.breaks_on.clear()
        self.retry_deliveries()
        for _ in range(3):
            self.site.clock.go_on(minutes=10)
            while pipeline.advance(self.site.parts):
                pass
            self.site.deliver()
        for name, uids in self.sent.items():
            shown = self.site.study(study_uid(name))
            frontal = {ds.SOPInstanceUID for ds in self.objects[name][:2]} & uids
            if shown["state"] == "failed":
                assert "10 attempts" in shown["reason"]
            else:
                assert shown["state"] == ("delivered" if frontal else "not_analysed")
                newest = {image["sop_instance_uid"] for image in shown["images"] if image["predictions"]}
                assert newest == frontal
        self.states_keep_their_promises()
        self.no_result_is_reported_or_sent_twice()


def test_states_keep_their_promises_in_any_order_of_events(sqlite_template: Path, tmp_path: Path) -> None:
    Studies.root, Studies.template = tmp_path, sqlite_template
    Studies.objects = {name: make_study(name, views=("PA", "AP", "LL")) for name in NAMES}
    machine = Studies.TestCase
    machine.settings = settings(max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    machine().runTest()
