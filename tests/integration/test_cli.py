"""The command line on a database with studies in it."""

import json
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from tests.conftest import Run, TestDatabase
from tests.factories import PATIENT, make_dx, make_study, study_uid
from tests.fakes import FakePacs, Site, free_port, make_site, model_identity
from worker.cli import checks
from worker.cli.studies import moment
from worker.db.schema import deliveries, studies
from worker.errors import ConfigurationError

STUDY_KEYS = {
    "study_uid", "patient_id", "accession_number", "state", "reason", "received_at", "completed_at", "triage",
    "images", "reports", "deliveries",
}  # fmt: skip


@pytest.fixture
def filled(test_database: TestDatabase, tmp_path: Path, pacs: FakePacs) -> Site:
    """A worker with a delivered study, one that was not analysed, and one that waits for a PACS that is away."""
    site = make_site(test_database.opened, tmp_path / "var", destinations=(pacs.destination(),))
    site.clock.now = datetime.now(UTC) - timedelta(hours=1)
    site.receive(*make_study("done"))
    site.settle()
    site.deliver()
    site.receive(*make_study("lateral", views=("LL",)))
    site.receive(*make_study("waiting", views=("PA",)))
    site.settle()
    pacs.status = 0xA700
    site.deliver()
    return site


def _json(cxr_worker: Run, *arguments: str) -> Any:
    code, out, _ = cxr_worker(*arguments, "--json")
    assert code == 0
    return json.loads(out)


@pytest.mark.usefixtures("filled")
def test_studies_are_listed_with_every_promised_key(cxr_worker: Run) -> None:
    listed = _json(cxr_worker, "studies", "list")
    assert [study["study_uid"] for study in listed] == [study_uid(name) for name in ("waiting", "lateral", "done")]
    for study in listed:
        assert set(study) >= STUDY_KEYS
    done = listed[-1]
    assert (done["state"], done["triage"], done["reason"]) == ("delivered", "routine", None)
    assert (done["patient_id"], done["accession_number"]) == (PATIENT.patient_id, "ACC-done")
    frontal, lateral = done["images"]
    assert set(frontal) >= {"sop_instance_uid", "eligible", "reason", "predictions"}
    assert (frontal["eligible"], lateral["eligible"]) == (True, False)
    assert lateral["reason"]
    (prediction,) = frontal["predictions"]
    assert set(prediction) >= {"model", "version", "probabilities", "label", "flagged"}
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    assert {report["kind"] for report in done["reports"]} == {"sr", "capture"}
    assert all(set(report) >= {"kind", "sop_instance_uid", "sop_class_uid"} for report in done["reports"])
    for delivery in done["deliveries"]:
        assert set(delivery) >= {"destination", "kind", "state", "attempts", "last_error", "committed"}
    moments = [datetime.fromisoformat(done[key]) for key in ("received_at", "completed_at")]
    assert moments[0] < moments[1]
    assert moments[0].tzinfo is not None


@pytest.mark.usefixtures("filled")
def test_one_study_is_shown_as_the_same_object_with_its_history(cxr_worker: Run) -> None:
    shown = _json(cxr_worker, "studies", "show", study_uid("done"))
    assert [event["kind"] for event in shown.pop("events")] == [
        "opened",
        "complete",
        "analysed",
        "reported",
        "sent",
        "sent",
        "delivered",
    ]
    assert shown == _json(cxr_worker, "studies", "list")[-1]


@pytest.mark.usefixtures("filled")
def test_studies_are_chosen_by_state_and_age(cxr_worker: Run) -> None:
    def chosen(*arguments: str) -> list[str]:
        return [study["study_uid"] for study in _json(cxr_worker, "studies", "list", *arguments)]

    assert chosen("--state", "not_analysed") == [study_uid("lateral")]
    assert chosen("--state", "failed") == []
    assert len(chosen("--since", "2h")) == 3
    assert chosen("--since", "10m") == []
    assert chosen("--limit", "1") == [study_uid("waiting")]


def test_ages_and_dates_are_moments() -> None:
    now = datetime(2031, 5, 20, 12, tzinfo=UTC)
    assert moment("90m", now=now) == now - timedelta(minutes=90)
    assert moment("7d", now=now) == now - timedelta(days=7)
    assert moment("2031-05-20T08:00+00:00", now=now) == now - timedelta(hours=4)
    assert moment("2031-05-20", now=now).tzinfo is UTC
    for nonsense in ("", "h", "-1h", "12", "noon", "99999999999d", "9999-99-99"):
        with pytest.raises(ConfigurationError):
            moment(nonsense, now=now)


