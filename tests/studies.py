"""Made-up radiographs of made-up patients, findings on them, and what validators say of the objects made from these."""

import subprocess
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from dicom_io.codes import Assessment, Condition
from dicom_io.quiet import quietly
from dicom_io.uids import MODEL_NAME, SOFTWARE_VERSION
from dicom_io.values import Algorithm, ClassFinding, ImageFindings, RefusedImage, RefusedStudy, StudyFindings
from tests.factories import dicom_folder, make_dx
from tests.requirements import need

STUDY_UID = "1.2.826.0.1.3680043.10.543.1"
ANALYSED_AT = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=timezone(timedelta(hours=1)))
NAMES = {
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "japanese_with_jis_x_0201": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "cyrillic": ("ISO_IR 144", "Иванов^Пётр"),
    "latin_1": ("ISO_IR 100", "Müller^Jérôme"),
    "utf_8": ("ISO_IR 192", "Müller^Jérôme=王^小东"),
}
"""Character sets, and a name that needs them."""


def radiograph(folder: Path, *, number: int = 1, **attributes: Any) -> Path:
    """Write a small DX image; attributes replace the usual ones, or remove them where they are None."""
    ds = make_dx(np.zeros((4, 4), np.uint8))
    ds.SpecificCharacterSet = attributes.pop("SpecificCharacterSet", "ISO_IR 100")
    usual = {
        "SOPInstanceUID": f"{STUDY_UID}.{number}.{number}",
        "StudyInstanceUID": STUDY_UID,
        "SeriesInstanceUID": f"{STUDY_UID}.{number}",
        "StudyDate": "20260304",
        "StudyTime": "045900",
        "StudyID": "S1",
        "StudyDescription": "Chest PA",
        "AccessionNumber": "A100",
        "ReferringPhysicianName": "Roe^Jane",
        "PatientName": "Doe^John",
        "PatientID": "P-1",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientBirthDate": "19500102",
        "PatientSex": "M",
        "PatientOrientation": ["L", "F"],
        "ImagerPixelSpacing": [0.2, 0.15],
        "TimezoneOffsetFromUTC": None,
    }
    with quietly:
        for keyword, value in {**usual, **attributes}.items():
            if value is not None:
                setattr(ds, keyword, value)
            elif keyword in ds:
                delattr(ds, keyword)
    ds.file_meta.MediaStorageSOPInstanceUID = f"{STUDY_UID}.{number}.{number}"
    path = folder / f"{number}.dcm"
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def with_bytes(path: Path, old: bytes, new: bytes) -> Path:
    """Replace bytes of a file by as many others, to write what pydicom would refuse to."""
    assert len(old) == len(new)
    encoded = path.read_bytes()
    assert encoded.count(old) == 1
    path.write_bytes(encoded.replace(old, new))
    return path


def findings_on(*paths: Path, version: str = "1.0", **changes: Any) -> StudyFindings:
    """Suspected COVID-19 on the first image, nothing on the others."""
    images = tuple(
        ImageFindings(
            path=path,
            findings=(
                _finding(Condition.COVID_19, 0.7312 if path is paths[0] else 0.05, 0.41),
                _finding(Condition.NORMAL, 0.1 if path is paths[0] else 0.9, 0.5),
                _finding(Condition.PNEUMONIA, 0.1688 if path is paths[0] else 0.05, 0.35),
            ),
        )
        for path in paths
    )
    usual = {
        "images": images,
        "algorithm": Algorithm(
            name="lenet5",
            version=version,
            manufacturer="cxr-worker project",
            parameters=("weights sha256 3f00", "threshold COVID-19 0.41"),
        ),
        "assessment": Assessment.ACTIONABLE_WITHIN_MINUTES,
        "impression": "AI triage urgent: COVID-19 suspected.",
        "analysed_at": ANALYSED_AT,
        "result_key": f"result of lenet5 {version}",
    }
    return StudyFindings(**{**usual, **changes})


def _finding(condition: Condition, probability: float, threshold: float) -> ClassFinding:
    return ClassFinding(condition=condition, probability=probability, present=probability >= threshold, threshold=threshold)


def named_radiograph(folder: Path, character_set: str) -> Path:
    """A radiograph with names in one of `NAMES`, or, for ``missing``, in Latin-1 without saying so."""
    terms, name = NAMES.get(character_set, NAMES["latin_1"])
    path = radiograph(folder, SpecificCharacterSet=terms, PatientName=name, ReferringPhysicianName=name)
    return path if character_set in NAMES else with_bytes(path, b"ISO_IR 100", b" " * 10)


def refusal_of(*paths: Path, **changes: Any) -> RefusedStudy:
    """The first image is lateral, the next one undecodable, and so on; of the last reason nobody has words."""
    reasons = [("not_frontal", "ViewPosition is LL."), ("undecodable", "PixelData is short."), ("odd", "It is odd.")]
    usual = {
        "images": tuple(
            RefusedImage(path=path, code=reasons[place % 3][0], reason=reasons[place % 3][1])
            for place, path in enumerate(paths)
        ),
        "decided_at": ANALYSED_AT,
        "result_key": "refusal",
    }
    return RefusedStudy(**{**usual, **changes})


def encoded(ds: Dataset) -> bytes:
    """The bytes of a PS3.10 file."""
    file = BytesIO()
    pydicom.dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def reread(ds: Dataset) -> Dataset:
    """What a receiver makes of an object."""
    return pydicom.dcmread(BytesIO(encoded(ds)))


def tree(item: Dataset, depth: int = 0) -> list[str]:
    """One line per content item of a Structured Report: relationship, value type, concept, value."""

    def coded(code: Dataset) -> str:
        return f'({code.CodeValue}, {code.CodingSchemeDesignator}, "{code.CodeMeaning}")'

    match item.ValueType:
        case "CODE":
            value = coded(item.ConceptCodeSequence[0])
        case "NUM":
            measured = item.MeasuredValueSequence[0]
            value = f"{measured.NumericValue} {coded(measured.MeasurementUnitsCodeSequence[0])}"
        case "IMAGE" | "COMPOSITE":
            value = item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        case "CONTAINER":
            template = item.get("ContentTemplateSequence", [])
            value = template[0].TemplateIdentifier if template else item.ContinuityOfContent
        case _:
            value = " ".join(str(item.get("TextValue") or item.get("UID")).split())
    name = "".join(coded(code) + " " for code in item.get("ConceptNameCodeSequence", []))
    line = f"{item.get('RelationshipType', 'ROOT')} {item.ValueType} {name}= {value}"
    children = [line for child in item.get("ContentSequence", []) for line in tree(child, depth + 1)]
    for before in ("= ", f"{MODEL_NAME} "):
        line = line.replace(f"{before}{SOFTWARE_VERSION}", f"{before}our version")
    return ["  " * depth + line, *children]


def complaints(ds: Dataset, folder: Path) -> list[str]:
    """Errors and warnings that dciodvfy has of an object."""
    path = folder / "validated.dcm"
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    said = subprocess.run([need("dciodvfy"), path], capture_output=True, text=True, check=False).stderr
    return [line for line in said.splitlines() if line.startswith(("Error", "Warning"))]


def real_radiographs() -> list[Path]:
    """Frontal chest radiographs that nobody wrote for this project."""
    return sorted(dicom_folder().glob("chest_*.dcm"))
