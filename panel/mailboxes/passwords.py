"""How passwords are hashed. Hash before a transaction opens: one takes 26 ms."""

import hashlib
import secrets

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
    return make_password(password)


def verify_main(password: str, stored: str) -> bool:
    """Whether this is the main password; what was hashed elsewhere may take longer than ours (foreign.py's bounds)."""
    if stored.startswith("argon2$"):
        return check_password(password, stored)
    return foreign.verify(password, stored)


def is_ours(stored: str) -> bool:
    """Whether it was hashed as `hash_main` does it; if not, it is hashed anew at the first right login."""
    cost = f"m={Argon2Hasher.memory_cost},t={Argon2Hasher.time_cost},p={Argon2Hasher.parallelism}"
    return stored.startswith(f"argon2$argon2id$v=19${cost}$")


def fingerprint(stored: str) -> str:
    """Tells one stored password from the next; of the password it says nothing."""
    return hashlib.blake2b(stored.encode(), digest_size=8).hexdigest()


def new_app_secret() -> str:
    """An app password: a recognisable prefix and 128 random bits, to be shown once."""
    return APP_PREFIX + secrets.token_hex(16)


def hash_app(secret: str) -> str:
    """The stored form of an app password. Its 128 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
