"""One Orthanc for all tests of a process; each test sends studies of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements import need
from tests.servers import Orthanc, Worker, destination, orthanc, worker


@pytest.fixture(scope="session")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    need("Orthanc")
    folder = tmp_path_factory.mktemp("pacs")
    with orthanc(folder) as running:
        yield running
    shutil.rmtree(folder)


@pytest.fixture
def a_worker(tmp_path: Path, pacs: Orthanc) -> Iterator[Worker]:
    """A worker that reports to the Orthanc, not started yet."""
    need("storescu")
    with worker(tmp_path, f"[study]\nquiet_seconds = 0.5\n{destination(pacs)}") as made:
        yield made
