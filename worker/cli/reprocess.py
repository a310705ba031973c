"""``cxr-worker reprocess``: analyse studies again."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import Config, database_of
from worker.cli.user import user_asking
from worker.errors import ConfigurationError, NoSuchStudy

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from worker.values import StudyId

_AT_ONCE = 64


def reprocess(
    study_uids: Annotated[list[str] | None, typer.Argument(help="Study Instance UIDs.")] = None,
    outdated: Annotated[
        bool, typer.Option("--outdated", help="Every study whose result is by another model than the active.")
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Every study that failed.")] = False,
    config: Config = None,
) -> None:
    """Analyse studies again with the active model; a new result supersedes the old one, an equal one is not sent twice."""
    from worker.db import studies
    from worker.registry import active_identity
    from worker.values import StudyState

    if sum((bool(study_uids), outdated, failed)) != 1:
        raise ConfigurationError("reprocess: name study UIDs, or --outdated, or --failed.")
    with database_of(config) as (settings, database):
        with database.read() as connection:
            if outdated:
                chosen = studies.answered_by_another_model(connection, active_identity(connection, settings))
            elif failed:
                chosen = studies.in_state(connection, StudyState.FAILED)
            else:
                chosen = [_found(connection, uid) for uid in study_uids or []]
        count, gone, user = 0, list[str](), user_asking()
        for piece in (
            chosen[first : first + _AT_ONCE] for first in range(0, len(chosen), _AT_ONCE)
        ):  # a sender must not wait for a long transaction
            with database.write() as connection:
                gone += studies.without_files(connection, piece)
                count += studies.analyse_again(connection, piece, now=datetime.now(UTC), why="asked by the operator", user=user)
    for study_uid in gone:
        print(f"{study_uid}: its files are gone; send it again.")
    print(f"{count} of {len(chosen)} studies are due again.")


def _found(connection: "Connection", study_uid: str) -> "StudyId":
    from worker.db import studies

    study_id = studies.find(connection, study_uid)
    if study_id is None:
        raise NoSuchStudy(f"No study {study_uid} was received: 'cxr-worker studies list' shows those that were.")
    return study_id
