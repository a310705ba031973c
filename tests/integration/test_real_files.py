"""Files that nobody wrote for this project: what each is judged to be, and that none brings the reader down."""

import csv
from pathlib import Path

import numpy as np
import pytest

from dicom_io.eligibility import judge
from dicom_io.errors import NotDicom, UndecodablePixels
from dicom_io.pixels import read_header, read_image
from tests.factories import dicom_folder

VERDICTS = {
    "b_agfa_chest_jap_nopixels": "no_pixels",
    "b_badvr": "not_radiograph",
    "b_charset_gb2312": "not_radiograph",
    "b_charset_x2": "not_radiograph",
    "b_chest_no_pixels": "no_pixels",
    "b_dcm4che_no_preamble": "not DICOM",
    "b_dcm4che_truncated_100k": "not_radiograph",
    "b_gh177_be_undef_length": "not DICOM",
    "b_gh340_acrnema": "not_radiograph",
    "b_issue1097_deflated_sq": "not_radiograph",
    "b_j2k_pixelrep_mismatch": "not_radiograph",
    "b_mr_truncated": "not_radiograph",
    "b_no_meta": "not DICOM",
    "b_rtplan_truncated": "not_radiograph",
    "b_sc_odd_length": "not_radiograph",
    "chest_fuji_mono1_10_nopreamble": "eligible",
    "chest_nih_dx_nofinding": "body_part_missing",
    "chest_philips_rg1_j2ki": "eligible",
    "chest_rsna_pa_jpeg": "eligible",
    "chest_rsna_pa_jpeg_fakemono1": "eligible",
    "cspine_thumb_lat": "not_chest",
    "ct_ge_chest_scout_jpll": "not_radiograph",
    "dog_thorax_lateral_dx": "view_missing",
    "extremity_fuji_rg3_j2kr": "not_chest",
    "extremity_fuji_rg3_rle": "not_chest",
    "hip_fuji_rg2_jlsl": "not_chest",
    "hip_fuji_rg2_jpll": "not_chest",
    "hip_fuji_rg2_jply": "not_chest",
    "mammo_ge_gh133": "not_radiograph",
    "mr_ge_knee": "not_radiograph",
    "ot_abdomen_pelvis_scout_nopreamble": "not_radiograph",
    "sr_report_deflated": "not_radiograph",
    "teeth_modalitylut": "not_chest",
    "us_ge_rgb_bigendian": "not_radiograph",
    "us_jxl": "not_radiograph",
    "us_palette_rle_10frames": "not_radiograph",
}

UNREADABLE_PIXELS = {
    "b_agfa_chest_jap_nopixels": "no PixelData",
    "b_badvr": "NumberOfFrames",
    "b_chest_no_pixels": "no PixelData",
    "b_dcm4che_truncated_100k": "Rows is not one whole number",
    "b_gh340_acrnema": "BitsAllocated is 12",
    "b_issue1097_deflated_sq": "Rows is missing",
    "b_mr_truncated": "8130 bytes",
    "b_rtplan_truncated": "Rows is missing",
    "b_sc_odd_length": "SamplesPerPixel is 3",
    "sr_report_deflated": "Rows is missing",
    "us_ge_rgb_bigendian": "SamplesPerPixel is 3",
    "us_jxl": "SamplesPerPixel is 3",
    "us_palette_rle_10frames": "NumberOfFrames is 10",
}

NOT_DICOM = {name for name, verdict in VERDICTS.items() if verdict == "not DICOM"}

PATIENT_WORDS = ("Dog", "VeryGood", "Douglas", "Davidson", "CompressedSamples")


@pytest.fixture
def folder() -> Path:
    return dicom_folder()


@pytest.mark.parametrize("name", sorted(VERDICTS.keys() - NOT_DICOM))
def test_each_real_file_gets_its_verdict(folder: Path, name: str) -> None:
    verdict = judge(read_header(folder / f"{name}.dcm"))
    assert verdict.code == VERDICTS[name]
    assert verdict.eligible == (verdict.code == "eligible")
    assert verdict.reason.endswith(".")
    assert not any(word in verdict.reason for word in PATIENT_WORDS)


@pytest.mark.parametrize("name", sorted(VERDICTS.keys() - UNREADABLE_PIXELS.keys() - NOT_DICOM))
def test_each_sound_file_gives_a_sound_picture(folder: Path, name: str) -> None:
    pixels = read_image(folder / f"{name}.dcm").pixels
    assert pixels.dtype == np.float32
    assert np.isfinite(pixels).all()
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert pixels.std() > 0.02


@pytest.mark.parametrize("name", UNREADABLE_PIXELS)
def test_each_file_without_a_picture_says_why(folder: Path, name: str) -> None:
    with pytest.raises(UndecodablePixels, match=UNREADABLE_PIXELS[name]):
        read_image(folder / f"{name}.dcm")


@pytest.mark.parametrize("name", sorted(NOT_DICOM))
def test_what_names_no_kind_of_object_is_not_dicom(folder: Path, name: str) -> None:
    with pytest.raises(NotDicom):
        read_header(folder / f"{name}.dcm")


def test_the_table_names_every_file_there_is(folder: Path) -> None:
    assert {path.stem for path in folder.glob("*.dcm")} == set(VERDICTS)
    with (folder / "manifest.csv").open(encoding="utf-8") as manifest:
        frontal = {
            row["local_name"].removesuffix(".dcm") for row in csv.DictReader(manifest) if row["category"] == "chest-frontal"
        }
    assert {name for name, code in VERDICTS.items() if code == "eligible"} == frontal - {"chest_nih_dx_nofinding"}


@pytest.mark.parametrize("name", ["chest_fuji_mono1_10_nopreamble", "chest_philips_rg1_j2ki", "chest_rsna_pa_jpeg"])
def test_in_a_real_chest_the_spine_is_brighter_than_the_lungs(folder: Path, name: str) -> None:
    pixels = read_image(folder / f"{name}.dcm").pixels
    rows, columns = pixels.shape
    band = pixels[rows // 4 : rows // 2]
    spine = band[:, int(columns * 0.45) : int(columns * 0.52)].mean()
    right_lung = band[:, int(columns * 0.2) : int(columns * 0.35)].mean()
    assert spine > right_lung + 0.05


def test_one_hip_decodes_alike_from_three_compressions(folder: Path) -> None:
    lossless = read_image(folder / "hip_fuji_rg2_jpll.dcm").pixels
    np.testing.assert_array_equal(read_image(folder / "hip_fuji_rg2_jlsl.dcm").pixels, lossless)
    # 12-bit JPEG Extended whose scan header the usual decoders refuse
    assert np.abs(read_image(folder / "hip_fuji_rg2_jply.dcm").pixels - lossless).mean() < 0.01
