"""Whether a message finds room in a mailbox, what is said when it doesn't, and when its owner is warned.

Pure: what a mailbox uses is counted by the mailserver (mailserver/usage.py). RFC 3463 §3.3
(X.2.2 mailbox full, X.2.3 larger than this mailbox takes), RFC 1870 §6 (a declared size).

Refused is only a recipient of which no copy finds room: an alias of several, or a message
to several, is taken, and waits in the queue for whose mailbox is full. What this server
itself has to tell (DSNs, warnings) is stored whatever the quota.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from panel.rules import reply
from panel.rules.facts import Delivery, LocalMailbox, Resolution
from panel.rules.reply import Reply

WARN_AT = (80, 95)  # per cent of the quota


class Fit(Enum):
    """How a message and a mailbox go together."""

    FITS = "fits"
    FULL = "full"
    NEVER = "never"  # it is larger than the whole mailbox may be


@dataclass(frozen=True, slots=True)
class Wanted:
    """Room that is asked for: `size` bytes in a mailbox that may hold `quota_bytes` (None: unlimited).

    `told`: who stores it (Dovecot) tells afterwards what the mailbox holds then. `copies`: so many
    messages, `size` is that of all of them.
    """

    mailbox_id: int
    quota_bytes: int | None
    size: int
    told: bool = False
    copies: int = 1


def fit(used_bytes: int, size: int, quota_bytes: int | None) -> Fit:
    """Whether `size` bytes more fit into a mailbox. One that is just full has no room for an empty message either."""
    if quota_bytes is None:
        return Fit.FITS
    if size > quota_bytes:
        return Fit.NEVER
    return Fit.FULL if used_bytes >= quota_bytes or used_bytes + size > quota_bytes else Fit.FITS


def mailboxes(resolutions: Iterable[Resolution]) -> dict[int, LocalMailbox]:
    """The mailboxes here that these recipients lead to, each once."""
    return {
        delivery.mailbox.mailbox_id: delivery.mailbox
        for resolution in resolutions
        for delivery in resolution.deliveries
        if delivery.mailbox is not None
    }


def recipient_refused(resolution: Resolution, fits: Mapping[int, Fit], *, for_good: bool) -> Reply | None:
    """Whether a recipient is refused because no mailbox that it leads to has room; `fits` by mailbox id.

    `for_good`: by setting, a full mailbox is 552 and not 452. The reply names the address
    that was asked for, never what it leads to.
    """
    found = {_fit_of(delivery, fits) for delivery in resolution.deliveries}
    if not found or Fit.FITS in found:
        return None
    if found == {Fit.NEVER}:
        return reply.TOO_LARGE_FOR_MAILBOX.about(address=resolution.asked)
    return full(resolution.asked, for_good=for_good)


def message_refused(resolutions: Iterable[Resolution], fits: Mapping[int, Fit], *, for_good: bool) -> Reply | None:
    """Whether a whole message is refused: when every recipient would be. One reply then goes for all."""
    first: Reply | None = None
    for resolution in resolutions:
        refused = recipient_refused(resolution, fits, for_good=for_good)
        if refused is None:
            return None
        # That which lets the others be tried again counts: 4xx before 5xx.
        if first is None or (first.is_permanent and not refused.is_permanent):
            first = refused
    return first


def full(address: object, *, for_good: bool) -> Reply:
    """What a full mailbox is called."""
    return (reply.MAILBOX_FULL_REFUSED if for_good else reply.MAILBOX_FULL).about(address=address)


def level(used_bytes: int, quota_bytes: int | None) -> int:
    """The threshold of WARN_AT that is reached, in per cent; 0 below all of them, or without a quota."""
    if not quota_bytes:
        return 0
    return max((each for each in WARN_AT if used_bytes * 100 >= each * quota_bytes), default=0)


def percent(used_bytes: int, quota_bytes: int) -> int:
    """How full it is, rounded down; a quota of nothing is full."""
    return used_bytes * 100 // quota_bytes if quota_bytes else 100


def _fit_of(delivery: Delivery, fits: Mapping[int, Fit]) -> Fit:
    return fits.get(delivery.mailbox.mailbox_id, Fit.FITS) if delivery.mailbox is not None else Fit.FITS
