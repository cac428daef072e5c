"""How passwords are hashed. Hash before a transaction opens: one takes 26 ms."""

import hashlib
import secrets
import unicodedata

from django.contrib.auth.hashers import Argon2PasswordHasher, check_password, make_password

APP_PREFIX = "ph-app-"


class Argon2Hasher(Argon2PasswordHasher):
    """argon2id at m=19 MiB, t=2, p=1 (OWASP's floor): 37 a second on two cores, and Dovecot can check it."""

    time_cost = 2
    memory_cost = 19456
    parallelism = 1


def hash_main(password: str) -> str:
    """The stored form of a main password, Django's `argon2$argon2id$…`."""
    return make_password(_prepared(password))


def verify_main(password: str, stored: str) -> bool:
    """Whether it is the password; also one that was hashed elsewhere, as it was typed there."""
    prepared = _prepared(password)
    return check_password(prepared, stored) or (prepared != password and check_password(password, stored))


def _prepared(password: str) -> str:
    """Composed, each space a plain one: what one keyboard sends in parts another sends whole (RFC 8265 §4.2.2)."""
    spaced = "".join(" " if unicodedata.category(letter) == "Zs" else letter for letter in password)
    return unicodedata.normalize("NFC", spaced)


def fingerprint(stored: str) -> str:
    """Tells one stored password from the next; of the password it says nothing."""
    return hashlib.blake2b(stored.encode(), digest_size=8).hexdigest()


def new_app_secret() -> str:
    """An app password: a recognisable prefix and 128 random bits, to be shown once."""
    return APP_PREFIX + secrets.token_hex(16)


def hash_app(secret: str) -> str:
    """The stored form of an app password. Its 128 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
