"""How often the gate errs: on films it did not learn from, and on pictures of kinds that it never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from cxr_models.bootstrap import Bootstrap
from cxr_models.gate import SIDE, TURNS, GateNetwork, GateThresholds, standardised
from cxr_models.gate_data import DRAWN_CHEST, KINDS, Pictures, burned_in
from cxr_models.gate_train import pose

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

FALSE_REFUSALS: Final = 0.004
"""Share of films that may be called none; the threshold is the highest with no more of them."""
FALSE_ACCEPTANCES: Final = 0.005
"""Share of other pictures that may be called a film where no header says so."""
FALSE_CORRECTIONS: Final = 0.001
FALSE_NOTES: Final = 0.005
_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What a gate said of pictures that it did not learn from, one entry a picture.

    Attributes
    ----------
    kinds, groups, is_film
        As in `Pictures`; drawn chests are no films.
    unseen
        Whether the gate learnt from no picture of this kind at all.
    frontal
        Of the picture as it is.
    spoiled
        Of the picture cropped, exposed, written on and turned at random.
    upright, inverted, mirrored
        Of the picture as it is, 0..1.
    corrected
        In how many of the 16 ways to turn, mirror and invert the picture the turn and the polarity were told right, as a share.
    """

    kinds: NDArray[np.str_]
    groups: NDArray[np.str_]
    is_film: Flags
    unseen: Flags
    frontal: Floats
    spoiled: Floats
    upright: Floats
    inverted: Floats
    mirrored: Floats
    corrected: Floats


def see(network: GateNetwork, pictures: Pictures, *, unseen: Sequence[str] = (), seed: int = 0) -> Seen:
    """Show pictures to a network."""
    torch.manual_seed(seed)
    layers = torch.from_numpy(burned_in(40, seed=seed + 1)) > 127
    logits, spoiled, corrected = [], [], []
    with torch.inference_mode():
        for start in range(0, len(pictures.pixels), _AT_ONCE):
            stored = torch.from_numpy(pictures.pixels[start : start + _AT_ONCE])
            small = functional.interpolate(stored[:, None].float() / 255, (SIDE, SIDE), mode="bilinear", antialias=True)
            logits.append(network(standardised(small)))
            spoiled.append(network(pose(stored, layers).pixels)[:, 0])
            corrected.append(_told_right(network, small))
    told = torch.cat(logits)
    return Seen(
        kinds=pictures.kinds,
        groups=pictures.groups,
        is_film=pictures.frontal & (pictures.kinds != DRAWN_CHEST),
        unseen=np.isin(pictures.kinds, list(unseen)),
        frontal=_numbers(told[:, 0].sigmoid()),
        spoiled=_numbers(torch.cat(spoiled).sigmoid()),
        upright=_numbers(functional.softmax(told[:, 3:], dim=1)[:, 0]),
        inverted=_numbers(told[:, 1].sigmoid()),
        mirrored=_numbers(told[:, 2].sigmoid()),
        corrected=_numbers(torch.cat(corrected)),
    )


def joined(parts: Sequence[Seen]) -> Seen:
    """Put what several gates said of their pictures behind each other."""
    return Seen(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in Seen.__dataclass_fields__})


def thresholds_of(seen: Seen) -> GateThresholds:
    """Choose the thresholds from what was said of pictures outside the training."""
    films, others = seen.frontal[seen.is_film], seen.frontal[~seen.is_film & (seen.kinds != DRAWN_CHEST)]
    refuse = min(float(np.quantile(films, FALSE_REFUSALS, method="lower")), 0.9)
    accept = float(np.quantile(others, 1 - FALSE_ACCEPTANCES, method="higher"))
    return GateThresholds(
        refuse=_down(refuse),
        accept=_down(max(refuse, min(accept, float(np.quantile(films, 0.02))))),
        turned=_beyond(1 - seen.upright[seen.is_film], FALSE_CORRECTIONS),
        inverted=_beyond(seen.inverted[seen.is_film], FALSE_CORRECTIONS),
        mirrored=_beyond(seen.mirrored[seen.is_film], FALSE_NOTES),
    )


def measure(seen: Seen, thresholds: GateThresholds) -> dict[str, Any]:
    """Count errors at thresholds, each a share with the limits of 95 % by bootstrap over groups.

    Returns
    -------
    dict
        ``films``: for each source, and for all, what is done wrongly to films. ``others``: for each kind what is let through.
    """
    films = {name: seen.is_film & (seen.kinds == name) for name in sorted(set(seen.kinds[seen.is_film].tolist()))}
    others = {name: seen.kinds == name for name in KINDS if name in seen.kinds}
    return {
        "films": {name: _of_films(seen, among, thresholds) for name, among in {**films, "all": seen.is_film}.items()},
        "others": {name: _of_others(seen, among, thresholds) for name, among in others.items()},
    }


def _of_films(seen: Seen, among: Flags, thresholds: GateThresholds) -> dict[str, Any]:
    errors = {
        "refused": seen.frontal < thresholds.refuse,
        "refused_when_spoiled": seen.spoiled < thresholds.refuse,
        "not_accepted_without_header": seen.frontal < thresholds.accept,
        "called_turned": 1 - seen.upright >= thresholds.turned,
        "called_inverted": seen.inverted >= thresholds.inverted,
        "called_mirrored": seen.mirrored >= thresholds.mirrored,
        "turn_or_polarity_not_told": 1 - seen.corrected,
    }
    return {"n": int(among.sum())} | _shares(errors, seen, among)


def _of_others(seen: Seen, among: Flags, thresholds: GateThresholds) -> dict[str, Any]:
    errors = {"not_refused": seen.frontal >= thresholds.refuse, "accepted_without_header": seen.frontal >= thresholds.accept}
    figures = {"n": int(among.sum())} | _shares(errors, seen, among)
    if (among & seen.unseen).any():
        figures["never_learnt_from"] = {"n": int((among & seen.unseen).sum())} | _shares(errors, seen, among & seen.unseen)
    return figures


def _shares(errors: Mapping[str, NDArray[Any]], seen: Seen, among: Flags) -> dict[str, Any]:
    groups = Bootstrap(seen.groups[among].tolist())
    everyone = np.ones(int(among.sum()), dtype=bool)
    found = {name: groups.share(np.asarray(error[among], float), everyone) for name, error in errors.items()}
    return {name: {"share": figure.value, "interval": figure.interval} for name, figure in found.items()}


def _told_right(network: GateNetwork, pixels: torch.Tensor) -> torch.Tensor:
    right = torch.zeros(len(pixels))
    for turns in range(TURNS):
        for sides in (pixels, pixels.flip(3)):
            turned = torch.rot90(sides, -turns, (2, 3))
            for inverted, shown in enumerate((turned, 1 - turned)):
                told = network(standardised(shown))
                right += (told[:, 3:].argmax(dim=1) == turns) & ((told[:, 1] > 0) == bool(inverted))
    return right / (4 * TURNS)


def _numbers(values: torch.Tensor) -> Floats:
    return np.asarray(values.double().numpy())


def _beyond(values: Floats, share: float) -> float:
    """A threshold that no more than a share of values reaches, and never less than 0.95."""
    return _down(max(float(np.quantile(values, 1 - share, method="higher")) + 0.005, 0.95))


def _down(value: float) -> float:
    return float(np.floor(min(value, 0.999) * 1000) / 1000)
