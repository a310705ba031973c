"""The processes that decode compressed frames (`decoder`): started at the first one, kept, and replaced when one goes wrong."""

import atexit
import errno
import os
import select
import signal
import subprocess  # our own program  # nosec B404
import sys
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

import numpy as np

from dicom_io.errors import UndecodablePixels
from dicom_io.frame import ANSWER, MOST_WORDS_BYTES, READY, Cells, Frame

DEADLINE_SECONDS: Final = 60.0
"""For one frame. `stored.MAX_PIXELS`, half of their bits noise, take 10 to 15 s in JPEG 2000, the slowest."""
MOST_IDLE: Final = max(8, os.cpu_count() or 1)
"""Kept for the next frame, at some 90 MiB each; more may be at work when many senders contradict what is stored."""
_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 1.0

_PROGRAM: Final = (sys.executable, "-s", "-P", "-m", "dicom_io.decoder")
_TOLD: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TOP_PAD_": str(64 * 1024**2),  # or glibc gives the pages of each film back and gets them again: 7 ms for 5 Mpixel
}
_PASSED_ON: Final = ("LD_LIBRARY_PATH",)  # some interpreters do not start without it


class _Gone(Exception):
    """The process ended; the message says how."""


class _Decoder:
    """One such process. What it says is as little to be trusted as the image that it decoded."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None:
            raise TypeError
        self._process = process
        self._requests = process.stdin.fileno()
        self._answers = process.stdout.fileno()
        os.set_blocking(self._requests, False)
        os.set_blocking(self._answers, False)

    @classmethod
    def start(cls) -> Self:
        """Start one and wait until everything is loaded.

        Raises
        ------
        OSError
            ENOMEM: there is no process or no memory to be had, which is not the image's fault.
        """
        try:
            decoder = cls(_process())
        except OSError as error:
            raise OSError(errno.ENOMEM, f"No decoder can be started: {error.strerror}") from error
        with ExitStack() as unready:
            unready.callback(decoder.end)
            try:
                decoder._receive(bytearray(len(READY)), time.monotonic() + _START_SECONDS)
            except (OSError, EOFError) as error:
                raise OSError(errno.ENOMEM, "A decoder does not start.") from error
            unready.pop_all()
        return decoder

    @property
    def runs(self) -> bool:
        """Whether it still runs for this process; to one that was forked from this one it is no child, and so ended."""
        return self._process.poll() is None

    def decode(self, frame: Frame, until: float) -> tuple[Cells | None, str, bool]:
        """Hand it a frame.

        Returns
        -------
        tuple[Cells | None, str, bool]
            The cells, or None where no library reads it; what there is to say; whether this process should be replaced.

        Raises
        ------
        EOFError, BrokenPipeError
            It is gone.
        TimeoutError
            The time of `time.monotonic` is over.
        """
        self._send(frame.header, until)
        self._send(frame.data, until)
        self._receive(answer := bytearray(ANSWER.size), until)
        read, spent, length = ANSWER.unpack(answer)
        self._receive(words := bytearray(min(length, MOST_WORDS_BYTES)), until)
        said = words.decode(errors="replace")
        if not read:
            return None, said, spent
        shape = (frame.rows, frame.columns)
        cells: Cells = np.empty(shape, np.uint8) if frame.bits_allocated == 8 else np.empty(shape, np.uint16)
        self._receive(cells.data, until)
        return cells, said, spent

    def end(self) -> None:
        """End it, whatever it does."""
        self._close()
        self._process.kill()
        self._process.wait()

    def how_it_ended(self) -> str:
        """Say so, in words, of one that closed its pipe."""
        self._close()
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.end()
            return "closed its pipe and went on"
        if code >= 0:
            return f"ended itself (exit status {code})"
        name = {each.value: each.name for each in signal.Signals}.get(-code, f"signal {-code}")
        return f"was ended from outside ({name})" if name == "SIGKILL" else f"ended itself ({name})"

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _send(self, data: bytes, until: float) -> None:
        left = memoryview(data)
        while left:
            _wait(self._requests, select.POLLOUT, until)
            left = left[os.write(self._requests, left) :]

    def _receive(self, into: bytearray | memoryview, until: float) -> None:
        left = memoryview(into).cast("B")
        while left:
            _wait(self._answers, select.POLLIN, until)
            count = os.readv(self._answers, [left])
            if count == 0:
                raise EOFError
            left = left[count:]


class Decoders:
    """One process for each thread that decodes at the same time.

    Parameters
    ----------
    deadline_seconds
        For one frame, in all.
    """

    def __init__(self, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._deadline_seconds = deadline_seconds
        self._idle: deque[_Decoder] = deque()
        self._closed_at_exit = False

    def decode(self, frame: Frame) -> tuple[Cells, str | None]:
        """Decode a frame as `decoding.decode` does, in another process.

        Raises
        ------
        UndecodablePixels
            No library reads it, or the process crashed on it or took too long.
        OSError
            No process can be started; see `status.is_transient`.
        """
        try:
            return self._ask(self._take(), frame)
        except _Gone:  # by the fault of the image before it, perhaps, or of somebody who ends processes
            pass
        try:
            return self._ask(_Decoder.start(), frame)
        except _Gone as gone:
            raise UndecodablePixels(f"The decoder {gone}.") from gone

    def close(self) -> None:
        """End the processes that have nothing to do; the next frame starts another."""
        while decoder := self._pop():
            decoder.end()

    def _ask(self, decoder: _Decoder, frame: Frame) -> tuple[Cells, str | None]:
        with ExitStack() as spoiled:
            spoiled.callback(decoder.end)
            try:
                cells, words, spent = decoder.decode(frame, time.monotonic() + self._deadline_seconds)
            except TimeoutError as error:
                raise UndecodablePixels(f"The decoder took longer than {self._deadline_seconds:g} s.") from error
            except (EOFError, BrokenPipeError) as error:
                raise _Gone(decoder.how_it_ended()) from error
            if not spent and len(self._idle) < MOST_IDLE:
                spoiled.pop_all()
                self._idle.append(decoder)
        if cells is None:
            raise UndecodablePixels(words)
        return cells, words or None

    def _take(self) -> _Decoder:
        if not self._closed_at_exit:
            self._closed_at_exit = True
            atexit.register(self.close)
        return self._pop() or _Decoder.start()

    def _pop(self) -> _Decoder | None:
        """One that waits. A deque gives each to one thread alone."""
        while True:
            try:
                decoder = self._idle.pop()
            except IndexError:
                return None
            if decoder.runs:
                return decoder
            decoder.end()


def _process() -> subprocess.Popen[bytes]:
    """Start the same code as runs here, wherever it is installed, with nothing of this environment.

    In a process group of its own, it is spared what a terminal sends to all.
    """
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), **_TOLD}
    environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return subprocess.Popen(  # noqa: S603  nothing of a stranger's in it  # nosec B603
        _PROGRAM,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd="/",
        env=environment,
        process_group=0,
    )


def _wait(pipe: int, event: int, until: float) -> None:
    ready = select.poll()
    ready.register(pipe, event)
    if not ready.poll(max(0.0, until - time.monotonic()) * 1000):
        raise TimeoutError


decoders: Final = Decoders()
"""Those of this process: whoever reads pixels shares them."""