@pytest.mark.usefixtures("filled")
def test_the_tables_for_people_name_result_and_reason(cxr_worker: Run) -> None:
    code, out, err = cxr_worker("studies", "list")
    assert (code, err) == (0, "")
    assert "Normal 80%" in out
    assert "ViewPosition is LL" in out
    code, out, _ = cxr_worker("studies", "show", study_uid("waiting"))
    assert code == 0
    assert "0xA700" in out


def test_what_a_stranger_sent_does_not_command_the_terminal(
    cxr_worker: Run, test_database: TestDatabase, tmp_path: Path
) -> None:
    sent = "\x1b[31mRED\x1b]0;OWNED\x07\x7f\x9b2J"
    site = make_site(test_database.opened, tmp_path / "var")
    site.receive(make_dx())
    with site.database.write() as connection:
        connection.execute(update(studies).values(patient_id=sent, accession_number="A\nB"))
    for words in (("studies", "list"), ("studies", "show", study_uid())):
        _, out, _ = cxr_worker(*words)
        assert r"\x1b[31mRED\x1b]0;OWNED\x07\x7f\x9b2J" in out
        assert not [letter for letter in out if unicodedata.category(letter) == "Cc" and letter != "\n"]
        assert "\nB" not in out
        _, out, _ = cxr_worker(*words, "--json")
        assert not [letter for letter in out if unicodedata.category(letter) == "Cc" and letter != "\n"]
    assert json.loads(out)["patient_id"] == sent
    _, _, err = cxr_worker("reprocess", sent)
    assert r"No study \x1b[31mRED" in err


def test_a_study_that_never_came_ends_with_1(cxr_worker: Run) -> None:
    code, out, err = cxr_worker("studies", "show", "1.2.3")
    assert (code, out) == (1, "")
    assert "No study" in err


@pytest.mark.usefixtures("filled")
def test_deliveries_are_listed_by_state_and_destination(cxr_worker: Run) -> None:
    waiting = _json(cxr_worker, "deliveries", "list", "--state", "pending")
    assert {delivery["study_uid"] for delivery in waiting} == {study_uid("waiting")}
    assert {(delivery["attempts"], "0xA700" in delivery["last_error"]) for delivery in waiting} == {(1, True)}
    assert len(_json(cxr_worker, "deliveries", "list", "--destination", "pacs")) == 4
    code, out, err = cxr_worker("deliveries", "list", "--destination", "other")
    assert (code, out, err) == (2, "", "cxr-worker: --destination: 'other' is no destination: none configured.\n")


@pytest.mark.usefixtures("filled")
def test_what_waits_for_a_destination_that_is_not_configured_says_so(cxr_worker: Run, pacs: FakePacs) -> None:
    waiting = _json(cxr_worker, "deliveries", "list", "--state", "pending")
    words = "pacs to be configured again: nothing is sent to it"
    assert {(delivery["waits_for"], delivery["next_attempt_at"]) for delivery in waiting} == {(words, None)}
    delivered = _json(cxr_worker, "deliveries", "list", "--state", "delivered")
    assert {delivery["waits_for"] for delivery in delivered} == {None}
    code, out, _ = cxr_worker("deliveries", "retry", str(waiting[0]["id"]))
    assert (code, out) == (0, "1 due again. Nothing is sent to pacs, which is not configured.\n")
    code, _, err = cxr_worker("deliveries", "retry", str(waiting[0]["id"]), "4711")
    assert code == 1
    assert "1 of 2 are due again. Nothing is sent to pacs, which is not configured. 4711: " in err
    _configure(pacs.port)
    assert cxr_worker("deliveries", "retry", str(waiting[0]["id"]))[1] == "1 due again.\n"
    waiting = _json(cxr_worker, "deliveries", "list", "--state", "pending")
    assert {delivery["waits_for"] for delivery in waiting} == {"its next attempt"}
    assert all(delivery["next_attempt_at"] for delivery in waiting)


