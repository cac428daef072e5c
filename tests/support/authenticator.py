"""An authenticator app: RFC 6238 written down once more, so that the panel's arithmetic is compared with another."""

import base64
import hashlib
import hmac
import time


def code_of(secret: str, at_s: float | None = None, *, steps: int = 0) -> str:
    """The six digits that an app shows now (or `steps` times 30 seconds later)."""
    counter = int(time.time() if at_s is None else at_s) // 30 + steps
    digest = hmac.digest(base64.b32decode(secret), counter.to_bytes(8, "big"), hashlib.sha1)
    at = digest[-1] & 15
    return f"{(int.from_bytes(digest[at:at + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"
