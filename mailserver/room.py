"""Room for a received message in the mailboxes that it is for: taken before intake, given back if it isn't kept.

Asks; what follows is decided in panel/rules/quota. For what goes by LMTP room is only kept free
for a while: once it is there, Dovecot tells itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.envelope import Claimed, ClaimedMessage
from mailserver.transports import maildir
from mailserver.usage import UsageClient
from panel.rules import quota, reply
from panel.rules.addresses import Address
from panel.rules.facts import LocalMailbox, Resolution
from panel.rules.quota import Fit, Wanted
from panel.rules.reply import Reply

LMTP = "lmtp"


@dataclass(frozen=True, slots=True)
class Room:
    """What came of it: a refusal of the whole message, or the mailboxes whose copies have to wait."""

    usage: UsageClient | None
    refused: Reply | None
    full: frozenset[int]
    taken: tuple[Wanted, ...]

    def give_back(self) -> None:
        """The message isn't kept after all."""
        if self.usage is not None:
            for each in self.taken:
                self.usage.add(each.mailbox_id, -each.size, -each.copies)


async def take(
    usage: UsageClient, resolutions: Sequence[Resolution], reverse_path: Address | None, size: int, *, for_good: bool
) -> Room:
    """Room for a message of `size` bytes, our headers included, with these recipients."""
    wanted = [_wanted(box, copies, reverse_path, size) for box, copies in _copies(resolutions)]
    fits = await usage.take([each for each in wanted if each.quota_bytes is not None or not each.told])
    for each in wanted:
        # One of the copies would fit: there may be room for all of them another time.
        if fits.get(each.mailbox_id) is Fit.NEVER and each.size <= (each.quota_bytes or 0) * each.copies:
            fits[each.mailbox_id] = Fit.FULL
    refused = quota.message_refused(resolutions, fits, for_good=for_good)
    full = frozenset(number for number, each in fits.items() if each is not Fit.FITS)
    taken = tuple(each for each in wanted if not each.told and each.mailbox_id not in full)
    return Room(usage, refused, full, taken)


def _copies(resolutions: Sequence[Resolution]) -> list[tuple[LocalMailbox, list[Address]]]:
    """The mailboxes, each with the addresses under which it gets a copy: as spool.recipients_of has its rows."""
    found: dict[int, tuple[LocalMailbox, dict[tuple[Address, int | None], Address]]] = {}
    for resolution in resolutions:
        for delivery in resolution.deliveries:
            if delivery.mailbox is not None:
                _, copies = found.setdefault(delivery.mailbox.mailbox_id, (delivery.mailbox, {}))
                copies.setdefault((delivery.resolved.canonical, resolution.tenant_id), delivery.resolved)
    return [(box, list(copies.values())) for box, copies in found.values()]


def _wanted(box: LocalMailbox, copies: Sequence[Address], reverse_path: Address | None, size: int) -> Wanted:
    heads = sum(len(maildir.head_of(str(reverse_path or ""), str(resolved))) for resolved in copies)
    return Wanted(
        box.mailbox_id, box.quota_bytes, heads + len(copies) * size, told=box.store == LMTP, copies=len(copies)
    )


async def refused_at_rcpt(usage: UsageClient, resolution: Resolution, size: int, *, for_good: bool) -> Reply | None:
    """The refusal of a recipient whose mailboxes have no room for `size` bytes, as declared; nothing is taken."""
    wanted = [
        Wanted(box.mailbox_id, box.quota_bytes, size, told=box.store == LMTP)
        for box in quota.mailboxes([resolution]).values()
        if box.quota_bytes is not None
    ]
    if not wanted:
        return None
    return quota.recipient_refused(resolution, await usage.fits(wanted), for_good=for_good)


async def take_one(
    usage: UsageClient | None, mailbox: LocalMailbox, message: ClaimedMessage, recipient: Claimed
) -> Room:
    """Room for a copy that the queue delivers. Without it the copy waits, whatever RCPT would say.

    What this server itself has to tell is stored: of that there is little.
    """
    head = maildir.head_of(message.reverse_path, recipient.resolved)
    most = None if message.direction == "internal" else mailbox.quota_bytes
    wanted = Wanted(mailbox.mailbox_id, most, len(head) + message.size)
    fits = (await usage.take([wanted]))[wanted.mailbox_id] if usage else Fit.FITS
    if fits is Fit.FITS:
        return Room(usage, None, frozenset(), (wanted,))
    if fits is Fit.NEVER:
        refused = reply.TOO_LARGE_FOR_MAILBOX.about(address=recipient.original)
    else:
        refused = quota.full(recipient.original, for_good=False)
    return Room(usage, refused, frozenset({wanted.mailbox_id}), ())
