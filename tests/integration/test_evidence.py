"""Studies that are complete because others say so: a PACS that was asked, a modality's step, an archive's notice."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import time by pynetdicom
    InstanceAvailabilityNotification,
    ModalityPerformedProcedureStep,
    StudyRootQueryRetrieveInformationModelFind,
)

from dicom_io.availability import NOTICE
from dicom_io.mpps import STEP
from dicom_io.normalized import Command, NormalizedRequest
from dicom_io.payload import encode_payload
from dicom_io.values import SOPClassUID, SOPInstanceUID, TransferSyntaxUID
from tests.conftest import TestDatabase
from tests.factories import make_study, study_uid
from tests.fakes import NOON, FakePacs, Site, free_port, make_site
from tests.servers import wait_for
from tests.unit.test_step_and_notice import item, references
from worker import pipeline
from worker.db import evidence
from worker.informants import informants
from worker.questions import ask_about_studies, next_question
from worker.receivers import receiver
from worker.schedule import Schedule
from worker.settings import SenderSettings, StudySettings


def _state(site: Site, name: str = "study") -> str:
    pipeline.complete_studies(site.parts)
    return str(site.study(study_uid(name))["state"])


def _tell(site: Site, sop_class: SOPClassUID, command: Command, uid: str, ds: Dataset) -> None:
    """Hand a request of another to the service that takes it, as the listener would."""
    heard: list[bool] = []
    service = informants(site.parts, heard=lambda: heard.append(True))[sop_class]
    service(
        NormalizedRequest(
            command=command,
            sop_class_uid=sop_class,
            sop_instance_uid=SOPInstanceUID(uid),
            type_id=None,
            dataset=encode_payload(ds),
            transfer_syntax=TransferSyntaxUID(ImplicitVRLittleEndian),
            calling_ae_title="MODALITY",
            peer_address="127.0.0.1",
        )
    )
    assert heard


def _begin_step(site: Site, uid: str = "1.9", *studies: str) -> None:
    scheduled = [item(StudyInstanceUID=study) for study in studies or (study_uid(),)]
    ds = item(PerformedProcedureStepStatus="IN PROGRESS", ScheduledStepAttributesSequence=scheduled)
    _tell(site, STEP, Command.N_CREATE, uid, ds)


def _end_step(site: Site, *objects: Dataset, uid: str = "1.9", status: str = "COMPLETED") -> None:
    made = [item(ReferencedImageSequence=references(*(ds.SOPInstanceUID for ds in objects)))]
    _tell(site, STEP, Command.N_SET, uid, item(PerformedProcedureStepStatus=status, PerformedSeriesSequence=made))


def _notice(site: Site, *uids: str, name: str = "1.8") -> None:
    series = [item(ReferencedSOPSequence=references(*uids, InstanceAvailability="ONLINE"))]
    ds = item(StudyInstanceUID=study_uid(), ReferencedSeriesSequence=series)
    _tell(site, NOTICE, Command.N_CREATE, name, ds)


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_a_study_is_complete_when_every_image_is_here_that_its_ended_step_names(site: Site, status: str) -> None:
    frontal, lateral = make_study()
    _begin_step(site)
    site.receive(frontal)
    _end_step(site, frontal, lateral, status=status)
    assert _state(site) == "arriving"
    site.receive(lateral)
    assert _state(site) == "ready"
    assert site.study(study_uid())["events"][-1]["detail"] == "every instance that was named is here"


def test_a_step_that_still_goes_on_makes_nothing_complete(site: Site) -> None:
    (ds,) = make_study(views=("PA",))
    site.receive(ds)
    _begin_step(site, "1.9")
    _begin_step(site, "1.10")
    _end_step(site, ds, uid="1.9")
    assert _state(site) == "arriving"
    _end_step(site, uid="1.10")
    assert _state(site) == "ready"


def test_a_step_that_never_ends_makes_nobody_wait_longer_than_the_quiet_time(site: Site) -> None:
    _begin_step(site)
    site.receive(*make_study())
    site.clock.go_on(seconds=5)
    assert _state(site) == "ready"


def test_a_step_of_two_studies_names_the_images_of_neither(site: Site) -> None:
    (ds,) = make_study(views=("PA",))
    site.receive(ds)
    _begin_step(site, "1.9", study_uid(), study_uid("other"))
    _end_step(site, ds)
    assert _state(site) == "arriving"


def test_the_end_of_a_step_whose_begin_nobody_heard_says_nothing(site: Site) -> None:
    (ds,) = make_study(views=("PA",))
    site.receive(ds)
    _end_step(site, ds)
    assert _state(site) == "arriving"


def test_a_study_is_complete_when_every_image_is_here_that_notices_name(site: Site) -> None:
    first, second, third = make_study(views=("PA", "LL", "PA"))
    _notice(site, first.SOPInstanceUID, second.SOPInstanceUID)
    _notice(site, third.SOPInstanceUID, name="1.88")
    site.receive(first, second)
    assert _state(site) == "arriving"
    site.receive(third)
    assert _state(site) == "ready"


def test_an_image_that_nobody_named_says_that_others_may_come_too(site: Site) -> None:
    images = make_study(views=("PA", "LL", "PA"))
    _notice(site, images[0].SOPInstanceUID)
    site.receive(images[0])
    assert _state(site) == "ready"
    for ds in images[1:]:
        site.receive(ds)
        site.clock.go_on(seconds=4)
        assert _state(site) == "arriving"
    site.clock.go_on(seconds=1)
    assert _state(site) == "ready"
    assert site.study(study_uid())["generation"] == 2


def test_an_image_after_a_study_was_called_complete_reopens_it_as_ever(site: Site) -> None:
    frontal, lateral = make_study()
    _notice(site, frontal.SOPInstanceUID)
    site.receive(frontal)
    assert _state(site) == "ready"
    site.receive(lateral)
    assert site.study(study_uid())["state"] == "arriving"


def test_a_modality_and_an_archive_tell_us_over_the_network(site: Site) -> None:
    site.configure(dicom=site.parts.settings.dicom.model_copy(update={"port": 0}))
    frontal, lateral = make_study()
    heard: list[bool] = []
    modality = AE(ae_title="MODALITY")
    modality.add_requested_context(ModalityPerformedProcedureStep)
    modality.add_requested_context(InstanceAvailabilityNotification)
    began = item(
        PerformedProcedureStepStatus="IN PROGRESS", ScheduledStepAttributesSequence=[item(StudyInstanceUID=study_uid())]
    )
    images = [item(ReferencedImageSequence=references(frontal.SOPInstanceUID))]
    ended = item(PerformedProcedureStepStatus="COMPLETED", PerformedSeriesSequence=images)
    series = [item(ReferencedSOPSequence=references(lateral.SOPInstanceUID, InstanceAvailability="ONLINE"))]
    notice = item(StudyInstanceUID=study_uid(), ReferencedSeriesSequence=series)
    with receiver(site.parts, arrived=lambda: heard.append(True)) as listener:
        assoc = modality.associate("127.0.0.1", listener.port, ae_title="CXRWORKER")
        statuses = [
            assoc.send_n_create(began, STEP, "1.9")[0],
            assoc.send_n_set(ended, STEP, "1.9")[0],
            assoc.send_n_create(notice, NOTICE, "1.8")[0],
            assoc.send_n_create(item(ReferencedSeriesSequence=[]), NOTICE, "1.7")[0],
        ]
        assoc.release()
    assert [status.Status == 0 for status in statuses] == [True, True, True, False]
    assert len(heard) == 3
    site.receive(frontal)
    assert _state(site) == "arriving"
    site.receive(lateral)
    assert _state(site) == "ready"


class Archive:
    """A sender's PACS that answers how many images it has, and counts how often it was asked."""

    def __init__(self) -> None:
        self.count: int | None = None
        self.refuses = ""
        """The Study Instance UID of which it refuses to say anything."""
        self.asked = 0
        self.port = free_port()

    def sender(self, **changes: Any) -> SenderSettings:
        query = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": self.port}
        return SenderSettings.model_validate({"calling_ae_title": "MODALITY", "query": query, **changes})

    def answer(self, event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        self.asked += 1
        if event.identifier.StudyInstanceUID == self.refuses:
            yield 0xC000, Dataset()
        elif self.count is not None:
            found = Dataset()
            found.QueryRetrieveLevel = "STUDY"
            found.StudyInstanceUID = event.identifier.StudyInstanceUID
            found.NumberOfStudyRelatedInstances = self.count
            yield 0xFF00, found

    @contextmanager
    def running(self) -> Iterator["Archive"]:
        ae = AE(ae_title="ARCHIVE")
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_FIND, self.answer)])
        try:
            yield self
        finally:
            ae.shutdown()


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive().running() as running:
        yield running


