import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ctypes import CDLL
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless

import dicom_io.decoders
from dicom_io.confinement import landlock_version
from dicom_io.decoders import Decoders
from dicom_io.decoding import decode
from dicom_io.errors import UndecodablePixels
from dicom_io.frame import Frame
from dicom_io.status import is_transient
from dicom_io.stored import MAX_PIXELS
from dicom_io.values import TransferSyntaxUID
from dicom_io.wrap import Encoding
from tests.factories import make_dx
from tests.fuzz.pictures import SMALL, objects
from tests.fuzz.target import resident_bytes
from tests.servers import wait_for

ASYNCHRONOUS = 0o20000
"""O_ASYNC as proc(5) tells it of a descriptor: that of a process that is in the middle of a frame."""


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    dicom_io.decoders.decoders.close()  # of tests before this one, so that those found are this one's
    own = Decoders()
    yield own
    own.close()
    assert not running()


def frame_of(cells: np.ndarray, transfer_syntax: str = JPEG2000Lossless) -> Frame:
    ds = make_dx(cells, encoding=Encoding(transfer_syntax=TransferSyntaxUID(transfer_syntax)))
    return Frame(
        transfer_syntax=transfer_syntax,
        rows=ds.Rows,
        columns=ds.Columns,
        bits_allocated=ds.BitsAllocated,
        bits_stored=ds.BitsStored,
        signed=False,
        data=next(generate_frames(ds.PixelData, number_of_frames=1)),
    )


@pytest.fixture(scope="module")
def quick() -> Frame:
    return frame_of(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))


@pytest.fixture(scope="module")
def slow() -> Frame:
    """Noise, of which JPEG 2000 makes the most of its work."""
    return frame_of(np.random.default_rng(1).integers(0, 1 << 16, (1000, 1000)).astype(np.uint16))


def running() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if b"dicom_io.decoder" in _told(child, "cmdline")]


def in_the_middle_of_a_frame(process: psutil.Process) -> bool:
    flags = re.search(rb"flags:\s+(\d+)", _told(process, "fdinfo/0"))
    return flags is not None and bool(int(flags[1], 8) & ASYNCHRONOUS)


def _told(process: psutil.Process, what: str) -> bytes:
    try:
        return Path(f"/proc/{process.pid}/{what}").read_bytes()
    except OSError:  # it is gone
        return b""


def busy(*, but: int = 0) -> psutil.Process:
    def look() -> psutil.Process | None:
        return next((each for each in running() if each.pid != but and in_the_middle_of_a_frame(each)), None)

    return wait_for(look, "a decoder in the middle of a frame")


def test_what_is_decoded_apart_is_what_is_decoded_here(decoders: Decoders) -> None:
    apart = {JPEG2000Lossless, JPEGLSLossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1}
    compared = set()
    for ds in objects(*SMALL):
        syntax = ds.file_meta.TransferSyntaxUID
        if not syntax.is_encapsulated or syntax == RLELossless:
            continue
        frame = Frame(
            transfer_syntax=syntax,
            rows=ds.Rows,
            columns=ds.Columns,
            bits_allocated=ds.BitsAllocated,
            bits_stored=ds.BitsStored,
            signed=bool(ds.PixelRepresentation),
            data=next(generate_frames(ds.PixelData, number_of_frames=1)),
        )
        (cells, doubt), (expected, expected_doubt) = decoders.decode(frame), decode(frame)
        assert cells.dtype == expected.dtype
        np.testing.assert_array_equal(cells, expected)
        assert doubt == expected_doubt
        compared.add(syntax)
    assert compared >= apart


def test_one_process_is_kept_and_threads_that_decode_at_once_have_one_each(
    decoders: Decoders, quick: Frame, slow: Frame
) -> None:
    decoders.decode(quick)
    (first,) = running()
    decoders.decode(quick)
    assert running() == [first]
    with ThreadPoolExecutor() as threads:
        both = [threads.submit(decoders.decode, slow) for _ in range(2)]
        assert {busy(but=first.pid).pid, first.pid} == {process.pid for process in running()}
        for cells, _ in (each.result() for each in both):
            np.testing.assert_array_equal(cells, decode(slow)[0])
    decoders.close()
    assert not running()
    assert decoders.decode(quick)[0].shape == (64, 64)


