"""Passwords hashed elsewhere: which spellings are taken, how they are kept, and how one is verified.

Taken are argon2id, bcrypt, sha512-crypt and pbkdf2, as Django, Dovecot ({SCHEME} before it),
crypt(3) and passlib spell them. Whoever brings one decides what each login costs us until it is
replaced at the first right one: what is dearer than the bounds here is refused. bcrypt is
verified by `bcrypt`, sha512-crypt by `libpass` (passlib, kept on), the others by what is here anyway.
"""

import base64
import binascii
import hashlib
import hmac
import re

import argon2
import bcrypt
from passlib.hash import sha512_crypt

MOST_TEXT = 190  # the column holds 200 characters, with our own prefix
# Measured on one core: bcrypt at 13 takes 0.55 s, sha512-crypt at 700,000 rounds 0.58 s,
# pbkdf2-sha256 at 2,000,000 0.62 s, argon2id at 512 MiB·passes 0.35 s.
MOST_BCRYPT_COST = 13
MOST_CRYPT_ROUNDS = 700_000  # passlib's default is 656,000
MOST_PBKDF2_ROUNDS = {"sha1": 2_000_000, "sha256": 2_000_000, "sha512": 700_000}
MOST_ARGON2_KIB = 128 * 1024  # authd hashes two at once
MOST_ARGON2_WORK = 512 * 1024  # KiB × passes
TAKEN = "argon2id, bcrypt, sha512-crypt or pbkdf2"

_SCHEME = re.compile(r"\{([A-Za-z0-9.-]{1,30})\}")
_OF_SCHEME = {
    "ARGON2ID": "argon2id", "ARGON2": "argon2id", "BLF-CRYPT": "bcrypt", "BCRYPT": "bcrypt",
    "SHA512-CRYPT": "sha512-crypt", "PBKDF2": "pbkdf2", "CRYPT": "",
}
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_CRYPT = re.compile(r"\$6\$(?:rounds=(\d{1,9})\$)?[^$:\n]{1,16}\$[./A-Za-z0-9]{86}")
_DJANGO_PBKDF2 = re.compile(r"pbkdf2_(sha1|sha256)\$(\d{1,9})\$([^$\s]{1,100})\$([A-Za-z0-9+/]{20,60}={0,2})")
_DOVECOT_PBKDF2 = re.compile(r"\$1\$([^$\s]{1,100})\$(\d{1,9})\$([0-9a-f]{40})")
_PASSLIB_PBKDF2 = re.compile(
    r"\$pbkdf2(?:-(sha256|sha512))?\$(\d{1,9})\$([A-Za-z0-9./]{1,100})\$([A-Za-z0-9./]{20,100})"
)


class BadHash(ValueError):
    """A hash that is not taken; the text is a clause: "it is …"."""


def read(text: str) -> str:
    """The form in which a hash is kept, with the scheme before the first "$". Raises BadHash."""
    text = text.strip()
    if not (text.isascii() and text.isprintable()):
        raise BadHash("the hash holds a character that none has")
    scheme = _SCHEME.match(text)
    named = ""
    if scheme:
        named = scheme[1].upper()
        if named not in _OF_SCHEME:
            raise BadHash(f"hashes of {scheme[1]} are not taken: {TAKEN}")
        text = text[scheme.end():]
    if len(text) > MOST_TEXT:
        raise BadHash(f"the hash is longer than {MOST_TEXT} characters")
    for kind, reader in (
        ("argon2id", _read_argon2), ("bcrypt", _read_bcrypt), ("sha512-crypt", _read_crypt), ("pbkdf2", _read_pbkdf2),
    ):
        stored = reader(text)
        if stored is None:
            continue
        if named and _OF_SCHEME[named] not in ("", kind):
            raise BadHash(f"the hash is one of {kind}, not of {named}")
        return stored
    raise BadHash(f"the hash is not understood: {TAKEN} are taken, whole, as Django or Dovecot spell them")


def write(stored: str) -> str:
    """The spelling of a kept hash that `read` takes again, and Dovecot as well where it knows the scheme."""
    kind, _, rest = stored.partition("$")
    prefix = {"argon2": "{ARGON2ID}$", "bcrypt": "{BLF-CRYPT}", "sha512crypt": "{SHA512-CRYPT}"}.get(kind)
    return prefix + rest if prefix is not None else rest if kind == "passlib" else stored


def verify(password: str, stored: str) -> bool:
    """Whether the password is the one that a foreign hash was made of; never raises for a strange password."""
    kind, _, rest = stored.partition("$")
    try:
        if kind == "bcrypt":
            # As everybody who made such hashes did: what is beyond 72 bytes doesn't count.
            return bcrypt.checkpw(password.encode()[:72], rest.encode())
        if kind == "sha512crypt":
            return bool(sha512_crypt.verify(password, rest))
        return _verify_pbkdf2(password, stored)
    except ValueError:  # a NUL, or longer than the scheme takes
        return False


