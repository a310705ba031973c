"""Routes: ``/`` for people, ``/healthz``, ``/readyz`` and ``/metrics`` for machines."""

import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from worker.db import listing
from worker.db.database import Database
from worker.db.migrate import require_newest
from worker.errors import WorkerError
from worker.metrics import Metrics

_TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)
_SHOWN = 100


def make_app(
    database: Database, metrics: Metrics, *, trouble: Callable[[], str | None], names: tuple[str, ...] = ()
) -> Starlette:
    """Make the web application over a database. Handlers are plain functions: Starlette runs them in threads.

    `trouble` says what keeps this process's runner, if it has one, from its work. `names` are those that the page has
    beside its addresses, ``localhost`` and the machine's own name.
    """
    ours = frozenset(name.lower() for name in ("localhost", socket.gethostname(), *names))

    def page(request: Request) -> Response:
        if not _calls_us(request, ours):
            return PlainTextResponse(
                "The page does not go by this name: see web.names in the configuration.\n", status_code=400
            )
        with database.read() as connection:
            studies = listing.list_studies(connection, state=None, since=None, limit=_SHOWN)
        html = _TEMPLATES.get_template("studies.html").render(studies=studies, shown=_SHOWN)
        return HTMLResponse(html, headers={"cache-control": "no-store"})

    return Starlette(routes=[Route("/", page), *_for_machines(database, metrics, trouble)])


def _calls_us(request: Request, ours: frozenset[str]) -> bool:
    """Whether a request is addressed to us.

    A web site can give its own name our address, and then reads in its visitor's browser what we answer to that name. No
    site can do so with an address, so each is right: behind a container's port we do not know our own. Starlette's
    TrustedHostMiddleware would need a list of them.
    """
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return False
    if host in ours:
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def metrics_app(database: Database, metrics: Metrics, *, trouble: Callable[[], str | None]) -> Starlette:
    """Make the application of a process that shows no page, and has figures."""
    return Starlette(routes=_for_machines(database, metrics, trouble))


def _for_machines(database: Database, metrics: Metrics, trouble: Callable[[], str | None]) -> list[Route]:
    def healthz(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    def readyz(_request: Request) -> JSONResponse:
        try:
            require_newest(database)
            with database.read() as connection:
                connection.execute(text("SELECT 1"))
        except WorkerError as error:
            return _unavailable(str(error))
        if (reason := trouble()) is not None:
            return _unavailable(reason)
        return JSONResponse({"status": "ok"})

    def figures(request: Request) -> Response:
        body, content_type = metrics.text(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", figures)]


def _unavailable(reason: str) -> JSONResponse:
    return JSONResponse({"status": "unavailable", "reason": reason}, status_code=503)
