"""A model held ready: images in, predictions out."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cxr_models.checkpoint import load_network
from cxr_models.errors import DeviceBusy, InvalidData, NonFiniteOutput, UnknownDevice
from cxr_models.forward import Precision, make_forward
from cxr_models.prepare import prepare
from cxr_models.values import Card, Prediction
from cxr_models.zoo import find_model


def choose_device(device: str) -> torch.device:
    """Return the device of this name; auto is the GPU where there is one, else the CPU.

    Raises
    ------
    UnknownDevice
        The name means nothing, or this machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UnknownDevice(f"There is no device {device!r}; take auto, cpu, cuda or cuda:N.") from error
    if chosen.type not in {"cpu", "cuda"}:
        raise UnknownDevice(f"The device {device!r} is not served; take auto, cpu, cuda or cuda:N.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UnknownDevice(f"This machine has no device {device!r}; take auto or cpu, or look at nvidia-smi.")
    return chosen


class Predictor:
    """One loaded model on one device.

    `prepare` may be called from any thread; `predict` from one at a time.

    Attributes
    ----------
    network
        As it was loaded, float32 on `device`, in evaluation mode; for what looks inside. `predict` runs a quicker twin of it.
    precision
        In which `predict` computes: "float32", or "bfloat16", which moves probabilities by up to about 1e-2.
    """

    def __init__(
        self,
        network: nn.Module,
        card: Card,
        *,
        device: torch.device,
        batch_size: int = 32,
        precision: Precision = "float32",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"A batch holds at least one image, not {batch_size}.")
        self.card = card
        self.device = device
        self.batch_size = batch_size
        self.network = network.eval().to(device)
        self._biases = torch.tensor([card.biases.get(label, 0.0) for label in card.labels])
        self._forward, self.precision = make_forward(self.network, card, device=device, precision=precision)

    @classmethod
    def load(cls, name_or_folder: str, *, device: str = "auto", batch_size: int = 32, precision: Precision = "float32") -> Self:
        """Load a shipped model by name or any model by its folder.

        Parameters
        ----------
        precision
            Float32 gives the same answers at every load. Auto is bfloat16 where this device computes it faster and a trial
            moves no probability by more than 1e-2.

        Raises
        ------
        UnknownModel, InvalidModel, UnknownDevice
        """
        chosen = choose_device(device)
        network, card = load_network(find_model(name_or_folder), chosen)
        return cls(network, card, device=chosen, batch_size=batch_size, precision=precision)

    def prepare(self, image: NDArray[np.float32]) -> torch.Tensor:
        """Turn an image of shape (rows, columns), 0..1, into this model's input; see `cxr_models.prepare`."""
        return prepare(image, self.card.preparation)

    def predict(self, batch: Sequence[torch.Tensor]) -> list[Prediction]:
        """Classify prepared images, `batch_size` in each forward pass.

        In float32, what else is in the batch moves a probability by less than 1e-5; in bfloat16 by up to about 1e-2.

        Parameters
        ----------
        batch
            What `prepare` returned, any number of them.

        Returns
        -------
        list[Prediction]
            One for each image, in their order.

        Raises
        ------
        InvalidData
            A tensor does not have this model's shape (1, side, side).
        NonFiniteOutput
            The network answered with something that is not a number.
        DeviceBusy
            The device has no memory left.
        """
        self.require_shape(batch)
        return [
            Prediction.read(
                dict(zip(self.card.labels, row, strict=True)),
                thresholds=self.card.thresholds,
                abstain_below=self.card.abstain_below,
            )
            for first in range(0, len(batch), self.batch_size)
            for row in self._probabilities(torch.stack(list(batch[first : first + self.batch_size]))).tolist()
        ]

    def require_shape(self, batch: Sequence[torch.Tensor]) -> None:
        """Refuse tensors that `prepare` did not make for this model.

        Raises
        ------
        InvalidData
        """
        expected = (1, self.card.input_side, self.card.input_side)
        for prepared in batch:
            if prepared.shape != expected:
                raise InvalidData(f"{self.card.name} takes tensors of shape {expected}, not {tuple(prepared.shape)}.")

    def read(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn the network's outputs into probabilities of the same shape (images, labels), by temperature and biases."""
        return torch.softmax(logits / self.card.temperature + self._biases.to(logits), dim=1)

    def warm_up(self) -> None:
        """Run the network on nothing, so that no patient waits for kernels and memory to be set up."""
        side = self.card.input_side
        sizes = [1]
        if self.device.type == "cuda":
            while sizes[-1] < self.batch_size:
                sizes.append(min(2 * sizes[-1], self.batch_size))
        for size in sizes:
            self._probabilities(torch.zeros(size, 1, side, side))

    def _probabilities(self, images: torch.Tensor) -> torch.Tensor:
        try:
            logits = self._forward(images)
        except torch.OutOfMemoryError as error:
            raise DeviceBusy(f"The device {self.device} has no memory left for {len(images)} images.") from error
        if not torch.isfinite(logits).all():
            raise NonFiniteOutput(f"{self.card.name} {self.card.version} answered with something that is not a number.")
        return self.read(logits)
