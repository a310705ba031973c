"""Fixtures that several test files share: databases, a worker without threads, a PACS."""

import logging
import os
import resource
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy
import structlog
import torch

from cxr_models import forward
from tests.fakes import FakePacs, Site, fake_pacs, make_site
from tests.postgres import Cluster, cluster
from worker.cli import main
from worker.db.database import Database, open_database
from worker.db.migrate import upgrade

Run = Callable[..., tuple[int, str, str]]


def pytest_configure(config: pytest.Config) -> None:
    # pynetdicom leaves a socket that could not connect to the garbage collector (AssociationSocket._shutdown_socket).
    config.addinivalue_line(
        "filterwarnings", r"ignore:Exception ignored in. <socket\.socket:pytest.PytestUnraisableExceptionWarning"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a GPU where there is none: no machine of CI has one."""
    if torch.cuda.is_available():
        return
    left_out = [item for item in items if "gpu" in item.keywords]
    items[:] = [item for item in items if "gpu" not in item.keywords]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _float32() -> Iterator[None]:
    """The same numbers at every load: where a processor computes in bfloat16, a race on it chooses between the two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward, "_computes_bfloat16", lambda _: False)
        yield


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own CXR_SECTION__KEY variables must not decide a test."""
    for variable in os.environ:
        if variable.startswith("CXR_") and variable not in {"CXR_DATA", "CXR_DICOM"}:
            monkeypatch.delenv(variable)


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """A command that a test runs in this process sets up the log; the next test must not write to its stderr."""
    handlers = logging.getLogger().handlers[:]
    yield
    logging.captureWarnings(capture=False)
    logging.getLogger().handlers[:] = handlers
    structlog.reset_defaults()


@dataclass(frozen=True, slots=True, kw_only=True)
class TestDatabase:
    """A database of this test alone, at the newest migration unless it was asked for empty."""

    __test__ = False

    url: str
    opened: Database
    away: Callable[[], AbstractContextManager[None]]
    """Inside, the database does not answer; afterwards it does again."""
    break_connections: Callable[[], None]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture(scope="session")
def postgres_template(postgres: Cluster) -> str:
    name = postgres.create()
    database = open_database(postgres.url(name))
    upgrade(database)
    database.close()
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "worker.db"
    database = open_database(f"sqlite:///{path}")
    upgrade(database)
    database.close()
    return path


@contextmanager
def _sqlite(path: Path) -> Iterator[TestDatabase]:
    database = open_database(f"sqlite:///{path}")

    def refuse(_dialect: object, _record: object, arguments: list[object], _options: object) -> None:
        if arguments == [str(path)]:
            raise sqlite3.OperationalError("unable to open database file")

    @contextmanager
    def away() -> Iterator[None]:
        # Its file stays where it is: SQLite does not bear that it is moved while a thread connects.
        sqlalchemy.event.listen(sqlalchemy.Engine, "do_connect", refuse)
        database.engine.dispose()
        try:
            yield
        finally:
            sqlalchemy.event.remove(sqlalchemy.Engine, "do_connect", refuse)

    yield TestDatabase(url=f"sqlite:///{path}", opened=database, away=away, break_connections=database.engine.dispose)
    database.close()


@contextmanager
def _postgresql(cluster: Cluster, template: str) -> Iterator[TestDatabase]:
    name = cluster.create(template=template)
    database = open_database(cluster.url(name))
    yield TestDatabase(
        url=cluster.url(name),
        opened=database,
        away=lambda: cluster.refused(name),
        break_connections=lambda: cluster.break_connections(name),
    )
    database.close()
    cluster.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which of the two databases this run of the test is on."""
    return str(request.param)


@pytest.fixture
def test_database(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestDatabase]:
    """A migrated database, each test on both kinds."""
    if database_kind == "sqlite":
        path = tmp_path / "worker.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        with _sqlite(path) as found:
            yield found
    else:
        with _postgresql(request.getfixturevalue("postgres"), request.getfixturevalue("postgres_template")) as found:
            yield found


@pytest.fixture
def empty_database(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables, each test on both kinds."""
    if database_kind == "sqlite":
        with _sqlite(tmp_path / "empty.db") as found:
            yield found.opened
    else:
        with _postgresql(request.getfixturevalue("postgres"), "template1") as found:
            yield found.opened


@pytest.fixture
def database(test_database: TestDatabase) -> Database:
    """A migrated database, each test on both kinds."""
    return test_database.opened


@pytest.fixture
def cxr_worker(
    test_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the command line in this process on the test's database; answer exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXR_DATABASE_URL", test_database.url)
    monkeypatch.setenv("CXR_DATA_DIR", str(tmp_path / "var"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cxr-worker", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def pacs() -> Iterator[FakePacs]:
    """A storage SCP on a free port."""
    with fake_pacs() as running:
        yield running


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Site:
    """A worker without threads and without destinations, each test on both databases."""
    return make_site(database, tmp_path / "var")


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
