"""Routes: ``/`` for people, ``/healthz``, ``/readyz`` and ``/metrics`` for machines."""

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from worker.db import listing
from worker.db.database import Database
from worker.db.migrate import require_newest
from worker.errors import WorkerError
from worker.metrics import Metrics

_TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)
_SHOWN = 100


def make_app(database: Database, metrics: Metrics, *, trouble: Callable[[], str | None]) -> Starlette:
    """Make the web application over a database. Handlers are plain functions: Starlette runs them in threads.

    `trouble` says what keeps this process's runner, if it has one, from its work.
    """

    def page(_request: Request) -> HTMLResponse:
        with database.read() as connection:
            studies = listing.list_studies(connection, state=None, since=None, limit=_SHOWN)
        return HTMLResponse(_TEMPLATES.get_template("studies.html").render(studies=studies, shown=_SHOWN))

    return Starlette(routes=[Route("/", page), *_for_machines(database, metrics, trouble)])


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
