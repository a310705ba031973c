"""How a network is trained: a recipe's TOML file holds its differences from the defaults here."""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cxr_models.errors import InvalidModel, InvalidRecipe
from cxr_models.networks import INPUT_SIDES
from cxr_models.values import Card, Preparation, Views

Metric = Literal["valid_loss", "valid_acc", "valid_balanced_acc"]

HERE = Path(__file__).parent / "recipes"

FILES = frozenset({"initial", "teacher"})
"""The values of a recipe that may name a file of weights; the same weights may have another name elsewhere."""

READING = frozenset({"calibration", "sensitivity", "answer_accuracy", "answer_coverage"})
"""The values of a recipe that no weights depend on: they say how a network's outputs are read."""


class Augmentation(BaseModel):
    """How far a training image may be moved and its grey values changed; each draw is uniform within ± the value.

    Where nothing else is said. What is moved in from outside repeats the edge: a black frame would tell augmented images from
    others. Mirroring is off unless asked for: the heart lies on the left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotate_degrees: float = Field(default=0, ge=0, le=45)
    translate: float = Field(default=0, ge=0, lt=1, description="of half the side")
    scale: float = Field(default=0, ge=0, lt=1, description="of the natural logarithm, as are stretch, gamma and contrast")
    stretch: float = Field(default=0, ge=0, lt=1, description="of rows against columns")
    mirror: float = Field(default=0, ge=0, le=1, description="probability, left against right")
    gamma: float = Field(default=0, ge=0, le=2)
    contrast: float = Field(default=0, ge=0, le=2)
    brightness: float = Field(default=0, ge=0, le=1, description="of the range 0..1")
    noise: float = Field(
        default=0, ge=0, le=1, description="largest standard deviation, drawn for each image, of the range 0..1"
    )
    erase: float = Field(
        default=0, ge=0, le=1, description="probability that a rectangle of up to 0.4 of each side is one grey"
    )
    flatten: float = Field(default=0, ge=0, le=1, description="probability that the film is patches of one grey; see `flatten`")


class Recipe(BaseModel):
    """Everything a training is, but for its images.

    Attributes
    ----------
    input_side
        In pixels; None is the architecture's own, 32 or 224. A VGG16 takes any from 32 on.
    stored_side
        At which training images are kept and moved before they are reduced to the input side; None is the input side.
    monitor, stop_on
        What best means, for epochs and attempts, and what must still improve by `min_delta` within `patience` epochs (None: the
        same). The loss also counts how sure the answers are, which the temperature sets right afterwards.
    keep
        The weights of the best epoch by `monitor`, or of the last one: where a schedule ends at a rate of nothing, the best of
        many epochs is mostly the luckiest on few validation images.
    views
        Which views of an image are averaged when it is answered; see `cxr_models.views`.
    init
        How weights that nothing is taken over for are drawn: as torch or torchvision do, or from N(0, 0.05) with biases of 0.
    initial, initial_normalisation
        Where weights are taken over from, and what a weights file was trained on; see `cxr_models.initial`.
    teacher, teacher_share
        The weights of a VGG16, named as `initial` is, by whose convolutions a regression labels the training images, and the
        share of the loss that its labels have; see `cxr_models.teacher`.
    trainable
        "all"; "head", what comes after the convolutions; or "staged", the head alone for `head_epochs`, then all. The first
        `freeze_blocks` blocks of convolutions stay as they are throughout.
    body_learning_rate_factor
        The convolutions' learning rate as a share of the head's.
    balance
        Draws the images of an epoch evenly: over classes, or over each class's sources as well, so that no hospital stands for
        a class.
    average
        Decay of an exponential moving average of the weights, which is what is validated and kept; 0 keeps none.
    mixup
        Parameter of the beta distribution by which two images and their labels are mixed (Zhang et al. 2018); 0 mixes none.
    dropout
        None is the architecture's own.
    val_share
        Of the training images the share that is validated on. With 0 there are none: all of them are trained on, nothing is
        chosen by them, and the model answers uncalibrated until `cxr-models calibrate`.
    attempts
        Trains from that many seeds and keeps the best.
    answer_accuracy, answer_coverage
        Below which confidence the answer is undetermined: so that the answered validation images reach this accuracy, and that
        share of them is answered in any case; an accuracy of 0 answers all.
    sensitivity
        What the operating thresholds reach on the validation images.
    calibration
        What `cxr-models calibrate` fits on out-of-fold predictions, and a cross-validation on those of the other folds: the
        temperature, or also a bias for each label. A training fits the temperature alone: it validates on too few images.
    as_published
        Scores like the published comparison: validation images are augmented, images of the test films stay in training. Kept
        only to show what that does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["lenet5", "lenet5_bn", "vgg16", "vgg16_bn", "vgg16_pooled"]
    input_side: int | None = Field(default=None, ge=32, le=1024)
    stored_side: int | None = Field(default=None, ge=32, le=1024)
    epochs: int = Field(default=100, ge=1)
    patience: int = Field(default=20, ge=1)
    monitor: Metric = "valid_loss"
    stop_on: Metric | None = None
    min_delta: float = Field(default=0, ge=0)
    keep: Literal["best", "last"] = "best"
    views: Views = "one"
    batch_size: int = Field(default=32, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    body_learning_rate_factor: float = Field(default=1, gt=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0, ge=0)
    schedule: Literal["constant", "onecycle"] = "constant"
    label_smoothing: float = Field(default=0, ge=0, lt=1)
    init: Literal["default", "normal_0.05"] = "default"
    initial: str | None = None
    initial_normalisation: Literal["imagenet", "caffe", "none"] = "imagenet"
    trainable: Literal["all", "head", "staged"] = "all"
    head_epochs: int = Field(default=0, ge=0)
    freeze_blocks: int = Field(default=0, ge=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    mixup: float = Field(default=0, ge=0, le=10)
    balance: Literal["none", "class", "source"] = "none"
    class_weights: bool = False
    average: float = Field(default=0, ge=0, lt=1)
    teacher: str | None = None
    teacher_share: float = Field(default=0.5, gt=0, le=1)
    augmentation: Augmentation = Augmentation()
    mean: float = 0.5
    std: float = Field(default=0.5, gt=0)
    val_share: float = Field(default=0.15, ge=0, lt=0.5)
    test_share: float = Field(default=0.15, ge=0, lt=0.5)
    split_seed: int = 0
    seed: int = Field(default=0, ge=0)
    attempts: int = Field(default=1, ge=1, le=20)
    answer_accuracy: float = Field(default=0, ge=0, le=1)
    answer_coverage: float = Field(default=0.7, gt=0, le=1)
    sensitivity: float = Field(default=0.9, gt=0, lt=1)
    calibration: Literal["temperature", "biases"] = "temperature"
    as_published: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        blocks = 3 if self.family == "lenet5" else 5
        if self.family == "lenet5" and self.side != 32:
            raise ValueError(f"input_side {self.input_side}: a LeNet-5 takes 32 pixels, no others")
        if self.stored_side is not None and self.stored_side < self.side:
            raise ValueError(f"stored_side {self.stored_side} is below the input side of {self.side}")
        if self.freeze_blocks > blocks:
            raise ValueError(f"freeze_blocks {self.freeze_blocks}: {self.architecture} has {blocks} blocks")
        if (self.trainable == "staged") != (self.head_epochs > 0):
            raise ValueError('head_epochs above 0 and trainable = "staged" belong together')
        if not self.val_share and (self.keep != "last" or self.attempts > 1 or self.as_published):
            raise ValueError(
                'val_share 0: without validation images nothing is best; keep = "last", attempts 1, not as published'
            )
        if self.architecture == "lenet5" and self.dropout is not None:
            raise ValueError("dropout: lenet5 as published has none; lenet5_bn has")
        return self

    @property
    def family(self) -> str:
        """The network whose variant the architecture is: lenet5 or vgg16."""
        return self.architecture.partition("_")[0]

    @property
    def side(self) -> int:
        """The input side in pixels."""
        return self.input_side or INPUT_SIDES[self.architecture]

    @property
    def preparation(self) -> Preparation:
        """How images become the network's input."""
        return Preparation(side=self.side, mean=self.mean, std=self.std)


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
    return _checked(differences, told_by=str(path))


def as_written(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's values as a card holds them: files by their names, which tell nothing of the machine they lie on."""
    files = {key: Path(value).name for key in FILES if (value := getattr(recipe, key))}
    return recipe.model_dump(mode="json") | files


def recipe_on_card(card: Card) -> Recipe:
    """Return the recipe that a model was trained by.

    Raises
    ------
    InvalidModel
        The card tells none, or one that this version does not know.
    """
    try:
        return Recipe.model_validate(card.training["recipe"])
    except (LookupError, ValidationError) as error:
        raise InvalidModel(f"The card of {card.name} {card.version} tells no recipe that this version knows.") from error


def change_recipe(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with other values; None leaves a value as it is.

    Raises
    ------
    InvalidRecipe
        A value is out of range or does not fit the others.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    return _checked(recipe.model_dump() | given, told_by="With these options")


def _checked(written: dict[str, Any], *, told_by: str) -> Recipe:
    try:
        return Recipe.model_validate(written)
    except ValidationError as error:
        wrong = "; ".join(": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"]))) for each in error.errors())
        raise InvalidRecipe(f"{told_by}: {wrong}.") from error
