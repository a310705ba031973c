"""Errors of the DICOM side.

DicomError
├── Retryable            may work later, without anybody's help
│   ├── PeerUnavailable
│   └── PeerBusy
└── Permanent            a person must look
    ├── NotDicom
    ├── InvalidObject
    ├── UndecodablePixels
    ├── PeerRefused
    └── InvalidReport

The docstring is the message where none is given. Messages carry tags, sizes and codes, never values of a patient.
"""


class DicomError(Exception):
    """Something on the DICOM side did not work."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class Retryable(DicomError):
    """It may work later."""


class PeerUnavailable(Retryable):
    """The peer did not answer."""


class PeerBusy(Retryable):
    """The peer is out of resources."""


class Permanent(DicomError):
    """It will not work until somebody changes something."""


class NotDicom(Permanent):
    """The bytes are not a DICOM data set."""


class InvalidObject(Permanent):
    """The data set lacks what every stored object must have, or contradicts the request that brought it."""


class UndecodablePixels(Permanent):
    """The pixel data cannot be turned into an image."""


class PeerRefused(Permanent):
    """The peer refused the object."""


class InvalidReport(Permanent):
    """The findings cannot be written as a valid report."""
