"""The figures for Prometheus: what a worker did, how things stand, and nothing of a patient."""

import re
import urllib.request
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from dicom_io.errors import PeerUnreachable
from tests.certificates import Authority
from tests.conftest import TestDatabase
from tests.factories import PATIENT, make_study, study_uid
from tests.fakes import FakePacs, Site, make_site
from worker.heartbeat import Heartbeat
from worker.metrics import OTHER, Metrics
from worker.settings import DicomSettings, MetricsSettings, TlsSettings, WebSettings
from worker.standing import Standing
from worker.web.server import figures, page

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
ALERTS = Path(__file__).parents[2] / "deploy" / "alerts.yml"
ON_ONE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


def watched(site: Site) -> Metrics:
    """The figures of a worker, with those that are asked at each scrape."""
    metrics = site.parts.metrics
    metrics.registry.register(Standing(site.parts.settings, site.database, site.clock))
    heartbeat = Heartbeat(timedelta(seconds=1), clock=site.clock)
    heartbeat.turned()
    metrics.registry.register(heartbeat)
    return metrics


def scrape(metrics: Metrics) -> str:
    return metrics.text("")[0].decode()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def busy(test_database: TestDatabase, tmp_path: Path, pacs: FakePacs) -> Site:
    """A worker with a delivered study, one that was not analysed, and one whose PACS is out of resources."""
    site = make_site(test_database.opened, tmp_path / "var", destinations=(pacs.destination(),))
    site.receive(*make_study("done"))
    site.settle()
    site.deliver()
    site.receive(*make_study("lateral", views=("LL",)))
    site.receive(*make_study("waiting", views=("PA",)))
    site.settle()
    pacs.status = 0xA700
    site.deliver()
    site.clock.go_on(minutes=5)
    return site


def test_studies_queues_and_attempts_are_told(busy: Site) -> None:
    metrics = watched(busy)
    assert value(metrics, "cxr_database_up") == 1
    assert value(metrics, "cxr_studies", state="delivered") == 1
    assert value(metrics, "cxr_studies", state="not_analysed") == 1
    assert value(metrics, "cxr_studies", state="failed") == 0
    assert value(metrics, "cxr_deliveries", destination="pacs", state="pending") == 2
    assert (value(metrics, "cxr_oldest_delivery_seconds", destination="pacs", state="pending") or 0) >= 300
    assert value(metrics, "cxr_oldest_study_seconds", state="ready") == 0
    assert value(metrics, "cxr_delivery_attempts_total", destination="pacs", outcome="kept") == 2
    assert value(metrics, "cxr_delivery_attempts_total", destination="pacs", outcome="PeerBusy") == 2
    assert value(metrics, "cxr_studies_analysed_total") == 3
    assert value(metrics, "cxr_analysis_seconds_count") == 2
    assert (value(metrics, "cxr_free_bytes") or 0) > 0
    last = busy.clock.now - timedelta(minutes=5, seconds=busy.parts.settings.study.quiet_seconds)
    assert value(metrics, "cxr_last_received_timestamp_seconds") == last.timestamp()


def test_the_oldest_study_that_waits_is_told(site: Site) -> None:
    metrics = watched(site)
    assert value(metrics, "cxr_last_received_timestamp_seconds") is None
    site.receive(*make_study())
    site.clock.go_on(seconds=90)
    site.receive(*make_study("newer"))
    assert value(metrics, "cxr_oldest_study_seconds", state="arriving") == 90
    assert value(metrics, "cxr_last_received_timestamp_seconds") == site.clock.now.timestamp()


def test_while_the_database_is_away_the_rest_is_told(test_database: TestDatabase, tmp_path: Path) -> None:
    metrics = watched(make_site(test_database.opened, tmp_path))
    with test_database.away():
        assert value(metrics, "cxr_database_up") == 0
        assert value(metrics, "cxr_studies", state="failed") is None
        assert (value(metrics, "cxr_free_bytes") or 0) > 0
    assert value(metrics, "cxr_database_up") == 1


@ON_ONE
def test_nothing_of_a_patient_is_told(busy: Site) -> None:
    text = scrape(watched(busy))
    for word in (PATIENT.patient_id, "TEST^", "ACC-", study_uid("done"), study_uid("waiting")):
        assert word not in text


