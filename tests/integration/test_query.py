"""How many instances a study has, asked of a real PACS and of peers that misbehave."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification

from dicom_io import query
from dicom_io.errors import PeerRefused, PeerUnavailable
from dicom_io.query import count_instances
from dicom_io.sender import send
from dicom_io.values import Peer, StudyUID
from tests.factories import make_study, study_uid, write
from tests.fakes import free_port
from tests.requirements import need
from tests.servers import orthanc

Answers = Iterator[tuple[int, Dataset | None]]


@contextmanager
def archive(answer: Callable[[Dataset], Answers], *, finds: bool = True) -> Iterator[Peer]:
    """A peer that answers C-FIND as it is told."""
    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind if finds else Verification)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, lambda event: answer(event.identifier))]
    )
    try:
        yield Peer(ae_title="ARCHIVE", host="127.0.0.1", port=server.server_address[1])
    finally:
        ae.shutdown()


def found(uid: str, count: Any) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = "STUDY"
    ds.StudyInstanceUID = uid
    if count is not None:
        ds.add_new(0x00201208, "LO" if isinstance(count, str) else "IS", count)
    return ds


def ask(peer: Peer, *uids: str) -> list[int | PeerRefused | None]:
    return [count for _, count in count_instances(peer, [StudyUID(uid) for uid in uids], calling_ae_title="CXRWORKER")]


def test_orthanc_says_how_many_instances_a_study_has(tmp_path: Path) -> None:
    need("Orthanc")
    files = [write(ds, tmp_path / f"{number}.dcm") for number, ds in enumerate(make_study(views=("PA", "LL", "PA")))]
    with orthanc(tmp_path) as running:
        peer = Peer(ae_title="ORTHANC", host="127.0.0.1", port=running.dicom_port)
        assert [outcome.error for outcome in send(peer, files, calling_ae_title="MODALITY")] == [None] * 3
        assert ask(peer, study_uid(), "1.2.3", study_uid()) == [3, None, 3]


def test_the_question_names_the_study_and_asks_for_the_count_alone() -> None:
    asked: list[Dataset] = []

    def answer(identifier: Dataset) -> Answers:
        asked.append(identifier)
        yield 0xFF00, found("1.2.3", 7)

    with archive(answer) as peer:
        assert ask(peer, "1.2.3") == [7]
    assert {element.keyword: element.value for element in asked[0]} == {
        "QueryRetrieveLevel": "STUDY",
        "StudyInstanceUID": "1.2.3",
        "NumberOfStudyRelatedInstances": None,
    }


@pytest.mark.parametrize("count", [None, "", "many", "-3", "1e9", "12345678901234567890"])
def test_a_count_that_is_none_is_none(count: Any) -> None:
    with archive(lambda _: iter([(0xFF00, found("1.2.3", count))])) as peer:
        assert ask(peer, "1.2.3") == [None]


@pytest.mark.parametrize("answers", [(("1.2.4", 7), ("1.2.3", 2)), (("1.2.3", 2), ("1.2.4", 7))])
def test_a_count_of_another_study_does_not_count(answers: tuple[tuple[str, int], ...]) -> None:
    with archive(lambda _: iter([(0xFF00, found(*each)) for each in answers])) as peer:
        assert ask(peer, "1.2.3") == [2]


def test_a_peer_that_does_not_finish_its_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "ANSWER_SECONDS", 0.2)
    gone = Event()

    def answer(_: Dataset) -> Answers:
        yield 0xFF00, found("1.2.3", 7)
        gone.wait(10)

    with archive(answer) as peer:
        with pytest.raises(PeerUnavailable, match="did not finish"):
            ask(peer, "1.2.3")
        gone.set()


def test_a_peer_that_names_every_study_it_has_is_not_listened_to_for_long() -> None:
    with (
        archive(lambda _: ((0xFF00, found(f"1.2.{number}", 7)) for number in range(5000))) as peer,
        pytest.raises(PeerRefused, match="with many"),
    ):
        ask(peer, "1.2.3")


def test_a_refused_question_is_answered_with_an_error_that_names_the_status_and_the_others_are_asked() -> None:
    def answer(identifier: Dataset) -> Answers:
        uid = identifier.StudyInstanceUID
        yield (0xA700, None) if uid == "1.2.3" else (0xFF00, found(uid, 7))

    with archive(answer) as peer:
        first, refused, last = ask(peer, "1.2.2", "1.2.3", "1.2.4")
    assert (first, last) == (7, 7)
    assert isinstance(refused, PeerRefused)
    assert "0xA700" in str(refused)


def test_a_peer_that_answers_no_queries_is_an_error() -> None:
    with archive(lambda _: iter([]), finds=False) as peer, pytest.raises(PeerRefused):
        ask(peer, "1.2.3")


def test_a_peer_that_is_away_is_an_error() -> None:
    with pytest.raises(PeerUnavailable):
        ask(Peer(ae_title="ARCHIVE", host="127.0.0.1", port=free_port()), "1.2.3")