def _bounded(number: int, most: int, what: str) -> None:
    if number > most:
        raise BadHash(f"the hash takes {number} {what}, more than {most}: it would slow down every login")


def _read_argon2(text: str) -> str | None:
    if not text.startswith(("$argon2", "argon2$")):
        return None
    text = "$" + text.removeprefix("argon2").lstrip("$") if text.startswith("argon2$") else text
    try:
        asked = argon2.extract_parameters(text)
        for part in text.split("$")[-2:]:  # the salt, and what was made with it
            base64.b64decode(part + "=" * (-len(part) % 4), validate=True)
    except (argon2.exceptions.InvalidHashError, binascii.Error):
        raise BadHash("the argon2 hash is not whole") from None
    if asked.type is not argon2.Type.ID or asked.version != 19:
        raise BadHash("of argon2 only argon2id, version 19, is taken")
    _bounded(asked.memory_cost, MOST_ARGON2_KIB, "KiB of memory")
    _bounded(asked.memory_cost * asked.time_cost, MOST_ARGON2_WORK, "KiB times passes")
    if not (8 <= asked.salt_len <= 64 and 16 <= asked.hash_len <= 64 and 1 <= asked.parallelism <= 16):
        raise BadHash("the argon2 hash has an odd salt, length or parallelism")
    if asked.time_cost < 1 or asked.memory_cost < 8 * asked.parallelism:  # RFC 9106 §3.1
        raise BadHash("the argon2 hash has an odd number of passes or too little memory")
    return f"argon2{text}"


def _read_bcrypt(text: str) -> str | None:
    text = text.removeprefix("bcrypt$")
    if not text.startswith("$2"):
        return None
    found = _BCRYPT.fullmatch(text)
    if not found or int(found[1]) < 4:
        raise BadHash("the bcrypt hash is not whole")
    _bounded(int(found[1]), MOST_BCRYPT_COST, "as its cost")
    return f"bcrypt${text}"


def _read_crypt(text: str) -> str | None:
    if not text.startswith("$6$"):
        return None
    found = _CRYPT.fullmatch(text)
    if not found:
        raise BadHash("the sha512-crypt hash is not whole")
    try:
        sha512_crypt.from_string(text)  # it knows the rounds and the salts that there are
    except ValueError:
        raise BadHash("the sha512-crypt hash is not whole, or no password opens it") from None
    _bounded(int(found[1] or 5000), MOST_CRYPT_ROUNDS, "rounds")
    return f"sha512crypt${text}"


def _read_pbkdf2(text: str) -> str | None:
    django, dovecot, passlib = (one.fullmatch(text) for one in (_DJANGO_PBKDF2, _DOVECOT_PBKDF2, _PASSLIB_PBKDF2))
    if django:
        digest, rounds, stored = django[1], django[2], text
    elif dovecot:
        # The same as Django's with SHA-1: the salt is the text itself.
        key = base64.b64encode(bytes.fromhex(dovecot[3])).decode()
        digest, rounds, stored = "sha1", dovecot[2], f"pbkdf2_sha1${int(dovecot[2])}${dovecot[1]}${key}"
    elif passlib:
        digest, rounds, stored = passlib[1] or "sha1", passlib[2], f"passlib${text}"
    else:
        if text.startswith(("pbkdf2", "$pbkdf2")):
            raise BadHash("the pbkdf2 hash is not whole, or of a digest that is not taken: SHA-1, SHA-256 or SHA-512")
        return None
    if int(rounds) < 1:
        raise BadHash("the pbkdf2 hash has no rounds")
    _bounded(int(rounds), MOST_PBKDF2_ROUNDS[digest], "rounds")
    try:
        _, _, _, key_bytes = _pbkdf2_parts(stored)
    except (ValueError, binascii.Error):
        raise BadHash("the pbkdf2 hash is not whole") from None
    if len(key_bytes) != hashlib.new(digest).digest_size:
        raise BadHash("the pbkdf2 hash is not whole")
    return stored


def _pbkdf2_parts(stored: str) -> tuple[str, int, bytes, bytes]:
    """Digest, rounds, salt and key of a kept pbkdf2 hash. Raises ValueError."""
    kind, _, rest = stored.partition("$")
    if kind == "passlib":
        _, name, rounds, salt, key = rest.split("$")
        return name.partition("-")[2] or "sha1", int(rounds), _adapted(salt), _adapted(key)
    rounds, salt, key = rest.split("$")
    return kind.removeprefix("pbkdf2_"), int(rounds), salt.encode(), base64.b64decode(key, validate=True)


def _adapted(text: str) -> bytes:
    """passlib's base64: "." for "+", no padding."""
    return base64.b64decode(text.replace(".", "+") + "=" * (-len(text) % 4), validate=True)


def _verify_pbkdf2(password: str, stored: str) -> bool:
    digest, rounds, salt, key = _pbkdf2_parts(stored)
    return hmac.compare_digest(hashlib.pbkdf2_hmac(digest, password.encode(), salt, rounds), key)
