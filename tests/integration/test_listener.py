"""The receiving end against DCMTK's tools and pynetdicom: what is answered, and what is kept."""

import errno
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import DigitalXRayImageStorageForPresentation, Verification

from dicom_io.errors import DicomError
from dicom_io.keeper import Caller, StoreAnswer
from dicom_io.listener import Listener, ListenerSettings, listen
from dicom_io.negotiation import PREFERRED_SYNTAXES, preferred_order
from dicom_io.part10 import StoreRequest, file_header
from dicom_io.places import Places
from dicom_io.sender import echo
from dicom_io.status import StoreStatus
from dicom_io.values import Peer
from dicom_io.wire import Patience
from dicom_io.wrap import Encoding
from tests.conftest import TestDatabase
from tests.factories import dicom_folder, make_dx, study_uid, write
from tests.fakes import SentRequest, encoded, fail_syncs, make_site
from tests.requirements import need
from tests.servers import wait_for
from tests.strangers import rejection
from worker.db import events
from worker.errors import ConfigurationError
from worker.receivers import receiver
from worker.settings import DicomSettings, Settings

SETTINGS = ListenerSettings(ae_title="CXRWORKER", host="127.0.0.1", port=0)


class Inbox:
    """Keeps what was stored and what was refused: a `dicom_io.keeper.Keeper`."""

    def __init__(self) -> None:
        self.stored: list[SentRequest] = []
        self.refused: list[tuple[StoreStatus, BaseException | None]] = []
        self.rejected_callers: list[tuple[str, str, str]] = []
        self.aborted_callers: list[tuple[str, str, str]] = []
        self.abandoned = 0
        self.open_associations = 0
        self.fails_with: BaseException | None = None
        self.fails_at = "finish"

    def fail(self, at: str) -> None:
        if self.fails_with is not None and self.fails_at == at:
            raise self.fails_with

    def open(self, request: StoreRequest) -> "Letter":
        self.fail("open")
        return Letter(request, self)

    def answered(self, _request: StoreRequest, answer: StoreAnswer) -> None:
        if answer.status != StoreStatus.SUCCESS:
            self.refused.append((answer.status, answer.error))

    def told(self) -> None:
        pass

    def accepted(self, _caller: Caller) -> None:
        self.open_associations += 1

    def closed(self, _caller: Caller) -> None:
        self.open_associations -= 1

    def rejected(self, caller: Caller, reason: str, _words: str) -> None:
        self.rejected_callers.append((caller.calling_ae_title, caller.peer_address, reason))

    def aborted(self, caller: Caller, reason: str, words: str) -> None:
        self.aborted_callers.append((caller.calling_ae_title, reason, words))


class Letter:
    """One object on its way to an inbox."""

    def __init__(self, request: StoreRequest, inbox: Inbox) -> None:
        self._request = request
        self._inbox = inbox
        self._fragments: list[bytes] = []

    def write(self, fragment: memoryview) -> None:
        self._inbox.fail("write")
        self._fragments.append(bytes(fragment))

    def finish(self) -> None:
        self._inbox.fail("finish")
        self._inbox.stored.append(SentRequest(**asdict(self._request), dataset=b"".join(self._fragments)))

    def abandon(self) -> None:
        self._inbox.abandoned += 1


@contextmanager
def listening(inbox: Inbox, settings: ListenerSettings = SETTINGS, **options: Any) -> Iterator[Listener]:
    with listen(settings, keeper=inbox, **options) as listener:
        yield listener


@contextmanager
def associated(
    port: int, *, contexts: tuple[tuple[str, list[str]], ...] = (), calling: str = "MODALITY", called: str = "CXRWORKER"
) -> Iterator[Association]:
    ae = AE(ae_title=calling)
    for sop_class, syntaxes in contexts or ((DigitalXRayImageStorageForPresentation, [ExplicitVRLittleEndian]),):
        ae.add_requested_context(sop_class, syntaxes)
    assoc = ae.associate("127.0.0.1", port, ae_title=called)
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def storescu(port: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [need("storescu"), "-aet", "XRAY1", "-aec", "CXRWORKER", "-v", "127.0.0.1", str(port), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"TCP_NODELAY": "1"}, timeout=60)


