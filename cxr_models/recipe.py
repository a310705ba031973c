"""How a network is trained: a recipe's TOML file holds its differences from the defaults here."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxr_models.errors import InvalidRecipe

HERE = Path(__file__).parent / "recipes"


class Augmentation(BaseModel):
    """How far a training image may be moved and its grey values changed; each draw is uniform within ± the value.

    Nothing is mirrored: the heart lies on the left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotate_degrees: float = Field(default=0, ge=0, le=45)
    translate: float = Field(default=0, ge=0, lt=1, description="of half the side")
    scale: float = Field(default=0, ge=0, lt=1, description="of the natural logarithm, as are stretch, gamma and contrast")
    stretch: float = Field(default=0, ge=0, lt=1, description="of rows against columns")
    gamma: float = Field(default=0, ge=0, le=2)
    contrast: float = Field(default=0, ge=0, le=2)
    brightness: float = Field(default=0, ge=0, le=1, description="of the range 0..1")


class Recipe(BaseModel):
    """Everything a training is, but for its images.

    `balance` draws the images of an epoch evenly: over classes, or over each class's sources as well, so that no hospital
    stands for a class. `average` keeps an exponential moving average of the weights with this decay; 0 keeps none. `attempts`
    trains from that many seeds and keeps the best. `monitor` is what best means, for epochs and attempts: the loss also counts
    how sure the answers are, which the temperature sets right afterwards. `sensitivity` is what the operating
    thresholds reach on the validation images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["lenet5", "vgg16"]
    epochs: int = Field(default=100, ge=1)
    patience: int = Field(default=20, ge=1)
    monitor: Literal["valid_loss", "valid_balanced_acc"] = "valid_loss"
    batch_size: int = Field(default=32, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0, ge=0)
    schedule: Literal["constant", "onecycle"] = "constant"
    label_smoothing: float = Field(default=0, ge=0, lt=1)
    balance: Literal["none", "class", "source"] = "none"
    class_weights: bool = False
    average: float = Field(default=0, ge=0, lt=1)
    augmentation: Augmentation = Augmentation()
    mean: float = 0.5
    std: float = Field(default=0.5, gt=0)
    val_share: float = Field(default=0.15, gt=0, lt=0.5)
    test_share: float = Field(default=0.15, ge=0, lt=0.5)
    split_seed: int = 0
    seed: int = Field(default=0, ge=0)
    attempts: int = Field(default=1, ge=1, le=20)
    sensitivity: float = Field(default=0.9, gt=0, lt=1)


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the recipes in the package, sorted."""
    return tuple(sorted(file.stem for file in HERE.glob("*.toml")))


def read_recipe(name_or_file: str) -> Recipe:
    """Read a shipped recipe by its name, or any by its path.

    Raises
    ------
    InvalidRecipe
        It is neither, is not TOML, or has an unknown key or a value out of range.
    """
    path = HERE / f"{name_or_file}.toml" if name_or_file in shipped_recipes() else Path(name_or_file)
    try:
        differences = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRecipe(
            f"There is no recipe {name_or_file!r}: no such file, and the recipes that ship are {', '.join(shipped_recipes())}."
        ) from error
    except ValueError as error:
        raise InvalidRecipe(f"{path} is not TOML: {error}.") from error
    try:
        return Recipe.model_validate(differences)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidRecipe(f"{path}: {wrong}.") from error
