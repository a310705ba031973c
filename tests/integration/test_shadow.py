"""A shadow model is recorded and changes nothing else, whatever becomes of it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from sqlalchemy import Connection, select
from structlog.testing import capture_logs

from cxr_models.errors import DeviceBusy, NonFiniteOutput
from cxr_models.predict import Predictor
from cxr_models.values import Card, Prediction
from tests.conftest import Run, TestDatabase
from tests.factories import make_study, study_uid, write_model
from tests.fakes import FakePacs, Site, answer_for, make_site, model_identity
from tests.servers import wait_for
from worker import pipeline
from worker.db import events, models
from worker.db.database import Database, open_database
from worker.db.events import Event
from worker.db.schema import predictions
from worker.models import ModelHolder
from worker.pipeline import Parts
from worker.settings import InferenceSettings, Settings
from worker.shadow import AT_WORK

on_one_database = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
"""For what has nothing to do with the database."""


@contextmanager
def worker(database: Database, data_dir: Path, *, shadow: str = "") -> Iterator[Site]:
    """A worker without threads, with real models: lenet5, and a shadow."""
    inference = InferenceSettings(device="cpu", shadow=shadow)
    settings = Settings(data_dir=data_dir, inference=inference)
    site = make_site(database, data_dir)
    holder = ModelHolder(database, settings)
    site.parts = Parts(settings=settings, database=database, clock=site.clock, engine=holder.engine)
    yield site
    holder.close()


@pytest.fixture
def card(tmp_path: Path) -> Card:
    """A model of the site's own in the folder ``own``, of which the active one knows nothing."""
    return write_model(tmp_path / "own", input_side=32, mean=0.3, temperature=2.0)


def _analysed(site: Site, name: str = "study") -> dict[str, Any]:
    site.receive(*make_study(name))
    site.settle()
    return site.study(study_uid(name))


def _reports(site: Site) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (site.parts.data_dir / "reports").iterdir()}


def _failures(study: dict[str, Any]) -> list[str]:
    return [event["detail"] for event in study["events"] if event["kind"] == "shadow_failed"]


def _without(study: dict[str, Any]) -> dict[str, Any]:
    """A study as it is told without a shadow."""
    images = [{**image, "shadow_predictions": []} for image in study["images"]]
    return {**study, "images": images, "events": [event for event in study["events"] if event["kind"] != "shadow_failed"]}