def _with_sender(site: Site, sender: SenderSettings, **study: Any) -> Site:
    site.configure(study=StudySettings(quiet_seconds=60, minimum_quiet_seconds=2, senders=(sender,), **study))
    return site


def test_a_study_is_complete_after_a_small_pause_when_its_pacs_has_no_more_images(site: Site, archive: Archive) -> None:
    sender = archive.sender()
    _with_sender(site, sender)
    frontal, lateral = make_study()
    archive.count = 2
    site.receive(frontal)
    assert ask_about_studies(sender, site.parts) == 0, "not while images come"
    assert next_question(sender, site.parts) == NOON + timedelta(seconds=2)
    site.clock.go_on(seconds=2)
    assert ask_about_studies(sender, site.parts) == 1
    assert ask_about_studies(sender, site.parts) == 0, "once for each pause"
    assert _state(site) == "arriving"
    site.receive(lateral)
    site.clock.go_on(seconds=2)
    assert _state(site) == "arriving", "it may have more by now"
    assert ask_about_studies(sender, site.parts) == 1
    assert _state(site) == "ready"
    assert archive.asked == 2
    assert site.study(study_uid())["events"][-1]["detail"] == "as many instances as its PACS has are here"


def test_a_pacs_that_learns_of_more_images_is_asked_again_after_the_next_pause(site: Site, archive: Archive) -> None:
    sender = archive.sender()
    _with_sender(site, sender)
    first, second, third = make_study(views=("PA", "LL", "PA"))
    for ds, count in ((first, 2), (second, 3)):
        archive.count = count
        site.receive(ds)
        site.clock.go_on(seconds=2)
        assert ask_about_studies(sender, site.parts) == 1
        assert _state(site) == "arriving"
    site.receive(third)
    site.clock.go_on(seconds=2)
    assert ask_about_studies(sender, site.parts) == 1
    assert _state(site) == "ready"