@ON_ONE
def test_the_end_of_each_certificate_is_told_and_of_one_that_cannot_be_read_that(site: Site, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("worker", ends=timedelta(days=5))
    tls = TlsSettings(certificate=own.certificate, key=own.key, ca=tmp_path / "missing.pem")
    watched_site = make_site(site.database, tmp_path, dicom=DicomSettings(tls=tls))
    metrics = watched(watched_site)
    name = "cxr_certificate_expires_timestamp_seconds"
    assert value(metrics, name, key="dicom.tls.ca") == 0
    ends = value(metrics, name, key="dicom.tls.certificate")
    assert ends is not None
    assert ends > 0


def test_callers_are_named_up_to_a_number_and_strangers_never() -> None:
    metrics = Metrics(["CONFIGURED"])
    for number in range(1000):
        metrics.rejected(f"STRANGER{number}", "calling AE title")
    for number in range(100):
        metrics.accepted(f"CALLER{number}")
        metrics.stored(f"CALLER{number}", 0.01, 0x0000, size=10)
        metrics.closed()
    metrics.stored("CONFIGURED", 0.2, 0xA700)
    assert value(metrics, "cxr_associations_rejected_total", caller=OTHER, reason="calling AE title") == 1000
    assert value(metrics, "cxr_associations_accepted_total", caller="CALLER0") == 1
    assert value(metrics, "cxr_associations_accepted_total", caller="CALLER99") is None
    assert value(metrics, "cxr_received_bytes_total", caller="CALLER0") == 10
    assert value(metrics, "cxr_objects_total", caller="CONFIGURED", status="0xA700") == 1
    assert value(metrics, "cxr_store_seconds_count", caller="CONFIGURED") == 1
    assert value(metrics, "cxr_associations_open") == 0
    assert "STRANGER" not in scrape(metrics)
    named = {
        sample.labels["caller"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "caller" in sample.labels
    }
    assert len(named) == 66


@ON_ONE
def test_both_pages_tell_the_same(site: Site) -> None:
    metrics = watched(site)
    metrics.sent("pacs", PeerUnreachable())
    with capture_logs() as said, ExitStack() as stack:
        stack.enter_context(page(site.database, metrics, WebSettings(port=0)))
        stack.enter_context(figures(site.database, metrics, MetricsSettings(port=0)))
        ports = [line["port"] for line in said if line["event"] in {"web.ready", "metrics.ready"}]
        assert len(ports) == 2
        for port in ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                assert answer.headers["content-type"].startswith("text/plain")
                told = {family.name for family in text_string_to_metric_families(answer.read().decode())}
            assert {"cxr_database_up", "cxr_delivery_attempts"} <= told


def families(site: Site) -> dict[str, Any]:
    """Every figure by the name under which it is told."""
    collected = watched(site).registry.collect()
    return {f"{family.name}_total" if family.type == "counter" else family.name: family for family in collected}


@ON_ONE
def test_the_documentation_lists_every_figure_with_its_kind_and_no_other(busy: Site) -> None:
    listed = re.findall(r"^\| `(cxr_\w+)` \| (\w+) \|([^|]*)\|", DOCS.read_text(), re.MULTILINE)
    found = families(busy)
    assert {name: kind for name, kind, _ in listed} == {name: family.type for name, family in found.items()}
    for name, _, labels in listed:
        used = {label for sample in found[name].samples for label in sample.labels} - {"le"}
        assert used <= set(re.findall(r"`(\w+)`", labels)), name


@ON_ONE
def test_every_alert_asks_for_figures_that_exist(busy: Site) -> None:
    found = {
        told
        for name, family in families(busy).items()
        for told in ([f"{name}_bucket"] if family.type == "histogram" else [name])
    }
    headings = set(re.findall(r"^##+ (.+)$", (ALERTS.parent / "runbook.md").read_text(), re.MULTILINE))
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len(rules) >= 5
    for rule in rules:
        asked = set(re.findall(r"\bcxr_\w+", rule["expr"]))
        assert asked
        assert asked <= found, rule["alert"]
        assert rule["annotations"]["runbook"] in headings, rule["alert"]
    asked_for = " ".join(rule["expr"] for rule in rules)
    for name in (
        "cxr_free_bytes",
        "cxr_last_received_timestamp_seconds",
        "cxr_deliveries",
        "cxr_certificate_expires",
        "cxr_runner_last_turn",
        "cxr_studies",
    ):
        assert name in asked_for