@pytest.mark.parametrize("what", ["studies", "deliveries"])
@pytest.mark.usefixtures("filled")
def test_a_list_that_is_cut_says_so(cxr_worker: Run, what: str) -> None:
    whole = _json(cxr_worker, what, "list")
    code, out, err = cxr_worker(what, "list", "--json", "--limit", str(len(whole) - 1))
    assert (code, json.loads(out)) == (0, whole[:-1])
    assert err == f"cxr-worker: only the newest {len(whole) - 1} are listed; --limit lists more.\n"
    assert cxr_worker(what, "list", "--limit", str(len(whole)))[2] == ""


def test_a_delivery_given_up_is_queued_again_by_retry(cxr_worker: Run, filled: Site, pacs: FakePacs) -> None:
    _configure(pacs.port)
    pacs.status = 0x0110
    for _ in range(10):
        filled.clock.go_on(minutes=10)
        filled.deliver()
    given_up = _json(cxr_worker, "deliveries", "list", "--state", "on_hold")
    assert len(given_up) == 2
    code, out, _ = cxr_worker("deliveries", "retry", "--all-failed")
    assert (code, out) == (0, "2 due again.\n")
    pacs.status = 0
    filled.clock.now = datetime.now(UTC)
    assert filled.deliver() == 2
    assert cxr_worker("deliveries", "retry", "--all-failed")[1] == "0 due again.\n"
    code, _, err = cxr_worker("deliveries", "retry", str(given_up[0]["id"]), "4711")
    assert (code, err) == (
        1,
        f"cxr-worker: 0 of 2 are due again. {given_up[0]['id']}: it is delivered already. 4711: there is no such delivery.\n",
    )


def test_a_study_is_analysed_again_when_asked_for(cxr_worker: Run, filled: Site) -> None:
    code, out, _ = cxr_worker("reprocess", study_uid("done"))
    assert (code, out) == (0, "1 of 1 studies are due again.\n")
    shown = filled.study(study_uid("done"))
    assert (shown["state"], shown["generation"]) == ("ready", 2)
    code, _, err = cxr_worker("reprocess", study_uid("done"), "1.2.3")
    assert (code, "No study 1.2.3" in err) == (1, True)


def test_studies_of_another_model_are_analysed_again_by_the_active_one(cxr_worker: Run, filled: Site) -> None:
    assert filled.engine.model == model_identity()
    assert cxr_worker("reprocess", "--outdated")[1] == "2 of 2 studies are due again.\n"


def test_failed_studies_are_analysed_again(cxr_worker: Run, test_database: TestDatabase, tmp_path: Path) -> None:
    site = make_site(test_database.opened, tmp_path / "var")
    site.engine.breaks_on[study_uid()] = RuntimeError()
    site.receive(make_dx())
    for _ in range(12):
        site.clock.go_on(minutes=10)
        site.settle()
    assert site.study(study_uid())["state"] == "failed"
    assert cxr_worker("reprocess", "--failed")[1] == "1 of 1 studies are due again.\n"
    site.engine.breaks_on.clear()
    site.clock.now = datetime.now(UTC)
    site.settle()
    assert site.study(study_uid())["state"] == "reported"


def test_models_are_listed_and_one_is_active(cxr_worker: Run) -> None:
    (lenet,) = [model for model in _json(cxr_worker, "models", "list") if model["model"] == "lenet5"]
    assert (lenet["architecture"], lenet["active"]) == ("lenet5_bn", True)


def test_a_database_at_the_newest_migration_is_right_and_another_is_not(cxr_worker: Run, test_database: TestDatabase) -> None:
    code, out, _ = cxr_worker("db", "check")
    assert code == 0
    assert "the newest" in out
    with test_database.opened.write() as connection:
        connection.exec_driver_sql("ALTER TABLE events ADD COLUMN surprise INTEGER")
    code, _, err = cxr_worker("db", "check")
    assert code == 1
    assert "surprise" in err
    assert cxr_worker("db", "upgrade")[0] == 0


def _configure(pacs_port: int) -> None:
    Path("cxr-worker.toml").write_text(
        f'[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs_port}\n', encoding="utf-8"
    )


def test_the_doctor_finds_everything_well(cxr_worker: Run, pacs: FakePacs) -> None:
    _configure(pacs.port)
    checks = {check["name"]: check for check in _json(cxr_worker, "doctor")}
    assert {"configuration", "database", "disk", "model", "gate", "device", "destination pacs"} <= set(checks)
    assert all(check["ok"] for check in checks.values())


