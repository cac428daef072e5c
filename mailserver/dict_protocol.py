"""Dovecot's dict protocol, as far as its logins and its quotas need it.

Decides what a line asks for or tells. Who may log in and where mail lies is decided
elsewhere; no I/O here. Dovecot asks as its configuration tells it to
(panel/operations/dovecot/), with the values escaped and the user name once more behind a
tab, a line asked, a line answered:

    H2\\t2\\t0\\t\\tauth                               hello, not answered
    Lshared/passdb/imap/203.0.113.9/USER/SEALED\\tUSER  may this password log in?
    Lshared/userdb/USER\\tUSER                           where is this mailbox?

The password is sealed with a key that authd and Dovecot's auth processes share, since
Dovecot writes the whole key into its log whenever a look-up fails. The answers: `O` and
JSON, `N` for no, `F` for "ask again later".

On connections whose hello names the dict `quota`, its quota_clone plugin tells what a
mailbox holds, in transactions of which only the commit is answered (`O1`):

    H3\\t2\\t0\\t\\tquota
    B1\\tUSER                          begin number 1, about this user
    S1\\tpriv/quota/storage\\t2000      bytes
    S1\\tpriv/quota/messages\\t1
    C1                                commit (R: forget it)

Sources: Dovecot 2.3, src/lib-dict/dict-client.h, its variable encryption plugin (AES-256-CBC,
PKCS #7; hexadecimal: IV$TEXT$), and what its quota_clone plugin was seen to send; 2.4's dict
process is understood as well.
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
QUOTA = "quota"  # the dict's name
MOST_OPEN = 100  # transactions of a connection; Dovecot's dict process carries one for each mailbox that changes
MOST_DIGITS = 18
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


def dict_name(hello: bytes) -> str:
    """Which dict a hello is for. Raises BadLine."""
    fields = hello.split(b"\t")
    if len(hello) > LINE_BYTES or len(fields) < 5:
        raise BadLine("a hello without the name of a dict")
    return text(fields[4])


@dataclass(slots=True)
class _Open:
    """A transaction that isn't committed yet."""

    login: str
    values: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UsageTold:
    """All that a mailbox holds, as Dovecot counts it."""

    login: str
    used_bytes: int
    messages: int


class UsageTransactions:
    """What one connection tells. Bounded: MOST_OPEN transactions, of each the two values that are known."""

    def __init__(self) -> None:
        self._open: dict[bytes, _Open] = {}

    def take(self, line: bytes) -> tuple[bytes, UsageTold | None]:
        """The answer to a line (empty: none), and what it committed. Raises BadLine."""
        if len(line) > LINE_BYTES:
            raise BadLine("longer than any telling")
        verb, (number, *values) = line[:1], line[1:].split(b"\t")
        if not number.isdigit() or len(number) > MOST_DIGITS:
            raise BadLine("no number of a transaction")
        if verb == b"B":
            return self._begin(number, values)
        if number not in self._open:
            raise BadLine("a transaction that never began")
        if verb == b"S":
            return self._set(self._open[number], values)
        if verb == b"C":
            done = self._open.pop(number)
            answer = b"O" + number + b"\n"
            if done.values.keys() != _RESOURCES:
                return answer, None
            return answer, UsageTold(done.login, done.values["storage"], done.values["messages"])
        if verb == b"R":
            del self._open[number]
        elif verb not in (b"T", b"U"):  # a time, and a value that is taken away: nothing to us
            raise BadLine("no part of a transaction")
        return b"", None

    def _begin(self, number: bytes, values: list[bytes]) -> tuple[bytes, None]:
        if not values or number in self._open or len(self._open) >= MOST_OPEN:
            raise BadLine("a transaction without a user, twice, or one too many")
        self._open[number] = _Open(text(values[0]))
        return b"", None

    def _set(self, transaction: _Open, values: list[bytes]) -> tuple[bytes, None]:
        if len(values) != 2:
            raise BadLine("a value is a key and a number")
        resource = text(values[0]).removeprefix("priv/quota/")
        value = values[1].lstrip(b"-")
        if resource in _RESOURCES:
            if not value.isdigit() or len(value) > MOST_DIGITS:
                raise BadLine("a use that is no number")
            transaction.values[resource] = 0 if values[1].startswith(b"-") else int(value)
        return b"", None


_RESOURCES = {"storage", "messages"}


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
