"""Made-up objects for tests: small, deterministic, nobody's."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from cxr_models.checkpoint import save_model
from cxr_models.networks import build_network
from cxr_models.values import LABELS, UNSAVED, Card
from dicom_io.quiet import quietly
from dicom_io.uids import derived_uid
from dicom_io.values import StudyUID
from dicom_io.wrap import PLAIN, Encoding, Exposure, Patient, View, dx_from_grayscale
from tests.requirements import lacking

TAKEN_AT = datetime(2024, 5, 17, 8, 30, tzinfo=UTC)
SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    "1.2.3",
    "",
)
"""What a stranger may call a data set written in: each way to write its elements, compressed pixels, nonsense, nothing."""
PATIENT = Patient(name="Müller^Zoë=山田^太郎", patient_id="TEST-0001", birth_date="19610203", sex="F")


def study_uid(name: str = "study") -> StudyUID:
    """A study's UID by a name that means something in the test."""
    return StudyUID(derived_uid("test study", name))


def radiograph(rows: int = 320, columns: int = 256, *, seed: int = 0) -> NDArray[np.uint8]:
    """Something like a frontal chest: two dark lungs in a bright body before a black background, with a little noise."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    body = 210.0 * ((x / 0.95) ** 2 + (y / 1.3) ** 4 < 1)
    for side in (-1, 1):
        body -= 150.0 * np.exp(-((((x - 0.42 * side) / 0.3) ** 2 + (y / 0.65) ** 2) ** 2))
    noise = np.random.default_rng(seed).normal(0.0, 3.0, (rows, columns))
    return np.clip(body + noise, 0, 255).astype(np.uint8)


def make_dx(
    pixels: NDArray[np.uint8] | NDArray[np.uint16] | None = None,
    *,
    exposure: Exposure | None = None,
    patient: Patient = PATIENT,
    view: View = "PA",
    encoding: Encoding = PLAIN,
) -> Dataset:
    """A frontal chest DX that is eligible unless `view` is LL."""
    return dx_from_grayscale(
        radiograph() if pixels is None else pixels,
        patient,
        exposure=exposure or Exposure(study_uid=study_uid(), taken_at=TAKEN_AT, accession_number="ACC-1"),
        view=view,
        encoding=encoding,
    )


def make_study(name: str = "study", *, views: tuple[View, ...] = ("PA", "LL"), patient: Patient = PATIENT) -> list[Dataset]:
    """The images of one study, each with pixels of its own."""
    first = Exposure(study_uid=study_uid(name), taken_at=TAKEN_AT, accession_number=f"ACC-{name}"[:16])
    return [
        make_dx(radiograph(seed=number), exposure=replace(first, instance_number=number), patient=patient, view=view)
        for number, view in enumerate(views, start=1)
    ]


def write_films(folder: Path, *, each: int, seed: int = 0) -> Path:
    """Write a data folder of three classes that a network can tell apart: bright above, in the middle, below."""
    generator = np.random.default_rng(seed)
    for place, name in enumerate(("Covid", "Normal", "Pneumonia")):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = generator.integers(0, 90, (60, 50), dtype=np.uint8)
            pixels[20 * place : 20 * place + 20] += 120
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def bare_image(cells: NDArray[np.uint8] | NDArray[np.uint16], **attributes: Any) -> Dataset:
    """The least data set that has pixels: native, MONOCHROME2, all bits stored, no window; `attributes` are set on top."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.Rows, ds.Columns = cells.shape
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = cells.dtype.itemsize * 8
    ds.BitsStored = attributes.get("BitsStored", ds.BitsAllocated)
    ds.HighBit = attributes.get("HighBit", ds.BitsStored - 1)
    ds.add_new("PixelData", "OW", cells.tobytes() + bytes(cells.nbytes % 2))
    with quietly:  # tests set what pydicom warns of
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
    return ds


def write(ds: Dataset, path: Path) -> Path:
    """Write a data set as a PS3.10 file."""
    ds.save_as(path, enforce_file_format=True)
    return path


def write_model(folder: Path, *, seed: int = 0, classes: int = 3, **card: Any) -> Card:
    """A LeNet-5 that learned nothing, as a model folder; `card` replaces what stands on the card."""
    torch.manual_seed(seed)
    usual: dict[str, Any] = {
        "name": "own",
        "version": "1.0",
        "architecture": "lenet5",
        "labels": LABELS,
        "input_side": 32,
        "mean": 0.5,
        "std": 0.5,
        "temperature": 1.0,
        "thresholds": {"COVID-19": 0.5, "Pneumonia": 0.5},
        "weights_sha256": UNSAVED,
        "intended_use": "Tests.",
        "limits": ("It learned nothing.",),
    }
    return save_model(folder, network=build_network("lenet5", classes=classes), card=Card(**{**usual, **card}))


def dicom_folder() -> Path:
    """The folder of real DICOM files, or a skip that says where it was looked for; in CI a failure."""
    return _folder("CXR_DICOM", "../shared/dicom")


def data_folder() -> Path:
    """The folder of labelled radiographs, on the same terms."""
    return _folder("CXR_DATA", "../shared/data")


def _folder(variable: str, default: str) -> Path:
    root = Path(__file__).resolve().parents[1]
    folder = (root / os.environ.get(variable, default)).resolve()
    if not folder.is_dir():
        lacking(f"the folder {folder} ({variable})")
    return folder
