import csv
from collections import Counter
from itertools import chain
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

from cxr_models.catalogue import LabelledImage, count, folds, grouped, read_catalogue, split
from cxr_models.data import BatchDraw, Radiographs, draw_weights, load_images
from cxr_models.errors import InvalidData, InvalidRecipe, UnreadableImage
from cxr_models.images import read_radiograph
from cxr_models.prepare import prepare
from cxr_models.recipe import Augmentation, Recipe, read_recipe, shipped_recipes
from cxr_models.values import Preparation

PREPARATION = Preparation(side=32)


def put(file: Path, *, value: int | None = None, seed: int = 0) -> Path:
    """Write a small grey PNG: of one value, or of noise that no other seed has."""
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (12, 10), dtype=np.uint8)
    Image.fromarray(noise if value is None else np.full((12, 10), value, np.uint8)).save(file)
    return file


def fill(folder: Path, *classes: str, each: int = 4) -> Path:
    for number, name in enumerate(classes):
        for index in range(each):
            put(folder / name / f"{index}.png", seed=crc32(f"{folder.name} {number} {index}".encode()))
    return folder


class TestFolders:
    def test_names_of_class_folders_count_without_regard_to_case(self, tmp_path: Path) -> None:
        fill(tmp_path, "COVID", "Covid-19", "normal", "NO_FINDINGS", "Pneumonia", "Viral Pneumonia", each=2)
        assert count(read_catalogue([tmp_path]).unparted) == {"COVID-19": 4, "Normal": 4, "Pneumonia": 4}

    def test_train_val_and_test_folders_are_kept_apart(self, tmp_path: Path) -> None:
        for part, each in (("train", 3), ("val", 2), ("Test", 1)):
            fill(tmp_path / part, "Covid", "Normal", each=each)
        catalogue = read_catalogue([tmp_path])
        assert [len(catalogue.train), len(catalogue.val), len(catalogue.test), len(catalogue.unparted)] == [6, 4, 2, 0]
        assert {image.source for image in catalogue.all} == {tmp_path.name}

    def test_a_folder_that_is_itself_named_test_is_test(self, tmp_path: Path) -> None:
        fill(tmp_path / "set" / "test", "Covid", "Normal")
        catalogue = read_catalogue([tmp_path / "set" / "test"])
        assert len(catalogue.test) == 8
        assert catalogue.test[0].source == "set"

    def test_several_folders_are_one_catalogue(self, tmp_path: Path) -> None:
        first, second = fill(tmp_path / "a", "Covid"), fill(tmp_path / "b", "Normal")
        assert Counter(image.source for image in read_catalogue([first, second]).all) == {"a": 4, "b": 4}

    def test_a_folder_that_names_no_class_is_named(self, tmp_path: Path) -> None:
        fill(tmp_path, "Covid", "Tuberculosis")
        with pytest.raises(InvalidData, match=r"Tuberculosis.*no class.*viral pneumonia"):
            read_catalogue([tmp_path])

    def test_an_empty_class_folder_is_named(self, tmp_path: Path) -> None:
        fill(tmp_path, "Covid", "Normal")
        (tmp_path / "Pneumonia").mkdir()
        with pytest.raises(InvalidData, match=r"Pneumonia.*no PNG or JPEG"):
            read_catalogue([tmp_path])

    def test_a_single_class_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidData, match="one class, Normal"):
            read_catalogue([fill(tmp_path, "Normal", "No_findings")])

    def test_a_folder_without_class_folders_or_that_is_missing_is_refused(self, tmp_path: Path) -> None:
        put(tmp_path / "a.png")
        with pytest.raises(InvalidData, match="no class folders"):
            read_catalogue([tmp_path])
        with pytest.raises(InvalidData, match="no folder"):
            read_catalogue([tmp_path / "missing"])

    def test_a_class_folder_beside_train_is_refused_and_not_passed_over(self, tmp_path: Path) -> None:
        fill(tmp_path / "train", "Covid", "Normal")
        fill(tmp_path, "Pneumonia")
        with pytest.raises(InvalidData, match="beside them Pneumonia"):
            read_catalogue([tmp_path])


