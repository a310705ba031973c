"""The process that decodes compressed frames, one after the other: ``python -m dicom_io.decoder``, started by `decoders`.

What a stranger's bytes make of a decoder, a crash, a hang, a leak or worse, stays in here: it holds no file, no socket and no
connection of the process that started it, and may have none of its own (`confinement`).
"""

import fcntl
import os
import resource
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from dicom_io.confinement import confine
from dicom_io.decoding import decode
from dicom_io.errors import UndecodablePixels
from dicom_io.frame import ANSWER, MOST_WORDS_BYTES, READY, Cells, Frame, read_frame

_REQUESTS: Final = 0
_STATM: Final = Path("/proc/self/statm")
_MOST_ADDRESS_BYTES: Final = 2 * 1024**3
"""`stored.MAX_PIXELS` of 16 bits take 0.8 GiB in the hungriest library, and its bytes stand there three times."""
_MOST_RESIDENT_BYTES: Final = 512 * 1024**2
"""Between two frames, beyond which something leaks; after a film it stands at some 90 MiB."""

_LIMITS: Final = {
    resource.RLIMIT_AS: _MOST_ADDRESS_BYTES,
    resource.RLIMIT_CORE: 0,  # it would hold a patient's image
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NPROC: 0,
}


def main() -> None:
    """Answer frames until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    _take_leave()
    with os.fdopen(_REQUESTS, "rb", closefd=False) as requests, select.epoll() as end, _STATM.open("rb") as statm:
        end.register(_REQUESTS, select.EPOLLHUP)
        confine()
        answers.write(READY)
        answers.flush()
        while frame := read_frame(requests.read):
            with _dying_with_whoever_asked(end):
                cells, words = _decoded(frame)
            spent = bool(words) or _resident_bytes(statm) > _MOST_RESIDENT_BYTES  # libjpeg leaks what it refuses
            answers.write(ANSWER.pack(cells is not None, spent, len(words)))
            answers.write(words)
            if cells is not None:
                answers.write(np.ascontiguousarray(cells).data)
            answers.flush()
            del frame, cells


def _take_leave() -> None:
    """Be nobody's concern but that of the one who asks: deaf to what ends the others, first to go where memory is short."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for told in (signal.SIGINT, signal.SIGTERM):  # they are for the one who asks; the end of its requests is the word to go
        signal.signal(told, signal.SIG_IGN)
    for deadly in (signal.SIGIO, signal.SIGPIPE):
        signal.signal(deadly, signal.SIG_DFL)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    for what, most in _LIMITS.items():
        allowed = resource.getrlimit(what)[1]
        least = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(what, (least, least))


@contextmanager
def _dying_with_whoever_asked(end: select.epoll) -> Iterator[None]:
    """Let the kernel end this process as soon as nobody can ask any more: inside a decoder no Python runs that could look.

    A pipe that is asynchronous gives SIGIO at its end (fcntl(2), F_SETOWN); nothing else comes in while a frame is decoded.
    PR_SET_PDEATHSIG would come with the end of the thread that started this process.
    """
    flags = fcntl.fcntl(_REQUESTS, fcntl.F_GETFL)
    fcntl.fcntl(_REQUESTS, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(_REQUESTS, fcntl.F_SETFL, flags | os.O_ASYNC)
    if end.poll(0):  # just before
        raise SystemExit
    try:
        yield
    finally:
        fcntl.fcntl(_REQUESTS, fcntl.F_SETFL, flags)


def _decoded(frame: Frame) -> tuple[Cells | None, bytes]:
    try:
        cells, doubt = decode(frame)
    except UndecodablePixels as error:
        return None, str(error).encode()[:MOST_WORDS_BYTES]
    except MemoryError:
        return None, b"The image takes more memory than a decoder may have."
    return cells, (doubt or "").encode()[:MOST_WORDS_BYTES]


def _resident_bytes(statm: BinaryIO) -> int:
    return int(os.pread(statm.fileno(), 128, 0).split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
