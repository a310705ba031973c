"""From error to exit code: 1 failed, 2 bad usage or configuration."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cxr_models.errors import Misuse, ModelError
from worker.cli.printing import harmless
from worker.errors import ConfigurationError, WorkerError


@contextmanager
def reported() -> Iterator[None]:
    """Print an error of ours as one line on stderr and leave with its exit code."""
    try:
        yield
    except (ConfigurationError, Misuse) as error:
        _leave(error, 2)
    except (WorkerError, ModelError) as error:
        _leave(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _leave(error: Exception, code: int) -> None:
    print(harmless(f"cxr-worker: {error}"), file=sys.stderr)
    sys.exit(code)