class TestSplit:
    def test_no_image_of_train_or_val_stands_byte_for_byte_in_test(self, tmp_path: Path) -> None:
        fill(tmp_path / "train", "Covid", "Normal", each=20)
        fill(tmp_path / "test", "Covid", "Normal", each=5)
        leak = tmp_path / "train" / "Covid" / "again.png"
        leak.write_bytes((tmp_path / "test" / "Covid" / "3.png").read_bytes())
        parts = split(read_catalogue([tmp_path]), val_share=0.2, test_share=0.2, seed=0)
        assert [image.path for image in parts.dropped] == [leak]
        assert len(parts.test) == 10
        assert {image.path.parent.parent.name for image in parts.test} == {"test"}
        assert not {image.sha256 for image in parts.train + parts.val} & {image.sha256 for image in parts.test}

    def test_images_of_one_patient_stay_on_one_side(self, tmp_path: Path) -> None:
        fill(tmp_path / "set", "Covid", "Normal", each=40)
        with (tmp_path / "manifest.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file", "label", "patient"])
            table.writerows(
                [f"set/{name}/{i}.png", name, f"{name}-{i // 4}"] for name in ("Covid", "Normal") for i in range(40)
            )
        parts = split(read_catalogue([tmp_path / "set"]), val_share=0.2, test_share=0.2, seed=0)
        sides = [{image.patient for image in side} for side in (parts.train, parts.val, parts.test)]
        assert [len(side) for side in sides] == [12, 4, 4]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]

    def test_a_patient_in_the_test_folder_is_not_trained_on(self, tmp_path: Path) -> None:
        fill(tmp_path / "train", "Covid", "Normal", each=20)
        fill(tmp_path / "test", "Covid", "Normal", each=2)
        (tmp_path / "manifest.csv").write_text(
            "file,label,patient\ntrain/Covid/0.png,COVID-19,p1\ntrain/Covid/1.png,COVID-19,p2\ntest/Covid/1.png,COVID-19,p1\n"
        )
        parts = split(read_catalogue([tmp_path]), val_share=0.2, test_share=0.2, seed=0)
        assert [image.path.relative_to(tmp_path).as_posix() for image in parts.dropped] == ["train/Covid/0.png"]

    def test_every_source_and_label_gives_its_share(self, tmp_path: Path) -> None:
        folders = [fill(tmp_path / "a", "Covid", "Normal", each=20), fill(tmp_path / "b", "Normal", "Pneumonia", each=40)]
        parts = split(read_catalogue(folders), val_share=0.25, test_share=0.1, seed=0)
        held = Counter((image.source, image.label) for image in parts.test)
        assert held == {("a", "COVID-19"): 2, ("a", "Normal"): 2, ("b", "Normal"): 4, ("b", "Pneumonia"): 4}

    def test_the_split_is_the_same_each_time_and_another_for_another_seed(self, tmp_path: Path) -> None:
        catalogue = read_catalogue([fill(tmp_path, "Covid", "Normal", each=20)])
        first = split(catalogue, val_share=0.2, test_share=0.2, seed=0)
        assert first == split(catalogue, val_share=0.2, test_share=0.2, seed=0)
        assert first != split(catalogue, val_share=0.2, test_share=0.2, seed=1)

    def test_a_manifest_without_the_columns_is_refused(self, tmp_path: Path) -> None:
        fill(tmp_path, "Covid", "Normal")
        (tmp_path / "manifest.csv").write_text("name,label\n")
        with pytest.raises(InvalidData, match="no columns"):
            read_catalogue([tmp_path])

    def test_a_group_never_stands_on_two_sides_and_every_image_on_one_or_is_dropped(self, tmp_path: Path) -> None:
        for part, each in (("train", 12), ("val", 6), ("test", 6)):
            fill(tmp_path / "a" / part, "Covid", "Normal", each=each)
        fill(tmp_path / "b", "Covid", "Normal", each=20)
        catalogue = read_catalogue([tmp_path / "a", tmp_path / "b"])
        random = np.random.default_rng(0)
        for seed in range(20):
            films = [tuple(random.choice(len(catalogue.all), 2, replace=False)) for _ in range(15)]
            linked = grouped(catalogue, [(catalogue.all[first], catalogue.all[second]) for first, second in films])
            parts = split(linked, val_share=0.2, test_share=0.2, seed=seed)
            sides = [{image.group for image in side} for side in (parts.train, parts.val, parts.test)]
            assert not sides[0] & sides[1]
            assert not sides[0] & sides[2]
            assert not sides[1] & sides[2]
            assert Counter(parts.train + parts.val + parts.test + parts.dropped) == Counter(linked.all)
            assert set(linked.test) <= set(parts.test)


