import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_io.eligibility import ReasonCode, judge
from dicom_io.errors import InvalidObject
from dicom_io.pixels import read_image
from dicom_io.values import TransferSyntaxUID
from dicom_io.wrap import Encoding, Photometric, View
from tests.factories import PATIENT, make_dx, make_study, radiograph, write
from tests.requirements import need

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless]


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
@pytest.mark.parametrize("bits_stored", [8, 10, 12, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_wrapped_picture_comes_back_as_it_went_in(
    tmp_path: Path, photometric: Photometric, bits_stored: int, transfer_syntax: str
) -> None:
    picture = radiograph()
    encoding = Encoding(photometric=photometric, bits_stored=bits_stored, transfer_syntax=TransferSyntaxUID(transfer_syntax))
    path = write(make_dx(picture, encoding=encoding), tmp_path / "dx.dcm")
    assert dcmread(path).file_meta.TransferSyntaxUID == transfer_syntax
    rounding = 0.51 / ((1 << bits_stored) - 1)
    np.testing.assert_allclose(read_image(path).pixels, picture / 255, atol=rounding)


@pytest.mark.parametrize("view", ["PA", "AP", "LL"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("transfer_syntax", [ExplicitVRLittleEndian, JPEGLSLossless])
def test_dciodvfy_finds_no_fault_in_a_wrapped_picture(
    tmp_path: Path, view: View, photometric: Photometric, transfer_syntax: str
) -> None:
    encoding = Encoding(photometric=photometric, bits_stored=12, transfer_syntax=TransferSyntaxUID(transfer_syntax))
    path = write(make_dx(view=view, encoding=encoding), tmp_path / "dx.dcm")
    said = subprocess.run([need("dciodvfy"), path], capture_output=True, text=True, check=False).stderr
    assert said.splitlines() == ["DXImageForPresentation"]


def test_names_in_any_script_are_kept(tmp_path: Path) -> None:
    ds = dcmread(write(make_dx(), tmp_path / "dx.dcm"))
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert str(ds.PatientName) == PATIENT.name


def test_equal_input_makes_equal_bytes(tmp_path: Path) -> None:
    assert write(make_dx(), tmp_path / "a").read_bytes() == write(make_dx(), tmp_path / "b").read_bytes()


def test_the_images_of_a_study_share_the_study_and_nothing_else() -> None:
    pa, lateral = make_study()
    assert pa.StudyInstanceUID == lateral.StudyInstanceUID
    assert pa.SOPInstanceUID != lateral.SOPInstanceUID
    assert (judge(pa).code, judge(lateral).code) == (ReasonCode.ELIGIBLE, ReasonCode.NOT_FRONTAL)


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding(bits_stored=5),
        Encoding(bits_stored=17),
        Encoding(transfer_syntax=TransferSyntaxUID(HTJ2KLossless)),
        Encoding(transfer_syntax=TransferSyntaxUID("1.2.3")),
    ],
)
def test_what_cannot_be_written_is_refused(encoding: Encoding) -> None:
    with pytest.raises(InvalidObject):
        make_dx(encoding=encoding)


def test_a_colour_picture_is_refused() -> None:
    with pytest.raises(InvalidObject, match="one grey plane"):
        make_dx(np.zeros((4, 4, 3), np.uint8))