def test_a_process_knows_no_network_no_database_and_nothing_of_ours(decoders: Decoders, quick: Frame, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        decoders.decode(quick)
    (process,) = running()
    opened = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    its_own = {"/dev/null", "anon_inode:[eventpoll]", f"/proc/{process.pid}/statm"}
    assert all(name.startswith("pipe:") or name in its_own for name in opened)
    assert process.rlimit(psutil.RLIMIT_NOFILE) == (0, 0)
    may_gain_rights = "NoNewPrivs:\t0" in Path(f"/proc/{process.pid}/status").read_text()
    assert may_gain_rights == (landlock_version() == 0)
    told = {"PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_TOP_PAD_"}
    assert set(process.environ()) <= told
    assert process.num_threads() == 1
    loaded = "import sys, dicom_io.decoder; print({'torch', 'sqlalchemy', 'pynetdicom'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_process_is_deaf_to_what_ends_the_worker(decoders: Decoders, slow: Frame, told: signal.Signals) -> None:
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(decoders.decode, slow)
        process = busy()
        process.send_signal(told)
        assert answer.result()[0].shape == (1000, 1000)
    assert running() == [process]


# --- what goes wrong ---


def jpeg(side: int, *, damaged_at: int, by: bytes) -> Frame:
    sound = BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (side, side)).astype(np.uint8)
    Image.fromarray(noise).save(sound, "JPEG", quality=20)
    content = bytearray(sound.getvalue())
    content[damaged_at : damaged_at + len(by)] = by
    return Frame(
        transfer_syntax=JPEGBaseline8Bit,
        rows=side,
        columns=side,
        bits_allocated=8,
        bits_stored=8,
        signed=False,
        data=bytes(content),
    )


def test_what_libjpeg_leaks_of_damaged_images_goes_with_the_process_that_refused_them(decoders: Decoders, quick: Frame) -> None:
    damaged = jpeg(2048, damaged_at=3000, by=b"\xff\xc4\xff\xff")  # a table that ends beyond the image
    decoders.decode(quick)
    (first,) = running()
    with pytest.raises(UndecodablePixels, match=r"No decoder read this JPEG Baseline .*; tried pylibjpeg \(RuntimeError\)"):
        decoders.decode(damaged)
    assert not first.is_running()
    before = resident_bytes()
    for _ in range(8):
        with pytest.raises(UndecodablePixels):
            decoders.decode(damaged)
    assert resident_bytes() - before < 32 * 1024**2  # 128 MiB, decoded here
    assert not running()


def test_what_one_library_refused_and_another_read_is_told_and_costs_the_process(decoders: Decoders) -> None:
    _, doubt = decoders.decode(jpeg(64, damaged_at=5, by=b"\0"))  # APP0 is shorter than its length
    assert doubt == "read by pillow, refused by pylibjpeg (RuntimeError)"
    assert not running()


@pytest.mark.parametrize("killed_by", [signal.SIGABRT, signal.SIGKILL])
def test_a_frame_on_which_a_decoder_ends_is_tried_once_more_in_a_new_one(
    decoders: Decoders, slow: Frame, killed_by: signal.Signals
) -> None:
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(decoders.decode, slow)
        busy().send_signal(killed_by)
        np.testing.assert_array_equal(answer.result()[0], decode(slow)[0])


@pytest.mark.parametrize(
    ("killed_by", "reason"),
    [
        (signal.SIGSEGV, r"The decoder ended itself \(SIGSEGV\)\."),
        (signal.SIGKILL, r"The decoder was ended from outside \(SIGKILL\)\."),
    ],
)
def test_a_frame_on_which_two_decoders_end_is_undecodable(
    decoders: Decoders, slow: Frame, killed_by: signal.Signals, reason: str
) -> None:
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(decoders.decode, slow)
        first = busy()
        first.send_signal(killed_by)
        busy(but=first.pid).send_signal(killed_by)
        with pytest.raises(UndecodablePixels, match=reason):
            answer.result()


def test_that_a_decoder_ended_while_it_waited_is_no_try(decoders: Decoders, quick: Frame, slow: Frame) -> None:
    decoders.decode(quick)
    (first,) = running()
    first.kill()
    wait_for(lambda: first.status() == psutil.STATUS_ZOMBIE, "its end")
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(decoders.decode, slow)
        busy().kill()
        assert answer.result()[0].shape == (1000, 1000)


def test_a_frame_that_takes_too_long_is_undecodable(slow: Frame, quick: Frame) -> None:
    impatient = Decoders(deadline_seconds=0.05)
    impatient.decode(quick)
    with pytest.raises(UndecodablePixels, match=r"took longer than 0\.05 s"):
        impatient.decode(slow)
    assert not running()