def test_dcmtk_verifies_the_listener() -> None:
    with listening(Inbox()) as listener:
        command = [need("echoscu"), "-aec", "CXRWORKER", "127.0.0.1", str(listener.port)]
        assert subprocess.run(command, check=False, timeout=60).returncode == 0


def test_dcmtk_stores_and_the_bytes_and_both_titles_arrive(tmp_path: Path) -> None:
    inbox, ds = Inbox(), make_dx()
    with listening(inbox) as listener:
        done = storescu(listener.port, "-R", write(ds, tmp_path / "image.dcm"))
    assert done.returncode == 0, done.stderr
    (request,) = inbox.stored
    assert (request.calling_ae_title, request.called_ae_title, request.peer_address) == ("XRAY1", "CXRWORKER", "127.0.0.1")
    assert (request.sop_class_uid, request.sop_instance_uid) == (ds.SOPClassUID, ds.SOPInstanceUID)
    assert request.transfer_syntax == ExplicitVRLittleEndian
    arrived = pydicom.dcmread(_as_file(request))
    assert arrived == ds


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_objects_arrive_as_they_are(tmp_path: Path, syntax: str) -> None:
    inbox, ds = Inbox(), make_dx(encoding=Encoding(transfer_syntax=syntax))
    option = {RLELossless: "-xr", JPEG2000Lossless: "-xv"}[syntax]
    with listening(inbox) as listener:
        done = storescu(listener.port, "-R", option, write(ds, tmp_path / "image.dcm"))
    assert done.returncode == 0, done.stderr
    (request,) = inbox.stored
    assert request.transfer_syntax == syntax
    assert pydicom.dcmread(_as_file(request)).PixelData == ds.PixelData


def test_what_pynetdicom_sends_arrives_byte_for_byte() -> None:
    inbox, ds = Inbox(), make_dx()
    ds.add(pydicom.DataElement(0x00091001, "UN", b"\x00\x01private\xff"))
    with listening(inbox) as listener, associated(listener.port) as assoc:
        assert assoc.send_c_store(ds).Status == 0x0000
    (request,) = inbox.stored
    assert request.dataset == encoded(ds)


def test_many_objects_over_one_association_all_arrive(tmp_path: Path) -> None:
    inbox = Inbox()
    paths = []
    for number in range(30):
        ds = make_dx()
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
        paths.append(write(ds, tmp_path / f"{number}.dcm"))
    with listening(inbox) as listener:
        assert storescu(listener.port, "-R", *paths).returncode == 0
    assert [request.sop_instance_uid for request in inbox.stored] == [f"1.2.3.{number + 1}" for number in range(30)]


def test_a_private_storage_class_is_kept_too() -> None:
    private = "1.2.826.0.1.3680043.10.9999.1"
    inbox, ds = Inbox(), make_dx()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = private
    context = (private, [ExplicitVRLittleEndian])
    with listening(inbox) as listener, associated(listener.port, contexts=(context,)) as assoc:
        assert assoc.send_c_store(ds).Status == 0x0000
    assert inbox.stored[0].sop_class_uid == private


def test_a_calling_title_that_is_not_listed_is_rejected_and_one_that_is_is_not() -> None:
    settings, inbox = replace(SETTINGS, calling_ae_titles=("XRAY1",)), Inbox()
    with listening(inbox, settings) as listener:
        assert rejection(listener.port, calling="STRANGER") == (1, 1, 3)
        wait_for(lambda: inbox.rejected_callers, "the word of the rejection")
        assert inbox.rejected_callers == [("STRANGER", "127.0.0.1", "calling_ae")]
        with associated(listener.port, calling="XRAY1") as assoc:
            assert assoc.is_established


