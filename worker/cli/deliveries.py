"""``cxr-worker deliveries``: what is on its way to the PACS, and what did not get there."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.options import LARGEST_ID, AsJson, Config, Limit, database_of
from worker.cli.printing import newest_of, print_json, print_line, print_table
from worker.cli.user import user_asking
from worker.errors import ConfigurationError, NotRetried

if TYPE_CHECKING:
    from worker.settings import Settings

app = typer.Typer(help="What is on its way to the PACS, and what did not get there.", no_args_is_help=True)


@app.command(name="list")
def list_deliveries(
    state: Annotated[str | None, typer.Option(help="pending, stored, delivered, on_hold, failed …", metavar="STATE")] = None,
    destination: Annotated[str | None, typer.Option(help="Only to this destination.", metavar="NAME")] = None,
    limit: Limit = 1000,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries, the newest first."""
    from worker.db import listing
    from worker.values import DeliveryState

    if state is not None and state not in set(DeliveryState):
        raise ConfigurationError(f"--state: '{state}' is none of {', '.join(DeliveryState)}.")
    with database_of(config) as (settings, database), database.read() as connection:
        found = listing.list_deliveries(connection, state=state, destination=destination, limit=limit + 1)
        known = _configured(settings)
        is_known = destination is None or destination in known
        if not is_known and not listing.list_deliveries(connection, destination=destination, limit=1):
            raise ConfigurationError(
                f"--destination: '{destination}' is no destination: {', '.join(sorted(known)) or 'none'} configured."
            )
    found = [_as_configured(delivery, known) for delivery in newest_of(found, limit)]
    if as_json:
        print_json(found)
        return
    columns = ("id", "study_uid", "destination", "kind", "state", "attempts", "waits_for", "next_attempt_at", "last_error")
    print_table(columns, ([delivery[column] for column in columns] for delivery in found))


@app.command()
def retry(
    ids: Annotated[
        list[int] | None, typer.Argument(min=1, max=LARGEST_ID, help="Deliveries, by the id that list shows.")
    ] = None,
    every_failed: Annotated[bool, typer.Option("--all-failed", help="Every delivery that failed or is on hold.")] = False,
    config: Config = None,
) -> None:
    """Send undelivered reports again at once, with all their attempts before them; what was taken back is not sent."""
    from worker.db import delivering, events, listing

    if bool(ids) == every_failed:
        raise ConfigurationError("deliveries retry: name ids, or --all-failed.")
    with database_of(config) as (settings, database), database.write() as connection:
        now = datetime.now(UTC)
        refused = delivering.not_retried(connection, ids or ())
        count = delivering.retry(connection, ids or None, now=now)
        facts = {"user": user_asking(), "deliveries": sorted(set(ids or ()))}
        events.record(connection, events.Event(kind=events.RETRY, at=now, detail=f"{count} due again", facts=facts))
        known = _configured(settings)
        unknown = [name for name in listing.destinations_due_since(connection, now) if name not in known]
    to_nobody = "".join(f" Nothing is sent to {name}, which is not configured." for name in unknown)
    if refused:
        whys = " ".join(f"{delivery_id}: {why}" for delivery_id, why in refused.items())
        raise NotRetried(f"{count} of {len(set(ids or ()))} are due again.{to_nobody} {whys}")
    print_line(f"{count} due again.{to_nobody}")


def _configured(settings: "Settings") -> set[str]:
    return {destination.name for destination in settings.destinations}


def _as_configured(delivery: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """Tell of what waits for a destination that the configuration does not have any more that it does."""
    if delivery["waits_for"] is None or delivery["destination"] in known:
        return delivery
    words = f"{delivery['destination']} to be configured again: nothing is sent to it"
    return delivery | {"waits_for": words, "next_attempt_at": None}
