"""How old a patient was on the day of the study."""

import re
from datetime import date
from typing import Final

from pydicom.dataset import Dataset

from dicom_io.attributes import Unreadable, strings

_AGE = re.compile(r"(\d{1,3})([DWMY])")
_PER_YEAR: Final = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")


def age_years(ds: Dataset) -> float | None:
    """Age in years by PatientAge (PS3.5 6.2, AS) and by PatientBirthDate and StudyDate; the lower one, where both are there.

    Returns
    -------
    float or None
        None where neither can be read.
    """
    ages = [age for age in (_written(ds), _counted(ds)) if age is not None and age >= 0]
    return min(ages, default=None)


def _written(ds: Dataset) -> float | None:
    found = _AGE.fullmatch(_text(ds, "PatientAge"))
    return None if found is None else int(found[1]) / _PER_YEAR[found[2]]


def _counted(ds: Dataset) -> float | None:
    born = _day(ds, "PatientBirthDate")
    taken = next((day for day in (_day(ds, each) for each in ("StudyDate", "AcquisitionDate", "ContentDate")) if day), None)
    if born is None or taken is None:
        return None
    had_birthday = (taken.month, taken.day) >= (born.month, born.day)
    return taken.year - born.year - (not had_birthday)


def _day(ds: Dataset, keyword: str) -> date | None:
    found = _DATE.fullmatch(_text(ds, keyword))
    try:
        return None if found is None else date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return None


def _text(ds: Dataset, keyword: str) -> str:
    try:
        return next(iter(strings(ds, keyword)), "")
    except Unreadable:
        return ""
