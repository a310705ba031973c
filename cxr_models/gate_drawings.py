"""Drawn pictures that are no frontal chest radiographs, roughly as the gate may meet them. Only training needs them."""

import string
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.floating[Any]]

SIDE: Final = 128
_Y, _X = (axis.astype(np.float32) for axis in np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j])


def drawn(kind: str, draw: np.random.Generator) -> Floats:
    """Draw a picture of a kind.

    Parameters
    ----------
    kind
        One of `DRAWINGS`.
    draw
        Decides everything that differs between two pictures of a kind.

    Returns
    -------
    numpy.ndarray
        Shape (128, 128), 0..1.
    """
    return np.asarray(_DRAW[kind](draw).clip(0, 1), np.float32)


def oval(draw: np.random.Generator, *, at: tuple[float, float], size: tuple[float, float], power: float = 2.0) -> Floats:
    """Draw a soft-edged filled oval, 1 inside, turned a little; coordinates and half axes (x, y) where the picture is -1..1."""
    angle = draw.normal(0, 0.12)
    x, y = _X - at[0], _Y - at[1]
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    distance = np.abs(x / size[0]) ** power + np.abs(y / size[1]) ** power
    return np.asarray(1 / (1 + np.exp(np.clip(draw.uniform(6, 25) * (distance - 1), -60, 60))), np.float32)


