"""Which outputs are made of a study, for whom, and when again."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import event

from dicom_io.kinds import SERIES, Kind
from dicom_io.wording import Language
from tests.factories import make_dx, make_study, study_uid
from tests.fakes import FakePacs, Site, make_site, model_identity
from worker.db import analyses, studies
from worker.db.database import Database
from worker.destination import Destination
from worker.values import Output

EVERYTHING = tuple(Kind)


def site_for(database: Database, folder: Path, *destinations: Destination) -> Site:
    return make_site(database, folder / "var", destinations=destinations)


def kinds(study: dict[str, Any]) -> list[str]:
    return sorted(report["kind"] for report in study["reports"])


def flag(site: Site, *objects: Any) -> None:
    site.engine.labels |= {str(ds.SOPInstanceUID): "Pneumonia" for ds in objects}


def test_every_kind_reaches_a_destination_that_asks_for_all(database: Database, tmp_path: Path, pacs: FakePacs) -> None:
    site = site_for(database, tmp_path, pacs.destination(outputs=EVERYTHING))
    film = make_dx()
    flag(site, film)
    site.receive(film)
    site.settle()
    site.deliver()
    assert kinds(site.study(study_uid())) == sorted(set(Kind) - {Kind.NOT_ANALYSED})
    assert site.study(study_uid())["state"] == "delivered"
    numbers = {ds.SeriesNumber: ds.SOPClassUID for ds in pacs.received}
    assert numbers == {series.number: series.sop_classes[0] for kind, series in SERIES.items() if kind != Kind.NOT_ANALYSED}
    assert (
        len({ds.SOPInstanceUID for ds in pacs.received}) == len({ds.SeriesInstanceUID for ds in pacs.received}) == len(numbers)
    )
    for ds in pacs.received:
        assert (ds.PatientID, ds.StudyInstanceUID, ds.AccessionNumber) == ("TEST-0001", study_uid(), "ACC-1")


def test_a_key_object_is_made_of_flagged_studies_alone(database: Database, tmp_path: Path, pacs: FakePacs) -> None:
    site = site_for(database, tmp_path, pacs.destination(outputs=("sr", "key_object")))
    calm, flagged = make_study("calm", views=("PA",)), make_study("flagged", views=("PA",))
    flag(site, *flagged)
    site.receive(*calm, *flagged)
    site.settle()
    assert kinds(site.study(study_uid("calm"))) == ["sr"]
    assert kinds(site.study(study_uid("flagged"))) == ["key_object", "sr"]


@pytest.mark.parametrize("outputs", [("key_object",), ("not_analysed",)])
def test_a_study_of_which_no_destination_wants_anything_is_delivered_and_without_one_it_is_not(
    database: Database, tmp_path: Path, pacs: FakePacs, outputs: tuple[str, ...]
) -> None:
    site = site_for(database, tmp_path, pacs.destination(outputs=outputs))
    site.receive(*make_study("calm", views=("PA",)))
    site.settle()
    assert site.deliver() == 0
    calm = site.study(study_uid("calm"))
    assert (calm["state"], kinds(calm), calm["deliveries"]) == ("delivered", ["sr"], [])
    nowhere = replace(site.parts, settings=site.parts.settings.model_copy(update={"destinations": ()}))
    site.parts = nowhere
    site.receive(*make_study("other", views=("PA",)))
    site.settle()
    assert site.study(study_uid("other"))["state"] == "reported"


def test_a_study_of_which_nothing_is_wanted_any_more_still_waits_for_what_is_on_its_way(
    database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    site = site_for(database, tmp_path, pacs.destination(outputs=("key_object",)))
    (film,) = make_study(views=("PA",))
    flag(site, film)
    site.receive(film)
    site.settle()
    site.engine.labels.clear()
    again(site)
    site.settle()
    assert site.study(study_uid())["state"] == "reported"
    assert site.deliver() == 1
    assert site.study(study_uid())["state"] == "delivered"


def test_each_destination_gets_its_own_language(database: Database, tmp_path: Path, pacs: FakePacs) -> None:
    english = pacs.destination("english", outputs=("text_sr",))
    spanish = pacs.destination("spanish", outputs=("text_sr", "sr"), language="es")
    site = site_for(database, tmp_path, english, spanish)
    site.receive(make_dx())
    site.settle()
    site.deliver()
    made = {(report["kind"], report["language"]) for report in site.study(study_uid())["reports"]}
    assert made == {("text_sr", "en"), ("text_sr", "es"), ("sr", "es")}
    assert sorted(ds.SeriesDescription[:3] for ds in pacs.received) == ["AI:", "IA:", "IA:"]
    sent = {(each["destination"], each["kind"]) for each in site.study(study_uid())["deliveries"]}
    assert sent == {("english", "text_sr"), ("spanish", "text_sr"), ("spanish", "sr")}


def test_a_later_result_names_the_earlier_one_of_its_own_kind_and_language(
    database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    outputs = ("sr", "text_sr", "capture")
    site = site_for(
        database, tmp_path, pacs.destination(outputs=outputs), pacs.destination("es", outputs=outputs, language="es")
    )
    first, second = make_study(views=("PA", "AP"))
    site.receive(first)
    site.settle()
    site.deliver()
    before = {(ds.SeriesNumber, ds.SeriesDescription): ds.SOPInstanceUID for ds in pacs.received}
    pacs.received.clear()
    site.receive(second)
    site.settle()
    site.deliver()
    assert len(pacs.received) == 6
    for ds in pacs.received:
        assert ds.SOPInstanceUID not in before.values()
        if ds.Modality == "SR":
            (study,) = ds.PredecessorDocumentsSequence
            named = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            assert named == before[ds.SeriesNumber, ds.SeriesDescription]


def test_a_heat_map_waits_for_no_model_that_is_gone(database: Database, tmp_path: Path, pacs: FakePacs) -> None:
    site = site_for(database, tmp_path, pacs.destination(outputs=("sr", "heatmap", "segmentation")))
    site.receive(make_dx())
    analysed_by = site.engine.model
    explain = site.engine.explain

    def by_another(pixels: Any, model: Any, label: str) -> Any:
        assert model == analysed_by
        site.engine.model = model_identity("2.0")
        return explain(pixels, model, label)

    site.engine.explain = by_another  # type: ignore[method-assign]
    site.settle()
    shown = site.study(study_uid())
    assert (shown["state"], kinds(shown)) == ("reported", ["sr"])
    skipped = [event["detail"] for event in shown["events"] if event["kind"] == "output_skipped"]
    assert [detail.split(":")[0] for detail in skipped] == ["No heatmap", "No segmentation"]


def test_the_same_result_is_never_a_second_object(database: Database, tmp_path: Path, pacs: FakePacs) -> None:
    site = site_for(database, tmp_path, pacs.destination(outputs=EVERYTHING))
    film = make_dx()
    flag(site, film)
    site.receive(film)
    site.settle()
    site.deliver()
    sent = len(pacs.received)
    again(site)
    site.settle()
    site.deliver()
    assert len(pacs.received) == sent
    assert site.study(study_uid())["state"] == "delivered"


def again(site: Site, name: str = "study") -> None:
    with site.database.write() as connection:
        found = studies.find(connection, study_uid(name))
        assert found is not None
        studies.analyse_again(connection, [found], now=site.clock(), why="test")


# Not analysed


def lateral(site: Site) -> None:
    site.receive(*make_study("lateral", views=("LL",)))
    site.settle()


def test_a_study_that_is_not_analysed_is_explained_where_that_is_wanted(
    database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    told = pacs.destination("told", outputs=("sr", "not_analysed"))
    site = site_for(database, tmp_path, told, pacs.destination("other", outputs=("sr",)))
    lateral(site)
    site.deliver()
    shown = site.study(study_uid("lateral"))
    assert shown["state"] == "not_analysed"
    assert [(each["destination"], each["kind"], each["state"]) for each in shown["deliveries"]] == [
        ("told", "not_analysed", "delivered")
    ]
    (ds,) = pacs.received
    assert (ds.SeriesNumber, ds.StudyInstanceUID) == (SERIES[Kind.NOT_ANALYSED].number, study_uid("lateral"))
    assert "%" not in str(ds)


def test_the_explanation_is_made_once_and_a_new_one_names_it(database: Database, tmp_path: Path, pacs: FakePacs) -> None:
    site = site_for(database, tmp_path, pacs.destination(outputs=("sr", "not_analysed")))
    lateral(site)
    site.settle()
    again(site, "lateral")
    site.settle()
    site.deliver()
    assert len(pacs.received) == 1
    another, *_ = make_study("lateral", views=("LL", "LL"))[1:]
    site.receive(another)
    site.settle()
    site.deliver()
    first, second = pacs.received
    (study,) = second.PredecessorDocumentsSequence
    assert study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID


def test_a_frontal_image_that_comes_later_is_answered(database: Database, tmp_path: Path, pacs: FakePacs) -> None:
    site = site_for(database, tmp_path, pacs.destination(outputs=("sr", "not_analysed")))
    frontal, side = make_study("lateral", views=("PA", "LL"))
    site.receive(side)
    site.settle()
    site.receive(frontal)
    site.settle()
    site.deliver()
    assert kinds(site.study(study_uid("lateral"))) == ["not_analysed", "sr"]
    assert site.study(study_uid("lateral"))["state"] == "delivered"


def test_an_explanation_that_cannot_be_made_is_noted_and_not_tried_for_ever(
    database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    site = site_for(database, tmp_path, pacs.destination(outputs=("sr", "not_analysed")))
    (side,) = make_study("lateral", views=("LL",))
    site.receive(side)
    (path,) = site.received_files()
    path.write_bytes(path.read_bytes()[:40])
    site.settle()
    site.settle()
    assert site.study(study_uid("lateral"))["state"] == "not_analysed"
    assert site.events(study_uid("lateral")).count("output_skipped") == 1


def _untold(site: Site) -> bool:
    with site.database.read() as connection:
        return analyses.some_untold(connection)


def test_a_study_is_not_looked_at_again_once_everybody_knows_that_it_was_not_analysed(
    database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    english, spanish = (pacs.destination(name, outputs=("not_analysed",), language=name) for name in ("en", "es"))
    site = site_for(database, tmp_path, english, spanish)
    lateral(site)
    assert len(site.study(study_uid("lateral"))["reports"]) == 2
    assert not _untold(site)
    again(site, "lateral")
    assert not _untold(site), "it is analysed first"
    site.settle()
    assert not _untold(site), "what was found is the same"


def test_a_study_that_was_not_analysed_while_nobody_wanted_to_know_is_told_of_to_those_who_ask_for_it(
    database: Database, tmp_path: Path, pacs: FakePacs
) -> None:
    site = site_for(database, tmp_path)
    lateral(site)
    assert not _untold(site)
    wants = pacs.destination(outputs=("not_analysed",))
    site.configure(destinations=(wants,))
    site.settle()
    assert site.deliver() == 0, "a new destination gets the reports of new studies"
    again(site, "lateral")
    site.settle()
    assert site.deliver() == 1


def test_an_explanation_that_is_put_off_is_still_to_be_given(
    database: Database, tmp_path: Path, pacs: FakePacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_for(database, tmp_path, pacs.destination(outputs=("not_analysed",)))
    with monkeypatch.context() as patched:
        patched.setattr("worker.telling.keep", Mock(side_effect=OSError(28, "No space left on device")))
        lateral(site)
    assert _untold(site)
    site.clock.go_on(minutes=10)
    site.settle()
    assert site.deliver() == 1
    assert not _untold(site)


def test_an_index_finds_the_studies_of_which_nobody_was_told(database: Database, tmp_path: Path) -> None:
    site, output = (
        make_site(database, tmp_path / "var"),
        Output(kind=Kind.NOT_ANALYSED, sop_class_uid=SERIES[Kind.NOT_ANALYSED].sop_classes[0], language=Language.ENGLISH),
    )
    asked: list[tuple[str, Any]] = []
    with database.read() as connection:
        event.listen(connection, "before_cursor_execute", lambda *args: asked.append((args[2], args[3])))
        analyses.some_untold(connection)
        analyses.unanswered(connection, (output,), now=site.clock(), limit=64, data_dir=tmp_path)
        assert len(asked) == 2
        for statement, parameters in tuple(asked):
            if database.dialect == "postgresql":
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # the table is empty
            explain = "EXPLAIN " if database.dialect == "postgresql" else "EXPLAIN QUERY PLAN "
            plan = str(connection.exec_driver_sql(explain + statement, parameters).all())
            assert "ix_studies_untold" in plan


@pytest.mark.parametrize("kind", sorted(set(Kind)))
def test_every_kind_may_be_asked_for_in_the_configuration(kind: Kind) -> None:
    assert Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, outputs=(kind,)).outputs == (kind,)
