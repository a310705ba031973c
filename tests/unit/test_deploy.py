"""What lies in deploy/ is checked against the program it deploys."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from sqlalchemy import insert

from tests.postgres import Cluster
from tests.requirements import need
from worker.cli import app
from worker.cli.example import EXAMPLE
from worker.configuration import read_settings
from worker.db import listing, studies
from worker.db.database import open_database
from worker.db.migrate import upgrade
from worker.db.schema import metadata
from worker.settings import Settings
from worker.values import StudyId

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE_FILE = DEPLOY / "cxr-worker.example.toml"
UNIT = DEPLOY / "systemd" / "cxr-worker.service"
ENTRY = "# [[destinations]]\n"


def find_command(words: list[str]) -> Any:
    """The command that words on the command line lead to."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    assert not hasattr(command, "commands"), f"{words} name no command"
    options = {option for parameter in command.params for option in parameter.opts}
    unknown = {word for word in words if word.startswith("-")} - options - {"--help"}
    assert not unknown, f"{command.name} has no option {unknown}"
    return command


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def unit() -> dict[str, str]:
    lines = [line.partition("=") for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return {key: value for key, _, value in lines}


def own_services(compose: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in compose["services"].items() if service["image"] == "cxr-worker"}


def test_the_example_is_what_init_writes_with_the_destination_uncommented() -> None:
    head, destination = EXAMPLE.split(ENTRY)
    uncommented = "".join(line.removeprefix("# ") for line in destination.splitlines(keepends=True))
    assert EXAMPLE_FILE.read_text() == f"{head}{ENTRY.removeprefix('# ')}{uncommented}"


def test_the_example_loads_and_changes_nothing_but_the_destinations() -> None:
    settings = read_settings(EXAMPLE_FILE, {})
    assert [destination.name for destination in settings.destinations] == ["pacs"]
    assert settings.model_copy(update={"destinations": ()}) == Settings()


def test_every_service_of_ours_runs_a_command_that_exists(compose: dict[str, Any]) -> None:
    commands = {name: find_command([*service["command"]]).name for name, service in own_services(compose).items()}
    assert commands == {"upgrade": "upgrade", "receive": "receive", "run": "run", "web": "web"}


def test_services_wait_for_the_migrations(compose: dict[str, Any]) -> None:
    for name, service in own_services(compose).items():
        waits_for = service["depends_on"]
        assert waits_for["database"] == {"condition": "service_healthy"}
        assert name == "upgrade" or waits_for["upgrade"] == {"condition": "service_completed_successfully"}


def test_services_share_the_folder_that_the_image_keeps_data_in(compose: dict[str, Any]) -> None:
    (volume,) = re.findall(r"^VOLUME (.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert all(f"data:{volume}" in service["volumes"] for service in own_services(compose).values())
    assert f"CXR_DATA_DIR={volume} " in (DEPLOY / "Dockerfile").read_text()


def test_services_that_show_no_page_do_not_inherit_the_check_of_the_page(compose: dict[str, Any]) -> None:
    assert {name for name, service in own_services(compose).items() if "healthcheck" not in service} == {"web"}


def test_the_variables_of_image_and_services_are_keys_of_the_configuration(compose: dict[str, Any]) -> None:
    in_image = re.findall(r"\b(CXR_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text())
    for service in own_services(compose).values():
        settings = read_settings(EXAMPLE_FILE, dict(in_image) | service["environment"])
        assert (settings.dicom.host, settings.web.host, settings.embedded) == ("0.0.0.0", "0.0.0.0", False)  # noqa: S104  a container


def test_a_password_reaches_the_program_and_stands_in_no_setting(compose: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from a file\n")
    program = tmp_path / "cxr-worker"
    program.write_text('#!/bin/sh\necho "$PGPASSWORD:$*"\n')
    program.chmod(0o700)
    for service in own_services(compose).values():
        words = [word.replace("$$", "$") for word in [*service["entrypoint"], *service["command"]]]
        words = [word.replace("/run/secrets/database_password", str(tmp_path / "password")) for word in words]
        done = subprocess.run(words, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True)
        assert done.stdout == f"from a file:{' '.join(service['command'])}\n"


def test_what_is_built_lets_in_every_package_and_nothing_of_a_site() -> None:
    let_in = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    configured = (DEPLOY.parent / "pyproject.toml").read_text()
    (included,) = re.findall(r"^include = (\[.+\])$", configured, re.MULTILINE)
    beside = {"pyproject.toml", "README.md", "LICENSE", "deploy/constraints.txt"}
    assert let_in == {name.rstrip("*") for name in json.loads(included)} | beside


def test_the_unit_starts_a_command_that_exists(unit: dict[str, str]) -> None:
    program, *words = shlex.split(unit["ExecStart"])
    assert Path(program).name == "cxr-worker"
    assert find_command(words).name == "serve"


def test_the_unit_may_write_where_it_keeps_data(unit: dict[str, str]) -> None:
    state = f"/var/lib/{unit['StateDirectory']}"
    assert (unit["Environment"], unit["WorkingDirectory"]) == (f"CXR_DATA_DIR={state}", state)


def test_the_unit_hears_whichever_process_runs_the_steps_and_starts_one_again_that_hangs(unit: dict[str, str]) -> None:
    assert (unit["WatchdogSec"], unit["NotifyAccess"], unit["Restart"]) == ("15min", "all", "on-failure")


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    need("systemd-analyze")
    program = shutil.which("true")
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={program}", UNIT.read_text(), flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_command_in_the_runbook_exists() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (DEPLOY / "runbook.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [found[1] for line in lines if (found := re.search(r"(?:^|[ /])cxr-worker ([a-z][^|;&)]*)", line))]
    for command in commands:
        find_command(shlex.split(command, comments=True))
    assert len(commands) > 20


def test_a_database_is_copied_with_its_history_and_goes_on_from_there(
    postgres: Cluster, postgres_template: str, tmp_path: Path
) -> None:
    moment = datetime(2031, 5, 20, 8, 0, tzinfo=UTC)
    from_url = f"sqlite:///{tmp_path / 'worker.db'}"
    to_url = postgres.url(postgres.create(template=postgres_template))
    with closing(open_database(from_url)) as source, closing(open_database(to_url)) as target:
        upgrade(source)
        values = {"patient_id": "", "issuer_of_patient_id": "", "accession_number": "", "state": "failed"}
        moments = {"received_at": moment, "last_received_at": moment}
        with source.write() as connection:
            for number in (1, 2):
                row = {"study_uid": f"1.2.{number}", **values, **moments}
                connection.execute(insert(metadata.tables["studies"]).values(row))
            studies.analyse_again(connection, [StudyId(1)], now=moment, why="a test")

        def copy() -> subprocess.CompletedProcess[str]:
            command = [sys.executable, str(DEPLOY / "copy_database.py"), from_url, to_url]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        assert copy().returncode == 0
        with source.read() as before, target.write() as after:
            assert listing.show_study(after, "1.2.1") == listing.show_study(before, "1.2.1")
            row = {"study_uid": "1.2.3", **values, **moments}
            new = after.execute(insert(metadata.tables["studies"]).values(row)).inserted_primary_key
            assert new == (3,)

        assert "not empty" in copy().stderr
