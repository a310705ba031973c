"""`cxr-worker demo`, as whoever wants to see the loop types it."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.factories import radiograph


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker", "demo", *options], capture_output=True, text=True, check=False, timeout=240
    )


def test_the_demo_brings_every_synthetic_study_back_as_a_report() -> None:
    done = demo()
    assert done.returncode == 0, done.stderr
    assert "6 studies: 6 delivered." in done.stdout
    assert "Not for primary diagnosis" in done.stdout


def test_the_demo_prints_the_answer_against_the_folder_and_says_why_a_film_is_left_out(tmp_path: Path) -> None:
    for folder in ("Normal", "Viral Pneumonia"):
        (tmp_path / folder).mkdir()
        Image.fromarray(radiograph(300, 300, seed=len(folder))).save(tmp_path / folder / "one.png")
    Image.fromarray(radiograph(60, 60)).save(tmp_path / "Normal" / "tiny.jpg")
    (tmp_path / "Normal" / "notes.txt").write_text("no image")

    done = demo("--images", str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert "2 delivered, 1 not_analysed" in done.stdout or "1 not_analysed, 2 delivered" in done.stdout
    assert "folder says" in done.stdout
    assert "of 2." in done.stdout


def test_a_folder_without_radiographs_is_one_clear_line(tmp_path: Path) -> None:
    done = demo("--images", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("cxr-worker: --images:")
    assert "Traceback" not in done.stderr