def test_a_frame_that_takes_more_memory_than_a_decoder_may_have_is_undecodable(decoders: Decoders, quick: Frame) -> None:
    side = 20_000
    size = (41, 0, side, side, 0, 0, side, side, 0, 0, 1, 15, 1, 1)
    widths = (2, 2, 4, 4, 4, 4, 4, 4, 4, 4, 2, 1, 1, 1)
    header = b"\xff\x4f\xff\x51" + b"".join(value.to_bytes(width) for value, width in zip(size, widths, strict=True))
    rest = b"\xff\x52\x00\x0c\x00\x00\x00\x01\x00\x05\x04\x04\x00\x01\xff\x5c\x00\x13\x40" + b"\x40" * 16
    tile = b"\xff\x90\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x01\xff\x93" + bytes(64) + b"\xff\xd9"
    with pytest.raises(UndecodablePixels, match="No decoder read this JPEG 2000"):
        decoders.decode(replace(quick, rows=side, columns=side, bits_stored=16, data=header + rest + tile))


def test_the_largest_image_there_may_be_is_decoded(decoders: Decoders) -> None:
    side = int(MAX_PIXELS**0.5)
    cells = np.zeros((side, side), np.uint16)
    cells[::100] = 4095
    np.testing.assert_array_equal(decoders.decode(frame_of(cells, JPEGLSLossless))[0], cells)


@pytest.mark.parametrize("program", [("/nowhere/python",), (sys.executable, "-c", "")])
def test_that_no_decoder_can_be_started_is_not_the_fault_of_the_image(
    decoders: Decoders, quick: Frame, monkeypatch: pytest.MonkeyPatch, program: tuple[str, ...]
) -> None:
    monkeypatch.setattr(dicom_io.decoders, "_PROGRAM", program)
    with pytest.raises(OSError, match=r"decoder") as raised:
        decoders.decode(quick)
    assert raised.value.errno == errno.ENOMEM
    assert is_transient(raised.value)


# --- whose they are ---

ASKING = """
import os, sys
from threading import Thread
from pathlib import Path
import psutil
from dicom_io.decoders import decoders
from dicom_io.frame import Frame
frame = Frame(transfer_syntax=sys.argv[2], rows=1000, columns=1000, bits_allocated=16, bits_stored=16, signed=False,
              data=Path(sys.argv[1]).read_bytes())
"""
KILLED_AT_REST = """
decoders.decode(frame)
print("done", flush=True)
sys.stdin.read()
"""
KILLED_AT_WORK = """
Thread(target=decoders.decode, args=[frame], daemon=True).start()
sys.stdin.read()
"""
PARTED = """
decoders.decode(frame)
before = psutil.Process().children()
if (forked := os.fork()) == 0:
    os._exit(0 if decoders.decode(frame)[0].shape == (1000, 1000) and len(psutil.Process().children()) == 1 else 1)
assert os.waitpid(forked, 0)[1] == 0
decoders.decode(frame)
assert psutil.Process().children() == before
"""


@pytest.fixture
def asking(slow: Frame, tmp_path: Path) -> Callable[[str], list[str]]:
    (tmp_path / "frame").write_bytes(slow.data)
    return lambda rest: [sys.executable, "-c", ASKING + rest, str(tmp_path / "frame"), slow.transfer_syntax]


@pytest.fixture
def orphans() -> Iterator[None]:
    """Whoever loses its parent becomes a child of ours, so that we hear how it ends (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    prctl, set_child_subreaper = CDLL(None).prctl, 36
    assert prctl(set_child_subreaper, 1, 0, 0, 0) == 0
    yield
    prctl(set_child_subreaper, 0, 0, 0, 0)


def exit_code(orphan: psutil.Process) -> int:
    def look() -> tuple[int, int] | None:
        ended = os.waitpid(orphan.pid, os.WNOHANG)
        return ended if ended[0] else None

    return os.waitstatus_to_exitcode(wait_for(look, "the end of the decoder")[1])


@pytest.mark.usefixtures("orphans")
def test_a_decoder_ends_at_once_in_the_middle_of_a_frame_when_the_worker_is_killed(
    asking: Callable[[str], list[str]],
) -> None:
    with subprocess.Popen(asking(KILLED_AT_WORK), stdin=subprocess.PIPE) as worker:
        (decoder,) = wait_for(lambda: psutil.Process(worker.pid).children(), "its decoder")
        wait_for(lambda: in_the_middle_of_a_frame(decoder), "the middle of the frame")
        worker.kill()
        worker.wait()
        assert exit_code(decoder) == -signal.SIGIO


@pytest.mark.usefixtures("orphans")
def test_a_decoder_that_waits_ends_when_the_worker_is_killed(asking: Callable[[str], list[str]]) -> None:
    with subprocess.Popen(asking(KILLED_AT_REST), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout.readline() == b"done\n"
        (decoder,) = psutil.Process(worker.pid).children()
        worker.kill()
        worker.wait()
        assert exit_code(decoder) == 0


def test_a_process_that_parted_has_decoders_of_its_own(asking: Callable[[str], list[str]]) -> None:
    subprocess.run(asking(PARTED), check=True)
