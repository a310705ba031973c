"""What is sent: small radiographs that the worker really analyses, each study of a patient of its own."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pynetdicom.dsutils import split_dataset

from dicom_io.uids import derived_uid
from dicom_io.values import StudyUID
from dicom_io.wrap import Exposure, Patient
from tests.factories import TAKEN_AT, make_dx, radiograph, write

SIDE = 256
_TWO_FILMS_EVERY = 7
_PICTURES = 16
"""Drawn once: each film is one of them with its own number written into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A radiograph on disk, as it is sent."""

    study_uid: str
    patient_id: str
    sop_instance_uid: str
    sha256: str
    """Of the data set alone, which is what goes over the wire."""
    path: Path


Study = Sequence[Film]


def make_studies(folder: Path, count: int, *, seed: int) -> list[Study]:
    """Write so many studies, some of two films."""
    pictures = [radiograph(SIDE, SIDE, seed=number) for number in range(_PICTURES)]
    studies: list[Study] = []
    for number in range(count):
        uid = StudyUID(derived_uid("soak", str(seed), str(number)))
        patient = Patient(name=f"TEST^Soak{number}", patient_id=f"SOAK-{number:05}", sex="O")
        films = []
        for place in range(2 if number % _TWO_FILMS_EVERY == 0 else 1):
            picture = pictures[(number + place) % _PICTURES].copy()
            picture[0, :8] = list(number.to_bytes(4, "little") + bytes((place, 0, 0, 0)))
            exposure = Exposure(study_uid=uid, taken_at=TAKEN_AT, accession_number=f"S{number}", instance_number=place + 1)
            ds = make_dx(picture, exposure=exposure, patient=patient, view="AP" if place else "PA")
            path = write(ds, folder / f"{number}-{place}.dcm")
            films.append(
                Film(
                    study_uid=uid,
                    patient_id=patient.patient_id,
                    sop_instance_uid=str(ds.SOPInstanceUID),
                    sha256=_dataset_sha256(path),
                    path=path,
                )
            )
        studies.append(films)
    return studies


def _dataset_sha256(path: Path) -> str:
    _, begin = split_dataset(path)
    return hashlib.sha256(path.read_bytes()[begin:]).hexdigest()
