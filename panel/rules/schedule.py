"""When a message that could not be delivered is tried again, and when it is given up.

Decides times only; what else keeps a message waiting is decided in policy.may_go and
by holds. RFC 5321 §4.5.4.1, RFC 3461 §4.1 (DELAY).
"""

from datetime import datetime, timedelta

FIRST_RETRY_S = 60.0
LONGEST_RETRY_S = 2 * 3600.0
SPREAD = 0.2  # of the delay, to either side
DELAY_WARNING = timedelta(hours=4)  # sendmail's Timeout.queuewarn; RFC 3461 names no number


def delay_s(tries: int, jitter: float) -> float:
    """How long to wait after `tries` tries (1 or more) that came to nothing, in seconds.

    1, 2, 4 … 64 minutes, then every 2 hours; ±20 % by `jitter` in [0, 1), so that what
    failed together doesn't come back together. RFC 5321 §4.5.4.1 would have 30 minutes
    between tries unless the reason of the failure is known, and says that a destination
    is best tried twice in the first hour, then every 2 or 3 hours. It is tried sooner at
    first because most who defer a first contact are greylisting, and take it after 1 to 5
    minutes: with 30 minutes each of their first messages would be half an hour late.
    """
    if tries < 1 or not 0 <= jitter < 1:
        raise ValueError("delay_s takes 1 or more tries and a jitter in [0, 1)")
    doublings = min(tries - 1, 20)  # far beyond the longest; an int, however often it was tried
    return min(FIRST_RETRY_S * 2**doublings, LONGEST_RETRY_S) * (1 - SPREAD + 2 * SPREAD * jitter)


def next_try(now: datetime, tries: int, expires_at: datetime, jitter: float) -> datetime | None:
    """When to try again after `tries` tries; None: it has expired, give it up.

    The last try is at `expires_at` itself, not up to two hours before or after it.
    """
    if now >= expires_at:
        return None
    return min(now + timedelta(seconds=delay_s(tries, jitter)), expires_at)


def expires_at(accepted_at: datetime, days: float) -> datetime:
    """When a message accepted then is given up; RFC 5321 §4.5.4.1 wants at least 4 to 5 days."""
    return accepted_at + timedelta(days=days)


def delay_warning_due(accepted_at: datetime, now: datetime) -> bool:
    """Whether a sender who asked for NOTIFY=DELAY, or for nothing, is to be told by now that it waits."""
    return now - accepted_at >= DELAY_WARNING
