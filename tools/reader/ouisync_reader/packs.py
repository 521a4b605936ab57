"""Chunks in packs: docs/format/packs.md, and "Pack" in docs/format/keys-commits-roster.md."""

import hmac
import struct
from collections import OrderedDict

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .errors import Refused
from .keys import derive, digest, keyed
from .postcard import Decoder

FRAME = 65536
FIRST, OTHER = FRAME - 80, FRAME - 16
GREATEST_CHUNK = 4 << 20
KEPT = 8


class Pack:
    """One pack file: its frames are opened when they are asked for."""

    def __init__(self, name, data, read_secrets):
        if digest(data) != name:
            raise Refused(f"pack {name.hex()} is damaged")
        if len(data) not in [FRAME << k for k in range(9)]:
            raise Refused(f"pack {name.hex()} has a length that no pack has")
        self.data, self.opened = data, {}
        for secret in read_secrets:
            key = derive("pack key", secret + data[:32])
            if hmac.compare_digest(derive("pack key commitment", key), data[32:64]):
                self.cipher = ChaCha20Poly1305(key)
                return
        raise Refused(f"no reading secret opens pack {name.hex()}")

    def frame(self, index):
        if index not in self.opened:
            last = (index + 1) * FRAME == len(self.data)
            start = 64 if index == 0 else index * FRAME
            try:
                self.opened[index] = self.cipher.decrypt(
                    struct.pack("<QI", index, last), self.data[start : (index + 1) * FRAME], b""
                )
            except InvalidTag as error:
                raise Refused("a frame does not open") from error
        return self.opened[index]

    def plaintext(self, offset, length):
        out = bytearray()
        while len(out) < length:
            at = offset + len(out)
            index, inside = (0, at) if at < FIRST else (1 + (at - FIRST) // OTHER, (at - FIRST) % OTHER)
            if index * FRAME >= len(self.data):
                raise Refused("a chunk lies beyond its pack")
            out += self.frame(index)[inside : inside + length - len(out)]
        return bytes(out)


class Packs:
    """The `packs` directory of a store, and where chunks lie in it."""

    def __init__(self, directory, read_secrets, chunk_key):
        self.directory, self.read_secrets, self.chunk_key = directory, read_secrets, chunk_key
        self.places, self.cache = {}, OrderedDict()

    def add_table(self, pack, chunks):
        for chunk, *place in chunks:
            self.places.setdefault(chunk, []).append((pack, *place))

    def _pack(self, name):
        if name not in self.cache:
            path = self.directory / name.hex()[:2] / name.hex()
            try:
                data = path.read_bytes()
            except FileNotFoundError as error:
                raise Refused(f"pack {name.hex()} is not in this store") from error
            self.cache[name] = Pack(name, data, self.read_secrets)
            if len(self.cache) > KEPT:
                self.cache.popitem(last=False)
        self.cache.move_to_end(name)
        return self.cache[name]

    def check(self, chunk, plaintext):
        return hmac.compare_digest(keyed(self.chunk_key, plaintext), chunk)

    def chunk(self, chunk, length):
        if not 1 <= length <= GREATEST_CHUNK:
            raise Refused("a chunk has an impossible length")
        reasons = []
        for pack, offset, stored, plain_length, encoding in self.places.get(chunk, []):
            try:
                if plain_length != length:
                    raise Refused("a chunk's length differs from that in its pack's table")
                data = self._pack(pack).plaintext(offset, stored)
                if encoding == 1:
                    data = unzstd(data, length)
                if len(data) == length and self.check(chunk, data):
                    return data
                raise Refused("a chunk is not what its id says")
            except Refused as reason:
                reasons.append(str(reason))
        raise Refused(f"chunk {chunk.hex()}: " + ("; ".join(reasons) or "no known pack has it"))

    def chunks(self, content):
        """The list of (chunk, length) of a file's content that is not inline."""
        if content.form == "chunks":
            return content.chunks
        decoder = Decoder(b"".join(self.chunk(*part) for part in content.chunks))
        listed = decoder.list(lambda: (decoder.id(), decoder.varint(32)))
        decoder.end()
        return listed

    def read(self, content):
        """The bytes of a file, chunk by chunk."""
        if content.form == "inline":
            if len(content.inline) != content.size or not self.check(content.chunks[0][0], content.inline):
                raise Refused("inline content is not what its id says")
            yield content.inline
            return
        chunks = self.chunks(content)
        if sum(length for _, length in chunks) != content.size:
            raise Refused("the lengths of a file's chunks don't add up to its size")
        for chunk, length in chunks:
            yield self.chunk(chunk, length)


def unzstd(data, limit):
    """Decompresses one zstd frame to at most `limit` bytes."""
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data)
        plain = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise Refused("compressed data is damaged") from error
    if len(plain) > limit:
        raise Refused("compressed data is longer than it may be")
    return plain
