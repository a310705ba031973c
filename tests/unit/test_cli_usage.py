"""The command line without a worker behind it: help, exit codes, and what it says of mistakes."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from worker.cli import app, main
from worker.configuration import read_settings
from worker.settings import Settings


def _commands() -> list[tuple[str, ...]]:
    """Every command and group, as its words."""

    def below(command: object, words: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = [words]
        for name, child in sorted(getattr(command, "commands", {}).items()):
            found += below(child, (*words, name))
        return found

    return below(typer.main.get_command(app), ())


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command line in this process; answer its exit code."""
    monkeypatch.setattr(sys, "argv", ["cxr-worker", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_the_commands_are_those_that_are_promised() -> None:
    promised = {
        ("demo",), ("serve",), ("receive",), ("run",), ("web",), ("init",), ("doctor",), ("reprocess",),
        ("studies", "list"), ("studies", "show"), ("deliveries", "list"), ("deliveries", "retry"),
        ("models", "list"), ("models", "show"), ("models", "activate"), ("models", "register"),
        ("models", "deactivate-shadow"), ("models", "compare"), ("db", "upgrade"), ("db", "check"),
        ("db", "backup"), ("db", "restore"), ("db", "clean"),
    }  # fmt: skip
    assert promised <= set(_commands())


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_every_command_has_help_that_says_what_it_does(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, "--help", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert said.lstrip().startswith("Usage: cxr-worker")
    blocks = said.split("\n\n")
    assert blocks[1].strip().endswith("."), "a sentence below the usage"


def test_help_does_not_wait_for_torch_nor_a_database() -> None:
    program = (
        "import sys\n"
        "from worker.cli import main\n"
        "sys.argv = ['cxr-worker', *sys.argv[1:]]\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print('LOADED', sorted({'torch', 'sqlalchemy', 'pynetdicom', 'highdicom', 'pydicom'} & set(sys.modules)))\n"
    )
    for words in (("--help",), ("serve", "--help"), ("studies", "list", "--help")):
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "LOADED []"


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.strip().count(".") == 2


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nonsense",),
        ("studies",),
        ("studies", "show"),
        ("studies", "list", "--state", "lost"),
        ("studies", "list", "--since", "yesterday"),
        ("studies", "list", "--limit", "0"),
        ("studies", "list", "--limit", "99999999999999999999"),
        ("deliveries", "list", "--limit", "99999999999999999999"),
        ("deliveries", "retry", "99999999999999999999"),
        ("deliveries", "retry", "0"),
        ("demo", "--limit", "99999999999999999999"),
        ("deliveries", "list", "--state", "lost"),
        ("deliveries", "retry"),
        ("deliveries", "retry", "1", "--all-failed"),
        ("deliveries", "retry", "first"),
        ("reprocess",),
        ("reprocess", "1.2.3", "--failed"),
        ("reprocess", "--outdated", "--failed"),
        ("serve", "--config", "nothing.toml"),
        ("models", "show", "nonsense"),
        ("models", "activate", "nonsense"),
    ],
    ids=" ".join,
)
def test_bad_usage_ends_with_2_and_no_traceback(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, monkeypatch=monkeypatch) == 2
    captured = capsys.readouterr()
    assert captured.out == "" or captured.out.lstrip().startswith("Usage: ")
    assert "Traceback" not in captured.err


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    "words", [("serve",), ("receive",), ("run",), ("web",), ("doctor",), ("db", "upgrade"), ("studies", "list")], ids=" ".join
)
def test_a_wrong_configuration_ends_with_2_and_one_line_that_names_the_key(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("cxr-worker.toml").write_text('database_url = "postgresql+psycopg://u:hunter2@h/d"\n[dicom]\nport = "eleven"\n')
    assert run(*words, monkeypatch=monkeypatch) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("cxr-worker: cxr-worker.toml: dicom.port: ")


@pytest.mark.usefixtures("_here")
def test_a_database_of_no_migration_ends_with_1_and_the_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("studies", "list", monkeypatch=monkeypatch) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "run 'cxr-worker db upgrade'" in line


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("words", [("doctor",), ("studies", "list"), ("db", "check"), ("serve",)], ids=" ".join)
def test_the_password_of_the_database_is_in_no_output(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("cxr-worker.toml").write_text('database_url = "postgresql+psycopg://cxr:hunter2@127.0.0.1:1/cxr"\n')
    assert run(*words, monkeypatch=monkeypatch) == 1
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
    assert "Traceback" not in captured.err


@pytest.mark.usefixtures("_here")
def test_init_writes_a_file_whose_values_are_the_defaults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", monkeypatch=monkeypatch) == 0
    assert "Wrote cxr-worker.toml" in capsys.readouterr().out
    assert read_settings(Path("cxr-worker.toml"), {}) == Settings()


@pytest.mark.usefixtures("_here")
def test_what_init_writes_is_for_this_account_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0)
    try:
        run("init", monkeypatch=monkeypatch)
        assert stat.S_IMODE(Path("cxr-worker.toml").stat().st_mode) == 0o600
        Path("cxr-worker.toml").chmod(0o644)
        run("init", "--force", monkeypatch=monkeypatch)
        assert stat.S_IMODE(Path("cxr-worker.toml").stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.usefixtures("_here")
def test_init_names_every_key_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    run("init", monkeypatch=monkeypatch)
    written = Path("cxr-worker.toml").read_text()

    def keys(model: type) -> list[str]:
        return [key for key, field in model.model_fields.items() for key in [key, *_nested(field.annotation)]]

    def _nested(annotation: object) -> list[str]:
        return keys(annotation) if hasattr(annotation, "model_fields") else []

    missing = [key for key in keys(Settings) if key not in written]
    assert missing == []


@pytest.mark.usefixtures("_here")
def test_the_destination_that_init_shows_is_right_when_it_is_uncommented(monkeypatch: pytest.MonkeyPatch) -> None:
    run("init", monkeypatch=monkeypatch)
    text = Path("cxr-worker.toml").read_text()
    block = text[text.index("# [[destinations]]") :]
    Path("cxr-worker.toml").write_text(text.replace(block, "\n".join(line.removeprefix("# ") for line in block.splitlines())))
    (destination,) = read_settings(Path("cxr-worker.toml"), {}).destinations
    assert (destination.name, destination.outputs) == ("pacs", ("sr", "capture"))


@pytest.mark.usefixtures("_here")
def test_init_overwrites_only_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text("# mine")
    assert run("init", "mine.toml", monkeypatch=monkeypatch) == 2
    assert "--force" in capsys.readouterr().err
    assert Path("mine.toml").read_text() == "# mine"
    assert run("init", "mine.toml", "--force", monkeypatch=monkeypatch) == 0
    assert Path("mine.toml").read_text() != "# mine"


def test_a_models_card_is_shown_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "show", "lenet5", "--json", monkeypatch=monkeypatch) == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["name"], set(card["labels"])) == ("lenet5", {"COVID-19", "Normal", "Pneumonia"})