class TestGroups:
    def test_patient_bytes_and_film_join_images_and_their_joins_join(self, tmp_path: Path) -> None:
        fill(tmp_path, "Covid", "Normal", each=5)
        (tmp_path / "Normal" / "copy.png").write_bytes((tmp_path / "Covid" / "0.png").read_bytes())
        (tmp_path / "manifest.csv").write_text("file,label,patient\nCovid/1.png,,p\nNormal/copy.png,,p\nCovid/2.png,,q\n")
        catalogue = read_catalogue([tmp_path])
        by_name = {image.path.relative_to(tmp_path).as_posix(): image for image in catalogue.all}
        together = {name for name, image in by_name.items() if image.group == by_name["Covid/0.png"].group}
        assert together == {"Covid/0.png", "Normal/copy.png", "Covid/1.png"}
        linked = grouped(catalogue, [(by_name["Covid/2.png"], by_name["Covid/1.png"])])
        sizes = Counter(image.group for image in linked.all)
        assert sorted(sizes.values()) == [1] * 7 + [4]
        assert grouped(linked) == linked
        assert {len(image.group) for image in linked.all} == {64}

    def test_a_group_has_one_name_in_whatever_order_the_folders_come(self, tmp_path: Path) -> None:
        fill(tmp_path / "a", "Covid", "Normal")
        fill(tmp_path / "b", "Covid", "Normal")
        (tmp_path / "b" / "Normal" / "copy.png").write_bytes((tmp_path / "a" / "Normal" / "0.png").read_bytes())
        folders = [tmp_path / "a", tmp_path / "b"]
        assert set(read_catalogue(folders).all) == set(read_catalogue(folders[::-1]).all)

    def test_a_file_that_two_of_the_folders_hold_is_refused(self, tmp_path: Path) -> None:
        fill(tmp_path / "train", "Covid", "Normal")
        with pytest.raises(InvalidData, match=r"given twice.*train.Covid.0\.png"):
            read_catalogue([tmp_path, tmp_path / "train"])


