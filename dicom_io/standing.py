r"""How a frontal picture lies in its file, and how it is brought to PatientOrientation L\F and back (PS3.3 C.7.6.1.1.1)."""

from dataclasses import dataclass
from typing import Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_io.attributes import Unreadable, strings

Pixel = TypeVar("Pixel", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What the pixels of a picture told that its header did not, or told wrongly. Nothing, unless something is given."""

    quarter_turns: int = 0
    """How many times the picture is turned by 90 degrees against the clock, 0..3."""
    inverted: bool = False
    """Whether bright and dark are exchanged: the header names the wrong polarity."""

    @property
    def code(self) -> str:
        """One word a correction, for a database: ``inverted``, ``turned_90``, both with a blank between, or nothing."""
        words = ["inverted"] * self.inverted + [f"turned_{90 * self.quarter_turns}"] * bool(self.quarter_turns)
        return " ".join(words)

    @classmethod
    def read(cls, code: str) -> Self:
        """Read what `code` wrote."""
        words = code.split()
        turns = [int(word.removeprefix("turned_")) // 90 for word in words if word.startswith("turned_")]
        return cls(quarter_turns=sum(turns), inverted="inverted" in words)


AS_TOLD: Final = Correction()
"""The header is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The steps from a stored frontal picture to the standard view, in their order."""

    transposed: bool = False
    mirrored: bool = False
    upside_down: bool = False
    quarter_turns: int = 0
    """Against the clock, by the pixels."""

    @classmethod
    def of(cls, ds: Dataset, correction: Correction) -> Self:
        """Tell it from PatientOrientation, where that names a frontal plane, and from what the pixels told."""
        turns = correction.quarter_turns
        orientation = orientation_of(ds)
        if orientation is None:
            return cls(quarter_turns=turns)
        return cls(
            transposed=orientation[0] in "FH", mirrored="R" in orientation, upside_down="H" in orientation, quarter_turns=turns
        )

    def upright(self, picture: NDArray[Pixel]) -> NDArray[Pixel]:
        """Bring what lies as the file does, shape (rows, columns, …), to the standard view."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        if self.mirrored:
            picture = picture[:, ::-1]
        if self.upside_down:
            picture = picture[::-1]
        return np.ascontiguousarray(np.rot90(picture, self.quarter_turns))

    def as_stored(self, picture: NDArray[Pixel]) -> NDArray[Pixel]:
        """Bring what lies as the standard view does, such as a map, to how the file lies."""
        picture = np.rot90(picture, -self.quarter_turns)
        if self.upside_down:
            picture = picture[::-1]
        if self.mirrored:
            picture = picture[:, ::-1]
        return np.ascontiguousarray(picture.swapaxes(0, 1) if self.transposed else picture)

    @property
    def note(self) -> str | None:
        """What the header's part of it does, in words."""
        steps = [
            *["rows and columns exchanged"] * self.transposed,
            *["mirrored"] * self.mirrored,
            *["turned upside down"] * self.upside_down,
        ]
        return " and ".join(steps) or None


def orientation_of(ds: Dataset) -> tuple[str, str] | None:
    r"""Main directions of rows and columns, such as L\F; None where it is absent, unreadable or of no frontal plane."""
    try:
        along_row, down = (part[:1] for part in strings(ds, "PatientOrientation"))
    except (Unreadable, ValueError):
        return None
    named = {along_row, down}
    return (along_row, down) if named & {"L", "R"} and named & {"F", "H"} else None
