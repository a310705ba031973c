"""Errors of the worker.

WorkerError
├── Retryable               may work later, without anybody's help
│   ├── DatabaseUnavailable
│   │   └── TransactionInTheWay
│   ├── DiskNearlyFull
│   └── AnotherRunner
└── Permanent               a person must look
    ├── ConfigurationError
    ├── DatabaseOutdated
    ├── DatabaseDamaged
    ├── UnusableBackup
    ├── AnotherModel
    ├── FilesInDisorder
    ├── NoSuchStudy
    └── NotRetried

The docstring is the message where none is given. Messages carry ids and keys, never values of a patient.
"""

from dicom_io.errors import Retryable as DicomRetryable


class WorkerError(Exception):
    """The worker could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class Retryable(WorkerError):
    """It may work later."""


class DatabaseUnavailable(Retryable, DicomRetryable):
    """The database does not answer."""


class TransactionInTheWay(DatabaseUnavailable):
    """Another transaction was in the way of this one, which the database broke off: at its next try it works."""


class DiskNearlyFull(Retryable, DicomRetryable):
    """Less than dicom.minimum_free_bytes are free on the disk."""


class AnotherRunner(Retryable):
    """Another runner works on this database."""


class Permanent(WorkerError):
    """It will not work until somebody changes something."""


class ConfigurationError(Permanent):
    """The configuration is wrong."""


class DatabaseOutdated(Permanent):
    """The database is not at the newest migration: run 'cxr-worker db upgrade'."""


class DatabaseDamaged(Permanent):
    """The database is damaged: it cannot be read through. Stop the worker and run 'cxr-worker db restore FILE'."""


class UnusableBackup(Permanent):
    """The backup is damaged, or no database of this worker."""


class AnotherModel(Permanent):
    """Another model has this name and version."""


class FilesInDisorder(Permanent):
    """Stored files are not as their rows say, or not for us alone."""


class NoSuchStudy(Permanent):
    """No study with this Study Instance UID was received: 'cxr-worker studies list' shows those that were."""


class NotRetried(Permanent):
    """A delivery cannot be sent again: 'cxr-worker deliveries list' shows how it stands."""