@pytest.mark.parametrize("count", [None, 0, 5])
def test_a_pacs_that_says_nothing_or_more_makes_nobody_wait_longer(site: Site, archive: Archive, count: int | None) -> None:
    sender = archive.sender()
    _with_sender(site, sender)
    archive.count = count
    site.receive(*make_study())
    site.clock.go_on(seconds=2)
    ask_about_studies(sender, site.parts)
    site.clock.go_on(seconds=57)
    assert _state(site) == "arriving"
    site.clock.go_on(seconds=1)
    assert _state(site) == "ready"


def test_a_pacs_that_is_away_is_not_asked_again_before_the_next_pause(site: Site) -> None:
    sender = Archive().sender()
    _with_sender(site, sender)
    site.receive(*make_study())
    site.clock.go_on(seconds=2)
    assert ask_about_studies(sender, site.parts) == 1
    assert next_question(sender, site.parts) is None
    assert _state(site) == "arriving"


def test_a_pacs_that_refuses_one_question_is_asked_the_others(site: Site, archive: Archive) -> None:
    sender = archive.sender()
    _with_sender(site, sender)
    archive.count, archive.refuses = 1, study_uid("first")
    for name in ("first", "second", "third"):
        site.receive(*make_study(name, views=("PA",)))
    site.clock.go_on(seconds=2)
    assert ask_about_studies(sender, site.parts) == 3
    assert archive.asked == 3
    assert [_state(site, name) for name in ("first", "second", "third")] == ["arriving", "ready", "ready"]


def test_a_sender_without_a_pacs_is_not_asked_for(site: Site) -> None:
    sender = SenderSettings(calling_ae_title="MODALITY", quiet_seconds=3)
    _with_sender(site, sender)
    site.receive(*make_study())
    site.clock.go_on(seconds=2)
    assert (ask_about_studies(sender, site.parts), next_question(sender, site.parts)) == (0, None)
    site.clock.go_on(seconds=1)
    assert _state(site) == "ready"