def test_associations_over_the_limit_are_rejected_and_taken_when_one_ends() -> None:
    with listening(Inbox(), replace(SETTINGS, places=Places(1))) as listener:
        with associated(listener.port) as first:
            assert first.is_established
            assert rejection(listener.port) == (2, 3, 2)

        def taken() -> bool:
            with associated(listener.port) as third:
                return bool(third.is_established)

        wait_for(taken, "the place of the first")


@pytest.mark.parametrize(
    ("proposed", "accepted"),
    [
        ([JPEGBaseline8Bit, JPEG2000Lossless, RLELossless], RLELossless),
        ([ImplicitVRLittleEndian, ExplicitVRLittleEndian], ExplicitVRLittleEndian),
        ([JPEGBaseline8Bit], JPEGBaseline8Bit),
    ],
)
def test_the_syntax_cheapest_to_decode_is_accepted_and_lossless_before_lossy(proposed: list[str], accepted: str) -> None:
    context = (DigitalXRayImageStorageForPresentation, proposed)
    with listening(Inbox()) as listener, associated(listener.port, contexts=(context,)) as assoc:
        assert [each.transfer_syntax for each in assoc.accepted_contexts] == [[accepted]]


def test_syntaxes_nobody_knows_come_last_in_the_order_given() -> None:
    unknown = ["1.2.3", "1.2.4"]
    assert preferred_order([*unknown, *reversed(PREFERRED_SYNTAXES)]) == [*PREFERRED_SYNTAXES, *unknown]


@pytest.mark.parametrize(
    ("error", "status"),
    [(OSError(errno.ENOSPC, "full"), 0xA700), (ZeroDivisionError(), 0x0110), (MemoryError(), 0xA700)],
)
def test_an_error_becomes_its_status_and_the_association_lives_on(error: BaseException, status: int) -> None:
    inbox, ds = Inbox(), make_dx()
    inbox.fails_with = error
    with listening(inbox) as listener, associated(listener.port) as assoc:
        assert assoc.send_c_store(ds).Status == status
        assert inbox.refused == [(status, error)]
        inbox.fails_with = None
        assert assoc.send_c_store(ds).Status == 0x0000


def test_a_port_in_use_is_an_os_error_at_once() -> None:
    with listening(Inbox()) as listener, pytest.raises(OSError, match="in use"):
        listen(replace(SETTINGS, port=listener.port), keeper=Inbox())


def test_a_closed_listener_takes_no_association() -> None:
    with listening(Inbox()) as listener:
        port = listener.port
    with associated(port) as assoc:
        assert not assoc.is_established


def test_an_open_association_may_finish_while_the_listener_closes() -> None:
    inbox = Inbox()
    listener = listen(SETTINGS, keeper=inbox)
    with associated(listener.port) as assoc:
        assert assoc.send_c_store(make_dx()).Status == 0x0000
        assoc.release()
    listener.close()
    assert len(inbox.stored) == 1


# the whole receiver: listener, files and database


@contextmanager
def receiving(test_database: TestDatabase, data_dir: Path) -> Iterator[tuple[Any, int, Callable[[], int]]]:
    site = make_site(test_database.opened, data_dir)
    site.parts = replace(site.parts, settings=Settings(data_dir=data_dir, dicom=DicomSettings(port=0)))
    arrived: list[None] = []
    with receiver(site.parts, arrived=lambda: arrived.append(None)) as listener:
        yield site, listener.port, lambda: len(arrived)


def test_success_means_a_durable_file_and_a_row(test_database: TestDatabase, tmp_path: Path) -> None:
    with receiving(test_database, tmp_path) as (site, port, arrived):
        ds = make_dx()
        assert storescu(port, "-R", write(ds, tmp_path / "image.dcm")).returncode == 0
        (image,) = site.study(study_uid())["images"]
        kept = pydicom.dcmread(site.parts.data_dir / image["path"])
        assert kept == ds
        assert kept.file_meta.SourceApplicationEntityTitle == "XRAY1"
        assert arrived() == 1