@pytest.fixture
def unshadowed(sqlite_template: Path, tmp_path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The study and the reports of a worker without a shadow, on the same images at the same moment."""
    shutil.copy(sqlite_template, tmp_path / "reference.db")
    database = open_database(f"sqlite:///{tmp_path / 'reference.db'}")
    with worker(database, tmp_path / "reference") as site:
        study, reports = _analysed(site), _reports(site)
    database.close()
    return study, reports


def test_a_shadow_is_recorded_beside_the_active_model_with_its_own_name_and_preparation(
    database: Database, tmp_path: Path, card: Card
) -> None:
    with worker(database, tmp_path / "var", shadow=str(tmp_path / "own")) as site:
        frontal, lateral = _analysed(site)["images"]
    (active,), (shadow,) = frontal["predictions"], frontal["shadow_predictions"]
    assert (active["model"], shadow["model"]) == ("lenet5", "own")
    assert (shadow["version"], shadow["weights_sha256"]) == (card.version, card.weights_sha256)
    predictor = Predictor.load(str(tmp_path / "own"), device="cpu")
    pixels = make_study()[0].pixel_array.astype("float32") / 255
    (expected,) = predictor.predict([predictor.prepare(pixels)])
    assert shadow["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert (lateral["predictions"], lateral["shadow_predictions"]) == ([], [])


def test_nothing_that_is_reported_knows_of_a_shadow(database: Database, tmp_path: Path, card: Card, unshadowed: Any) -> None:
    with worker(database, tmp_path / "var", shadow=str(tmp_path / "own")) as site:
        study, reports = _analysed(site), _reports(site)
    assert study["images"][0]["shadow_predictions"]
    assert _without(study) == unshadowed[0]
    assert reports == unshadowed[1]
    assert not any(card.name.encode() in content for content in reports.values())


def _spoil_weights(folder: Path) -> None:
    with (folder / "weights.safetensors").open("ab") as file:
        file.write(b"\0")


BREAKS: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], str]] = {
    "no such model": (lambda folder, _: folder.rename(folder.with_name("elsewhere")), "There is no model"),
    "tampered weights": (lambda folder, _: _spoil_weights(folder), "SHA-256"),
    "no card": (lambda folder, _: (folder / "card.json").unlink(), "card.json"),
    "out of memory": (lambda _, patch: _break(patch, DeviceBusy("No memory left.")), "No memory left."),
    "out of main memory": (lambda _, patch: _break(patch, MemoryError()), "MemoryError"),
    "an error of its own": (lambda _, patch: _break(patch, RuntimeError("x")), "RuntimeError"),
    "not a number": (lambda _, patch: _break(patch, NonFiniteOutput("It is not a number.")), "not a number"),
    "no preparation": (lambda _, patch: _break(patch, ValueError("x"), verb="prepare"), "ValueError"),
    "a full disk": (lambda _, patch: patch.setattr("worker.shadow.make_folder", _full), "OSError"),
}


def _full(_: Path) -> None:
    raise OSError(28, "No space left on device")


def _break(patch: pytest.MonkeyPatch, error: Exception, *, verb: str = "predict") -> None:
    """Let the shadow fail, and no other model."""
    original = getattr(Predictor, verb)

    def fail(predictor: Predictor, given: Any) -> Any:
        if predictor.card.name == "own":
            raise error
        return original(predictor, given)

    patch.setattr(Predictor, verb, fail)


@on_one_database
@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("way", BREAKS)
def test_a_shadow_that_fails_changes_nothing_but_a_row_that_says_so(
    way: str, database: Database, tmp_path: Path, unshadowed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, says = BREAKS[way]
    spoil(tmp_path / "own", monkeypatch)
    with worker(database, tmp_path / "var", shadow=str(tmp_path / "own")) as site:
        study, reports = _analysed(site), _reports(site)
    assert study["images"][0]["shadow_predictions"] == []
    (why,) = _failures(study)
    assert says in why
    assert _without(study) == unshadowed[0]
    assert reports == unshadowed[1]


class Hanging:
    """A shadow that is held at a call of its own until it is let go on; it is waited for until it is held, and no longer."""

    def __init__(self, patch: pytest.MonkeyPatch, *, at: str, from_call: int = 1) -> None:
        self.calls = 0
        self._held, self._may_go_on = threading.Event(), threading.Event()
        original, hanging = getattr(Predictor, at), self

        def held(predictor: Predictor, *given: Any) -> Any:
            if predictor.card.name == "own":
                self.calls += 1
                if self.calls >= from_call and not self._may_go_on.is_set():
                    self._held.set()
                    assert self._may_go_on.wait(60)
            return original(predictor, *given)

        class ShadowThread(Thread):
            def join(self, timeout: float | None = None) -> None:
                assert timeout == 5.0
                wait_for(lambda: hanging._held.is_set() or not self.is_alive(), "the shadow")

        patch.setattr(Predictor, at, held)
        patch.setattr("worker.shadow.Thread", ShadowThread)

    def let_go_on(self) -> None:
        self._held.clear()
        self._may_go_on.set()


def _its_thread() -> Thread | None:
    return next((thread for thread in threading.enumerate() if thread.name == "shadow"), None)


@on_one_database
@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("at", ["predict", "warm_up"])
def test_a_shadow_that_hangs_holds_up_no_study_and_answers_again_once_it_comes_back(
    at: str, database: Database, tmp_path: Path, unshadowed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging(monkeypatch, at=at)
    with worker(database, tmp_path / "var", shadow=str(tmp_path / "own")) as site:
        study, reports = _analysed(site), _reports(site)
        assert _without(study) == unshadowed[0]
        assert reports == unshadowed[1]
        next_one = _analysed(site, "next")
        assert [*study["images"][0]["shadow_predictions"], *next_one["images"][0]["shadow_predictions"]] == []
        while_hanging = "still being loaded" if at == "warm_up" else "still at work on images before this one"
        assert (hanging.calls, [while_hanging in why for why in _failures(next_one)]) == (1, [True])
        assert _counted(site) == {"unanswered": 2}
        hanging.let_go_on()
        wait_for(lambda: _its_thread() is None, "the shadow to come back")
        assert _analysed(site, "last")["images"][0]["shadow_predictions"][0]["model"] == "own"
        assert _counted(site) == {"unanswered": 2, "answered": 1}


def _counted(site: Site) -> dict[str, int]:
    text = site.parts.metrics.text("text/plain")[0].decode()
    return {outcome: int(float(count)) for outcome, count in re.findall(r'cxr_shadow_images_total{outcome="(.+)"} (.+)', text)}


@on_one_database
@pytest.mark.usefixtures("card")
def test_a_slow_shadow_answers_what_it_has_time_for_and_the_rest_is_counted_as_unanswered(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging(monkeypatch, at="predict", from_call=2)
    monkeypatch.setattr("worker.shadow._AT_ONCE", 1)
    with capture_logs() as said, worker(test_database.opened, tmp_path / "var", shadow=str(tmp_path / "own")) as site:
        study = _study_of_three(site)
        hanging.let_go_on()
    assert sorted(len(image["shadow_predictions"]) for image in study["images"]) == [0, 0, 1]
    assert _failures(study) == ["The shadow had no answer within 5 seconds."]
    assert [line["count"] for line in said if line["event"] == "shadow.failed"] == [2]
    (pair,) = json.loads(cxr_worker("models", "compare", "--json")[1])
    assert (pair["n"], pair["unanswered"]) == (1, 2)
    assert "of 1 images; on 2 more the shadow gave no answer" in cxr_worker("models", "compare")[1]
    assert json.loads(cxr_worker("models", "compare", "--since", "2031-05-21T00:00", "--json")[1]) == []
    assert cxr_worker("reprocess", study_uid())[0] == 0
    with worker(test_database.opened, tmp_path / "var", shadow=str(tmp_path / "own")) as site:
        site.clock.go_on(days=1)
        site.settle()
    (pair,) = json.loads(cxr_worker("models", "compare", "--json")[1])
    assert (pair["n"], pair["unanswered"]) == (3, 0), "asked again it has answered"


def _study_of_three(site: Site) -> dict[str, Any]:
    site.receive(*make_study(views=("PA", "AP", "PA")))
    site.settle()
    return site.study(study_uid())


@on_one_database
@pytest.mark.usefixtures("card")
def test_a_shadow_that_is_let_off_begins_nothing_more(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging(monkeypatch, at="predict")
    monkeypatch.setattr("worker.shadow._AT_ONCE", 1)
    with worker(database, tmp_path / "var", shadow=str(tmp_path / "own")) as site:
        _study_of_three(site)
        hanging.let_go_on()
        wait_for(lambda: _its_thread() is None, "the shadow to come back")
    assert hanging.calls == 1


@on_one_database
@pytest.mark.usefixtures("card")
def test_a_shadow_that_hangs_for_ever_does_not_keep_the_process(test_database: TestDatabase, tmp_path: Path) -> None:
    with worker(test_database.opened, tmp_path / "var") as site:
        site.receive(*make_study())
    code = f"""
        import threading
        from worker import pipeline, shadow
        from worker.db.database import open_database
        from worker.models import ModelHolder
        from worker.pipeline import Parts
        {_PARTS.format(url=test_database.url)}
        shadow.PATIENCE_SECONDS = 60
        holder.engine()
        shadow.predict = lambda *_: threading.Event().wait()
        shadow.PATIENCE_SECONDS = shadow._PARTING_SECONDS = 0.1
        pipeline.advance(parts)
        holder.close()
        print("closed with", [thread.name for thread in threading.enumerate() if thread.daemon])
    """
    ended = _run_apart(code, tmp_path)
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "closed with ['shadow']")
    with worker(test_database.opened, tmp_path / "var") as site:
        assert site.study(study_uid())["state"] == "reported"


_PARTS = """
        from datetime import UTC, datetime
        from pathlib import Path
        from worker.settings import InferenceSettings, Settings
        settings = Settings(data_dir=Path("var"), inference=InferenceSettings(device="cpu", shadow="own"))
        database = open_database({url!r})
        holder = ModelHolder(database, settings)
        clock = lambda: datetime(2031, 5, 20, 13, tzinfo=UTC)
        parts = Parts(settings=settings, database=database, clock=clock, engine=holder.engine)
"""


def _run_apart(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


@on_one_database
@pytest.mark.usefixtures("card")
def test_a_shadow_gives_its_memory_to_the_active_model(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, asked = Predictor.predict, []

    def busy_at_first(predictor: Predictor, batch: Sequence[torch.Tensor]) -> list[Prediction]:
        asked.append(predictor.card.name)
        if len(asked) == 1:
            raise DeviceBusy
        return original(predictor, batch)

    monkeypatch.setattr(Predictor, "predict", busy_at_first)
    with worker(database, tmp_path / "var", shadow=str(tmp_path / "own")) as site:
        study = _analysed(site)
    assert asked == ["lenet5", "lenet5"]
    assert study["state"] == "reported"
    assert "attempt" not in str(study["reason"])
    assert ["memory" in why for why in _failures(study)] == [True]


@on_one_database
@pytest.mark.usefixtures("card")
def test_a_worker_killed_by_its_shadow_answers_without_it_and_tries_it_again_an_hour_later(
    test_database: TestDatabase, tmp_path: Path
) -> None:
    with worker(test_database.opened, tmp_path / "var") as site:
        site.receive(*make_study())
    code = f"""
        import os, signal
        from worker import pipeline, shadow
        from worker.db.database import open_database
        from worker.models import ModelHolder
        from worker.pipeline import Parts
        shadow.predict = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        {_PARTS.format(url=test_database.url)}
        pipeline.advance(parts)
    """
    assert _run_apart(code, tmp_path).returncode == -signal.SIGKILL
    with worker(test_database.opened, tmp_path / "var", shadow=str(tmp_path / "own")) as site:
        site.clock.go_on(hours=2)
        site.settle()
        study = site.study(study_uid())
        assert (study["state"], len(study["images"][0]["predictions"])) == ("reported", 1)
        assert ["killed while the shadow was at work" in why for why in _failures(study)] == [True]
        an_hour_ago = time.time() - 3601
        os.utime(tmp_path / "var" / AT_WORK, (an_hour_ago, an_hour_ago))
    with worker(test_database.opened, tmp_path / "var", shadow=str(tmp_path / "own")) as site:
        site.clock.go_on(hours=2)
        assert _analysed(site, "later")["images"][0]["shadow_predictions"]


@on_one_database
@pytest.mark.usefixtures("card")
def test_a_shadow_at_work_in_another_process_is_no_sign_of_a_death(database: Database, tmp_path: Path) -> None:
    held = tmp_path / "var" / AT_WORK
    held.parent.mkdir(parents=True)
    code = (
        f"import fcntl, sys; trace = open({str(held)!r}, 'w'); trace.write('at work'); trace.flush();"
        "fcntl.flock(trace, fcntl.LOCK_EX); print(); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with worker(database, tmp_path / "var", shadow=str(tmp_path / "own")) as site:
            study = _analysed(site)
        other.communicate()
    assert study["images"][0]["shadow_predictions"]
    assert _failures(study) == []


@on_one_database
@pytest.mark.usefixtures("card")
def test_the_active_model_as_its_own_shadow_does_not_answer_twice(database: Database, tmp_path: Path) -> None:
    with worker(database, tmp_path / "var", shadow="lenet5") as site:
        study = _analysed(site)
    assert study["images"][0]["shadow_predictions"] == []
    assert _failures(study) == []


@pytest.mark.usefixtures("card")
def test_a_shadow_is_named_and_taken_back_while_the_worker_runs(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path
) -> None:
    with worker(test_database.opened, tmp_path / "var") as site:
        assert _analysed(site, "before")["images"][0]["shadow_predictions"] == []
        assert cxr_worker("models", "activate", "own", "--shadow")[0] == 0
        (listed,) = [row for row in json.loads(cxr_worker("models", "list", "--json")[1]) if row["shadow"]]
        assert (listed["model"], listed["active"], listed["origin"]) == ("own", False, "registered")
        assert _analysed(site, "with")["images"][0]["shadow_predictions"][0]["model"] == "own"
        assert cxr_worker("models", "deactivate-shadow")[0] == 0
        assert _analysed(site, "after")["images"][0]["shadow_predictions"] == []


def test_no_shadow_outweighs_a_configured_one(database: Database) -> None:
    with database.write() as connection:
        assert models.shadow(connection, configured="own") == "own"
        models.set_shadow(connection, None, now=make_site(database, Path()).clock())
        assert models.shadow(connection, configured="own") is None


def test_the_doctor_warns_of_a_failing_shadow_and_ends_with_0(
    cxr_worker: Run, tmp_path: Path, pacs: FakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("cxr-worker.toml").write_text(
        f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs.port}\n', encoding="utf-8"
    )
    monkeypatch.setenv("CXR_INFERENCE__SHADOW", str(tmp_path / "nowhere"))
    code, out, _ = cxr_worker("doctor", "--json")
    check = {each["name"]: each for each in json.loads(out)}["shadow"]
    assert (code, check["ok"], check["advisory"]) == (0, False, True)
    assert "deactivate-shadow" in check["cure"]
    assert "warning" in cxr_worker("doctor")[1]


# what is recorded, on the scripted engine


def test_active_and_shadow_answers_are_recorded_together_or_not_at_all(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    frontal = str(make_study()[0].SOPInstanceUID)
    site.engine.shadows = {frontal: answer_for("COVID-19", model=model_identity("shadow"))}
    site.receive(*make_study())
    record, cut = events.record, []

    def cut_off(connection: Connection, event: Event) -> None:
        if event.kind == "analysed" and not cut:
            cut.append(event)
            raise RuntimeError
        record(connection, event)

    with monkeypatch.context() as patch:
        patch.setattr(events, "record", cut_off)
        site.settle()
    with site.database.read() as connection:
        assert connection.execute(select(predictions.c.id)).all() == []
    site.clock.go_on(minutes=10)
    site.settle()
    with site.database.read() as connection:
        roles = connection.execute(select(predictions.c.role).order_by(predictions.c.role)).scalars().all()
    assert roles == ["active", "shadow"]


def test_neither_answer_is_recorded_of_a_study_that_was_reopened_meanwhile(site: Site) -> None:
    frontal, lateral = make_study()
    site.engine.shadows = {str(frontal.SOPInstanceUID): answer_for("COVID-19", model=model_identity("shadow"))}
    site.receive(frontal)
    site.clock.go_on(seconds=10)
    pipeline.complete_studies(site.parts)
    analyse = site.engine.analyse

    def late(studies: Any) -> Any:
        outcomes = list(analyse(studies))
        site.receive(lateral)
        return iter(outcomes)

    site.engine.analyse = late  # type: ignore[method-assign]  # an image comes while the model runs
    pipeline.analyse_studies(site.parts)
    images = site.study(study_uid())["images"]
    assert [image["predictions"] + image["shadow_predictions"] for image in images] == [[], []]


def test_a_shadows_urgent_answer_raises_nothing(site: Site) -> None:
    frontal = str(make_study()[0].SOPInstanceUID)
    site.engine.shadows = {frontal: answer_for("COVID-19", model=model_identity("shadow"))}
    study = _analysed(site)
    assert (study["triage"], study["images"][0]["predictions"][0]["label"]) == ("routine", "Normal")
    assert study["images"][0]["shadow_predictions"][0]["flagged"]


def test_a_shadows_answer_makes_no_study_outdated(site: Site, cxr_worker: Run) -> None:
    frontal = str(make_study()[0].SOPInstanceUID)
    site.engine.shadows = {frontal: answer_for("COVID-19", model=model_identity("shadow"))}
    _analysed(site)
    with site.database.read() as connection:
        assert pipeline.studies.answered_by_another_model(connection, site.engine.model) == []
    code, out, _ = cxr_worker("studies", "show", study_uid())
    assert code == 0
    assert "flagged COVID-19 80% (fake shadow)" in out


def test_two_models_are_compared_image_by_image_each_once(site: Site, cxr_worker: Run) -> None:
    said = {"a": ("Normal", "Normal"), "b": ("COVID-19", "Normal"), "c": ("Normal", "Pneumonia"), "d": ("COVID-19", "COVID-19")}
    shadow = model_identity("shadow")
    for name, (by_active, by_shadow) in said.items():
        (ds,) = make_study(name, views=("PA",))
        site.engine.labels[str(ds.SOPInstanceUID)] = by_active
        site.engine.shadows[str(ds.SOPInstanceUID)] = answer_for(by_shadow, model=shadow, undetermined=name == "a")
        site.receive(ds)
    site.settle()
    assert cxr_worker("reprocess", study_uid("a"))[0] == 0
    site.clock.go_on(days=1)
    site.settle()
    (lone,) = make_study("alone", views=("PA",))  # answered by the active model only
    site.receive(lone)
    site.settle()
    code, out, _ = cxr_worker("models", "compare", "--json")
    assert code == 0
    (pair,) = json.loads(out)
    assert (pair["active"]["version"], pair["shadow"]["weights_sha256"]) == ("1.0", shadow.weights_sha256)
    assert (pair["n"], pair["agreement"]) == (4, 0.5)
    assert pair["confusion"] == {"COVID-19": {"COVID-19": 1, "Normal": 1}, "Normal": {"Normal": 1, "Pneumonia": 1}}
    assert pair["mean_absolute_difference"] == pytest.approx({"COVID-19": 0.175, "Normal": 0.35, "Pneumonia": 0.175})
    assert pair["flagged"] == {"both": 1, "active_only": 1, "shadow_only": 1, "neither": 1}
    assert pair["undetermined"] == {"active": 0, "shadow": 1}
    code, out, _ = cxr_worker("models", "compare")
    assert (code, "the same label on 50.0% of 4 images" in out) == (0, True)
    (pair,) = json.loads(cxr_worker("models", "compare", "--since", "2031-05-21T00:00", "--json")[1])
    assert pair["n"] == 1


def test_each_pair_of_models_is_compared_by_itself(site: Site, cxr_worker: Run) -> None:
    (ds,) = make_study(views=("PA",))
    for version in ("1", "2"):
        site.engine.shadows = {str(ds.SOPInstanceUID): answer_for("Normal", model=model_identity(f"shadow {version}"))}
        site.receive(ds)
        site.settle()
        assert cxr_worker("reprocess", study_uid())[0] == 0
    pairs = json.loads(cxr_worker("models", "compare", "--json")[1])
    assert [(pair["shadow"]["version"], pair["n"]) for pair in pairs] == [("shadow 1", 1), ("shadow 2", 1)]


def test_nothing_to_compare_says_how_to_name_a_shadow(cxr_worker: Run) -> None:
    assert json.loads(cxr_worker("models", "compare", "--json")[1]) == []
    assert "--shadow" in cxr_worker("models", "compare")[1]