def test_our_own_reports_count_neither_there_nor_here(
    test_database: TestDatabase, tmp_path: Path, pacs: FakePacs, archive: Archive
) -> None:
    destination = pacs.destination(outputs=("sr",))
    site = make_site(test_database.opened, tmp_path / "var", destinations=(destination,))
    first, second, third = make_study(views=("PA", "LL", "PA"))
    site.receive(first, second)
    site.settle()
    site.deliver()
    same = destination.model_copy(update={"ae_title": "ARCHIVE", "port": archive.port})
    site.configure(destinations=(same,))
    sender = archive.sender()
    _with_sender(site, sender)
    (report,) = pacs.received
    archive.count = 4  # three images and the report, which is sent back to us with them
    site.receive(report)
    site.clock.go_on(seconds=2)
    ask_about_studies(sender, site.parts)
    assert _state(site) == "arriving", "two of three images and our report"
    site.receive(third)
    site.clock.go_on(seconds=2)
    ask_about_studies(sender, site.parts)
    assert _state(site) == "ready"


def test_a_report_that_two_destinations_at_one_pacs_were_sent_counts_once_and_those_of_one_of_them_too(
    test_database: TestDatabase, tmp_path: Path, pacs: FakePacs, archive: Archive
) -> None:
    destinations = (pacs.destination("one", outputs=("sr",)), pacs.destination("two", outputs=("sr", "text_sr")))
    site = make_site(test_database.opened, tmp_path / "var", destinations=destinations)
    frontal, lateral = make_study()
    site.receive(frontal)
    site.settle()
    site.deliver()
    there = {"ae_title": "ARCHIVE", "port": archive.port}
    same = tuple(destination.model_copy(update=there) for destination in destinations)
    site.configure(destinations=same)
    sender = archive.sender()
    _with_sender(site, sender)
    archive.count = 2 + len({report.SOPInstanceUID for report in pacs.received})
    assert archive.count == 4
    site.receive(lateral)
    site.clock.go_on(seconds=2)
    assert ask_about_studies(sender, site.parts) == 1
    assert _state(site) == "ready"


def test_a_pacs_that_counts_fewer_than_our_own_reports_makes_nothing_complete(
    test_database: TestDatabase, tmp_path: Path, pacs: FakePacs, archive: Archive
) -> None:
    destination = pacs.destination(outputs=("sr", "text_sr"))
    site = make_site(test_database.opened, tmp_path / "var", destinations=(destination,))
    frontal, lateral = make_study()
    site.receive(frontal)
    site.settle()
    site.deliver()
    same = destination.model_copy(update={"ae_title": "ARCHIVE", "port": archive.port})
    site.configure(destinations=(same,))
    sender = archive.sender()
    _with_sender(site, sender)
    archive.count = 1
    site.receive(lateral)
    site.clock.go_on(seconds=2)
    assert ask_about_studies(sender, site.parts) == 1
    assert _state(site) == "arriving"
    site.clock.go_on(seconds=58)
    assert _state(site) == "ready"


def test_a_pacs_that_was_not_asked_since_the_last_image_makes_nothing_complete_though_another_was(site: Site) -> None:
    first, second = make_study()
    site.receive(first)
    site.clock.go_on(seconds=1)
    with site.database.write() as connection:
        evidence.note_count(connection, "SLOW", study_uid(), 2, now=site.clock())
    site.clock.go_on(seconds=1)
    site.receive(second)
    site.clock.go_on(seconds=1)
    with site.database.write() as connection:
        evidence.note_count(connection, "QUICK", study_uid(), 2, now=site.clock())
    assert _state(site) == "arriving"
    with site.database.write() as connection:
        evidence.note_count(connection, "SLOW", study_uid(), None, now=site.clock())
    assert _state(site) == "ready"


def test_what_was_said_long_ago_is_forgotten(site: Site) -> None:
    _notice(site, "1.1")
    site.clock.go_on(days=31)
    _notice(site, "1.1", name="1.88")
    with site.database.write() as connection:
        assert evidence.forget(connection, before=site.clock() - timedelta(days=30)) == 1


def test_the_running_schedule_asks_by_itself(site: Site, archive: Archive) -> None:
    _with_sender(site, archive.sender())
    settings = site.parts.settings
    quick = settings.study.model_copy(update={"minimum_quiet_seconds": 0.2})
    site.parts = replace(site.parts, clock=lambda: datetime.now(UTC), settings=settings.model_copy(update={"study": quick}))
    archive.count = 2
    site.receive(*make_study())
    schedule = Schedule(site.parts)
    schedule.start()
    try:
        wait_for(lambda: site.study(study_uid())["state"] == "reported", "the study is complete long before its quiet time")
    finally:
        schedule.close()
