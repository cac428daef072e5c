"""How passwords are hashed. Hash before a transaction opens: one takes 26 ms."""

import hashlib
import secrets
import unicodedata

from django.contrib.auth.hashers import Argon2PasswordHasher, check_password, make_password

from panel.mailboxes import foreign

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
    """Whether this is the main password; what was hashed elsewhere may take longer than ours (foreign.py's bounds).

    What was hashed elsewhere was hashed as it was typed there.
    """
    prepared = _prepared(password)
    verify = check_password if stored.startswith("argon2$") else foreign.verify
    return verify(prepared, stored) or (prepared != password and verify(password, stored))


def verify_none(password: str, *, but_one: bool = False) -> None:
    """Take the time that `verify_main` takes for a wrong password, where there is none to compare with.

    `but_one`: less one hash, which is made elsewhere.
    """
    # What isn't as it is stored is compared twice.
    for _ in range(1 + (_prepared(password) != password) - but_one):
        make_password(password)


def is_ours(stored: str) -> bool:
    """Whether it was hashed as `hash_main` does it; if not, it is hashed anew at the first right login."""
    cost = f"m={Argon2Hasher.memory_cost},t={Argon2Hasher.time_cost},p={Argon2Hasher.parallelism}"
    return stored.startswith(f"argon2$argon2id$v=19${cost}$")


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
