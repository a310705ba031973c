"""A private PostgreSQL cluster for tests: in a folder of its own, on a socket in that folder, gone afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.requirements import need

_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "max_connections=40")


class Cluster:
    """A running cluster whose only user is ``cxr``, without a password."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._admin = psycopg.connect(dbname="postgres", user="cxr", host=str(folder), autocommit=True)
        self._count = 0

    def url(self, name: str) -> str:
        """What `worker.settings` calls the database's URL."""
        return f"postgresql+psycopg://cxr@/{name}?host={self._folder}"

    def create(self, *, template: str = "template1") -> str:
        """Make a database as a copy of another one; answer its name."""
        self._count += 1
        name = f"test_{self._count}"
        self.ask(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Delete a database, whoever is connected."""
        self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def refused(self, name: str) -> Iterator[None]:
        """Inside, every connection to a database is broken and none can be made."""
        self.ask(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        self.break_connections(name)
        try:
            yield
        finally:
            self.ask(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")

    def break_connections(self, name: str) -> None:
        """Break every connection to a database, and wait until they are gone."""
        self._admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [name])

    def ask(self, statement: str) -> None:
        """Run one statement as the administrator."""
        self._admin.execute(statement.encode())

    def close(self) -> None:
        """Leave; the server is still there."""
        self._admin.close()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a cluster; end it by its own process id, and delete it."""
    initdb, pg_ctl = need("initdb"), need("pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="cxr-postgres-"))  # the path of a socket is at most 107 bytes
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": folder}

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **as_user)

    data = folder / "data"
    options = " ".join([f"-k {folder}", *(f"-c {option}" for option in _FAST)])
    try:
        run(initdb, "-D", data, "-A", "trust", "-U", "cxr", "-E", "UTF8", "--no-sync", "--no-instructions")
        run(pg_ctl, "-D", data, "-l", folder / "log", "-o", options, "-w", "start")
        try:
            running = Cluster(folder)
            yield running
            running.close()
        finally:
            run(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)