@pytest.mark.parametrize("section", ["keeping", "dicom"])
def test_the_doctor_fails_where_more_is_to_be_free_than_the_disk_has(
    cxr_worker: Run, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    monkeypatch.setenv(f"CXR_{section.upper()}__MINIMUM_FREE_BYTES", str(10**18))
    _, out, _ = cxr_worker("doctor", "--json")
    (disk,) = (check for check in json.loads(out) if check["name"] == "disk")
    assert not disk["ok"]
    assert f"{section}.minimum_free_bytes is {10**18}" in disk["detail"]


@pytest.mark.parametrize("state", ["superseded", "delivered"])
def test_the_doctor_does_not_call_pending_what_is_not_sent_any_more(
    cxr_worker: Run, filled: Site, pacs: FakePacs, state: str
) -> None:
    _configure(pacs.port)
    with filled.database.write() as connection:
        connection.execute(update(deliveries).values(state=state))
    checks = {check["name"]: check for check in _json(cxr_worker, "doctor")}
    assert checks["deliveries"]["detail"] == "0 pending, none given up"


def test_the_doctor_names_the_cure_for_what_is_wrong_and_ends_with_1(cxr_worker: Run, test_database: TestDatabase) -> None:
    _configure(free_port())
    with test_database.away():
        code, out, _ = cxr_worker("doctor", "--json")
    assert code == 1
    failed = {check["name"]: check for check in json.loads(out) if not check["ok"]}
    assert {"database", "destination pacs"} <= set(failed)
    assert all(check["cure"] and check["detail"] for check in failed.values())
    assert "does not answer" in failed["destination pacs"]["detail"]


@pytest.mark.parametrize(
    "secret",
    [
        'database_url = "postgresql+psycopg://cxr:hunter2@db/cxr"',
        '[[destinations]]\nname = "web"\nurl = "http://127.0.0.1:1"\nusername = "u"\npassword = "hunter2"',
    ],
    ids=["database", "service"],
)
def test_the_doctor_warns_of_a_configuration_with_a_password_that_others_may_read(cxr_worker: Run, secret: str) -> None:
    def looked() -> tuple[bool, bool, str]:
        _, out, _ = cxr_worker("doctor", "--json", "--config", "mine.toml")
        (check,) = (check for check in json.loads(out) if check["name"] == "secrets")
        return check["ok"], check["advisory"], check["detail"]

    path = Path("mine.toml")
    path.write_text(secret, encoding="utf-8")
    path.chmod(0o644)
    assert looked() == (False, True, "every account of this machine may read or write mine.toml")
    path.chmod(0o640)
    assert looked()[0]
    path.write_text("[dicom]\nport = 104\n", encoding="utf-8")
    path.chmod(0o644)
    assert looked()[0]


def test_the_doctor_warns_of_a_key_that_others_may_read(cxr_worker: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("certificate", "ca", "key"):
        Path(f"{name}.pem").touch(mode=0o644)
        monkeypatch.setenv(f"CXR_DICOM__TLS__{name.upper()}", f"{name}.pem")
    (check,) = (check for check in json.loads(cxr_worker("doctor", "--json")[1]) if check["name"] == "secrets")
    assert check["detail"] == "every account of this machine may read or write key.pem"
    Path("key.pem").chmod(0o600)
    (check,) = (check for check in json.loads(cxr_worker("doctor", "--json")[1]) if check["name"] == "secrets")
    assert check["ok"]


def test_the_doctor_names_a_cure_for_a_service_that_fits_one(cxr_worker: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}/dicom-web"
    Path("cxr-worker.toml").write_text(f'[[destinations]]\nname = "web"\nurl = "{url}"\n', encoding="utf-8")
    _, out, _ = cxr_worker("doctor", "--json")
    (web,) = (check for check in json.loads(out) if check["name"] == "destination web")
    assert web["cure"].startswith(f"start the service at {url}, open its port")


def test_the_doctor_does_not_pass_an_error_of_ours_off_as_the_operators(
    cxr_worker: Run, pacs: FakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise AttributeError("Bearer secret")

    _configure(pacs.port)
    monkeypatch.setattr(checks, "gate", broken)
    _, out, _ = cxr_worker("doctor", "--json")
    (gate,) = (check for check in json.loads(out) if check["name"] == "gate")
    assert gate["detail"].startswith("Internal error: AttributeError at ")
    assert gate["detail"].endswith(" broken"), "its words may quote anything"
