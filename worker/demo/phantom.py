"""Synthetic radiographs: shapes that look like a chest, of nobody. What a classifier says of them means nothing."""

import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS = 1024, 896


def synthetic_radiograph(seed: int) -> NDArray[np.uint8]:
    """Draw a chest: body, lungs, heart, spine, ribs and noise, each a little different for each seed.

    Returns
    -------
    NDArray[np.uint8]
        Shape (1024, 896), bright is dense.
    """
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : COLUMNS * 1j]
    x = x * generator.uniform(0.95, 1.05) + generator.uniform(-0.04, 0.04)
    film = 150.0 * _inside(x / 0.96, (y - 0.25) / 1.45, 6)
    for side in (-1, 1):
        width, height = generator.uniform(0.27, 0.31), generator.uniform(0.58, 0.66)
        lung = _inside((x - 0.43 * side) / width, (y + 0.05 - 0.15 * (x * side - 0.4)) / height, 3)
        film -= 115.0 * lung
        film += lung * 18.0 * np.clip(np.sin(19 * (y + 0.35 * (x * side - 0.4) ** 2) + generator.uniform(0, 6)), 0, None)
    film += 55.0 * _inside((x - 0.1) / 0.3, (y - 0.3) / 0.32, 2)
    film += 45.0 * np.exp(-((x / 0.09) ** 2))
    if seed % 2:
        center_x, center_y = generator.choice([-1, 1]) * 0.42, generator.uniform(-0.2, 0.3)
        film += generator.uniform(35, 60) * np.exp(-(((x - center_x) / 0.16) ** 2 + ((y - center_y) / 0.2) ** 2))
    film += generator.normal(0.0, 3.0, film.shape)
    return np.clip(film, 0, 255).astype(np.uint8)


def _inside(x: NDArray[np.float64], y: NDArray[np.float64], power: int) -> NDArray[np.float64]:
    """1 inside a soft-edged oval, 0 outside."""
    distance = np.abs(x) ** power + np.abs(y) ** power
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(14.0 * (distance - 1.0), -60.0, 60.0))))
