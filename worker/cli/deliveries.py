"""``cxr-worker deliveries``: what is on its way to the PACS, and what did not get there."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from worker.cli.options import AsJson, Config, database_of
from worker.cli.printing import newest_of, print_json, print_table
from worker.cli.user import user_asking
from worker.errors import ConfigurationError, NotRetried

app = typer.Typer(help="What is on its way to the PACS, and what did not get there.", no_args_is_help=True)


@app.command(name="list")
def list_deliveries(
    state: Annotated[str | None, typer.Option(help="pending, stored, delivered, on_hold, failed …", metavar="STATE")] = None,
    destination: Annotated[str | None, typer.Option(help="Only to this destination.", metavar="NAME")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the newest first.")] = 1000,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries, the newest first."""
    from worker.db import listing
    from worker.values import DeliveryState

    if state is not None and state not in set(DeliveryState):
        raise ConfigurationError(f"--state: '{state}' is none of {', '.join(DeliveryState)}.")
    with database_of(config) as (_, database), database.read() as connection:
        found = listing.list_deliveries(connection, state=state, destination=destination, limit=limit + 1)
    found = newest_of(found, limit)
    if as_json:
        print_json(found)
        return
    columns = ("id", "study_uid", "destination", "kind", "state", "attempts", "waits_for", "next_attempt_at", "last_error")
    print_table(columns, ([delivery[column] for column in columns] for delivery in found))


@app.command()
def retry(
    ids: Annotated[list[int] | None, typer.Argument(help="Deliveries, by the id that list shows.")] = None,
    every_failed: Annotated[bool, typer.Option("--all-failed", help="Every delivery that failed or is on hold.")] = False,
    config: Config = None,
) -> None:
    """Send undelivered reports again at once, with all their attempts before them; what was taken back is not sent."""
    from worker.db import delivering, events

    if bool(ids) == every_failed:
        raise ConfigurationError("deliveries retry: name ids, or --all-failed.")
    with database_of(config) as (_, database), database.write() as connection:
        now = datetime.now(UTC)
        refused = delivering.not_retried(connection, ids or ())
        count = delivering.retry(connection, ids or None, now=now)
        facts = {"user": user_asking(), "deliveries": sorted(set(ids or ()))}
        events.record(connection, events.Event(kind=events.RETRY, at=now, detail=f"{count} due again", facts=facts))
    if refused:
        whys = " ".join(f"{delivery_id}: {why}" for delivery_id, why in refused.items())
        raise NotRetried(f"{count} of {len(set(ids or ()))} are due again. {whys}")
    print(f"{count} due again.")
