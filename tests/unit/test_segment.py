"""What is written to a segment is read from it again, and nothing else is."""

import os
import stat
from pathlib import Path

import pytest

from tests.journals import AT, SEGMENT_BYTES, content, read
from worker.journal import segment as segment_module
from worker.journal.segment import Content, Record, Segment, is_whole

BLOCK = 4096


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    return Segment.make(tmp_path / "000000.segment", size=SEGMENT_BYTES)


def written(segment: Segment, content: Content) -> Record:
    offset = segment.reserve(content)
    assert offset is not None
    return segment.write(offset, content)


def test_a_new_one_holds_nothing_and_is_nobody_else_s_to_read(segment: Segment, tmp_path: Path) -> None:
    path = tmp_path / "000000.segment"
    assert read(path) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == SEGMENT_BYTES
    assert path.stat().st_blocks * 512 >= SEGMENT_BYTES, "its blocks are there"
    segment.close()


def test_what_was_written_is_read_with_when_it_came_and_from_where(segment: Segment, tmp_path: Path) -> None:
    for number in range(3):
        written(
            segment, content(b"%d" % number * 5000, file_meta=b"meta%d" % number, at=AT + number, peer_address="2001:db8::7")
        )
    again = Segment(tmp_path / "000000.segment")
    records = list(again.records())
    assert [again.file_of(record) for record in records] == [b"meta%d" % number + b"%d" % number * 5000 for number in range(3)]
    assert [record.at for record in records] == [AT, AT + 1, AT + 2]
    assert {record.peer_address for record in records} == {"2001:db8::7"}
    assert all(is_whole(again.file_of(record), record) for record in records)


def test_what_does_not_fit_gets_no_room_and_takes_none(segment: Segment) -> None:
    assert segment.reserve(content(bytes(SEGMENT_BYTES))) is None
    for _ in range(SEGMENT_BYTES // BLOCK - 1):
        assert segment.reserve(content(b"small")) is not None
    assert segment.reserve(content(b"small")) is None


def test_renewed_it_holds_nothing_of_what_its_blocks_still_hold(segment: Segment, tmp_path: Path) -> None:
    path = tmp_path / "000000.segment"
    for number in range(4):
        written(segment, content(b"first %d" % number))
    segment.renew()
    assert read(path) == []
    written(segment, content(b"second"))
    assert read(path) == [b"metasecond"]
    assert b"first 3" in path.read_bytes()


def test_room_that_nobody_came_to_use_hides_nothing_behind_it(segment: Segment, tmp_path: Path) -> None:
    written(segment, content(b"before"))
    segment.reserve(content(bytes(3 * BLOCK)))
    written(segment, content(b"behind"))
    assert read(tmp_path / "000000.segment") == [b"metabefore", b"metabehind"]


def test_what_was_taken_back_counts_no_more(segment: Segment, tmp_path: Path) -> None:
    written(segment, content(b"before"))
    segment.void(written(segment, content(bytes(3 * BLOCK))))
    written(segment, content(b"behind"))
    assert read(tmp_path / "000000.segment") == [b"metabefore", b"metabehind"]


@pytest.mark.parametrize("where", ["magic", "generation", "moment", "lengths", "address"])
def test_a_head_that_a_power_cut_left_half_written_does_not_count(segment: Segment, tmp_path: Path, where: str) -> None:
    record = written(segment, content(b"torn"))
    written(segment, content(b"whole"))
    at = {"magic": 3, "generation": 20, "moment": 28, "lengths": 37, "address": record.begin - record.offset - 2}[where]
    _damage(tmp_path / "000000.segment", record.offset + at)
    assert read(tmp_path / "000000.segment") == [b"metawhole"]


def test_a_data_set_that_a_power_cut_left_half_written_is_known_as_that(segment: Segment, tmp_path: Path) -> None:
    record = written(segment, content(bytes(2 * BLOCK)))
    assert is_whole(segment.file_of(record), record)
    _damage(tmp_path / "000000.segment", record.begin + record.file_meta_bytes + BLOCK)
    assert not is_whole(segment.file_of(record), record)


@pytest.mark.parametrize("damaged", [0, 8, 24])
def test_a_first_block_that_is_torn_ends_every_record(segment: Segment, tmp_path: Path, damaged: int) -> None:
    written(segment, content(b"x"))
    _damage(tmp_path / "000000.segment", damaged)
    assert read(tmp_path / "000000.segment") == []


def test_a_file_that_ends_too_soon_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"CXRSEGM1")
    assert read(tmp_path / "short") == []


def test_a_data_set_that_holds_a_record_is_one_object(segment: Segment, tmp_path: Path) -> None:
    inner = Segment.make(tmp_path / "inner", size=SEGMENT_BYTES)
    written(inner, content(b"inside"))
    hostile = (tmp_path / "inner").read_bytes()[: 3 * BLOCK]
    segment.reserve(content(b""))  # nobody came to use it, so the reader looks at every block
    segment.void(written(segment, content(b"-" * (BLOCK - 200) + hostile)))
    assert read(tmp_path / "000000.segment") == []


def test_writes_that_are_cut_short_go_on(segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(segment_module.os, "pwritev", lambda descriptor, parts, at: pwrite(descriptor, parts[0][:50], at))
    monkeypatch.setattr(segment_module.os, "pwrite", lambda descriptor, data, at: pwrite(descriptor, bytes(data)[:1000], at))
    written(segment, content(bytes(range(256)) * 40))
    assert read(tmp_path / "000000.segment") == [b"meta" + bytes(range(256)) * 40]


def test_a_disk_without_room_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segment_module.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        Segment.make(tmp_path / "000000.segment", size=SEGMENT_BYTES)
    assert list(tmp_path.iterdir()) == []


def _damage(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 0x55]))
