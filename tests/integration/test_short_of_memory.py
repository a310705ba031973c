"""Memory that is short now is not the image's fault: it is tried again, though not for ever."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydicom.uid import JPEGBaseline8Bit

from cxr_models.predict import Predictor
from dicom_io import decoding, header, part10
from dicom_io.frame import Frame
from dicom_io.status import StoreStatus, status_of
from tests.conftest import TestDatabase
from tests.factories import make_dx, study_uid
from tests.fakes import FakePacs, Site, make_site, request_for, take_in
from worker import pipeline
from worker.engine import LocalEngine


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    torch.set_num_threads(1)
    local = LocalEngine(Predictor.load("lenet5", device="cpu"), decode_threads=1)
    yield local
    local.close()


@pytest.fixture
def site(site: Site, engine: LocalEngine) -> Site:
    """A worker without threads that decodes and predicts as a real one does."""
    return replace(site, parts=replace(site.parts, engine=lambda: engine))


def no_memory(*_: object, **__: object) -> NoReturn:
    raise MemoryError


def settled_while_short_of_memory(site: Site, monkeypatch: pytest.MonkeyPatch, where: str) -> str:
    """The state of the study when everything was done that could be without what is named."""
    with monkeypatch.context() as short:
        short.setattr(where, no_memory)
        site.settle()
    return str(site.study(study_uid())["state"])


def test_a_study_is_analysed_when_there_is_memory_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.receive(make_dx())
    assert settled_while_short_of_memory(site, monkeypatch, "dicom_io.header.dcmread") == "ready"
    site.clock.go_on(seconds=30)
    pipeline.advance(site.parts)
    shown = site.study(study_uid())
    assert shown["state"] == "reported"
    assert [len(image["predictions"]) for image in shown["images"]] == [1]


def test_a_study_for_which_there_never_is_memory_fails_and_says_why(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.receive(make_dx())
    monkeypatch.setattr(header, "dcmread", no_memory)
    for _ in range(30):
        site.clock.go_on(minutes=10)
        pipeline.advance(site.parts)
    shown = site.study(study_uid())
    assert shown["state"] == "failed"
    assert "MemoryError" in shown["reason"]
    assert "Given up after 10 attempts." in shown["reason"]


def test_a_report_is_made_when_there_is_memory_again(
    test_database: TestDatabase, tmp_path_factory: pytest.TempPathFactory, pacs: FakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = tmp_path_factory.mktemp("var")
    site = make_site(test_database.opened, data_dir, destinations=(pacs.destination(outputs=("sr",)),))
    site.receive(make_dx())
    assert settled_while_short_of_memory(site, monkeypatch, "dicom_io.identity.read_header") == "analysed"
    site.clock.go_on(seconds=30)
    pipeline.advance(site.parts)
    assert site.study(study_uid())["state"] == "reported"


def test_a_sender_is_told_to_send_again_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part10, "read_plain", lambda *_, **__: None)  # as of an object that is out of the ordinary
    monkeypatch.setattr(part10, "read_dataset", no_memory)
    with pytest.raises(MemoryError) as caught:
        take_in(request_for(make_dx()), site.parts)
    assert status_of(caught.value) == StoreStatus.OUT_OF_RESOURCES
    assert site.received_files() == []


def test_a_library_that_takes_more_than_a_decoders_share_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy:
        available_plugins = ("pylibjpeg", "pillow")

        def as_array(self, *_: object, decoding_plugin: str, **__: object) -> tuple[NDArray[np.uint8], dict[str, object]]:
            if decoding_plugin == "pylibjpeg":
                raise MemoryError
            return np.ones((2, 3), np.uint8), {}

    monkeypatch.setattr(decoding, "get_decoder", lambda _: Greedy())
    frame = Frame(
        transfer_syntax=JPEGBaseline8Bit, rows=2, columns=3, bits_allocated=8, bits_stored=8, signed=False, data=b"\xff\xd8"
    )
    cells, note = decoding.decode(frame)
    assert cells.tolist() == [[1] * 3] * 2
    assert note == "read by pillow, refused by pylibjpeg (MemoryError)"
