"""Which words a language must have."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.sr.coding import Code

from dicom_io.codes import Assessment, Condition, Heading, Presence
from dicom_io.standing import Correction


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The words of one language.

    Attributes
    ----------
    code
        Of the language, for documents that name it (RFC 5646).
    disclaimer
        On everything that a person can read.
    conditions, suspected
        A condition's name, as a bar or a heading has it; and what is said where it was found.
    presences, levels, triages
        What is said of a condition; of a study, in words of urgency; and the same within a sentence, by the level's name. Where
        nothing was flagged no word says "normal": it would be read as a rule-out.
    series
        Series Description (0008,103E) by the name of the kind, at most 64 characters.
    headings
        Code Meaning (0008,0104) of the concepts of a report in words, at most 64 characters.
    reasons
        Why an image is not analysed, by its reason code.
    """

    code: Code
    disclaimer: str
    conditions: Mapping[Condition, str]
    suspected: Mapping[Condition, str]
    presences: Mapping[Presence, str]
    levels: Mapping[Assessment, str]
    triages: Mapping[str, str]
    series: Mapping[str, str]
    headings: Mapping[Heading, str]
    reasons: Mapping[str, str]
    analysed: str
    decided: str
    not_analysed: str
    none_analysed: str
    nothing_flagged: str
    both: str
    undetermined: str
    undetermined_on: str
    one_image: str
    several_images: str
    kept: str
    impression: str
    triage: str
    probability: str
    shown: str
    image: str
    others: str
    scope: str
    not_ruled_out: str
    spoke_for: str
    little: str
    most: str
    nothing_spoke: str
    caution: str
    document: str
    all_images: str
    parameters: str
    limits: str
    page: str
    threshold: str
    more: str
    model: str
    corrected: str
    exchanged: str
    turned: str

    def told(self, correction: Correction, *, number: int) -> str | None:
        """How an image was analysed other than its header tells, as a sentence; None where it was as told.

        Parameters
        ----------
        number
            The image's place in the study, from 0.
        """
        steps = [self.exchanged] * correction.inverted
        steps += [self.turned.format(90 * correction.quarter_turns)] * bool(correction.quarter_turns)
        if not steps:
            return None
        how = steps[0] if len(steps) == 1 else self.both.format(*steps)
        return self.corrected.format(image=self.image.format(number + 1), how=how)