class TestFolds:
    def test_folds_hold_every_image_once_and_every_group_whole(self) -> None:
        images = [labelled("Normal", "a", number, group=str(number // 3)) for number in range(100)]
        parts = folds(images, count=4, seed=0)
        assert sorted(chain(*parts), key=lambda image: int(image.path.name)) == images
        groups = [{image.group for image in part} for part in parts]
        assert sum(map(len, groups)) == len(set().union(*groups)) == 34
        assert [len(part) for part in parts] == pytest.approx([25] * 4, abs=2)

    def test_large_groups_do_not_make_folds_uneven(self) -> None:
        sizes = [1] * 26 + [8] * 3
        images = [
            labelled("Normal", "a", number, group=str(group)) for group, size in enumerate(sizes) for number in range(size)
        ]
        for seed in range(5):
            assert [len(part) for part in folds(images, seed=seed)] == [10] * 5

    def test_each_source_and_label_is_spread_evenly_over_the_folds(self) -> None:
        strata = [("Normal", "a")] * 50 + [("COVID-19", "a")] * 15 + [("COVID-19", "b")] * 35
        images = [labelled(label, source, number, group=str(number)) for number, (label, source) in enumerate(strata)]
        for part in folds(images):
            assert Counter((image.label, image.source) for image in part) == {
                ("Normal", "a"): 10,
                ("COVID-19", "a"): 3,
                ("COVID-19", "b"): 7,
            }

    def test_folds_are_the_same_each_time_and_others_for_another_seed(self) -> None:
        images = [labelled("Normal", "a", number, group=str(number // 2)) for number in range(40)]
        assert folds(images) == folds(images)
        assert folds(images) != folds(images, seed=1)

    def test_fewer_groups_than_folds_are_refused(self) -> None:
        with pytest.raises(InvalidData, match=r"2 groups .* 5 folds"):
            folds([labelled("Normal", "a", number, group=str(number % 2)) for number in range(10)])


class TestReading:
    def test_8_and_16_bit_grey_keep_their_whole_range(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 51, 255]], np.uint8)).save(tmp_path / "8.png")
        Image.fromarray(np.array([[0, 13107, 65535]], np.uint16)).save(tmp_path / "16.png")
        for name in ("8.png", "16.png"):
            image = read_radiograph(tmp_path / name)
            assert image.dtype == np.float32
            assert image[0].tolist() == pytest.approx([0, 0.2, 1])

    def test_16_bit_values_between_two_8_bit_ones_stay_apart(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[1000, 1001]], np.uint16)).save(tmp_path / "16.png")
        image = read_radiograph(tmp_path / "16.png")
        assert image[0, 1] - image[0, 0] == pytest.approx(1 / 65535, rel=1e-3)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "LA", "1"])
    def test_colour_palette_and_cmyk_become_grey(self, tmp_path: Path, mode: str) -> None:
        grey = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 16, axis=0).repeat(16, axis=1))
        file = tmp_path / ("film.jpg" if mode == "CMYK" else "film.png")
        grey.convert("RGB").convert(mode).save(file)
        image = read_radiograph(file)
        assert image.shape == (16, 32)
        assert image[:, :15].max() < 0.02
        assert image[:, 17:].min() > 0.98

    def test_transparent_pixels_are_black(self, tmp_path: Path) -> None:
        Image.new("RGBA", (4, 4), (255, 255, 255, 0)).save(tmp_path / "clear.png")
        assert read_radiograph(tmp_path / "clear.png").max() == 0

    def test_an_exif_orientation_is_obeyed(self, tmp_path: Path) -> None:
        pixels = np.zeros((16, 32), np.uint8)
        pixels[:, :16] = 255
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=100)
        image = read_radiograph(tmp_path / "turned.jpg")
        assert image.shape == (32, 16)
        assert image[:15].min() > 0.95
        assert image[17:].max() < 0.05

    @pytest.mark.parametrize("name", ["film.png", "film.jpg"])
    @pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9])
    def test_a_file_that_is_cut_off_is_named(self, tmp_path: Path, name: str, kept: float) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(len(whole) * kept)])
        with pytest.raises(UnreadableImage, match=name):
            read_radiograph(tmp_path / name)

    def test_a_file_that_is_missing_a_folder_or_no_image_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "text.png").write_text("not an image")
        Image.new("L", (2, 2)).save(tmp_path / "bitmap.png", format="BMP")
        for name in ("text.png", "bitmap.png", "missing.png", "."):
            with pytest.raises(UnreadableImage, match=str(tmp_path / name)):
                read_radiograph(tmp_path / name)


def labelled(label: str, source: str, number: int, *, group: str = "") -> LabelledImage:
    return LabelledImage(
        path=Path(f"{source}/{label}/{number}"), label=label, patient="", source=source, sha256="", group=group
    )


