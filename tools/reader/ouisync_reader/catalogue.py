"""Finds commits and roster entries in the catalogue's files: docs/format/catalogue.md.

It looks at every record in every file. That needs neither the database's manifest nor its checksums, since a commit and a
roster entry are known by the BLAKE3 hash of their bytes: what has the right hash is the record, and everything else is passed over.
"""

import struct
from pathlib import Path

import lz4.block

from .errors import Refused
from .keys import digest

COMMIT, ENTRY, META = ord("C"), ord("R"), ord("M")
GREATEST = 64 << 20
BLOCK_HEADER = struct.Struct("<4sB16sIII")
BLOB_HEADER = struct.Struct("<4s16sQHII")
JOURNAL_ITEM = struct.Struct("<BBQHII")
TRAILER_MARK, TRAILER = 255, 31
VALUE, TOMBSTONES, POINTER = 0, (1, 2), 4


class Catalogue:
    """All commits and roster entries that a catalogue holds, by their ids, and what it knows of commits without bytes."""

    def __init__(self, directory):
        self.commits, self.entries, self.metas = {}, {}, {}
        directory = Path(directory)
        if not directory.is_dir():
            raise Refused(f"{directory} is not a directory: is this the store of a folder?")
        for path in sorted(directory.glob("*.jnl")):
            self._journal(path.read_bytes())
        for path in sorted(directory.glob("keyspaces/*/tables/*")):
            self._table(path.read_bytes())
        for path in sorted(directory.glob("keyspaces/*/blobs/*")):
            self._blobs(path.read_bytes())

    def _record(self, key, value):
        if len(key) != 33:
            return
        if key[0] == META:
            # Of several versions any will do: what is read of it never changes.
            self.metas[key[1:]] = value
            return
        if key[0] not in (COMMIT, ENTRY) or digest(value) != key[1:]:
            return
        (self.commits if key[0] == COMMIT else self.entries)[key[1:]] = value

    def _journal(self, data):
        at = 0
        while at < len(data):
            kind = data[at]
            if kind == 1:  # a batch begins
                at += 1 + 4 + 8
            elif kind == 3:  # a batch ends
                at += 1 + 8 + 4
            elif kind == 4:  # a keyspace is emptied
                at += 1 + 8
            elif kind == 2 and at + 1 + JOURNAL_ITEM.size <= len(data):
                what, packed, _, key_length, length, stored = JOURNAL_ITEM.unpack_from(data, at + 1)
                start = at + 1 + JOURNAL_ITEM.size
                middle, at = start + key_length, start + key_length + stored
                if at > len(data):
                    return
                if what == VALUE:
                    self._record(data[start:middle], unpack(data[middle:at], length, packed))
            else:
                return  # room kept for later, or a batch that was cut off by a crash

    def _table(self, data):
        at = 0
        while at + BLOCK_HEADER.size <= len(data):
            magic, kind, _, stored, length, _ = BLOCK_HEADER.unpack_from(data, at)
            at += BLOCK_HEADER.size
            if magic != b"LSM\x03" or kind != 0:
                return  # the blocks of records come first
            block = data[at : at + stored]
            at += stored
            # The size tells whether it is compressed, but for a block that compression left as long as it was.
            for candidate in (0, 1) if stored == length else (1,):
                try:
                    for key, value in records(unpack(block, length, candidate)):
                        self._record(key, value)
                    break
                except (Refused, IndexError):
                    continue

    def _blobs(self, data):
        at = 0
        while at + BLOB_HEADER.size <= len(data):
            magic, _, _, key_length, length, stored = BLOB_HEADER.unpack_from(data, at)
            if magic != b"BLOB":
                return
            start = at + BLOB_HEADER.size
            middle, at = start + key_length, start + key_length + stored
            value = data[middle:at]
            self._record(data[start:middle], value)
            if stored != length:
                self._record(data[start:middle], unpack(value, length, 1))


def unpack(data, length, packed):
    if not packed:
        return data
    if length > GREATEST:
        raise Refused("a record is too long")
    try:
        return lz4.block.decompress(data, uncompressed_size=length)
    except lz4.block.LZ4BlockError:
        return b""


def records(block):
    """The (key, value) pairs of a block of records."""
    at, base = 0, b""

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = block[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def take(length):
        nonlocal at
        part = block[at : at + length]
        at += length
        if len(part) != length:
            raise Refused("a block ends too early")
        return part

    interval = block[-TRAILER] if len(block) >= TRAILER else 0
    if interval == 0:
        raise Refused("no block of records")
    count = 0
    while block[at] != TRAILER_MARK:
        what = block[at]
        at += 1
        varint()  # the database's sequence number
        if count % interval == 0:
            key = base = take(varint())
        else:
            shared = varint()
            key = base[:shared] + take(varint())
        count += 1
        value = b"" if what in TOMBSTONES else take(varint())
        if what == VALUE:
            yield key, value
