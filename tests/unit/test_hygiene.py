import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from cxr_models.catalogue import read_catalogue
from cxr_models.cli import app
from cxr_models.hygiene import Findings, examine
from tests.factories import data_folder


def film(seed: int) -> Image.Image:
    """Noise of coarse and fine grain, as no other seed has it."""
    generator = np.random.default_rng(seed)
    layers = [
        Image.fromarray(generator.integers(0, 256, (side, side), dtype=np.uint8)).resize((200, 240), Image.Resampling.BICUBIC)
        for side in (8, 40)
    ]
    return Image.blend(*layers, alpha=0.4)


def put(path: Path, picture: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sound images of two classes on each side."""
    places = [f"{part}/{name}/{number}.png" for part in ("train", "test") for name in ("Covid", "Normal") for number in (0, 1)]
    for seed, place in enumerate(places):
        put(tmp_path / "set" / place, film(seed))
    return tmp_path / "set"


def found_in(*folders: Path) -> Findings:
    return examine(read_catalogue(folders))


def check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


def test_sound_images_are_counted_and_nothing_is_wrong(folder: Path) -> None:
    findings = found_in(folder)
    assert not findings.spoilt
    assert findings.counts == {("set", part, label): 2 for part in ("test", "train") for label in ("COVID-19", "Normal")}
    assert findings.few == findings.counts
    assert (findings.duplicates, findings.films, findings.leaks, findings.conflicts, findings.modes) == ((), (), (), (), {})
    sizes = findings.sizes["set"]
    assert (sizes.width.least, sizes.height.greatest, sizes.aspect.middle) == (200, 240, pytest.approx(200 / 240))


def test_files_that_are_no_images_are_named_with_the_reason_and_the_others_are_looked_at(folder: Path) -> None:
    whole = (folder / "train" / "Covid" / "0.png").read_bytes()
    (folder / "train" / "Covid" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "test" / "Normal" / "text.jpg").write_text("no image")
    findings = found_in(folder)
    assert {each.image.path.name for each in findings.unreadable} == {"cut.png", "text.jpg"}
    assert all(str(each.image.path) in each.reason for each in findings.unreadable)
    assert findings.spoilt
    assert findings.sizes["set"].width.middle == 200


def test_the_same_bytes_in_train_and_test_are_a_leak(folder: Path) -> None:
    original = folder / "test" / "Covid" / "1.png"
    copy = folder / "train" / "Covid" / "copy.png"
    copy.write_bytes(original.read_bytes())
    findings = found_in(folder)
    (files,) = findings.duplicates
    assert {image.path for image in files} == {original, copy}
    (leak,) = findings.leaks
    assert (leak.first.path, leak.second.path, leak.link) == (copy, original, "bytes")
    assert findings.films == ()


@pytest.mark.parametrize(("earlier", "later"), [("train", "val"), ("val", "test"), ("train", "test")])
def test_a_film_on_two_sides_is_a_leak_of_the_earlier_one(folder: Path, earlier: str, later: str) -> None:
    for name, seed in (("Covid", 40), ("Normal", 41)):
        put(folder / "val" / name / "0.png", film(seed))
    put(folder / later / "Covid" / "film.png", film(42))
    put(folder / earlier / "Covid" / "film.png", film(42))
    (leak,) = found_in(folder).leaks
    assert leak.first.path == folder / earlier / "Covid" / "film.png"
    assert leak.second.path == folder / later / "Covid" / "film.png"


def test_a_crop_saved_again_is_a_near_duplicate_and_a_leak_where_the_film_is_in_test(folder: Path) -> None:
    crop = put(folder / "train" / "Normal" / "crop.jpg", film(6).crop((10, 20, 190, 230)).resize((150, 170)))
    findings = found_in(folder)
    (pair,) = findings.films
    assert {pair.first.path, pair.second.path} == {crop, folder / "test" / "Normal" / "0.png"}
    (leak,) = findings.leaks
    assert (leak.first.path, leak.link) == (crop, "film")


def test_a_patient_in_train_and_test_is_a_leak_and_one_in_train_alone_is_not(folder: Path) -> None:
    (folder / "manifest.csv").write_text(
        "file,patient\ntrain/Covid/0.png,p\ntrain/Covid/1.png,p\ntrain/Normal/0.png,q\ntest/Normal/0.png,q\n"
    )
    (leak,) = found_in(folder).leaks
    assert (leak.first.path, leak.second.path) == (folder / "train" / "Normal" / "0.png", folder / "test" / "Normal" / "0.png")
    assert leak.link == "patient"


@pytest.mark.parametrize("again", ["bytes", "film"])
def test_one_film_under_two_labels_is_a_conflict(folder: Path, again: str) -> None:
    picture = film(0) if again == "bytes" else film(0).resize((120, 160))
    put(folder / "train" / "Normal" / "again.png", picture)
    (conflict,) = found_in(folder).conflicts
    assert {conflict.first.label, conflict.second.label} == {"COVID-19", "Normal"}
    assert conflict.link == again


def test_colour_cmyk_and_16_bit_files_are_read_and_named(folder: Path) -> None:
    put(folder / "train" / "Covid" / "colour.png", film(20).convert("RGB"))
    put(folder / "train" / "Covid" / "print.jpg", film(21).convert("CMYK"))
    deep = np.asarray(film(22), np.uint16) * 257
    put(folder / "train" / "Covid" / "deep.png", Image.fromarray(deep))
    findings = found_in(folder)
    assert {mode: [image.path.name for image in images] for mode, images in findings.modes.items()} == {
        "CMYK": ["print.jpg"],
        "I;16": ["deep.png"],
        "RGB": ["colour.png"],
    }
    assert not findings.spoilt


def test_a_class_from_one_source_and_a_source_of_one_class_are_shortcuts(folder: Path, tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / "other" / "Normal" / f"{number}.png", film(30 + number))
    findings = found_in(folder, tmp_path / "other")
    assert findings.lone_labels == {"COVID-19": "set"}
    assert findings.lacking == {"other": ("COVID-19",)}


def test_a_single_source_has_no_class_from_one_source_only(folder: Path) -> None:
    assert found_in(folder).lone_labels == {}


class TestCommand:
    def test_nothing_wrong_ends_with_0_and_says_so_last(self, folder: Path) -> None:
        result = check(folder)
        assert result.exit_code == 0
        assert result.stdout.strip().splitlines()[-1] == "Nothing here spoils a measurement."

    def test_a_leak_ends_with_1_names_the_files_and_says_what_to_do(self, folder: Path) -> None:
        put(folder / "train" / "Normal" / "crop.png", film(6).crop((10, 20, 190, 230)))
        result = check(folder)
        assert result.exit_code == 1
        assert f"{folder}/train/Normal/crop.png and {folder}/test/Normal/0.png (film)" in result.stdout
        assert result.stdout.strip().splitlines()[-1].startswith("To do: remove the images from train and val")

    def test_json_holds_all_that_was_found_and_no_patient(self, folder: Path) -> None:
        (folder / "train" / "Covid" / "text.png").write_text("no image")
        (folder / "manifest.csv").write_text("file,patient\ntrain/Normal/0.png,Quaresma\ntest/Normal/0.png,Quaresma\n")
        result = check(folder, "--json")
        assert result.exit_code == 1
        assert "Quaresma" not in result.stdout
        found = json.loads(result.stdout)
        assert found["spoilt"] is True
        assert [Path(each["file"]).name for each in found["unreadable"]] == ["text.png"]
        assert [each["link"] for each in found["leaks"]] == ["patient"]
        assert sum(each["images"] for each in found["counts"]) == 9
        assert found["sizes"]["set"]["width"] == {"least": 200, "middle": 200, "greatest": 200}

    def test_pictures_of_near_duplicates_are_written_side_by_side(self, folder: Path, tmp_path: Path) -> None:
        put(folder / "train" / "Covid" / "crop.png", film(0).crop((10, 20, 190, 230)))
        assert check(folder, "--pictures", tmp_path / "pairs").exit_code == 0
        (picture,) = (tmp_path / "pairs").iterdir()
        with Image.open(picture) as drawn:
            assert drawn.size == (1024, 512)


def test_the_published_sets_six_leaks_are_found() -> None:
    folder = data_folder() / "covid19-dataset"
    findings = found_in(folder)
    copies = [leak for leak in findings.leaks if leak.link == "bytes"]
    assert len(copies) == 6
    assert {leak.second.path.parent for leak in copies} == {folder / "test" / "Covid"}
    assert any(leak.link == "film" for leak in findings.leaks)
