"""Keys, seals and signatures: docs/format/keys-commits-roster.md, "Secrets"."""

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .errors import Refused

NO_NONCE = bytes(12)


def digest(data):
    return blake3(data).digest()


def keyed(key, data):
    return blake3(data, key=key).digest()


def derive(name, material):
    """K(c, m): 32 bytes for the context `ouisync v1 NAME`."""
    return blake3(material, derive_key_context="ouisync v1 " + name).digest()


def open_sealed(key, sealed, aad=b"", nonce=NO_NONCE):
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, sealed, aad)
    except InvalidTag as error:
        raise Refused("sealed data does not open: damaged, or another key") from error


def check_signature(key, signature, message):
    """Ed25519. The `cryptography` library refuses scalars that are not canonical; keys of small order are not looked for here."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise Refused("a signature is wrong") from error


def store_secret(read_secret):
    return derive("store secret", read_secret)


def epoch_commitment(read_secret):
    return derive("epoch commitment", store_secret(read_secret))


def roster_text_key(read_secret):
    return derive("roster text key", read_secret)
