"""A segment of a journal: a file of fixed length whose blocks are written over and over.

    block 0     magic, generation, checksum
    then        records, each from the beginning of a block: head, the sender's address, our file meta, the data set as it came

A file of its own costs an object an inode, a name and blocks, each in another place of the disk. Here they are there already,
so that what is appended is durable after one write. A record counts where its head names the segment's generation and its data
set has the SHA-256 that the head tells: what an earlier generation left in the same blocks does not, nor what a power cut
left half written. A generation is drawn by lot, so that no data set can hold a head of it.
"""

import hashlib
import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from worker.files import sync_folder

SEGMENT_BYTES = 16 * 1024 * 1024
_BLOCK = 4096
_MODE = 0o600
_NEW = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
_THERE = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_ZEROS_AT_ONCE = 1024 * 1024
_SEGMENT_MAGIC, _RECORD_MAGIC = b"CXRSEGM1", b"CXRRECD1"
_CHECKSUM = struct.Struct(">I")
_BEGINNING = struct.Struct(">8s16sI")
_HEAD = struct.Struct(">8s16sdHHI32sI")
"""Magic, generation, moment (seconds since 1970), lengths of address, file meta and data set, SHA-256, checksum of all before
and of the address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """An object that is to be recorded."""

    sha256: str
    """Of the data set, hexadecimal."""
    file_meta: bytes
    """What stands before the data set in its file."""
    dataset: memoryview
    at: float
    """When it came, in seconds since 1970."""
    peer_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Where an object stands in a segment."""

    offset: int
    begin: int
    """Where its file meta begins."""
    file_meta_bytes: int
    dataset_bytes: int
    sha256: str
    at: float
    peer_address: str


class Segment:
    """An open segment. Who appends makes sure that nobody else does meanwhile; reading needs no such care."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = os.open(path, _THERE)
        self.bytes = os.fstat(self.descriptor).st_size
        self._generation = self._read_generation()
        self._end = _BLOCK

    @classmethod
    def make(cls, path: Path, *, size: int) -> "Segment":
        """Make one whose blocks are on the disk, so that no later write has to look for any.

        Raises
        ------
        OSError
            The disk does not give the room.
        """
        descriptor = os.open(path, _NEW, _MODE)
        try:
            for _ in range(0, size, _ZEROS_AT_ONCE):
                os.write(descriptor, bytes(min(size, _ZEROS_AT_ONCE)))
            os.fsync(descriptor)
            sync_folder(path.parent)
        except OSError:
            with suppress(OSError):
                path.unlink()
            raise
        finally:
            os.close(descriptor)
        segment = cls(path)
        segment.renew()
        return segment

    def renew(self) -> None:
        """Forget every record, durably."""
        generation = secrets.token_bytes(16)
        told = _SEGMENT_MAGIC + generation
        os.pwrite(self.descriptor, told + struct.pack(">I", zlib.crc32(told)), 0)
        os.fdatasync(self.descriptor)
        self._generation, self._end = generation, _BLOCK

    def reserve(self, content: Content) -> int | None:
        """Where a record is to be written that nobody else writes then; None where it does not fit."""
        length = _HEAD.size + len(content.peer_address.encode()) + len(content.file_meta) + len(content.dataset)
        offset, end = self._end, self._end + -(-length // _BLOCK) * _BLOCK
        if end > self.bytes:
            return None
        self._end = end
        return offset

    def write(self, offset: int, content: Content) -> Record:
        """Write a record where it was given room. It is not durable yet.

        Raises
        ------
        OSError
            The disk did not take it.
        """
        address = content.peer_address.encode()
        head = _HEAD.pack(
            *(_RECORD_MAGIC, self._generation, content.at),
            *(len(address), len(content.file_meta), len(content.dataset), bytes.fromhex(content.sha256), 0),
        )[: -_CHECKSUM.size]
        begin = head + _CHECKSUM.pack(zlib.crc32(address, zlib.crc32(head))) + address + content.file_meta
        length = len(begin) + len(content.dataset)
        written = os.pwritev(self.descriptor, (begin, content.dataset), offset)
        if written < length:
            whole = memoryview(begin + bytes(content.dataset))
            while written < length:
                written += os.pwrite(self.descriptor, whole[written:], offset + written)
        return Record(
            offset=offset,
            begin=offset + _HEAD.size + len(address),
            file_meta_bytes=len(content.file_meta),
            dataset_bytes=len(content.dataset),
            sha256=content.sha256,
            at=content.at,
            peer_address=content.peer_address,
        )

    def void(self, record: Record) -> None:
        """Have a record count no more, unless the power is cut before the disk knows."""
        os.pwrite(self.descriptor, bytes(len(_RECORD_MAGIC)), record.offset)

    def records(self) -> Iterator[Record]:
        """Every head that is whole, in order; `file_of` tells whether the rest is."""
        generation = self._read_generation()
        offset = _BLOCK
        while generation is not None and offset + _BLOCK <= self.bytes:
            record = self._head_at(offset, generation)
            if record is None:
                offset += _BLOCK  # somebody who was given room did not come to use it
                continue
            yield record
            offset += -(-(record.begin - offset + record.file_meta_bytes + record.dataset_bytes) // _BLOCK) * _BLOCK

    def file_of(self, record: Record) -> bytes:
        """The bytes of an object's file: file meta and data set."""
        return os.pread(self.descriptor, record.file_meta_bytes + record.dataset_bytes, record.begin)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)

    def remove(self) -> None:
        """Let go of it, and delete it: nothing in it is needed."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _read_generation(self) -> bytes | None:
        told = os.pread(self.descriptor, _BEGINNING.size, 0)
        if len(told) < _BEGINNING.size:
            return None
        magic, generation, checksum = _BEGINNING.unpack(told)
        is_whole = magic == _SEGMENT_MAGIC and checksum == zlib.crc32(told[: -_CHECKSUM.size])
        return bytes(generation) if is_whole else None

    def _head_at(self, offset: int, generation: bytes) -> Record | None:
        block = os.pread(self.descriptor, _BLOCK, offset)
        if not block.startswith(_RECORD_MAGIC + generation):
            return None
        *_, at, address_bytes, file_meta_bytes, dataset_bytes, sha256, checksum = _HEAD.unpack_from(block)
        address = block[_HEAD.size : _HEAD.size + address_bytes]
        if checksum != zlib.crc32(address, zlib.crc32(block[: _HEAD.size - _CHECKSUM.size])):
            return None
        return Record(
            offset=offset,
            begin=offset + _HEAD.size + address_bytes,
            file_meta_bytes=file_meta_bytes,
            dataset_bytes=dataset_bytes,
            sha256=sha256.hex(),
            at=at,
            peer_address=address.decode(),
        )


def is_whole(file: bytes, record: Record) -> bool:
    """Whether what was read of a record is what was recorded."""
    dataset = memoryview(file)[record.file_meta_bytes :]
    return len(dataset) == record.dataset_bytes and hashlib.sha256(dataset).hexdigest() == record.sha256