class TestLoading:
    def test_trainings_tensor_of_an_image_is_servings(self, tmp_path: Path) -> None:
        images = read_catalogue([fill(tmp_path, "Covid", "Normal", "Pneumonia")]).all
        tensors, truth = load_images(images, PREPARATION).tensors
        assert truth.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        for image, tensor in zip(images, tensors, strict=True):
            assert torch.equal(tensor, prepare(read_radiograph(image.path), PREPARATION))

    def test_images_are_decoded_once_for_all_epochs(self, tmp_path: Path) -> None:
        fill(tmp_path, "Covid", "Normal", "Pneumonia", each=10)
        parts = split(read_catalogue([tmp_path]), val_share=0.2, test_share=0.2, seed=0)
        data = Radiographs(parts, recipe=Recipe(architecture="lenet5"), preparation=PREPARATION)
        data.setup("fit")
        for image in parts.train + parts.val:
            image.path.unlink()
        for _ in range(2):
            data.setup("fit")
            assert sum(len(truth) for _, truth in data.train_dataloader()) == len(parts.train)
            assert sum(len(truth) for _, truth in data.val_dataloader()) == len(parts.val)

    def test_a_class_without_training_images_is_refused(self, tmp_path: Path) -> None:
        parts = split(read_catalogue([fill(tmp_path, "Covid", "Normal")]), val_share=0.3, test_share=0.2, seed=0)
        with pytest.raises(InvalidData, match="No training images of Pneumonia"):
            Radiographs(parts, recipe=Recipe(architecture="lenet5"), preparation=PREPARATION)

    @pytest.mark.parametrize(
        ("balance", "expected"),
        [("none", [0.1, 0.6, 0.3]), ("class", [0.5, 0.5 * 6 / 9, 0.5 * 3 / 9]), ("source", [0.5, 0.25, 0.25])],
    )
    def test_draws_are_even_over_classes_or_their_sources(self, balance: str, expected: list[float]) -> None:
        groups = [("Normal", "a")] * 1 + [("Pneumonia", "a")] * 6 + [("Pneumonia", "b")] * 3
        images = [labelled(label, source, number) for number, (label, source) in enumerate(groups)]
        weights = draw_weights(images, balance)
        shares = weights / weights.sum()
        assert [shares[:1].sum().item(), shares[1:7].sum().item(), shares[7:].sum().item()] == pytest.approx(expected)

    def test_an_even_epoch_shows_every_image_once_and_in_another_order_each_time(self) -> None:
        batches = BatchDraw(torch.ones(10), batch_size=4, seed=0)
        first, second = list(batches), list(batches)
        assert [len(batch) for batch in first] == [4, 4, 2]
        assert len(batches) == 3
        assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(10))
        assert first != second
        assert list(BatchDraw(torch.ones(10), batch_size=4, seed=0)) == first

    def test_a_weighted_epoch_draws_by_weight(self) -> None:
        drawn = list(chain(*BatchDraw(torch.tensor([0.5] + [0.5 / 999] * 999), batch_size=100, seed=0)))
        assert len(drawn) == 1000
        assert 420 < drawn.count(0) < 580


class TestRecipes:
    def test_every_recipe_that_ships_can_be_read(self) -> None:
        assert {"lenet5", "vgg16", "thesis-lenet5", "thesis-vgg16"} <= set(shipped_recipes())
        for name in shipped_recipes():
            assert read_recipe(name).family in name

    def test_a_file_holds_only_the_differences(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text('architecture = "lenet5"\nepochs = 3\n[augmentation]\ntranslate = 0.2\n')
        recipe = read_recipe(str(tmp_path / "mine.toml"))
        assert recipe == Recipe(architecture="lenet5", epochs=3, augmentation=Augmentation(translate=0.2))

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('architecture = "lenet5"\nepoch = 3\n', "epoch"),
            ('architecture = "lenet5"\nepochs = 0\n', "epochs"),
            ('architecture = "resnet"\n', "architecture"),
            ('architecture = "lenet5"\n[augmentation]\nflip = true\n', "augmentation.flip"),
            ("epochs = ", "not TOML"),
        ],
    )
    def test_a_wrong_recipe_is_refused_by_key(self, tmp_path: Path, text: str, reason: str) -> None:
        (tmp_path / "mine.toml").write_text(text)
        with pytest.raises(InvalidRecipe, match=reason):
            read_recipe(str(tmp_path / "mine.toml"))

    def test_a_recipe_that_is_not_there_is_answered_with_those_that_are(self) -> None:
        with pytest.raises(InvalidRecipe, match=r"resnet.*thesis-lenet5"):
            read_recipe("resnet")
