"""Dovecot's dict protocol, as far as its logins need it: a line asked, a line answered.

Decides what a line asks for. Who may log in and where mail lies is decided elsewhere; no
I/O here. Dovecot asks as its configuration tells it to (panel/operations/dovecot.py), with
the values escaped and the user name once more behind a tab:

    H2\\t2\\t0\\t\\tauth                               hello, not answered
    Lshared/passdb/imap/203.0.113.9/USER/SEALED\\tUSER  may this password log in?
    Lshared/userdb/USER\\tUSER                           where is this mailbox?

The password is sealed with a key that authd and Dovecot's auth processes share, since
Dovecot writes the whole key into its log whenever a look-up fails. The answers: `O` and
JSON, `N` for no, `F` for "ask again later". Sources: Dovecot 2.3, src/lib-dict/dict-client.h
and its variable encryption plugin (AES-256-CBC, PKCS #7; hexadecimal: IV$TEXT$).
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

LINE_BYTES = 32 * 1024  # Dovecot takes logins of at most 8 KiB; hexadecimal doubles them

HELLO = b"H"
LOOK_UP = b"L"
NOT_FOUND = b"N\n"

_SEALED = re.compile(r"([0-9a-f]{32})\$((?:[0-9a-f]{32})+)\$")
_ESCAPED = re.compile(rb"\x01(.?)", re.DOTALL)
_MEANT = {b"0": b"\0", b"1": b"\x01", b"t": b"\t", b"r": b"\r", b"n": b"\n"}


class BadLine(ValueError):
    """What Dovecot doesn't send when it runs on our configuration."""


@dataclass(frozen=True, slots=True)
class PasswordLookup:
    """Whether this password opens this login for `protocol` (imap, pop3, sieve) from `ip`."""

    protocol: str
    ip: str
    login: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserLookup:
    """Where the mail of this login is."""

    login: str


def parse(line: bytes, key: bytes) -> PasswordLookup | UserLookup:
    """What a look-up asks, without its newline; `key` opens a sealed password.

    Bytes that are no UTF-8 become lone surrogates. Raises BadLine.
    """
    if len(line) > LINE_BYTES:
        raise BadLine("longer than any login")
    if not line.startswith(LOOK_UP):
        raise BadLine("no look-up")
    path, tab, user = line[1:].partition(b"\t")
    login = text(user.partition(b"\t")[0])
    shared, _, rest = text(path).partition("/")
    kind, _, rest = rest.partition("/")
    if not tab or shared != "shared":
        raise BadLine("a look-up in shared/, with the user behind a tab")
    if kind == "userdb" and rest == login:
        return UserLookup(login)
    if kind != "passdb":
        raise BadLine("neither passdb nor userdb")
    protocol, _, rest = rest.partition("/")
    ip, _, rest = rest.partition("/")
    user_again, _, sealed = rest.rpartition("/")  # a login may hold a slash
    if user_again != login:
        raise BadLine("the key is another user's")
    return PasswordLookup(protocol, client_address(ip), login, _open(sealed, key))


def found(facts: Mapping[str, str]) -> bytes:
    """The answer with these fields."""
    return b"O" + escape(json.dumps(facts, separators=(",", ":")).encode()) + b"\n"


# The field that tells rules/filtering.sieve_for_junk that the mailbox wants its junk in Junk.
JUNK: Mapping[str, str] = {"sieve_env_junk": "yes"}


def quota(size_bytes: int) -> Mapping[str, str]:
    """The field that says how much a mailbox may hold."""
    return {"quota_rule": f"*:bytes={size_bytes}"}


def failed(because: str) -> bytes:
    """The answer that makes Dovecot say "temporary failure"; `because` goes to its log."""
    return b"F" + escape(because.encode()) + b"\n"


def _open(sealed: str, key: bytes) -> str:
    match = _SEALED.fullmatch(sealed)
    if match is None:
        raise BadLine("the password is not sealed")
    try:
        decryptor = Cipher(algorithms.AES(key), modes.CBC(bytes.fromhex(match[1]))).decryptor()
        unpadder = padding.PKCS7(128).unpadder()
        padded = decryptor.update(bytes.fromhex(match[2])) + decryptor.finalize()
        return (unpadder.update(padded) + unpadder.finalize()).decode("utf-8", "surrogateescape")
    except ValueError:
        raise BadLine("the password is sealed with another key") from None


def client_address(value: str) -> str:
    """The canonical form of an address. Raises BadLine."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise BadLine("no client's address") from None


def text(value: bytes) -> str:
    """A field that Dovecot escaped. Raises BadLine."""
    return _ESCAPED.sub(_unescaped, value).decode("utf-8", "surrogateescape")


def _unescaped(match: re.Match[bytes]) -> bytes:
    try:
        return _MEANT[match[1]]
    except KeyError:
        raise BadLine("an escape that there is not") from None


def escape(value: bytes) -> bytes:
    """A field as Dovecot escapes it: without NUL, tab, CR and LF."""
    for meant, letter in ((b"\x01", b"1"), (b"\0", b"0"), (b"\t", b"t"), (b"\r", b"r"), (b"\n", b"n")):
        value = value.replace(meant, b"\x01" + letter)
    return value
