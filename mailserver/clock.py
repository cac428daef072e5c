"""The time, anchored to the monotonic clock.

Windows, leases and expiry must not jump with the wall clock: a process reads the
wall once, at its start, and counts on from there. A jump is logged by whoever calls
`jump_s` and taken over at the next start (but not by a mailserver that takes over from a
running one: the two work on the same leases side by side).
"""

import time
from datetime import UTC, datetime


class Clock:
    """Seconds and moments (UTC) that never run back."""

    def __init__(self, offset_s: float | None = None) -> None:
        """With the offset of another one, also another process's, it goes on with that one's time."""
        self.offset_s = time.time() - time.monotonic() if offset_s is None else offset_s

    def time_s(self) -> float:
        """Seconds since 1970."""
        return self.offset_s + time.monotonic()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time_s(), UTC)

    def jump_s(self) -> float:
        """How far the wall clock has gone from ours since the start."""
        return time.time() - self.time_s()
