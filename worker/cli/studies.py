"""``cxr-worker studies``: what came in, what was decided and why, where it was delivered."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from worker.cli.options import AsJson, Config, Limit, database_of
from worker.cli.printing import newest_of, print_json, print_line, print_table
from worker.errors import ConfigurationError, NoSuchStudy

app = typer.Typer(help="What came in, what was decided and why, where it was delivered.", no_args_is_help=True)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def moment(text: str, *, now: datetime) -> datetime:
    """Read a moment: ISO 8601 (local time where it names no zone), or an age such as ``90m``, ``12h`` or ``7d``.

    Raises
    ------
    ConfigurationError
        It is neither.
    """
    try:
        if text[-1:] in _UNITS and text[:-1].isdecimal():
            return now - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"--since: '{text}' is neither a date such as 2031-05-20T08:00 nor an age such as 12h."
        ) from error


@app.command(name="list")
def list_studies(
    state: Annotated[str | None, typer.Option(help="Only those in this state, such as failed.", metavar="STATE")] = None,
    since: Annotated[str | None, typer.Option(help="Only those received since: a date, or an age such as 12h.")] = None,
    limit: Limit = 1000,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List studies, the newest first."""
    from worker.db import listing
    from worker.values import StudyState

    if state is not None and state not in set(StudyState):
        raise ConfigurationError(f"--state: '{state}' is none of {', '.join(StudyState)}.")
    after = None if since is None else moment(since, now=datetime.now(UTC))
    with database_of(config) as (_, database), database.read() as connection:
        found = listing.list_studies(connection, state=state, since=after, limit=limit + 1)
    found = newest_of(found, limit)
    if as_json:
        print_json(found)
        return
    columns = ("received", "study", "patient", "state", "triage", "images", "result or reason", "delivered")
    print_table(columns, (_row(study) for study in found))


@app.command()
def show(study_uid: str, config: Config = None, as_json: AsJson = False) -> None:
    """Show one study: its images, why each was analysed or not, its reports, deliveries and history."""
    from worker.db import listing

    with database_of(config) as (_, database), database.read() as connection:
        study = listing.show_study(connection, study_uid)
    if study is None:
        raise NoSuchStudy
    if as_json:
        print_json(study)
        return
    for key in (
        "study_uid",
        "patient_id",
        "accession_number",
        "state",
        "reason",
        "triage",
        "received_at",
        "completed_at",
        "files_gone_at",
    ):
        print_line(f"{key:17} {study[key] if study[key] is not None else ''}")
    images = (
        (image["sop_instance_uid"], image["modality"], image["eligible"], _answer(image), image["reason"])
        for image in study["images"]
    )
    print_table(("image", "modality", "eligible", "answer", "reason"), images)
    shadows = [
        (image["sop_instance_uid"], _said(image["shadow_predictions"][-1]))
        for image in study["images"]
        if image["shadow_predictions"]
    ]
    if shadows:
        print_table(("image", "the shadow model's answer, which is reported nowhere"), shadows)
    print_table(
        ("report", "kind", "generation"), ((r["sop_instance_uid"], r["kind"], r["generation"]) for r in study["reports"])
    )
    sent = ((d["destination"], d["kind"], d["state"], d["attempts"], d["last_error"]) for d in study["deliveries"])
    print_table(("destination", "kind", "state", "attempts", "last error"), sent)
    print_table(("at", "event", "detail"), ((e["at"], e["kind"], e["detail"]) for e in study["events"]))


def _row(study: dict[str, Any]) -> tuple[Any, ...]:
    delivered = sum(delivery["state"] == "delivered" for delivery in study["deliveries"])
    result = study["reason"] or "; ".join(filter(None, (_answer(image) for image in study["images"])))
    if study["files_gone_at"]:
        result = f"{result} Its files are gone."
    return (
        study["received_at"][:19],
        study["study_uid"],
        study["patient_id"],
        study["state"],
        study["triage"],
        len(study["images"]),
        result,
        f"{delivered}/{len(study['deliveries'])}",
    )


def _answer(image: dict[str, Any]) -> str:
    """The labels that reached their thresholds, which is what the triage level follows from."""
    return _said(image["predictions"][-1]) if image["predictions"] else ""


def _said(newest: dict[str, Any]) -> str:
    said = [word for word in ("flagged", "undetermined") if newest[word]]
    said.append(", ".join(f"{label} {newest['probabilities'][label]:.0%}" for label in newest["present"]))
    return f"{' '.join(said)} ({newest['model']} {newest['version']})"
