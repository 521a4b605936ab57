"""Reading secrets: from a recovery kit (docs/format/recovery-kit.md) or a device's home (docs/format/home.md)."""

import struct
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from .errors import Refused
from .keys import derive, digest, open_sealed
from .postcard import Decoder

SLOT = 8192


@dataclass
class Secrets:
    """What opens one folder: `epochs` are pairs of epoch id and reading secret."""

    folder: bytes
    name: str
    epochs: dict


def machine_blob(home, path, key):
    data = (home / path).read_bytes()
    return open_sealed(derive("machine blob", key + data[:32]), data[32:], path.encode())


def open_record(decoder):
    folder, name, _identity = decoder.id(), decoder.text(), decoder.bytes()
    epochs = decoder.list(lambda: (decoder.id(), decoder.varint(), decoder.id()))
    decoder.option(decoder.bytes)
    return Secrets(folder, name, {epoch: secret for epoch, _, secret in epochs})


def from_home(home, passphrase):
    """The secrets of all folders of a device. `passphrase()` is asked for one when the home wants it."""
    home = Path(home)
    key = (home / "keys/machine.key").read_bytes()
    way = 0
    if (home / "keys/way").exists():
        way = Decoder(machine_blob(home, "keys/way", key)).varint(32)
    if way == 0:
        if not (home / "keys/open").exists():
            return []
        decoder = Decoder(machine_blob(home, "keys/open", key))
        found = decoder.list(lambda: open_record(decoder))
        decoder.end()
        return found
    if way == 1:
        return from_slots((home / "keys/slots").read_bytes(), passphrase())
    raise Refused("this home is opened by a key ring: use a recovery kit instead")


def from_slots(data, passphrase):
    if data[:8] != b"ouikeys\x01" or (len(data) - 56) % SLOT:
        raise Refused("keys/slots is no key store of version 1")
    memory, passes, lanes = struct.unpack_from("<III", data, 8)
    key = Argon2id(salt=data[24:56], length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(passphrase.encode())
    found, marker = [], False
    for index in range((len(data) - 56) // SLOT):
        slot = data[56 + index * SLOT :][:SLOT]
        try:
            plain = open_sealed(derive("key store slot", key + slot[:32]), slot[32:], struct.pack("<Q", index))
        except Refused:
            continue
        (length,) = struct.unpack_from("<I", plain)
        decoder = Decoder(plain[4 : 4 + length])
        if decoder.varint(32) == 0:
            marker = True
        else:
            found.append(open_record(decoder))
    if not marker:
        raise Refused("the passphrase is wrong")
    return found


def from_kit(path):
    """The secrets of the one folder of a recovery kit."""
    fields, epochs = {}, {}
    for line in Path(path).read_text("utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.strip().partition(" ")
            if word == "epoch":
                epoch, secret = (rest.split() + ["", ""])[:2]
                epochs[unhex(epoch)] = unhex(secret)
            else:
                fields[word] = rest.strip()
    if fields.get("ouisync-recovery-kit") != "1":
        raise Refused("this is no recovery kit of version 1")
    folder = unhex(fields.get("folder", ""))
    check = digest(folder + b"".join(epoch + secret for epoch, secret in epochs.items()))[:8].hex()
    if check != fields.get("check", "").lower():
        raise Refused("the recovery kit has a typing error, or a line is missing: its check does not match")
    return Secrets(folder, fields.get("name", ""), epochs)


def unhex(text):
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 32:
        raise Refused("the recovery kit has something that is not 64 hexadecimal digits")
    return data
