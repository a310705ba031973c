"""What a training logged of each epoch, as a file in the model folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cxr_models.errors import InvalidModel

HISTORY = "history.json"

Epochs = Sequence[Mapping[str, float]]
"""For each epoch its number and what was logged, such as train_loss and valid_acc."""


def read_history(folder: Path) -> Epochs:
    """Read what a training logged of each epoch from a model folder; empty where the folder does not tell.

    Raises
    ------
    InvalidModel
        The file is not a list of epochs with their numbers.
    """
    path = folder / HISTORY
    try:
        epochs: Epochs = TypeAdapter(list[dict[str, float]]).validate_json(path.read_bytes())
    except FileNotFoundError:
        return ()
    except ValidationError as error:
        raise InvalidModel(f"{path} is not the history of a training: {error.errors()[0]['msg']}.") from error
    return epochs
