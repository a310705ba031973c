"""A private PostgreSQL cluster for tests: in a folder of its own, on a socket in that folder, gone afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.requirements import need

_ALWAYS = ("listen_addresses=", "max_connections=40")
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class Cluster:
    """A running cluster whose only user is ``cxr``, without a password."""

    def __init__(self, folder: Path, control: Callable[..., None]) -> None:
        self._folder = folder
        self._control = control
        self._admin = self._connected()
        self._count = 0

    def _connected(self) -> psycopg.Connection:
        return psycopg.connect(dbname="postgres", user="cxr", host=str(self._folder), autocommit=True)

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

    def restart(self) -> None:
        """Break off whatever the server does, as a crash would, and start it again."""
        self._admin.close()
        self._control("-m", "immediate", "restart")
        self._admin = self._connected()

    def ask(self, statement: str) -> None:
        """Run one statement as the administrator."""
        self._admin.execute(statement.encode())

    def close(self) -> None:
        """Leave; the server is still there."""
        self._admin.close()


@contextmanager
def cluster(*, durable: bool = False) -> Iterator[Cluster]:
    """Start a cluster; end it by its own process id, and delete it. A crash of one that is not durable loses commits."""
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
    options = " ".join([f"-k {folder}", *(f"-c {option}" for option in (_ALWAYS if durable else _ALWAYS + _FAST))])

    def control(*words: str | Path) -> None:
        run(pg_ctl, "-D", data, "-l", folder / "log", "-w", *words)

    try:
        run(initdb, "-D", data, "-A", "trust", "-U", "cxr", "-E", "UTF8", "--no-sync", "--no-instructions")
        control("-o", options, "start")
        try:
            running = Cluster(folder, control)
            yield running
            running.close()
        finally:
            control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
