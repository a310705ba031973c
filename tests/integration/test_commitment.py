"""Storage commitment against real peers, on both databases: what counts as delivered, and what is sent again."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest

from dicom_io import commitment
from dicom_io.commitment import Commitment, read_commitment
from dicom_io.errors import InvalidObject, NotDicom
from dicom_io.kinds import Kind
from dicom_io.values import SOPInstanceUID
from tests.committing import CommittingPacs, committing_pacs
from tests.factories import PATIENT, make_dx, make_study, study_uid
from tests.fakes import Site, encoded, free_port, make_site, model_identity
from tests.requirements import need
from tests.servers import orthanc, wait_for
from worker.commitment import request_commitment, settle_commitment
from worker.db import commitments, delivering, listing, studies
from worker.db.database import Database
from worker.destination import Destination
from worker.errors import DatabaseUnavailable
from worker.receivers import receiver
from worker.values import DeliveryState


@pytest.fixture
def committing() -> Iterator[CommittingPacs]:
    with committing_pacs() as running:
        yield running


@pytest.fixture
def asking(database: Database, tmp_path: Path, committing: CommittingPacs) -> Site:
    """A worker whose one destination is asked to commit; a study's report is there, and stored."""
    site = make_site(database, tmp_path / "var", destinations=(committing.destination(),))
    site.receive(make_dx())
    site.settle()
    assert site.deliver() == 1
    return site


def _ask(site: Site) -> int:
    return request_commitment(site.parts.settings.destinations[0], site.parts)


