"""What code that got hold of a decoder's process can still do: nothing that reaches beyond it."""

import errno
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_io.confinement import landlock_version

_ROOT = Path(__file__).parents[2]
_NETWORK_SINCE, _SIGNALS_SINCE = 4, 6
_EVERYTHING = "confinement.confine()"
_LANDLOCK_ALONE = "confinement._apply_landlock(confinement.landlock_version())"
_DESCRIPTORS_ALONE = "confinement.landlock_version = lambda: 0; confinement.confine()"

with_landlock = pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")


def outcome(attempt: str, tmp_path: Path, *, after: str = _EVERYTHING) -> str:
    """Which error a statement ends with in a process that is confined; empty where it does what it says."""
    secret = tmp_path / "secret"
    secret.write_text("a patient's")
    with socket.create_server(("127.0.0.1", 0)) as peer, subprocess.Popen(["sleep", "60"]) as other:
        lines = (
            "import os, signal, socket, sys",
            "from dicom_io import confinement",
            f"secret, python, port, other = {str(secret)!r}, sys.executable, {peer.getsockname()[1]}, {other.pid}",
            "opened = socket.socket()",
            after,
            "try:",
            f"    {attempt}",
            "except OSError as error:",
            "    print(error.errno)",
        )
        try:
            done = subprocess.run(
                [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True, cwd=_ROOT, timeout=60
            )
            assert other.poll() is None
        finally:
            other.kill()
    assert secret.read_text() == "a patient's"
    return errno.errorcode[int(done.stdout)] if done.stdout else ""


@pytest.mark.parametrize("attempt", ["bytes(10_000_000)", "os.write(1, b'')", "os.kill(os.getpid(), 0)"])
def test_memory_descriptors_and_the_process_itself_stay(attempt: str, tmp_path: Path) -> None:
    assert outcome(attempt, tmp_path) == ""


@pytest.mark.parametrize(
    "attempt",
    [
        "os.open('/proc/self/statm', os.O_RDONLY)",
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "os.pipe()",
        "os.memfd_create('program')",
        "os.pidfd_open(other)",
        "os.close(0); os.open('/proc/self/statm', os.O_RDONLY)",
    ],
)
def test_no_descriptor_more_can_be_had(attempt: str, tmp_path: Path) -> None:
    assert outcome(attempt, tmp_path, after=_DESCRIPTORS_ALONE) == "EMFILE"


@with_landlock
@pytest.mark.parametrize(
    ("attempt", "refused"),
    [
        ("open(secret)", "EACCES"),
        ("open(secret, 'w')", "EACCES"),
        ("os.truncate(secret, 0)", "EACCES"),
        ("os.unlink(secret)", "EACCES"),
        ("os.mkdir(secret + '.d')", "EACCES"),
        ("os.rename(secret, secret + '.d')", "EACCES"),
        ("os.listdir('/')", "EACCES"),
        ("os.execv(python, [python, '-c', ''])", "EACCES"),
        pytest.param(
            "opened.connect(('127.0.0.1', port))",
            "EACCES",
            marks=pytest.mark.skipif(landlock_version() < _NETWORK_SINCE, reason="of a later Landlock"),
        ),
        pytest.param(
            "os.kill(other, signal.SIGKILL)",
            "EPERM",
            marks=pytest.mark.skipif(landlock_version() < _SIGNALS_SINCE, reason="of a later Landlock"),
        ),
    ],
)
def test_with_landlock_alone_there_is_no_file_no_peer_and_no_other_process(attempt: str, refused: str, tmp_path: Path) -> None:
    assert outcome(attempt, tmp_path) != ""
    assert outcome(attempt, tmp_path, after=_LANDLOCK_ALONE) == refused
