"""Every word that a person reads on what we make, in every language that a destination can ask for."""

from enum import StrEnum
from typing import Final

from dicom_io.wording.english import ENGLISH
from dicom_io.wording.spanish import SPANISH
from dicom_io.wording.words import Wording

__all__ = ["Language", "Wording", "wording_in"]


class Language(StrEnum):
    """What a destination's people read."""

    ENGLISH = "en"
    SPANISH = "es"


_IN: Final = {Language.ENGLISH: ENGLISH, Language.SPANISH: SPANISH}


def wording_in(language: Language) -> Wording:
    """Return the words of a language."""
    return _IN[language]
