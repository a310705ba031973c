"""A receiver's journal, from its start to its end."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import structlog

from worker.errors import DatabaseUnavailable
from worker.journal.journal import Journal
from worker.journal.owned import owned
from worker.journal.settler import Settler
from worker.keeping.replay import replay
from worker.pipeline import Parts

log = structlog.get_logger()


@contextmanager
def journal_of(parts: Parts) -> Iterator[Journal | None]:
    """Replay what others left, then have a journal, which is emptied in the end; None where there can or shall be none."""
    dicom = parts.settings.dicom
    try:
        replay(parts)
    except (OSError, DatabaseUnavailable) as error:  # it is still there, for the runner or for the next start
        log.error("journal.not_replayed", error=type(error).__name__)  # noqa: TRY400
    if not dicom.journal_bytes:
        yield None
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(owned(parts.data_dir))
            journal = Journal(folder, most_bytes=dicom.journal_bytes, spare_bytes=dicom.minimum_free_bytes)
        except OSError as error:
            log.warning("journal.none", error=type(error).__name__)  # each object has a file at once, then
            yield None
            return
        stack.callback(journal.remove)
        settler = Settler(
            journal, parts.data_dir, make_rows_durable=parts.database.make_durable, tell=parts.metrics.journal_waits
        )
        stack.callback(settler.close)
        yield journal
