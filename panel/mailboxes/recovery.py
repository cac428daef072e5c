"""A mailbox's recovery address: where the link goes by which its person chooses another main password.

Decides what may be one: never where only this mailbox's own password leads. Set by operations/recovery.
"""

from django.conf import settings
from django.utils.translation import gettext as _

from panel.mailboxes import loops
from panel.mailboxes.models import Mailbox, RecoveryAsked
from panel.rules.addresses import BadAddress, parse_address
from panel.tenants.changes import ServiceError
from panel.tenants.decided import Freezer


def parse_recovery(mailbox: Mailbox, text: str) -> str:
    """The address in its canonical form; empty for none. Raises ServiceError ("recovery")."""
    if not text.strip():
        return ""
    try:
        address = str(parse_address(text).canonical)
    except BadAddress as error:
        raise ServiceError(error.said(_), "recovery") from None
    if _leads_to_it_alone(mailbox, address):
        raise ServiceError(
            _("{address} leads to this mailbox: write an address that you read elsewhere.").format(address=address),
            "recovery",
        )
    return address


def _leads_to_it_alone(mailbox: Mailbox, address: str) -> bool:
    """Whether all that is sent there comes into this mailbox and nowhere else."""
    seen: set[str] = set()
    level = {address}
    while level and len(seen) < loops.MOST_ADDRESSES:
        seen |= level
        onward = loops.onward_at(level, settings.ENVIRONMENT.separator, mailbox.address)
        following: set[str] = set()
        for each in level:
            found = onward.get(each)
            if found is None:
                return False  # another mailbox, or elsewhere
            if found.address.pk == mailbox.address_id:
                continue
            other = getattr(found.address, "mailbox", None)
            if other is not None and other.rules.forward_keep:
                return False
            following.update(found.targets)
        level = following - seen
    return not level


def shown_recovery(mailbox: Mailbox) -> str:
    """For whoever looks after the mailbox: of an address that its person set only how it begins."""
    return _beginning(mailbox.recovery) if mailbox.recovery and mailbox.recovery_is_own else mailbox.recovery


def shown_asked(asked: RecoveryAsked | None) -> str:
    """The same of one that its person has still to confirm."""
    if asked is None:
        return ""
    return _beginning(asked.address) if asked.by == Freezer.PERSON else asked.address


def _beginning(text: str) -> str:
    local_part, at, domain = text.rpartition("@")
    return f"{local_part[:1]}…{at}{domain if at else ''}"
