"""What Dovecot sends to authd, made the way its configuration tells it to."""

import os

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_ESCAPES = {"\x01": "1", "\0": "0", "\t": "t", "\r": "r", "\n": "n"}
HELLO = b"H2\t2\t0\t\tauth\n"


def escaped(text: str) -> bytes:
    return "".join("\x01" + _ESCAPES[c] if c in _ESCAPES else c for c in text).encode("utf-8", "surrogateescape")


def sealed(password: str, key: bytes) -> str:
    iv = os.urandom(16)
    padder = padding.PKCS7(128).padder()
    padded = padder.update(password.encode("utf-8", "surrogateescape")) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return f"{iv.hex()}${(encryptor.update(padded) + encryptor.finalize()).hex()}$"


def passdb(login: str, password: str, key: bytes, *, protocol: str = "imap", ip: str = "192.0.2.7") -> bytes:
    """A password's look-up, without its newline."""
    path = f"shared/passdb/{protocol}/{ip}/{login}/{sealed(password, key)}"
    return b"L" + escaped(path) + b"\t" + escaped(login)


def userdb(login: str) -> bytes:
    return b"L" + escaped(f"shared/userdb/{login}") + b"\t" + escaped(login)


QUOTA_HELLO = b"H3\t2\t0\t\tquota\n"


def told(login: str, used_bytes: int, messages: int, number: int = 1) -> bytes:
    """What quota_clone sends when a mailbox has changed."""
    lines = [
        b"B%d\t%s" % (number, escaped(login)), b"S%d\tpriv/quota/storage\t%d" % (number, used_bytes),
        b"S%d\tpriv/quota/messages\t%d" % (number, messages), b"C%d" % number,
    ]
    return b"\n".join(lines) + b"\n"
