"""Several receivers on one port, as a busy site has them."""

import urllib.request
from collections import Counter
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.factories import make_study, write
from tests.requirements import need
from tests.servers import Worker, free_port, storescu, wait_for, worker

STUDIES = 12


def test_whoever_takes_an_object_it_is_kept_and_analysed_and_a_killed_receiver_is_replaced(tmp_path: Path) -> None:
    need("storescu")
    films = [write(ds, tmp_path / f"{ds.SOPInstanceUID}.dcm") for number in range(STUDIES) for ds in make_study(str(number))]
    with worker(tmp_path, "[study]\nquiet_seconds = 0.2\n", dicom="receivers = 3\n") as running:
        running.start()
        first = the_first(running)
        for film in films[: len(films) // 2]:
            assert storescu(running.port, film).returncode == 0
        beside = first.children()[-1]
        beside.kill()
        wait_for(lambda: len(first.children()) == 3 and beside not in first.children(), "another", seconds=30)
        for film in films[len(films) // 2 :]:
            assert storescu(running.port, film).returncode == 0
        wait_for(lambda: {study["state"] for study in running.studies()} == {"reported"}, "they are reported", seconds=60)
        assert len(running.studies()) == STUDIES
        assert running.stop() == 0


def test_one_page_tells_what_all_receivers_counted_and_forgets_nothing_of_one_that_was_killed(tmp_path: Path) -> None:
    need("storescu")
    (film,) = [write(ds, tmp_path / "film.dcm") for ds in make_study(views=("PA",))]
    with worker(tmp_path, "", dicom='receivers = 3\ncalling_ae_titles = ["MODALITY1"]\n') as running:
        running.start()
        first = the_first(running)
        for _ in range(12):
            assert storescu(running.port, film).returncode == 0
        for _ in range(5):
            assert storescu(running.port, film, options=("-aet", "STRANGER")).returncode != 0
        wait_for(lambda: told(running) == sums(12, rejected=5), "the sums of all")
        for one in first.children()[1:]:  # the others, then the one with the page
            one.kill()
            wait_for(lambda one=one: len(first.children()) == 3 and one not in first.children(), "another")  # type: ignore[misc]
            assert told(running) == sums(12, rejected=5)
        pages = len(addresses(running))
        first.children()[0].kill()
        wait_for(lambda: len(addresses(running)) > pages, "another page")
        assert told(running) == sums(12, rejected=5)
        for _ in range(6):
            assert storescu(running.port, film).returncode == 0
        wait_for(lambda: told(running) == sums(18, rejected=5), "what came since")
        assert running.stop() == 0


def test_receivers_without_a_page_tell_their_sums_at_the_port_of_the_figures(tmp_path: Path) -> None:
    need("storescu")
    port = free_port()
    (film,) = [write(ds, tmp_path / "film.dcm") for ds in make_study(views=("PA",))]
    with worker(tmp_path, f"[metrics]\nport = {port}\n", dicom="receivers = 3\n") as running:
        running.start(role="receive")
        for _ in range(12):
            assert storescu(running.port, film).returncode == 0
        wait_for(lambda: told(running) == sums(12), "the sums of all")
        assert [event["event"] for event in running.events()].count("metrics.ready") == 1
        assert running.stop() == 0


def the_first(running: Worker) -> psutil.Process:
    """The process that started the others."""
    assert running.process is not None
    return psutil.Process(running.process.pid)


def addresses(running: Worker) -> list[str]:
    """Where figures were offered, the newest last."""
    return [
        f"http://{event['host']}:{event['port']}/metrics"
        for event in running.events()
        if event["event"] in {"web.ready", "metrics.ready"}
    ]


def told(running: Worker) -> Counter[str]:
    """What a scrape finds of senders, added up over them."""
    address = wait_for(lambda: addresses(running), "a page")[-1]
    with urllib.request.urlopen(address, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples]
    return Counter({name: int(sum(sample.value for sample in samples if sample.name == name)) for name in sums(0)})


def sums(stored: int, *, rejected: int = 0) -> dict[str, int]:
    """What is told once so many associations brought an object each, and others were rejected."""
    return {
        "cxr_associations_accepted_total": stored,
        "cxr_associations_rejected_total": rejected,
        "cxr_objects_total": stored,
        "cxr_store_seconds_count": stored,
        "cxr_associations_open": 0,
    }
