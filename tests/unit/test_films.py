"""How well one film is found in two images: measured on crops made here of real radiographs, and on copies that are known."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_models.catalogue import LabelledImage, read_catalogue
from cxr_models.films import FilmPair, draw_pair, find_pairs, group_by_film, thumbnail
from cxr_models.overlap import find_overlaps
from tests.factories import data_folder

KNOWN_COPIES = {
    # Of covid19-dataset, reduced to patches of grey, and where the same film stands in the other sets: whole and cropped.
    ("covid19-dataset/train/Covid/027.jpg", "covid-nih-mix/Covid-19/93FE0BB1-022D-4F24-9727-987A07975FFB.jpg"),
    ("covid19-dataset/train/Covid/01.jpg", "covid-nih-mix/Covid-19/2C10A413-AABE-4807-8CCE-6A2025594067.jpg"),
    ("covid19-dataset/train/Covid/072.jpg", "covid-nih-mix/Covid-19/7C69C012-7479-493F-8722-ABC29C60A2DD.jpg"),
    ("covid19-dataset/train/Viral Pneumonia/052.jpg", "kermany/Pneumonia/person19_virus_50.jpg"),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def labelled(path: Path, number: int) -> LabelledImage:
    return LabelledImage(path=path, label="Normal", patient=str(number), source="set", sha256=str(number), group=str(number))


def saved_again(film: Image.Image, generator: np.random.Generator, *, most: float) -> Image.Image:
    """Another collection's copy: each side cropped by its own share, another size, gamma, marker and JPEG quality."""
    left, top, right, bottom = generator.uniform(0, most, 4)
    width, height = film.size
    copy = film.crop((round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height)))
    gamma = generator.uniform(0.7, 1.4)
    copy = copy.point([round(255 * (value / 255) ** gamma) for value in range(256)])
    scale = generator.uniform(0.4, 1.3)
    copy = copy.resize((round(copy.width * scale), round(copy.height * scale * generator.uniform(0.9, 1.1))))
    x, y = round(generator.uniform(0, 0.85) * copy.width), round(generator.uniform(0, 0.1) * copy.height)
    copy.paste(int(generator.choice([0, 255])), (x, y, x + copy.width // 8, y + copy.height // 12))
    file = io.BytesIO()
    copy.save(file, "JPEG", quality=int(generator.integers(40, 96)))
    return Image.open(file)


def seen(film: Image.Image) -> torch.Tensor:
    return thumbnail(np.asarray(film.convert("L"), dtype=np.float32) / 255)


def test_crops_of_up_to_15_percent_a_side_are_found_and_other_patients_films_are_not() -> None:
    images = read_catalogue([data_folder() / name for name in ("covid-nih-mix", "kermany")]).all
    per_patient = list({image.patient: image for image in images}.values())[::6]
    generator = np.random.default_rng(0)
    thumbnails, copies = [], []
    for number, image in enumerate(per_patient):
        with Image.open(image.path) as file:
            film = file.convert("L")
        thumbnails.append(seen(film))
        if number % 2:
            copies.append((number, seen(saved_again(film, generator, most=0.15))))
    found = find_overlaps(torch.stack(thumbnails + [copy for _, copy in copies]))
    pairs = set(zip(found.firsts.tolist(), found.seconds.tolist(), strict=True))
    wanted = {(original, len(thumbnails) + place) for place, (original, _) in enumerate(copies)}
    assert len(wanted) > 70
    assert len(pairs & wanted) >= 0.95 * len(wanted)
    assert pairs <= wanted


def test_known_copies_in_other_collections_are_found_and_nothing_else() -> None:
    data = data_folder()
    files = [data / name for pair in sorted(KNOWN_COPIES) for name in pair]
    strangers = sorted((data / "covid-nih-mix" / "No_findings").glob("*_000.jpg"))[:40]
    pairs = find_pairs([labelled(path, number) for number, path in enumerate(files + strangers)])
    found = {(pair.first.path.relative_to(data).as_posix(), pair.second.path.relative_to(data).as_posix()) for pair in pairs}
    assert found == KNOWN_COPIES


@pytest.fixture
def film() -> Image.Image:
    """Noise of coarse and fine grain, as no other seed has it."""
    generator = np.random.default_rng(5)
    layers = [
        Image.fromarray(generator.integers(0, 256, (side, side), dtype=np.uint8)).resize((300, 360), Image.Resampling.BICUBIC)
        for side in (8, 40)
    ]
    return Image.blend(*layers, alpha=0.4)


def test_the_crop_says_where_the_one_image_lies_in_the_other(film: Image.Image, tmp_path: Path) -> None:
    film.save(tmp_path / "whole.png")
    film.crop((30, 18, 270, 342)).resize((200, 200)).save(tmp_path / "crop.png")
    images = [labelled(tmp_path / name, number) for number, name in enumerate(("whole.png", "crop.png"))]
    (pair,) = find_pairs(images)
    assert (pair.first, pair.second) == (images[0], images[1])
    assert pair.crop == pytest.approx((0.1, 0.05, 0.9, 0.95), abs=0.01)
    (back,) = find_pairs(images[::-1])
    assert back.crop == pytest.approx((-0.125, -0.0556, 1.125, 1.0556), abs=0.01)


def test_both_images_may_be_cropped_on_different_sides(film: Image.Image, tmp_path: Path) -> None:
    film.crop((40, 0, 300, 330)).save(tmp_path / "a.png")
    film.crop((0, 36, 270, 360)).save(tmp_path / "b.png")
    (pair,) = find_pairs([labelled(tmp_path / name, number) for number, name in enumerate(("a.png", "b.png"))])
    assert pair.crop == pytest.approx((-40 / 260, 36 / 330, 230 / 260, 360 / 330), abs=0.015)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_no_pair(film: Image.Image, tmp_path: Path, count: int) -> None:
    film.save(tmp_path / "film.png")
    assert find_pairs([labelled(tmp_path / "film.png", 0)] * count) == ()


def test_blank_images_and_inverse_ones_are_no_pairs(film: Image.Image, tmp_path: Path) -> None:
    Image.new("L", (50, 50), 7).save(tmp_path / "blank.png")
    Image.new("L", (60, 50), 200).save(tmp_path / "grey.png")
    film.save(tmp_path / "film.png")
    film.point(lambda value: 255 - value).save(tmp_path / "inverse.png")
    names = ("blank.png", "grey.png", "film.png", "inverse.png")
    assert find_pairs([labelled(tmp_path / name, number) for number, name in enumerate(names)]) == ()


def test_the_groups_of_one_film_become_one(film: Image.Image, tmp_path: Path) -> None:
    for seed, folder in enumerate(("train/Covid", "train/Normal", "test/Covid", "test/Normal")):
        (tmp_path / folder).mkdir(parents=True)
        noise = np.random.default_rng(seed).integers(0, 256, (60, 50), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / folder / "other.png")
    film.save(tmp_path / "train" / "Covid" / "film.png")
    film.crop((20, 20, 290, 340)).save(tmp_path / "test" / "Covid" / "film.jpg", quality=60)
    grouped = group_by_film(read_catalogue([tmp_path]))
    together = [image.path.name for image in grouped.all if image.group == grouped.train[0].group]
    assert len({image.group for image in grouped.all}) == len(grouped.all) - 1
    assert together == ["film.png", "film.jpg"]


def test_a_drawn_pair_shows_both_images_and_the_frame_of_the_second_in_the_first(film: Image.Image, tmp_path: Path) -> None:
    film.save(tmp_path / "film.png")
    image = labelled(tmp_path / "film.png", 0)
    picture = draw_pair(FilmPair(first=image, second=replace(image), correlation=0.9, crop=(0.25, -0.1, 0.75, 1.1)))
    assert picture.size == (1024, 512)
    marked = np.asarray(picture)[256, :, 0] != np.asarray(picture)[256, :, 2]
    assert np.flatnonzero(marked[:512]).tolist() == pytest.approx([127, 128, 382, 383], abs=1)
    assert not marked[512:].any()
