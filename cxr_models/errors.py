"""Errors of the models.

ModelError
├── Retryable            may work later, without anybody's help
│   └── DeviceBusy
└── Permanent            a person must look
    ├── UnreadableImage
    ├── NonFiniteOutput
    ├── InvalidModel
    └── Misuse           the command or the configuration is wrong
        ├── UnknownModel
        ├── UnknownDevice
        ├── InvalidRecipe
        └── InvalidData

The docstring is the message where none is given. Messages carry file names, shapes and numbers, never values of a patient.
"""


class ModelError(Exception):
    """Something about a model, its data or its device did not work."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class Retryable(ModelError):
    """It may work later."""


class DeviceBusy(Retryable):
    """The device has no memory left for this batch."""


class Permanent(ModelError):
    """It will not work until somebody changes something."""


class UnreadableImage(Permanent):
    """The image cannot be read as a radiograph."""


class NonFiniteOutput(Permanent):
    """The network answered with something that is not a number, so there is no prediction."""


class InvalidModel(Permanent):
    """The model folder lacks its card or weights, or they do not describe each other."""


class Misuse(Permanent):
    """The command or the configuration asks for what does not exist."""


class UnknownModel(Misuse):
    """No model has this name and no model folder stands there."""


class UnknownDevice(Misuse):
    """The machine does not have the device that was asked for."""


class InvalidRecipe(Misuse):
    """The recipe has an unknown key or a value out of range."""


class InvalidData(Misuse):
    """The data folder is not laid out as one folder per class."""
