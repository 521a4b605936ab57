"""Commits and what they say: docs/format/keys-commits-roster.md, "Commit"."""

import struct
from dataclasses import dataclass

from .errors import Refused
from .keys import check_signature, derive, digest, open_sealed
from .packs import unzstd
from .postcard import Decoder, ascending

DOMAIN = b"ouisync v1 commit\0"
ROOT = b"\x80" + bytes(15)
GREATEST_BODY = 32 << 20


def is_directory(node):
    return node[0] >= 0x80


@dataclass
class Commit:
    id: bytes
    folder: bytes
    author: bytes
    sequence: int
    lamport: int
    parents: list
    roster: list
    epoch: bytes
    checkpoint: tuple  # (number of commits covered, hash of the skeleton), or None
    salt: bytes
    body: bytes

    def decrypt(self, read_secret):
        key = derive("commit body key", read_secret + self.salt)
        aad = self.folder + self.author + struct.pack("<Q", self.sequence)
        plain = open_sealed(key, self.body, aad)
        (length,) = struct.unpack_from("<I", plain)
        if length > len(plain) - 4 or any(plain[4 + length :]):
            raise Refused("a commit's body is not padded with zeros")
        return Body(Decoder(unzstd(plain[4 : 4 + length], GREATEST_BODY)))


def parse_commit(data):
    decoder = Decoder(data)
    if decoder.u8() != 1:
        raise Refused("a commit of another version")
    folder, author = decoder.id(), decoder.id()
    sequence, lamport = decoder.varint(), decoder.varint()
    parents = ascending(decoder.list(decoder.id, 1024), "parents")
    roster = ascending(decoder.list(decoder.id, 256), "roster heads")
    epoch, _time = decoder.id(), decoder.varint()
    ascending([pack for pack, _ in decoder.list(lambda: (decoder.id(), decoder.u8()), 8192)], "added packs")
    ascending(decoder.list(lambda: (decoder.id(), decoder.id()), 16384), "released packs")
    ascending(decoder.list(decoder.id, 8192), "forgotten packs")
    _live = decoder.varint(), decoder.id()
    checkpoint = decoder.option(lambda: (decoder.varint(), decoder.id()))
    salt, body = decoder.id(), decoder.bytes()
    if len(body) not in [1024 << k for k in range(13)]:
        raise Refused("a commit's body has a length that no body has")
    check_signature(author, data[decoder.position :], DOMAIN + data[: decoder.position])
    if len(data) != decoder.position + 64:
        raise Refused("a commit is too long")
    return Commit(digest(data), folder, author, sequence, lamport, parents, roster, epoch, checkpoint, salt, body)


@dataclass
class Meta:
    """What a catalogue knows of a commit, with or without its bytes."""

    author: bytes
    sequence: int
    lamport: int
    parents: list


def parse_meta(data):
    decoder = Decoder(data)
    return Meta(decoder.id(), decoder.varint(), decoder.varint(), decoder.list(decoder.id, 1024))


@dataclass
class Content:
    """A file's bytes: `form` is inline, chunks or indirect."""

    size: int
    form: str
    chunks: list
    inline: bytes = b""

    def identity(self):
        """Equal for contents that make one entry: docs/format/tree.md, "What is shown"."""
        if self.size == 0:
            return ("file", 0)
        kind = "indirect" if self.form == "indirect" else "direct"
        return ("file", self.size, kind, tuple(self.chunks))


class Body:
    """The encrypted part of a commit. Operations are tuples that begin with their kind."""

    def __init__(self, decoder):
        self.time = timestamp(decoder)
        self.operations = decoder.list(lambda: operation(decoder))
        self.tables = decoder.list(lambda: table(decoder))
        self.state = decoder.option(lambda: (decoder.id(), content(decoder)))  # of a checkpoint
        decoder.option(lambda: (decoder.varint(), chunk_references(decoder)))  # part of a draft: only a hint
        decoder.end()


def table(decoder):
    """The pack and its places; of those of a chunk any will do, so the round says nothing here."""
    pack, _round = decoder.id(), decoder.u8()
    return pack, decoder.list(lambda: place(decoder))


def timestamp(decoder):
    """Seconds and nanoseconds."""
    return decoder.signed(), decoder.varint(32)


def operation(decoder):
    kind, node = decoder.varint(32), decoder.fixed(16)
    if kind == 0:
        return "place", node, decoder.fixed(16), name(decoder)
    if kind == 1:
        return "write", node, value(decoder), decoder.list(lambda: (decoder.id(), decoder.varint(32)))
    if kind == 2:
        executable = decoder.option(decoder.boolean)
        return "metadata", node, executable, decoder.option(lambda: timestamp(decoder))
    raise Refused("an operation of an unknown kind")


def name(decoder):
    given = decoder.bytes()
    if not 1 <= len(given) <= 255 or given in (b".", b"..") or b"/" in given or b"\0" in given:
        raise Refused("a name that no file can have")
    return given


def value(decoder):
    kind = decoder.varint(32)
    if kind == 0:
        return ("deleted",)
    if kind == 1:
        return ("directory",)
    if kind == 2:
        return "file", content(decoder)
    if kind == 3:
        return "symlink", decoder.bytes()
    raise Refused("a value of an unknown kind")


def content(decoder):
    size, _level, form = decoder.varint(), decoder.u8(), decoder.varint(32)
    if form == 0:
        chunk, inline = decoder.id(), decoder.bytes()
        return Content(size, "inline", [(chunk, size)], inline)
    if form > 2:
        raise Refused("content of an unknown form")
    return Content(size, ("chunks", "indirect")[form - 1], chunk_references(decoder))


def chunk_references(decoder):
    return decoder.list(lambda: (decoder.id(), decoder.varint(32)))


def place(decoder):
    chunk, offset = decoder.id(), decoder.varint(32)
    stored, length, encoding = decoder.varint(32), decoder.varint(32), decoder.varint(32)
    if encoding > 1:
        raise Refused("a chunk is stored in an unknown way")
    return chunk, offset, stored, length, encoding
