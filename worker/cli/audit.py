"""``cxr-worker audit``: the append-only record of who sent, what was decided by which model, where it went, and who asked."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.options import AsJson, Config, database_of
from worker.cli.printing import print_json, print_table
from worker.cli.studies import moment
from worker.cli.user import user_asking

if TYPE_CHECKING:
    from worker.audit.messages import Reporter
    from worker.db.events import Chosen, Recorded

app = typer.Typer(help="Who sent what, what was decided by which model, where it went, and who asked.", no_args_is_help=True)
Since = Annotated[str | None, typer.Option(help="Only since: a date, or an age such as 12h.", show_default=False)]
Study = Annotated[str | None, typer.Option(help="Only of this study.", metavar="UID")]
Kind = Annotated[str | None, typer.Option(help="Only of this kind, such as refused or sent.", metavar="KIND")]


class Format(StrEnum):
    """How events are exported."""

    JSONL = "jsonl"
    """One JSON object on each line."""
    DICOM = "dicom"
    """One DICOM audit message on each line."""


@app.command(name="list")
def list_events(
    since: Since = None, study: Study = None, kind: Kind = None, config: Config = None, as_json: AsJson = False
) -> None:
    """List events, the oldest first."""
    from worker.db import events

    with database_of(config) as (_, database), database.read() as connection:
        found = [_as_plain(each) for each in events.recorded(connection, _chosen(since, study, kind))]
    if as_json:
        print_json(found)
        return
    columns = ("at", "kind", "study_uid", "detail", "facts")
    print_table(columns, ((*(row[column] for column in columns[:-1]), _in_short(row["facts"])) for row in found))


@app.command()
def export(
    since: Since = None,
    study: Study = None,
    form: Annotated[
        Format, typer.Option("--format", help="jsonl: a JSON object on each line; dicom: an audit message, with patient IDs.")
    ] = Format.JSONL,
    config: Config = None,
) -> None:
    """Write events to stdout, the oldest first; that somebody did becomes an event too."""
    from worker.audit.messages import reporter_of
    from worker.db import events

    chosen = _chosen(since, study, None)
    with database_of(config) as (settings, database):
        reporter = reporter_of(settings)
        with database.write() as connection:
            facts = {"user": user_asking(), "format": form.value}
            events.record(connection, events.Event(kind=events.EXPORTED, at=datetime.now(UTC), facts=facts))
        with database.read() as connection:
            for each in events.recorded(connection, chosen):
                lines = (
                    _as_messages(each, reporter) if form is Format.DICOM else [json.dumps(_as_plain(each), ensure_ascii=False)]
                )
                for line in lines:
                    print(line)


def _chosen(since: str | None, study: str | None, kind: str | None) -> "Chosen":
    from worker.db.events import Chosen

    return Chosen(since=None if since is None else moment(since, now=datetime.now(UTC)), study_uid=study, kind=kind)


def _as_plain(each: "Recorded") -> dict[str, Any]:
    event = each.event
    return {
        "id": each.id,
        "at": event.at.isoformat(timespec="milliseconds"),
        "kind": event.kind,
        "study_uid": each.study_uid,
        "detail": event.detail,
        "facts": dict(event.facts),
    }


def _as_messages(each: "Recorded", reporter: "Reporter") -> list[str]:
    from dicom_io.audit_message import encode
    from worker.audit.messages import messages_of

    return [encode(message).decode().replace("\n", "") for message in messages_of(each, reporter)]


def _in_short(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value if isinstance(value, str | int) else json.dumps(value)}" for name, value in facts.items())