def _mismatched() -> Dataset:
    ds = make_dx()
    del ds.StudyInstanceUID
    return ds


def test_refused_objects_get_their_status_are_not_kept_and_are_remembered(
    test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving(test_database, tmp_path) as (site, port, arrived), associated(port) as assoc:
        assert assoc.send_c_store(_mismatched()).Status == 0xA900
        with monkeypatch.context() as broken:
            fail_syncs(broken, errno.ENOSPC)
            assert assoc.send_c_store(make_dx()).Status == 0xA700
        assert [path.stat().st_size for path in site.received_files()] == [0], "nobody takes it for whole"
        assert arrived() == 0
        with test_database.opened.read() as connection:
            count, newest = events.count_since(connection, "refused", since=site.clock())
        assert count == 2
        assert newest.startswith("0xA700 to MODALITY at 127.0.0.1")
        assert assoc.send_c_store(make_dx()).Status == 0x0000
        (kept,) = site.received_files()
        assert pydicom.dcmread(kept) == make_dx()


def test_a_database_that_is_away_answers_out_of_resources_and_takes_the_object_later(
    test_database: TestDatabase, tmp_path: Path
) -> None:
    with receiving(test_database, tmp_path) as (site, port, _), associated(port) as assoc:
        with test_database.away():
            assert assoc.send_c_store(make_dx()).Status == 0xA700
        assert assoc.send_c_store(make_dx()).Status == 0x0000
        assert len(site.study(study_uid())["images"]) == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_every_real_radiograph_is_taken_as_it_is(test_database: TestDatabase, tmp_path: Path) -> None:
    found = sorted(dicom_folder().glob("chest_*.dcm"))
    paths = [path for path in found if path.read_bytes()[128:132] == b"DICM"][:3]  # dcmsend sends no others
    assert paths
    with receiving(test_database, tmp_path) as (site, port, _):
        done = subprocess.run(
            [need("dcmsend"), "-dn", "-nh", "-aec", "CXRWORKER", "127.0.0.1", str(port), *map(str, paths)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        kept = {pydicom.dcmread(path).SOPInstanceUID: path for path in site.received_files()}
        for path in paths:
            sent = pydicom.dcmread(path)
            assert pydicom.dcmread(kept[sent.SOPInstanceUID]) == sent


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_port_in_use_is_a_configuration_error_that_names_the_key(test_database: TestDatabase, tmp_path: Path) -> None:
    with listening(Inbox()) as listener:
        site = make_site(test_database.opened, tmp_path)
        taken = replace(site.parts, settings=Settings(data_dir=tmp_path, dicom=DicomSettings(port=listener.port)))
        with pytest.raises(ConfigurationError, match=r"^dicom.port: .*Is another worker running"):
            receiver(taken, arrived=lambda: None)


def _as_file(request: SentRequest) -> Any:
    return BytesIO(file_header(request, receiver="CXRWORKER") + request.dataset)


def test_verification_is_offered_beside_storage() -> None:
    with (
        listening(Inbox()) as listener,
        associated(listener.port, contexts=((Verification, [ImplicitVRLittleEndian]),)) as assoc,
    ):
        assert assoc.send_c_echo().Status == 0x0000


def test_a_sender_that_stops_in_the_middle_of_a_pdu_gives_its_place_back() -> None:
    with (
        listening(Inbox(), replace(SETTINGS, places=Places(1), patience=Patience(stall_seconds=0.3))) as listener,
        socket.create_connection(("127.0.0.1", listener.port)) as stalled,
    ):
        stalled.sendall(b"\x01\x00\x00\x00\x10\x00" + bytes(100))  # an A-ASSOCIATE-RQ of 4096 bytes, 100 of them sent
        peer = Peer(ae_title="CXRWORKER", host="127.0.0.1", port=listener.port)

        def answered() -> bool:
            try:
                echo(peer, calling_ae_title="GOOD")
            except DicomError:
                return False
            return True

        wait_for(answered, "a good sender gets through while the other one still stands there")
