"""Whether an epoch of training waits for image files after the first."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from cxr_models import data
from cxr_models.catalogue import read_catalogue, split
from cxr_models.recipe import change_recipe, read_recipe
from cxr_models.train import fit
from cxr_models.trainer import History, Machine
from tests.factories import radiograph

EPOCHS = 8
FILMS = 40
ROWS, COLUMNS = 1500, 1200


def run() -> None:
    """Train a LeNet-5 on PNG films; print how long the files took, and each epoch after them."""
    read: list[float] = []
    ended: list[float] = []
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="cxr-training-") as name, _noted(read, ended):
        folder, film = Path(name), radiograph(ROWS, COLUMNS)
        for place, label in enumerate(("Covid", "Normal", "Pneumonia")):
            (folder / "films" / label).mkdir(parents=True)
            for number in range(FILMS):
                Image.fromarray(np.roll(film, FILMS * place + number, axis=1)).save(
                    folder / "films" / label / f"{number}.png", compress_level=1
                )
        recipe = change_recipe(read_recipe("lenet5"), epochs=EPOCHS, attempts=1, patience=EPOCHS)
        parts = split(read_catalogue([folder / "films"]), val_share=0.25, test_share=0.0, seed=0)
        began = time.perf_counter()
        fit(parts, recipe=recipe, machine=Machine(accelerator="cpu"), output=folder / "model")
    torch.set_num_threads(threads)
    epochs = [after - before for before, after in pairwise(ended)]
    late = sum(moment > ended[0] for moment in read)
    print(f"training of lenet5 on {len(read)} films of {ROWS}x{COLUMNS}: files {max(read) - began:.2f} s, once;")
    print(f"  first epoch {ended[0] - max(read):.3f} s, later ones {statistics.median(epochs):.3f} s (median of {len(epochs)})")
    print(f"  files read after the first epoch must be none: {'yes' if late == 0 else f'NO, {late}'}")


@contextmanager
def _noted(read: list[float], ended: list[float]) -> Iterator[None]:
    """Note when a file was read and when an epoch ended."""
    decode, close = data.read_radiograph, History.on_train_epoch_end

    def noting(path: Path) -> Any:
        image = decode(path)
        read.append(time.perf_counter())
        return image

    def closing(self: History, *arguments: Any) -> None:
        close(self, *arguments)
        ended.append(time.perf_counter())

    with mock.patch.object(data, "read_radiograph", noting), mock.patch.object(History, "on_train_epoch_end", closing):
        yield
