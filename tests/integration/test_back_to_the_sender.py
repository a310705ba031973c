"""Results go back to whoever sent the images, on both databases."""

from pathlib import Path
from typing import Any

import pytest

from dicom_io.kinds import Kind
from tests.factories import make_study, study_uid
from tests.fakes import FakePacs, Site, fake_pacs, make_site
from worker.configuration import read_settings
from worker.db.database import Database
from worker.errors import ConfigurationError
from worker.settings import Settings

BACK = """
[[destinations]]
name = "back"
to_sender = true
outputs = ["sr"]
callers = [
    {{ ae_title = "MODALITY 1", host = "127.0.0.1", port = {first} }},
    {{ ae_title = "MODALITY2", host = "127.0.0.1", port = {second} }},
]
"""


def _settings(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "cxr-worker.toml"
    path.write_text(text)
    return read_settings(path, environment={})


def _sites(database: Database, tmp_path: Path, *ports: int, more: tuple[Any, ...] = ()) -> Site:
    settings = _settings(tmp_path, BACK.format(first=ports[0], second=ports[1]))
    return make_site(database, tmp_path / "var", destinations=(*settings.destinations, *more))


def _receive(site: Site, name: str, *, sender: str) -> None:
    site.receive(*make_study(name, views=("PA",)), calling_ae_title=sender)


def test_each_sender_is_sent_the_results_of_its_own_studies(database: Database, tmp_path: Path) -> None:
    with fake_pacs() as first, fake_pacs() as second:
        site = _sites(database, tmp_path, first.port, second.port)
        _receive(site, "one", sender="MODALITY 1")
        _receive(site, "two", sender="MODALITY2")
        site.settle()
        assert site.deliver() == 2
        assert [ds.StudyInstanceUID for ds in first.received] == [study_uid("one")]
        assert [ds.StudyInstanceUID for ds in second.received] == [study_uid("two")]
    (delivery,) = site.study(study_uid("one"))["deliveries"]
    assert (delivery["destination"], delivery["state"]) == ("back-MODALITY_1", "delivered")


def test_an_unknown_sender_is_named_and_the_other_destinations_get_the_results(
    database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    site = _sites(database, tmp_path, 104, 104, more=(pacs.destination(outputs=("sr",)),))
    _receive(site, "study", sender="STRANGER")
    site.settle()
    assert site.deliver() == 1
    shown = site.study(study_uid())
    assert shown["state"] == "delivered"
    assert [event["detail"] for event in shown["events"] if event["kind"] == "no_way_back"] == [
        "STRANGER sent images and is in no table of callers ([[destinations.callers]]): it is sent no results."
    ]


def test_a_study_of_two_senders_goes_back_to_both(database: Database, tmp_path: Path) -> None:
    with fake_pacs() as first, fake_pacs() as second:
        site = _sites(database, tmp_path, first.port, second.port)
        one, two = make_study(views=("PA", "AP"))
        site.receive(one, calling_ae_title="MODALITY 1")
        site.receive(two, calling_ae_title="MODALITY2")
        site.settle()
        assert site.deliver() == 2
        assert (len(first.received), len(second.received)) == (1, 1)


def test_a_report_does_not_go_to_a_sender_that_took_another_one_s_place(database: Database, tmp_path: Path) -> None:
    with fake_pacs() as first, fake_pacs() as second:
        site = _sites(database, tmp_path, first.port, second.port)
        _receive(site, "one", sender="MODALITY 1")
        site.settle()
        known = site.parts.settings.destinations[0].model_copy(update={"ae_title": "MODALITY3"})
        site.configure(destinations=(known,))
        assert site.deliver() == 0
        assert first.received == []
    (delivery,) = site.study(study_uid("one"))["deliveries"]
    assert delivery["state"] == "failed"
    assert delivery["last_error"] == (
        "MODALITY3 did not send this study: another sender was 'back-MODALITY_1' when it was reported."
    )


def test_a_sender_is_told_why_its_study_was_not_analysed_and_no_other_is(database: Database, tmp_path: Path) -> None:
    with fake_pacs() as first, fake_pacs() as second:
        site = _sites(database, tmp_path, first.port, second.port)
        told = tuple(known.model_copy(update={"outputs": (Kind.NOT_ANALYSED,)}) for known in site.parts.settings.destinations)
        site.configure(destinations=told)
        site.receive(*make_study(views=("LL",)), calling_ae_title="MODALITY2")
        site.settle()
        assert site.deliver() == 1
        assert (len(first.received), len(second.received)) == (0, 1)


def test_the_port_of_a_caller_is_104_where_none_is_given(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path, '[[destinations]]\nname = "back"\nto_sender = true\ncallers = [{ ae_title = "CR1", host = "10.0.0.5" }]\n'
    )
    (known,) = settings.destinations
    assert (known.name, known.ae_title, known.host, known.port, known.to_sender) == ("back-CR1", "CR1", "10.0.0.5", 104, True)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('callers = [{ ae_title = "CR1", host = "10.0.0.5" }]', "to_sender = true"),
        ('to_sender = true\ncallers = ["CR1"]', "a caller is a table"),
        ('to_sender = true\ncallers = [{ ae_title = "CR1" }]', "host"),
        ('to_sender = true\ncallers = [{ ae_title = "A B", host = "h" }, { ae_title = "A_B", host = "h" }]', "same name"),
    ],
)
def test_a_wrong_table_of_callers_is_explained(tmp_path: Path, lines: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        _settings(tmp_path, f'[[destinations]]\nname = "back"\n{lines}\n')


@pytest.mark.parametrize("second", ['host = "10.0.0.6"', 'host = "10.0.0.5", port = 105'])
def test_one_sender_at_two_addresses_is_refused_for_each_would_be_sent_the_results_of_the_other(
    tmp_path: Path, second: str
) -> None:
    block = '[[destinations]]\nname = "{}"\nto_sender = true\ncallers = [{{ ae_title = "CR1", {} }}]\n'
    first = block.format("north", 'host = "10.0.0.5"')
    with pytest.raises(ConfigurationError, match="north-CR1 and south-CR1 are both the sender CR1, at different addresses"):
        _settings(tmp_path, first + block.format("south", second))
    assert len(_settings(tmp_path, first + block.format("south", 'host = "10.0.0.5"')).destinations) == 2
    other = '[[destinations]]\nname = "archive"\nae_title = "CR1"\nhost = "10.0.0.6"\nport = 104\n'
    assert len(_settings(tmp_path, first + other).destinations) == 2, "it is sent everything anyway"
