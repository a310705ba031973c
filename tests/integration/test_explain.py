import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_models.cli import main
from tests.factories import radiograph

Explain = Callable[..., int]


@pytest.fixture
def explain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Explain:
    """Run the command in this process; its pictures go to the folder `maps`."""

    def explain(*arguments: str | Path) -> int:
        options = ("explain", "--model", "lenet5", "--output", tmp_path / "maps", *arguments)
        monkeypatch.setattr(sys, "argv", ["cxr-models", *map(str, options)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return explain


@pytest.fixture
def film(tmp_path: Path) -> Path:
    Image.fromarray(radiograph(300, 200)).save(tmp_path / "film.png")
    return tmp_path / "film.png"


def test_each_film_gets_a_picture_and_on_request_the_map_itself(
    explain: Explain, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "film.png").write_bytes(film.read_bytes())
    assert explain(film, tmp_path / "other" / "film.png", "--raw", "--label", "Pneumonia") == 0
    written = capsys.readouterr().out.split()
    assert written == [str(tmp_path / "maps" / "film.png"), str(tmp_path / "maps" / "film-2.png")]
    with Image.open(written[0]) as picture:
        assert min(picture.size) > 300
        colours = np.asarray(picture.convert("RGB")).astype(int)
    # Grey but for the map: the left half is the film alone, the right half has colour on it.
    apart = np.abs(colours[..., 0] - colours[..., 2]).max(axis=0)
    assert apart[: len(apart) // 3].max() < 8
    assert apart[len(apart) // 2 :].max() > 60
    saliency = np.load(tmp_path / "maps" / "film.npy")
    assert (saliency.shape, saliency.dtype) == ((32, 32), np.float32)


def test_an_unreadable_file_is_named_and_the_others_are_drawn(
    explain: Explain, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.png").write_bytes(film.read_bytes()[:300])
    assert explain(tmp_path / "cut.png", film) == 1
    printed = capsys.readouterr()
    assert "cut.png" in printed.err
    assert "Traceback" not in printed.err
    assert printed.out.split() == [str(tmp_path / "maps" / "film.png")]
    assert [each.name for each in (tmp_path / "maps").iterdir()] == ["film.png"]


def test_a_label_that_the_model_does_not_know_is_bad_usage_and_leaves_no_folder(
    explain: Explain, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(film, "--label", "Fracture") == 2
    assert "Fracture" in capsys.readouterr().err
    assert not (tmp_path / "maps").exists()