def _ask_in_vain(site: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """Ask every ten minutes while nothing is answered, and send what is due meanwhile."""
    committing.at_once = False
    with monkeypatch.context() as patched:
        patched.setattr(commitment, "WAIT_SECONDS", 0.01)
        for _ in range(times):
            assert _ask(site) == 1
            site.deliver()
            site.clock.go_on(minutes=10)
    committing.at_once = True


def _delivery(site: Site) -> tuple[str, int, bool, str | None]:
    (shown,) = site.study(study_uid())["deliveries"]
    return shown["state"], shown["attempts"], shown["committed"], shown["last_error"]


def test_a_report_that_is_stored_and_not_committed_to_is_not_delivered(asking: Site) -> None:
    assert _delivery(asking) == ("stored", 0, False, None)
    assert asking.study(study_uid())["state"] == "reported"


def test_an_answer_on_the_association_of_the_request_makes_the_report_delivered(
    asking: Site, committing: CommittingPacs
) -> None:
    assert _ask(asking) == 1
    assert _delivery(asking) == ("delivered", 1, True, None)
    assert asking.study(study_uid())["state"] == "delivered"
    (item,) = committing.requests[0].ReferencedSOPSequence
    assert item.ReferencedSOPInstanceUID == committing.received[0]
    wait_for(lambda: committing.answered == [0x0000], "the worker's answer to N-EVENT-REPORT")
    assert _ask(asking) == 0


def test_an_object_that_the_destination_does_not_have_is_sent_again(asking: Site, committing: CommittingPacs) -> None:
    committing.denied[committing.received[0]] = 0x0112
    _ask(asking)
    assert _delivery(asking) == ("pending", 1, False, "Stored, but not committed to: no such object instance (0x0112).")
    assert asking.deliver() == 0, "before its time"
    asking.clock.go_on(seconds=30)
    committing.denied.clear()
    assert asking.deliver() == 1
    assert len(committing.received) == 2
    _ask(asking)
    assert _delivery(asking)[:3] == ("delivered", 2, True)


def test_an_object_that_is_never_committed_to_is_given_up_in_the_end(asking: Site, committing: CommittingPacs) -> None:
    committing.denied[committing.received[0]] = 0x0112
    for _ in range(12):
        _ask(asking)
        asking.clock.go_on(minutes=10)
        asking.deliver()
    assert _delivery(asking)[:3] == ("failed", 10, False)
    assert len(committing.received) == 10


def test_a_request_without_an_answer_is_repeated_and_a_late_answer_counts(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment, "WAIT_SECONDS", 0.01)
    committing.at_once = False
    assert _ask(asking) == 1
    assert _ask(asking) == 0
    assert _delivery(asking)[:3] == ("stored", 1, False)
    with asking.database.read() as connection:
        due = delivering.next_due(connection, "pacs")
    assert due is not None
    assert (due - asking.clock()).total_seconds() == 600
    asking.clock.now = due
    assert _ask(asking) == 1
    first, second = committing.requests
    assert first.TransactionUID != second.TransactionUID
    settle_commitment(_read(committing, 0), parts=asking.parts)
    assert _delivery(asking)[::2] == ("delivered", True)
    settle_commitment(_read(committing, 1), parts=asking.parts)  # what comes twice changes nothing
    assert asking.events(study_uid()).count("delivered") == 1


class PowerCut(BaseException):
    """What no handler of an error sees."""


def test_a_crash_between_the_request_and_its_note_leaves_the_report_stored_and_asked_about_again(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing.at_once = False
    with monkeypatch.context() as patched:
        patched.setattr(commitment, "WAIT_SECONDS", 0.01)
        patched.setattr(commitments, "was_asked", Mock(side_effect=PowerCut))
        with pytest.raises(PowerCut):
            _ask(asking)
    assert _delivery(asking) == ("stored", 0, False, None)
    assert asking.study(study_uid())["state"] == "reported"
    assert asking.deliver() == 0, "the destination has it"
    committing.at_once = True
    assert _ask(asking) == 1
    first, second = committing.requests
    assert first.TransactionUID != second.TransactionUID
    assert _delivery(asking)[::2] == ("delivered", True)
    settle_commitment(_read(committing, 0), parts=asking.parts)  # what was asked before the crash is answered after all
    assert asking.events(study_uid()).count("sent") == 1
    assert len(committing.received) == 1


def test_an_answer_to_what_was_asked_before_a_crash_counts(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing.at_once = False
    monkeypatch.setattr(commitment, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(commitments, "was_asked", Mock(side_effect=PowerCut))
    with pytest.raises(PowerCut):
        _ask(asking)
    settle_commitment(_read(committing, 0), parts=asking.parts)
    assert _delivery(asking)[::2] == ("delivered", True)
    assert _ask(asking) == 0


def test_an_answer_that_comes_with_the_tenth_request_is_no_failure(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ask_in_vain(asking, committing, monkeypatch, times=9)
    assert _ask(asking) == 1
    assert _delivery(asking) == ("delivered", 10, True, None)
    assert "delivery_failed" not in asking.events(study_uid())


def test_after_ten_requests_without_an_answer_it_is_on_hold_and_still_asked_about_and_not_sent_again(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ask_in_vain(asking, committing, monkeypatch, times=12)
    state, attempts, committed, error = _delivery(asking)
    assert (state, attempts, committed) == ("on_hold", 12, False)
    assert "unanswered" in str(error)
    assert asking.study(study_uid())["deliveries"][0]["waits_for"] == "the destination's commitment; asked every 10 minutes"
    assert asking.events(study_uid()).count("delivery_on_hold") == 1
    assert _ask(asking) == 1
    assert _delivery(asking)[::2] == ("delivered", True)
    assert len(committing.received) == 1


def test_what_a_destination_denies_after_it_was_on_hold_for_its_word_is_given_up(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ask_in_vain(asking, committing, monkeypatch, times=10)
    committing.denied[committing.received[0]] = 0x0112
    settle_commitment(_read(committing, -1), parts=asking.parts)
    assert _delivery(asking)[:2] == ("failed", 10)


def test_a_commitment_service_that_is_down_for_hours_costs_no_report(asking: Site, committing: CommittingPacs) -> None:
    committing.status = 0x0213
    for _ in range(20):
        assert _ask(asking) == 0
        asking.deliver()
        asking.clock.go_on(minutes=10)
    assert _delivery(asking)[0] == "on_hold"
    committing.status = 0x0000
    assert _ask(asking) == 1
    assert _delivery(asking)[::2] == ("delivered", True)
    assert len(committing.received) == 1


def test_a_denial_that_comes_on_an_association_of_its_own_counts_once(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment, "WAIT_SECONDS", 0.01)
    committing.at_once = False
    committing.denied[committing.received[0]] = 0x0112
    for asked in range(1, 10):
        _ask(asking)
        asking.clock.go_on(seconds=5)
        settle_commitment(_read(committing, -1), parts=asking.parts)
        assert _delivery(asking)[:2] == ("pending", asked)
        asking.clock.go_on(minutes=10)
        assert asking.deliver() == 1
    _ask(asking)
    settle_commitment(_read(committing, -1), parts=asking.parts)
    assert _delivery(asking)[:2] == ("failed", 10)


def test_an_answer_to_what_nobody_asked_is_refused_and_the_right_one_behind_it_counts(
    asking: Site, committing: CommittingPacs
) -> None:
    committing.before = ["2.25.404"]
    assert _ask(asking) == 1
    wait_for(lambda: committing.answered == [0x0106, 0x0000], "both answers")
    assert _delivery(asking) == ("delivered", 1, True, None)


def test_a_database_that_is_away_when_the_answer_comes_is_no_failure_of_the_destination_s(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(commitments, "settle", Mock(side_effect=DatabaseUnavailable))
        with pytest.raises(DatabaseUnavailable):
            _ask(asking)
    wait_for(lambda: committing.answered == [0x0213], "the destination is told to try again")
    assert _delivery(asking) == ("stored", 0, False, None)


def test_a_report_that_was_committed_to_while_it_was_sent_again_stays_delivered(asking: Site) -> None:
    with asking.database.read() as connection:
        (sent,) = delivering.due(
            connection, "pacs", now=asking.clock(), data_dir=asking.parts.data_dir, state=DeliveryState.STORED
        )
    _ask(asking)
    with asking.database.write() as connection:
        delivering.mark_stored(connection, sent, now=asking.clock())
    assert _delivery(asking)[0] == "delivered"


def test_what_is_stored_is_delivered_where_nobody_is_to_be_asked_any_more(asking: Site, committing: CommittingPacs) -> None:
    known = committing.destination(storage_commitment=False)
    assert request_commitment(known, asking.parts) == 1
    assert _delivery(asking)[::2] == ("delivered", False)
    assert committing.requests == []


def test_how_long_a_destination_was_away_before_it_stored_a_report_leaves_it_all_its_questions(
    database: Database, tmp_path: Path, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment, "WAIT_SECONDS", 0.01)
    committing.at_once = False
    known = committing.destination()
    site = make_site(database, tmp_path / "var", destinations=(known.model_copy(update={"port": free_port()}),))
    site.receive(make_dx())
    site.settle()
    for _ in range(9):
        assert site.deliver() == 0
        site.clock.go_on(minutes=10)
    assert _delivery(site)[:2] == ("pending", 9)
    site.configure(destinations=(known,))
    assert site.deliver() == 1
    assert _delivery(site)[:2] == ("stored", 0)
    for asked in range(1, 10):
        assert _ask(site) == 1
        assert _delivery(site)[:2] == ("stored", asked)
        site.clock.go_on(minutes=10)
    assert "delivery_failed" not in site.events(study_uid())
    settle_commitment(_read(committing, 0), parts=site.parts)
    assert _delivery(site)[::2] == ("delivered", True)


def test_a_report_that_was_stored_and_then_taken_back_is_not_sent_again_where_it_was_lost(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment, "WAIT_SECONDS", 0.01)
    committing.at_once = False
    _ask(asking)
    asking.receive(*make_study(patient=replace(PATIENT, patient_id="TEST-0002"))[1:])
    asking.settle()
    committing.denied[committing.received[0]] = 0x0112
    settle_commitment(_read(committing, 0), parts=asking.parts)
    asking.clock.go_on(minutes=10)
    assert asking.deliver() == 0
    assert (_delivery(asking)[0], len(committing.received)) == ("superseded", 1)


def test_a_destination_that_refuses_to_be_asked_is_asked_again_later(asking: Site, committing: CommittingPacs) -> None:
    committing.status = 0x0110
    assert _ask(asking) == 0
    assert _delivery(asking) == ("stored", 1, False, "Storage commitment was refused with 0x0110.")
    committing.status = 0x0000
    asking.clock.go_on(seconds=30)
    assert _ask(asking) == 1
    assert _delivery(asking)[::2] == ("delivered", True)


def test_what_is_committed_and_what_is_not_are_told_apart_in_one_answer(
    database: Database, tmp_path: Path, committing: CommittingPacs
) -> None:
    site = make_site(database, tmp_path / "var", destinations=(committing.destination(),))
    site.receive(*make_study("good", views=("PA",)), *make_study("bad", views=("PA",)))
    site.settle()
    assert site.deliver() == 2
    bad = site.study(study_uid("bad"))["reports"][0]["sop_instance_uid"]
    committing.denied[bad] = 0x0110
    assert _ask(site) == 2
    assert len(committing.requests) == 1
    with site.database.read() as connection:
        states = {row["study_uid"]: row["state"] for row in listing.list_deliveries(connection)}
    assert states == {study_uid("good"): "delivered", study_uid("bad"): "pending"}


def test_an_object_that_is_named_as_kept_and_as_lost_is_sent_again(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing.at_once = False
    monkeypatch.setattr(commitment, "WAIT_SECONDS", 0.01)
    assert _ask(asking) == 1
    uid, transaction = SOPInstanceUID(committing.received[0]), str(committing.requests[0].TransactionUID)
    both = Commitment(transaction_uid=transaction, committed=frozenset({uid}), failed={uid: "no such object instance"})
    for _ in range(2):  # what comes twice changes nothing
        settle_commitment(both, parts=asking.parts)
        assert _delivery(asking)[:3] == ("pending", 1, False)


def test_a_late_refusal_sends_nothing_again_that_was_taken_back(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing.at_once = False
    monkeypatch.setattr(commitment, "WAIT_SECONDS", 0.01)
    _ask(asking)
    committing.denied[committing.received[0]] = 0x0112
    asking.engine.model = model_identity("2.0")
    with asking.database.write() as connection:
        found = studies.find(connection, study_uid())
        assert found is not None
        studies.analyse_again(connection, [found], now=asking.clock(), why="another model")
    asking.settle()
    settle_commitment(_read(committing, 0), parts=asking.parts)
    assert [shown["state"] for shown in asking.study(study_uid())["deliveries"]] == ["superseded", "pending"]


def test_a_destination_that_was_away_when_it_was_to_be_asked_is_asked_and_not_called_any_more(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing.at_once = False
    monkeypatch.setattr(commitment, "WAIT_SECONDS", 0.01)
    (known,) = asking.parts.settings.destinations
    assert request_commitment(known.model_copy(update={"port": free_port()}), asking.parts) == 0
    state, attempts, _, error = _delivery(asking)
    assert (state, attempts) == ("stored", 1)
    assert "does not answer" in str(error)
    with asking.database.read() as connection:
        assert delivering.awaits_answer(connection, "pacs")
    asking.clock.go_on(seconds=30)
    assert _ask(asking) == 1
    with asking.database.read() as connection:
        assert not delivering.awaits_answer(connection, "pacs")


def test_what_is_stored_at_last_waits_for_no_destination_to_answer(
    database: Database, tmp_path: Path, committing: CommittingPacs
) -> None:
    known = committing.destination()
    site = make_site(database, tmp_path / "var", destinations=(known.model_copy(update={"port": free_port()}),))
    site.receive(make_dx())
    site.settle()
    assert site.deliver() == 0
    site.configure(destinations=(known,))
    site.clock.go_on(seconds=30)
    assert site.deliver() == 1
    with site.database.read() as connection:
        assert not delivering.awaits_answer(connection, "pacs")


def test_one_destination_does_not_vouch_for_another(database: Database, tmp_path: Path, committing: CommittingPacs) -> None:
    away = committing.destination(name="away")
    site = make_site(database, tmp_path / "var", destinations=(committing.destination(), away))
    site.receive(make_dx())
    site.settle()
    assert site.deliver() == 2
    assert _ask(site) == 1
    states = {shown["destination"]: shown["state"] for shown in site.study(study_uid())["deliveries"]}
    assert states == {"pacs": "delivered", "away": "stored"}


def test_requests_are_forgotten_with_what_they_concern(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(*, days: int) -> int:
        with asking.database.write() as connection:
            return commitments.forget(connection, before=asking.clock() - timedelta(days=days))

    monkeypatch.setattr(commitment, "WAIT_SECONDS", 0.01)
    committing.at_once = False
    _ask(asking)
    asking.clock.go_on(days=31)
    assert forget(days=30) == 0, "a late answer counts"
    asking.receive(*make_study("later", views=("PA",)))
    asking.settle()
    committing.at_once = True
    _ask(asking)
    assert _delivery(asking)[::2] == ("delivered", True)
    assert forget(days=30) == 1, "of the other study nobody asked then"
    assert forget(days=0) == 0, "the later one waits to be asked about"
    asking.deliver()
    _ask(asking)
    asking.clock.go_on(days=1)
    assert forget(days=0) == 2


def test_nobody_answers_a_request_that_was_not_made(asking: Site, committing: CommittingPacs) -> None:
    uid = SOPInstanceUID(committing.received[0])
    with pytest.raises(InvalidObject, match="Nobody was asked"):
        settle_commitment(Commitment(transaction_uid="1.2.3", committed=frozenset({uid}), failed={}), parts=asking.parts)
    assert _delivery(asking)[0] == "stored"


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", InvalidObject), (b"\x08\x00\x99\x11\xff\xff\xff\xff\x01\x02\x03\x04\x05\x06\x07\x08", NotDicom)],
)
def test_an_answer_that_cannot_be_read_is_refused(content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_commitment(content, "1.2.840.10008.1.2")


def test_a_destination_that_offers_no_storage_commitment_says_so(
    asking: Site, committing: CommittingPacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment, "_CONTEXT", ("1.2.3.4", "1.2.840.10008.1.2"))
    assert _ask(asking) == 0
    state, _, committed, error = _delivery(asking)
    assert (state, committed) == ("failed", False)
    assert error == "PACS does not offer storage commitment."
    assert committing.requests == []


def test_orthanc_answers_on_an_association_of_its_own(database: Database, tmp_path: Path) -> None:
    need("Orthanc")
    site = make_site(database, tmp_path / "var", dicom={"port": 0})
    with ExitStack() as stack:
        listener = stack.enter_context(receiver(site.parts, arrived=lambda: None))
        pacs = stack.enter_context(orthanc(tmp_path, callers={"CXRWORKER": listener.port}))
        known = Destination(
            name="pacs",
            ae_title="ORTHANC",
            host="127.0.0.1",
            port=pacs.dicom_port,
            outputs=(Kind.SR,),
            storage_commitment=True,
        )
        site.configure(destinations=(known,))
        site.receive(make_dx())
        site.settle()
        assert site.deliver() == 1
        (stored,) = pacs.get("/instances")
        pacs.delete(f"/instances/{stored}")
        _ask(site)
        wait_for(lambda: _delivery(site)[0] == "pending", "the answer that it has no such object")
        assert "no such object instance" in str(_delivery(site)[3])
        site.clock.go_on(seconds=30)
        assert site.deliver() == 1
        _ask(site)
        wait_for(lambda: _delivery(site)[0] == "delivered", "its commitment")
    assert _delivery(site)[2]
    assert site.study(study_uid())["state"] == "delivered"


def _read(committing: CommittingPacs, number: int) -> Commitment:
    ds = committing.result(committing.requests[number])
    ds.file_meta = make_dx().file_meta
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    return read_commitment(encoded(ds), "1.2.840.10008.1.2")
