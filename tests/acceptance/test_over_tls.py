"""A worker as it is deployed: by TLS in and out, and its figures asked for by HTTP."""

import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.certificates import Authority
from tests.factories import make_study, study_uid, write
from tests.fakes import free_port
from tests.requirements import need
from tests.servers import storescu, wait_for, worker


def figures(port: int) -> dict[tuple[str, ...], float]:
    """What a scrape finds, by name and values of the labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_a_study_that_comes_over_tls_is_analysed_and_counted(tmp_path: Path) -> None:
    need("storescu")
    authority, port = Authority(tmp_path), free_port()
    own, modality = authority.issue("worker"), authority.issue("modality")
    config = (
        f'[dicom.tls]\ncertificate = "{own.certificate}"\nkey = "{own.key}"\nca = "{authority.file}"\nport = {port}\n'
        "[study]\nquiet_seconds = 0.2\n"
    )
    films = [write(ds, tmp_path / f"{number}.dcm") for number, ds in enumerate(make_study())]
    with worker(tmp_path, config) as running:
        running.start()
        trusted = ("+tls", str(modality.key), str(modality.certificate), "+cf", str(authority.file))
        assert storescu(port, *films, options=trusted).returncode == 0
        assert storescu(port, *films).returncode != 0
        wait_for(lambda: (running.study(study_uid()) or {}).get("state") == "reported", "the study is reported")
        (ready,) = [event for event in running.events() if event["event"] == "web.ready"]
        wait_for(lambda: figures(ready["port"]).get(("cxr_associations_rejected_total", "other", "tls")), "it is counted")
        found = figures(ready["port"])
        assert found["cxr_objects_total", "MODALITY1", "0x0000"] == len(films)
        assert found["cxr_studies", "reported"] == 1
        assert found["cxr_studies_analysed_total",] == 1
        assert found["cxr_database_up",] == 1
        assert found["cxr_certificate_expires_timestamp_seconds", "dicom.tls.certificate"] > 0
        assert any(name[:2] == ("cxr_model_info", "lenet5") for name in found)
        assert running.stop() == 0
