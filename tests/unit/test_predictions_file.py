from pathlib import Path

import pytest

from cxr_models.errors import InvalidData
from cxr_models.predictions_file import PredictedImage, read_predictions, short_group, write_predictions


def said(number: int, *, fold: int | None = 1) -> PredictedImage:
    return PredictedImage(
        sha256=f"{number:064x}",
        source="made, up",
        label="Normal",
        group=short_group(f"patient {number}"),
        fold=fold,
        probabilities={"COVID-19": 0.125, "Normal": 0.5, "Pneumonia": 0.375},
    )


def test_what_is_written_is_read_again_sorted_by_hash(tmp_path: Path) -> None:
    path = tmp_path / "new" / "predictions.csv"
    write_predictions(path, [said(2, fold=None), said(1)])
    assert read_predictions(path) == (said(1), said(2, fold=None))
    assert [each.name for each in path.parent.iterdir()] == ["predictions.csv"]


def test_no_patient_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, [said(1)])
    assert "patient" not in path.read_text()
    assert short_group("patient 1") != short_group("patient 2")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("sha256,source", "hash,source"), "columns"),
        (("0.500000", "0.600000"), "sum to 1"),
        (("0.500000", "nan"), "sum to 1"),
        (("0.500000", "half"), "half"),
        ((",1,", ",one,"), "one"),
        ((",0.375000", ""), "no prediction"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_by_name(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, [said(1)])
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(InvalidData, match=words) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value)


def test_a_label_that_there_is_not_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, [said(1)])
    head, line = path.read_text().splitlines()
    path.write_text(f"{head}\n{line.replace('Normal', 'Fracture')}\n")
    with pytest.raises(InvalidData, match="Fracture"):
        read_predictions(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="There is no file of predictions"):
        read_predictions(tmp_path / "predictions.csv")
