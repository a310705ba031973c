"""``cxr-worker reprocess``: analyse studies again."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from worker.cli.options import Config, database_of
from worker.errors import ConfigurationError, NoSuchStudy


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
    from worker.models import active_identity
    from worker.values import StudyId, StudyState

    if sum((bool(study_uids), outdated, failed)) != 1:
        raise ConfigurationError("reprocess: name study UIDs, or --outdated, or --failed.")
    with database_of(config) as (settings, database), database.write() as connection:
        if outdated:
            model = active_identity(connection, settings.inference)
            chosen = studies.answered_by_another_model(connection, model, limit=100_000)
        elif failed:
            chosen = studies.in_state(connection, StudyState.FAILED)
        else:
            found = {uid: studies.find(connection, uid) for uid in study_uids or []}
            missing = [uid for uid, study_id in found.items() if study_id is None]
            if missing:
                raise NoSuchStudy(f"No study {missing[0]} was received: 'cxr-worker studies list' shows those that were.")
            chosen = [StudyId(study_id) for study_id in found.values() if study_id is not None]
        count = studies.analyse_again(connection, chosen, now=datetime.now(UTC), why="asked by the operator")
    print(f"{count} of {len(chosen)} studies are due again.")
