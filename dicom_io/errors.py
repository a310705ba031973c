"""Errors of the DICOM side.

DicomError
├── Retryable            may work later, without anybody's help
│   ├── PeerUnavailable
│   │   └── PeerUnreachable
│   └── PeerBusy
└── Permanent            a person must look
    ├── NotDicom
    ├── InvalidObject
    ├── ObjectTooLarge
    ├── UndecodablePixels
    ├── PeerRefused
    │   ├── AssociationRejected
    │   └── ObjectRefused
    └── InvalidReport

The docstring is the message where none is given. Messages carry tags, sizes and codes, never values of a patient.
"""


class DicomError(Exception):
    """Something on the DICOM side did not work."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.comment = ""
        """What the peer said of it in its own words, which may name a patient: for those who may see patients."""

    @property
    def in_full(self) -> str:
        """The message with the peer's comment."""
        return f"{self} The peer says: {self.comment}" if self.comment else str(self)


class Retryable(DicomError):
    """It may work later."""


class PeerUnavailable(Retryable):
    """The peer did not answer."""


class PeerUnreachable(PeerUnavailable):
    """The peer cannot be talked to: no connection, or no answer to the association request."""


class PeerBusy(Retryable):
    """The peer is out of resources."""

    def __init__(self, message: str | None = None, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        """For how long it asks not to be tried again; 0 where it does not say."""


class Permanent(DicomError):
    """It will not work until somebody changes something."""


class NotDicom(Permanent):
    """The bytes are not a DICOM data set."""


class InvalidObject(Permanent):
    """The data set lacks what every stored object must have, or contradicts the request that brought it."""


class ObjectTooLarge(Permanent):
    """The object is larger than dicom.maximum_object_bytes."""


class UndecodablePixels(Permanent):
    """The pixel data cannot be turned into an image."""


class PeerRefused(Permanent):
    """The peer refused the object."""


class AssociationRejected(PeerRefused):
    """The peer does not let us in."""


class ObjectRefused(PeerRefused):
    """The peer will never take this object: it does not take its kind, or finds it wrong."""


class InvalidReport(Permanent):
    """The findings cannot be written as a valid report."""
