"""The data folder, as every process finds it when it starts."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from worker.errors import ConfigurationError
from worker.service import make_data_dir
from worker.settings import Settings


def test_receivers_that_start_at_once_do_not_take_the_data_folder_for_read_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "var")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: make_data_dir(settings), range(400)))
    assert list((tmp_path / "var").iterdir()) == []


def test_a_data_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file in its place")
    with pytest.raises(ConfigurationError, match=r"data_dir: .* cannot be written to"):
        make_data_dir(Settings(data_dir=tmp_path / "var"))
