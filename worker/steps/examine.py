"""Examine: what the pixels of a selected image say about analysing it, before a network answers."""

from dataclasses import dataclass

from cxr_models.gate import FrontalGate, GateThresholds, Look
from dicom_io.eligibility import ReasonCode, Verdict
from dicom_io.exposure import fault_of
from dicom_io.pixels import AS_TOLD, Correction, Image, image_from
from dicom_io.standing import orientation_of
from worker.steps.select import SelectedImage, refused
from worker.values import ImageOutcome

_TURNS = {1: "by 90 degrees against the clock", 2: "upside down", 3: "by 90 degrees with the clock"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedImage:
    """A picture to be analysed."""

    picture: Image
    correction: Correction
    notes: tuple[str, ...]
    """What lowers the trust in a result, or was corrected."""


def examine(selected: SelectedImage, gate: FrontalGate | None) -> ExaminedImage | ImageOutcome:
    """Decode an image and look at it, or say in words why it is not analysed.

    Polarity, and a turn where the header names no orientation, are corrected where the gate is sure, and confirms it after.
    Without a gate, an image in doubt is refused by what its header lacks.

    Raises
    ------
    dicom_io.errors.Permanent
        The pixels cannot be turned into a picture.
    """
    picture, instance, verdict = image_from(selected.ds), selected.instance, selected.verdict
    if fault := fault_of(picture.pixels):
        code, reason = fault
        return refused(instance, code=code, reason=reason)
    if gate is None:
        if verdict.doubtful:
            return refused(instance, code=verdict.code, reason=verdict.reason)
        return ExaminedImage(picture=picture, correction=AS_TOLD, notes=(*verdict.notes, *picture.notes))
    limits = gate.card.thresholds
    look = gate.look(picture.pixels)
    correction = _correction(look, limits)
    if correction != AS_TOLD:
        other = image_from(selected.ds, correction)
        again = gate.look(other.pixels)
        needs_proof = verdict.doubtful or correction.quarter_turns > 0
        if not _is_frontal(again, limits, doubtful=needs_proof) or _correction(again, limits) != AS_TOLD:
            correction = AS_TOLD
        elif correction.quarter_turns and orientation_of(selected.ds):
            return refused(
                instance,
                code=ReasonCode.TURNED,
                reason=f"The picture is turned {_TURNS[-correction.quarter_turns % 4]}, and PatientOrientation says otherwise.",
            )
        else:
            picture, look = other, again
    if not _is_frontal(look, limits, doubtful=verdict.doubtful):
        return _unlike_a_chest(selected)
    notes = (*verdict.notes, *_in_doubt(verdict), *picture.notes, *_in_words(correction), *_mirrored(look, limits))
    return ExaminedImage(picture=picture, correction=correction, notes=notes)


def _correction(look: Look, limits: GateThresholds) -> Correction:
    return Correction(
        quarter_turns=look.quarter_turns if look.turn >= limits.turned else 0, inverted=look.inverted >= limits.inverted
    )


def _is_frontal(look: Look, limits: GateThresholds, *, doubtful: bool) -> bool:
    """Whether a picture may pass; where the header is silent it must be upright too, for nobody says how it lies."""
    return look.frontal >= limits.accept and look.quarter_turns == 0 if doubtful else look.frontal >= limits.refuse


def _unlike_a_chest(selected: SelectedImage) -> ImageOutcome:
    verdict = selected.verdict
    if verdict.doubtful:
        reason = f"{verdict.reason} The pixels are not surely those of an upright frontal chest radiograph."
        return refused(selected.instance, code=verdict.code, reason=reason)
    reason = "The pixels are not those of a frontal chest radiograph, whatever the header says."
    return refused(selected.instance, code=ReasonCode.NOT_LIKE_CHEST, reason=reason)


def _in_doubt(verdict: Verdict) -> tuple[str, ...]:
    return (f"taken for a frontal chest radiograph by its pixels: {verdict.reason}",) if verdict.doubtful else ()


def _in_words(correction: Correction) -> tuple[str, ...]:
    polarity = ["bright and dark exchanged: the header names the wrong polarity"] * correction.inverted
    turn = [f"found turned {_TURNS[-correction.quarter_turns % 4]} and stood up"] if correction.quarter_turns else []
    return (*polarity, *turn)


def _mirrored(look: Look, limits: GateThresholds) -> tuple[str, ...]:
    return ("looks mirrored: a film turned over, or situs inversus",) if look.mirrored >= limits.mirrored else ()
