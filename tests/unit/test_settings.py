"""The configuration: every mistake is one line that names the key, and the environment wins."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from worker.configuration import read_settings
from worker.errors import ConfigurationError
from worker.settings import Settings

DESTINATION = 'name = "pacs"\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = 4242\n'


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cxr-worker.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _refusal(path: Path | None = None, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(path, environment or {})
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_file_and_environment_the_defaults_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings(environment={})
    assert settings == Settings()
    assert (settings.dicom.ae_title, settings.dicom.host, settings.dicom.port) == ("CXRWORKER", "127.0.0.1", 11112)
    assert settings.database_url.get_secret_value() == "sqlite:///var/worker.db"
    assert settings.study.quiet_seconds == 5.0
    assert (settings.inference.model, settings.inference.device) == ("lenet5", "auto")
    assert (settings.web.host, settings.web.port) == ("127.0.0.1", 8080)
    assert settings.destinations == ()


def test_the_file_in_the_working_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _file(tmp_path, "[dicom]\nport = 104\n")
    assert read_settings(environment={}).dicom.port == 104


def test_a_destination_has_both_outputs_unless_it_says_otherwise(tmp_path: Path) -> None:
    (destination,) = read_settings(_file(tmp_path, f"[[destinations]]\n{DESTINATION}"), {}).destinations
    assert (destination.name, destination.ae_title, destination.port) == ("pacs", "ORTHANC", 4242)
    assert destination.outputs == ("sr", "capture")
    assert destination.sr_sop_class == "comprehensive"


def test_the_embedded_database_lies_in_the_data_folder(tmp_path: Path) -> None:
    settings = read_settings(_file(tmp_path, 'data_dir = "/srv/cxr"'), {})
    assert settings.database_url.get_secret_value() == "sqlite:////srv/cxr/worker.db"
    assert settings.embedded


def test_the_home_folder_is_meant_for_files_and_database_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/cxr")
    for settings in (read_settings(_file(tmp_path, 'data_dir = "~/x"'), {}), Settings(data_dir=Path("~/x"))):
        assert settings.data_dir == Path("/home/cxr/x")
        assert settings.database_url.get_secret_value() == "sqlite:////home/cxr/x/worker.db"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("port = 1", "unknown key 'port'"),
        ("[dicon]\nport = 1", "unknown key 'dicon'"),
        ("[dicom]\nprot = 1", "unknown key 'dicom.prot'"),
        ('[dicom]\nport = "eleven"', "dicom.port: "),
        ("[dicom]\nport = 65536", "dicom.port: "),
        ("[dicom]\nport = -1", "dicom.port: "),
        ('[dicom]\nae_title = "SEVENTEEN-LETTERS"', "dicom.ae_title: an AE title has 1 to 16"),
        ('[dicom]\nae_title = ""', "dicom.ae_title: an AE title has 1 to 16"),
        ('[dicom]\nae_title = " CXR"', "dicom.ae_title: an AE title has 1 to 16"),
        ('[dicom]\nae_title = "A\\\\B"', "dicom.ae_title: an AE title has 1 to 16"),
        ('[dicom]\nae_title = "RÖNTGEN"', "dicom.ae_title: an AE title has 1 to 16"),
        ('[dicom]\ncalling_ae_titles = ["GOOD", "MUCH-TOO-LONG-A-TITLE"]', "dicom.calling_ae_titles.1: an AE title"),
        ('[dicom]\ncalling_ae_titles = "ONE"', "dicom.calling_ae_titles: "),
        ("dicom = 5", "dicom: "),
        ("[study]\nquiet_seconds = -1", "study.quiet_seconds: "),
        ("[study]\nquiet_seconds = nan", "study.quiet_seconds: "),
        ("[study]\nquiet_seconds = inf", "study.quiet_seconds: "),
        ("[inference]\nbatch_size = 0", "inference.batch_size: "),
        ("[inference]\nbatch_size = 1.5", "inference.batch_size: "),
        ("[inference]\nmodel = 5", "inference.model: "),
        ('[schedule]\nreprocess_cron = "at ten"', "schedule.reprocess_cron: "),
        ('[schedule]\nreprocess_cron = "61 22 * * *"', "schedule.reprocess_cron: "),
        ("[schedule]\ninterval_seconds = 0", "schedule.interval_seconds: "),
        ('[schedule]\nreprocess = "sometimes"', "schedule.reprocess: "),
        ("[web]\nport = 99999", "web.port: "),
        ("[keeping]\ndays = true", "keeping.days: takes neither true nor false"),
        ("[keeping]\nmaximum_bytes = true", "keeping.maximum_bytes: takes neither true nor false"),
        ("[dicom]\nport = false", "dicom.port: takes neither true nor false"),
        ("[[study.senders]]\ncalling_ae_title = 'A'\nquiet_seconds = true", "study.senders.0.quiet_seconds: takes neither"),
        ("data_dir = 5", "data_dir: "),
        ("data_dir = ''", "data_dir: names no folder"),
        ('data_dir = "a\\u0000b"', "data_dir: names no folder"),
        ("data_dir = '~nobody-of-this-name/cxr'", "data_dir: '~nobody-of-this-name/cxr' begins with a home folder"),
        ("[[destinations]]\nname = 'p'\nto_sender = true\ncallers = 5", "destinations: callers is a list of tables"),
        (
            "[[destinations]]\nname = 'p'\nto_sender = true\ncallers = []",
            "destinations: callers is a list of tables with ae_title and host, of one at least",
        ),
        ("database_url = 5", "database_url: "),
        ("destinations = 5", "destinations: "),
        ('[[destinations]]\nname = "pacs"', "destinations.0.ae_title: "),
        (f"[[destinations]]\n{DESTINATION}colour = 1", "unknown key 'destinations.0.colour'"),
        (f'[[destinations]]\n{DESTINATION}outputs = ["fax"]', "destinations.0.outputs.0: "),
        (f"[[destinations]]\n{DESTINATION}outputs = []", "destinations.0.outputs: "),
        (f'[[destinations]]\n{DESTINATION}sr_sop_class = "basic"', "destinations.0.sr_sop_class: "),
        (f"[[destinations]]\n{DESTINATION}[[destinations]]\n{DESTINATION}", "two destinations have the same name"),
        ('[[destinations]]\nname = "a b"\nae_title = "X"\nhost = "h"\nport = 1', "destinations.0.name: "),
        ('[[destinations]]\nname = "a"\nae_title = "X"\nhost = "h"\nport = 0', "destinations.0.port: "),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    path = _file(tmp_path, text)
    message = _refusal(path)
    assert message.startswith(f"{path}: ")
    assert named in message


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"[dicom\nport", "not valid TOML"), (b"\xff\xfe\x00", "cannot be read"), (b"a = 1\na = 2", "not valid TOML")],
)
def test_a_file_that_is_no_toml_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_bytes(content)
    assert words in _refusal(path)


@pytest.mark.parametrize(
    ("written", "cure"),
    [
        ("192.0.2.5/24", "write 192.0.2.0/24 for all of it, or 192.0.2.5 for one"),
        ("2001:db8::1/32", "write 2001:db8::/32 for all of it, or 2001:db8::1 for one"),
        ("pacs.example", "names are not looked up"),
        ("192.0.2.0/33", "a network such as 192.0.2.0/24"),
    ],
)
def test_an_address_that_is_no_network_is_told_how_to_write_it(tmp_path: Path, written: str, cure: str) -> None:
    message = _refusal(_file(tmp_path, f'[dicom]\naddresses = ["198.51.100.7", "{written}"]'))
    assert "dicom.addresses.1: " in message
    assert cure in message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[[destinations]]\nname = "pacs"\nae_title = "X"\nport = 104\nhost = "{}"', "destinations.0.host"),
        (
            '[[study.senders]]\ncalling_ae_title = "CR1"\nquery = {{ ae_title = "PACS", host = "{}", port = 104 }}',
            "study.senders.0.query.host",
        ),
        ('[audit]\ntransport = "udp"\nhost = "{}"', "audit.host"),
        ('[dicom]\nhost = "{}"', "dicom.host"),
        ('[web]\nhost = "{}"', "web.host"),
    ],
)
def test_a_host_is_one_that_can_be_looked_up(tmp_path: Path, text: str, key: str) -> None:
    for wrong in ("pacs..local", f"{'p' * 64}.local", "pacs local", " pacs", "pacs\\u0000", ".pacs", "http://pacs"):
        assert f"{key}: no host has this name: write " in _refusal(_file(tmp_path, text.format(wrong)))
    for right in ("pacs", "pacs.local.", "pacs_1.local", "münchen.example", "192.0.2.5", "::1", "fe80::1%eth0"):
        read_settings(_file(tmp_path, text.format(right)), {})


def test_a_destination_without_a_host_is_refused(tmp_path: Path) -> None:
    text = '[[destinations]]\nname = "pacs"\nae_title = "X"\nport = 104\nhost = ""'
    assert "destinations.0.host: " in _refusal(_file(tmp_path, text))


def test_a_file_that_is_not_there_tells_how_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "nothing.toml"
    assert _refusal(path) == f"{path}: no such file; 'cxr-worker init {path}' writes one."


def test_a_folder_instead_of_a_file_is_one_line(tmp_path: Path) -> None:
    assert "cannot be read" in _refusal(tmp_path)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("CXR_DATA_DIR", "/srv/cxr", lambda s: s.data_dir == Path("/srv/cxr")),
        ("CXR_DATABASE_URL", "sqlite:///x.db", lambda s: s.database_url.get_secret_value() == "sqlite:///x.db"),
        ("CXR_DICOM__PORT", "104", lambda s: s.dicom.port == 104),
        ("CXR_DICOM__AE_TITLE", "OTHER", lambda s: s.dicom.ae_title == "OTHER"),
        ("CXR_DICOM__CALLING_AE_TITLES", '["A", "B"]', lambda s: s.dicom.calling_ae_titles == ("A", "B")),
        ("CXR_STUDY__QUIET_SECONDS", "0.5", lambda s: s.study.quiet_seconds == 0.5),
        ("CXR_SCHEDULE__REPROCESS", "false", lambda s: s.schedule.reprocess is False),
        ("CXR_INFERENCE__MODEL", "vgg16", lambda s: s.inference.model == "vgg16"),
        ("CXR_WEB__PORT", "9090", lambda s: s.web.port == 9090),
        ("CXR_DESTINATIONS__0__PORT", "104", lambda s: s.destinations[0].port == 104),
        ("CXR_DESTINATIONS__0__OUTPUTS", '["sr"]', lambda s: s.destinations[0].outputs == ("sr",)),
    ],
)
def test_a_variable_wins_over_the_file(tmp_path: Path, variable: str, text: str, expected: Any) -> None:
    path = _file(tmp_path, f"[dicom]\nport = 1\n[study]\nquiet_seconds = 9\n[[destinations]]\n{DESTINATION}")
    assert expected(read_settings(path, {variable: text}))
    assert not expected(read_settings(path, {}))


def test_a_destination_can_be_made_of_variables_alone(tmp_path: Path) -> None:
    environment = {
        f"CXR_DESTINATIONS__0__{key}": value
        for key, value in {"NAME": "pacs", "AE_TITLE": "ORTHANC", "HOST": "pacs.local", "PORT": "104"}.items()
    }
    (destination,) = read_settings(_file(tmp_path, ""), environment).destinations
    assert (destination.host, destination.port) == ("pacs.local", 104)


@pytest.mark.parametrize(
    ("variable", "text", "named"),
    [
        ("CXR_DICOM__PORT", "eleven", "dicom.port"),
        ("CXR_DICOM__PROT", "11", "unknown key 'dicom.prot'"),
        ("CXR_DICOM__CALLING_AE_TITLES", '["MUCH-TOO-LONG-A-TITLE"]', "dicom.calling_ae_titles"),
        ("CXR_DICON__PORT", "11", "CXR_DICON__PORT"),
        ("CXR_DESTINATIONS__5__PORT", "104", "entry 5 of a list that has 0"),
        ("CXR_DESTINATIONS__FIRST__PORT", "104", "CXR_DESTINATIONS__FIRST__PORT"),
        ("CXR_DESTINATIONS__0", "104", "CXR_DESTINATIONS__0"),
        ("CXR_DATA_DIR__X", "1", "data_dir"),
        ("CXR_DATA_DIR", "", "data_dir: names no folder"),
    ],
)
def test_a_wrong_variable_is_one_line_that_names_it(tmp_path: Path, variable: str, text: str, named: str) -> None:
    message = _refusal(_file(tmp_path, ""), {variable: text})
    assert variable in message
    assert named in message


def test_variables_that_name_test_data_do_not_disturb(tmp_path: Path) -> None:
    environment = {"CXR_DATA": "../data", "CXR_DICOM": "../dicom", "PATH": "/bin", "CXRWORKER": "x"}
    assert read_settings(_file(tmp_path, ""), environment) == Settings()


def test_the_password_of_the_database_is_in_no_text_made_of_the_settings(tmp_path: Path) -> None:
    path = _file(tmp_path, 'database_url = "postgresql+psycopg://cxr:hunter2@db/cxr"')
    settings = read_settings(path, {})
    assert settings.database_url.get_secret_value().endswith("hunter2@db/cxr")
    for text in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        str(settings.model_dump()),
        f"{settings.database_url}",
    ):
        assert "hunter2" not in text


def test_the_password_of_the_database_is_in_no_refusal(tmp_path: Path) -> None:
    path = _file(tmp_path, 'database_url = "postgresql+psycopg://cxr:hunter2@db/cxr"\n[dicom]\nport = "x"')
    assert "hunter2" not in _refusal(path)
    assert "hunter2" not in _refusal(path, {"CXR_DATABASE_URL": "postgresql://cxr:hunter2@db/cxr"})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().dicom.port = 1  # type: ignore[misc]  # that is the point