def texture(draw: np.random.Generator, *, slope: float = 1.6) -> Floats:
    """Draw noise whose spectrum falls with the frequency, as tissue's does; mean 0, standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :])
    frequency[0, 0] = np.inf
    phases = np.exp(2j * np.pi * draw.random(frequency.shape))
    field = np.fft.irfft2(phases / frequency**slope, s=(SIDE, SIDE))
    return np.asarray((field - field.mean()) / (field.std() + 1e-9), np.float32)


def lettered(draw: np.random.Generator, *, lines: int, size: tuple[int, int] = (8, 22)) -> Floats:
    """Draw lines of random words and numbers, white on black."""
    page = Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(page)
    letters = list(string.ascii_letters + string.digits + "  .:-/")
    for _ in range(lines):
        text = "".join(draw.choice(letters, int(draw.integers(1, 22))))
        font = ImageFont.load_default(int(draw.integers(*size)))
        pen.text((int(draw.integers(-10, SIDE - 10)), int(draw.integers(0, SIDE - 6))), text, fill=255, font=font)
    return np.asarray(page, np.float32) / 255


def _pattern(draw: np.random.Generator) -> Floats:
    cycles, phase = draw.uniform(2, 30), draw.uniform(0, 6)
    along = draw.choice([_X, _Y, _X + _Y]) if draw.random() < 0.3 else (_X if draw.random() < 0.5 else _Y)
    steps = int(draw.integers(4, 17))
    radius = np.hypot(_X - draw.normal(0, 0.1), _Y - draw.normal(0, 0.1))
    choices: tuple[Callable[[], Floats], ...] = (
        lambda: np.floor((along + 1) / 2 * steps) / steps,
        lambda: (along + 1) / 2,
        lambda: (np.sin(cycles * np.pi * along + phase) > 0).astype(np.float32),
        lambda: ((np.sin(cycles * np.pi * _X) > 0) ^ (np.sin(cycles * np.pi * _Y) > 0)).astype(np.float32),
        lambda: np.maximum(np.sin(cycles * np.pi * _X) > 0.9, np.sin(cycles * np.pi * _Y) > 0.9).astype(np.float32),
        lambda: (np.sin(cycles * np.pi * radius) + 1) / 2,
        lambda: (np.sin(draw.integers(4, 40) * np.arctan2(_Y, _X)) > 0).astype(np.float32),
        lambda: (np.cos(cycles * 4 * radius**2) + 1) / 2,
    )
    picture = np.asarray(draw.choice(np.array(choices, object))(), np.float32)
    for _ in range(int(draw.integers(0, 7))):
        picture = _with_patch(picture, draw)
    return picture if draw.random() < 0.6 else _test_card(draw)


def _with_patch(picture: Floats, draw: np.random.Generator) -> Floats:
    y, x = draw.integers(0, SIDE - 16, 2)
    height, width = draw.integers(8, 56, 2)
    patched = picture.copy()
    inside = patched[y : y + height, x : x + width]
    inside[:] = draw.random() if draw.random() < 0.7 else np.arange(inside.shape[1]) % 4 > 1
    return patched


def _test_card(draw: np.random.Generator) -> Floats:
    """Grey squares around a middle, line pairs in the corners, a frame: as the cards of SMPTE RP 133 and AAPM TG18."""
    card = Image.new("L", (SIDE, SIDE), int(draw.integers(0, 160)))
    pen = ImageDraw.Draw(card)
    spacing = int(draw.integers(8, 26))
    for at in range(0, SIDE, spacing):
        pen.line((at, 0, at, SIDE), fill=int(draw.integers(120, 256)))
        pen.line((0, at, SIDE, at), fill=int(draw.integers(120, 256)))
    count, size = int(draw.integers(6, 17)), int(draw.integers(8, 20))
    turn = draw.uniform(0, 6)
    for number in range(count):
        angle = turn + number * 2 * np.pi / count
        x, y = SIDE / 2 + SIDE * 0.32 * np.cos(angle), SIDE / 2 + SIDE * 0.32 * np.sin(angle)
        pen.rectangle((x - size / 2, y - size / 2, x + size / 2, y + size / 2), fill=int(255 * number / (count - 1)))
    for x in (4, SIDE - 24):
        for y in (4, SIDE - 24):
            for line in range(0, 20, int(draw.integers(2, 5))):
                pen.line((x + line, y, x + line, y + 20) if draw.random() < 0.5 else (x, y + line, x + 20, y + line), fill=255)
    if draw.random() < 0.5:
        pen.ellipse((8, 8, SIDE - 8, SIDE - 8), outline=255)
    return np.asarray(card, np.float32) / 255


def _text(draw: np.random.Generator) -> Floats:
    if draw.random() < 0.5:
        page = lettered(draw, lines=int(draw.integers(12, 60)), size=(7, 12))
    else:
        page = lettered(draw, lines=int(draw.integers(2, 14)), size=(10, 40))
    return 1 - page if draw.random() < 0.6 else page * draw.uniform(0.5, 1) + draw.uniform(0, 0.3)


def _noise(draw: np.random.Generator) -> Floats:
    slope = draw.choice([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    shade = draw.normal(0, 0.3) * _X + draw.normal(0, 0.3) * _Y - abs(draw.normal(0, 0.4)) * (_X**2 + _Y**2)
    return np.asarray(0.5 + draw.uniform(0.02, 0.3) * texture(draw, slope=slope) + shade * (draw.random() < 0.6), np.float32)


@lru_cache
def _photographs() -> tuple[Image.Image, ...]:
    import skimage.data  # noqa: PLC0415  a training dependency; its wheel holds a score of pictures

    files = sorted(Path(skimage.data.__file__).parent.glob("*.png")) + sorted(Path(skimage.data.__file__).parent.glob("*.jpg"))
    pictures = [Image.open(file).convert("L") for file in files]
    for picture in pictures:
        picture.thumbnail((3 * SIDE, 3 * SIDE))
    return tuple(picture for picture in pictures if min(picture.size) >= SIDE)


def _photograph(draw: np.random.Generator) -> Floats:
    pictures = _photographs()
    picture = pictures[int(draw.integers(len(pictures)))]
    side = min(picture.size)
    width, height = (int(draw.uniform(0.3, 1) * side) for _ in range(2))
    left, top = int(draw.integers(picture.width - width + 1)), int(draw.integers(picture.height - height + 1))
    part = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    return np.asarray(part, np.float32) / 255


def _shaft(draw: np.random.Generator, *, at: float, width: float, slant: float) -> tuple[Floats, Floats]:
    """A long bone and the flesh around it, standing, each 0..1."""
    flare = 1 + draw.uniform(0.2, 0.9) * np.abs(_Y - draw.normal(0, 0.15)) ** 3
    across = np.abs(_X - at - slant * _Y) / (width * flare)
    bone = (across < 1) * (0.55 + 0.45 * across**4)
    flesh = np.sqrt(np.clip(1 - (across / draw.uniform(2.2, 4)) ** 2, 0, None))
    return np.asarray(bone, np.float32), np.asarray(flesh, np.float32)


def _limb(draw: np.random.Generator) -> Floats:
    picture = np.zeros((SIDE, SIDE), np.float32)
    count = int(draw.choice([1, 1, 2, 2, 4, 5]))
    middle = draw.normal(0, 0.15)
    for number in range(count):
        at = middle + (number - (count - 1) / 2) * draw.uniform(0.28, 0.42)
        bone, flesh = _shaft(draw, at=at, width=draw.uniform(0.04, 0.2) / count**0.4, slant=draw.normal(0, 0.2))
        picture = np.maximum(picture, draw.uniform(0.3, 0.55) * flesh) + draw.uniform(0.2, 0.45) * bone
    if draw.random() < 0.5:  # a joint
        joint = draw.uniform(-0.4, 0.4)
        picture = picture + 0.3 * oval(draw, at=(middle, joint), size=(draw.uniform(0.15, 0.5), draw.uniform(0.08, 0.3)))
        picture = picture * (1 - 0.5 * np.exp(-(((_Y - joint) / 0.03) ** 2)))
    if draw.random() < 0.4:  # beyond the collimator, and white where the film was not exposed
        edge = draw.uniform(0.45, 0.9)
        picture = np.where(np.abs(_X) > edge, draw.choice([0.0, 1.0]), picture)
    return np.asarray(picture + 0.02 * texture(draw))


def _round(draw: np.random.Generator) -> Floats:
    """A skull, a slice through a head or a trunk, a hip joint: ovals within a rim."""
    size = (draw.uniform(0.4, 0.95), draw.uniform(0.4, 0.9))
    at = (draw.normal(0, 0.08), draw.normal(0, 0.08))
    outer = oval(draw, at=at, size=size)
    rim = draw.uniform(0.85, 0.97)
    inner = oval(draw, at=at, size=(size[0] * rim, size[1] * rim))
    picture = draw.uniform(0.2, 1) * (outer - inner) + draw.uniform(0.25, 0.6) * inner
    for _ in range(int(draw.integers(1, 9))):
        inside = (at[0] + draw.normal(0, 0.25), at[1] + draw.normal(0, 0.25))
        picture = picture + draw.normal(0, 0.22) * oval(draw, at=inside, size=tuple(draw.uniform(0.05, 0.35, 2)))
    if draw.random() < 0.3:  # a slice through a chest: both lungs before a spine that is a dot
        for side in (-1, 1):
            lung = oval(draw, at=(at[0] + side * size[0] * 0.5, at[1]), size=(size[0] * 0.32, size[1] * 0.6))
            picture = picture - draw.uniform(0.3, 0.6) * lung
        picture = picture + 0.4 * oval(draw, at=(at[0], at[1] + size[1] * 0.55), size=(0.1, 0.1))
    return np.asarray(picture * (outer > 0.5) + draw.uniform(0, 0.05) * texture(draw))


def _lateral(draw: np.random.Generator) -> Floats:
    """A chest from the side: one field of lung, the spine at one edge of it, the heart at the other, arms above."""
    body = oval(draw, at=(draw.normal(0, 0.05), 0.2), size=(draw.uniform(0.6, 0.95), draw.uniform(1.2, 1.7)), power=4)
    lean = draw.uniform(0.05, 0.3)
    lung = oval(draw, at=(0.02, draw.normal(-0.1, 0.06)), size=(draw.uniform(0.4, 0.6), draw.uniform(0.65, 0.9)), power=2.5)
    spine = np.exp(-(((_X - draw.uniform(0.35, 0.6) + lean * _Y**2) / draw.uniform(0.08, 0.16)) ** 2))
    discs = 0.75 + 0.25 * np.sign(np.sin(draw.uniform(18, 30) * _Y))
    heart = oval(draw, at=(-draw.uniform(0.2, 0.4), draw.uniform(0.2, 0.4)), size=(0.35, 0.35))
    floor = 1 / (1 + np.exp(-14 * (_Y - draw.uniform(0.4, 0.65) - 0.35 * _X)))
    arms = oval(draw, at=(-0.1, -1.0), size=(draw.uniform(0.4, 0.9), draw.uniform(0.2, 0.45)))
    picture = body * (0.6 - draw.uniform(0.3, 0.5) * lung + draw.uniform(0.1, 0.3) * spine * discs)
    picture = picture + draw.uniform(0.15, 0.35) * heart * lung + 0.3 * floor * body + draw.uniform(0, 0.3) * arms
    return np.asarray(picture + draw.uniform(0.01, 0.05) * texture(draw))


def _belly(draw: np.random.Generator) -> Floats:
    """An abdomen with pelvis: spine in the middle, gas, two wings of bone below, no lungs or only their tips."""
    body = oval(draw, at=(0, 0), size=(draw.uniform(0.7, 1.1), draw.uniform(1.3, 2)), power=4)
    spine = np.exp(-(((_X - draw.normal(0, 0.03)) / draw.uniform(0.08, 0.16)) ** 2))
    end = draw.uniform(0.3, 0.6)
    picture = body * draw.uniform(0.4, 0.6) + draw.uniform(0.15, 0.3) * spine * (end > _Y)
    for _ in range(int(draw.integers(0, 9))):
        gas = oval(draw, at=tuple(draw.uniform(-0.6, 0.6, 2)), size=tuple(draw.uniform(0.04, 0.2, 2)))
        picture = picture - draw.uniform(0.05, 0.25) * gas
    for side in (-1, 1):
        wing = oval(draw, at=(side * draw.uniform(0.4, 0.6), draw.uniform(0.5, 0.8)), size=(0.3, draw.uniform(0.2, 0.4)))
        hip = oval(draw, at=(side * draw.uniform(0.5, 0.7), 0.95), size=(0.14, 0.14))
        picture = picture + draw.uniform(0.05, 0.3) * wing + draw.uniform(0, 0.25) * hip
        if draw.random() < 0.5:
            tip = oval(draw, at=(side * draw.uniform(0.35, 0.5), -1.05), size=(draw.uniform(0.2, 0.35), 0.35))
            picture = picture - draw.uniform(0.1, 0.35) * tip
    return np.asarray(picture + draw.uniform(0.01, 0.05) * texture(draw))


def _breast(draw: np.random.Generator) -> Floats:
    edge = draw.uniform(0.8, 1.1)
    breast = oval(draw, at=(edge, draw.normal(0, 0.2)), size=(draw.uniform(0.6, 1.5), draw.uniform(0.4, 0.9)))
    gland = np.clip(texture(draw, slope=1.9) * 0.5 + 0.3, 0, 1)
    return np.asarray(breast * (draw.uniform(0.2, 0.5) + draw.uniform(0.2, 0.6) * gland), np.float32)


def _teeth(draw: np.random.Generator) -> Floats:
    bow = draw.uniform(0.1, 0.4) * _X**2
    rows = sum(np.exp(-(((_Y - place + bow) / draw.uniform(0.12, 0.2)) ** 2)) for place in (-0.18, 0.18))
    teeth = rows * (0.6 + 0.4 * np.sin(draw.uniform(25, 50) * _X))
    jaw = oval(draw, at=(0, 0.1), size=(draw.uniform(0.8, 1), draw.uniform(0.5, 0.8)))
    picture = 0.35 * jaw + 0.6 * teeth * jaw + 0.04 * texture(draw)
    frame = draw.uniform(0.5, 1)
    return np.asarray(np.where(np.abs(_Y) < frame, picture, draw.choice([0.0, 1.0])), np.float32)


def drawn_chest(draw: np.random.Generator) -> Floats:
    """Draw a chest in a few strokes, as phantoms and demonstrations have it. A frontal chest to the gate."""
    body = oval(draw, at=(0, 0.2), size=(draw.uniform(0.8, 1.1), draw.uniform(1.2, 1.6)), power=draw.choice([2.0, 4.0, 6.0]))
    picture = draw.uniform(0.55, 0.85) * body
    depth, width, height = draw.uniform(0.35, 0.6), draw.uniform(0.25, 0.33), draw.uniform(0.5, 0.7)
    for side in (-1, 1):
        lung = oval(draw, at=(side * draw.uniform(0.4, 0.46), draw.uniform(-0.1, 0.05)), size=(width, height), power=2.5)
        picture = picture - depth * lung
        if draw.random() < 0.6:
            picture = picture + 0.08 * lung * np.clip(np.sin(draw.uniform(15, 24) * (_Y + 0.3 * _X**2)), 0, None)
    if draw.random() < 0.7:
        picture = picture + draw.uniform(0.1, 0.25) * oval(draw, at=(0.1, 0.3), size=(0.3, 0.32))
        picture = picture + draw.uniform(0.1, 0.2) * np.exp(-((_X / 0.09) ** 2))
    return np.asarray((picture + draw.uniform(0, 0.02) * texture(draw, slope=0.5)).clip(0, 1), np.float32)


_DRAW: Final[Mapping[str, Callable[[np.random.Generator], Floats]]] = {
    "test pattern": _pattern,
    "text": _text,
    "noise": _noise,
    "photograph": _photograph,
    "limb": _limb,
    "skull or slice": _round,
    "lateral chest": _lateral,
    "abdomen": _belly,
    "breast": _breast,
    "teeth": _teeth,
}
DRAWINGS: Final = tuple(_DRAW)
"""The kinds of pictures that `drawn` knows."""
