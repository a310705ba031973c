"""The checksum is that of all bytes, whoever takes it."""

import hashlib
import threading

import pytest

from worker.steps import checksum
from worker.steps.checksum import Checksum

_FRAGMENT = bytes(range(256)) * 512


def _sha256_of(fragments: int) -> str:
    return hashlib.sha256(_FRAGMENT * fragments).hexdigest()


@pytest.mark.parametrize("fragments", [0, 1, 8, 9, 100])
def test_short_and_long_objects_have_the_checksum_of_their_bytes(fragments: int) -> None:
    taken = Checksum()
    for _ in range(fragments):
        taken.update(_FRAGMENT)
    assert taken.hexdigest() == _sha256_of(fragments)


def test_the_memory_of_a_fragment_may_be_used_again_at_once() -> None:
    taken = Checksum()
    buffer = bytearray(_FRAGMENT)
    for _ in range(40):
        buffer[:] = _FRAGMENT
        taken.update(memoryview(buffer))
        buffer[:] = bytes(len(buffer))
    assert taken.hexdigest() == _sha256_of(40)


def test_what_is_long_has_a_thread_until_it_is_closed() -> None:
    taken = Checksum()
    taken.update(_FRAGMENT)
    before = set(threading.enumerate())
    for _ in range(8):
        taken.update(_FRAGMENT)
    (thread,) = set(threading.enumerate()) - before
    taken.close()
    assert not thread.is_alive()
    taken.close()


def test_without_a_thread_to_be_had_the_checksum_is_taken_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(checksum, "Thread", Refused)
    taken = Checksum()
    for _ in range(12):
        taken.update(_FRAGMENT)
    assert taken.hexdigest() == _sha256_of(12)
