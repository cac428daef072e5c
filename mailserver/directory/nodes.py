"""What an address is here: a mailbox with its rules, an alias with its targets, or nothing.

One step; what follows from several is resolution.py's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mailserver.directory.found import Found
from mailserver.directory.hosting import find_hosted
from mailserver.directory.statuses import OWNERS, address_status
from panel.mailboxes import models as mailboxes
from panel.rules import policy
from panel.rules.addresses import Address, BadAddress, parse_address
from panel.rules.facts import LocalMailbox, MailRules, Proof, Vacation


@dataclass(frozen=True, slots=True)
class Node:
    """A step on the way: a mailbox, an alias (or the postmaster's role), outside, or nothing (all empty).

    Several addresses share a node: user+tag@ and user@, or all that a catch-all takes.
    """

    id: str
    tenant_id: int | None = None
    mailbox: LocalMailbox | None = None
    outside: Address | None = None
    targets: tuple[Address, ...] = ()  # of a mailbox: where it forwards to
    pays: mailboxes.Address | None = None  # the address whose tenant is charged for targets outside

    @property
    def answers(self) -> bool:
        return bool(self.mailbox and self.mailbox.rules and self.mailbox.rules.vacation)

    @property
    def is_end(self) -> bool:
        """Whether mail ends here, if perhaps not all of it."""
        rules = self.mailbox.rules if self.mailbox else None
        return self.outside is not None or (self.mailbox is not None and (rules is None or rules.keeps))


def mailbox(address: Address) -> Found[LocalMailbox | None]:
    """The mailbox of this very address, or of the one that a proved domain alias means; None for a closed one."""
    name = address.domain
    hosted = find_hosted([name]).get(name)
    names = frozenset({name, hosted.row.name} if hosted else {name})
    query = mailboxes.Address.objects.filter(
        domain__name=hosted.row.name if hosted else name, local_part=address.local_part, mailbox__isnull=False
    )
    row = query.select_related("mailbox__rules", *OWNERS).first() if address.local_part else None
    # Who stores its mail, and whom it blocks, is nothing to who reads it.
    return Found(node_of(row, address, {}, "", {}).mailbox if row else None, names)


def node_of(
    row: mailboxes.Address, asked: Address, targets: Mapping[int, tuple[Address, ...]], store: str,
    blocked: Mapping[int, frozenset[str]],
) -> Node:
    """What an address row is: closed ones are nothing. Its mailbox's rules are read with it."""
    if not address_status(row).may_receive:
        return Node(f"closed {row.pk}", row.tenant_id)
    box = getattr(row, "mailbox", None)
    if box:
        # A catch-all has no address of its own to name.
        address = Address(row.local_part or asked.local_part, row.domain.name)
        local = LocalMailbox(
            box.pk, box.opaque_id, row.tenant_id, address, box.quota_bytes, row.domain.store or store,
            _mail_rules(row, blocked), box.language,
        )
        onward = _parsed(box.rules.forward_to) if local.rules and local.rules.forwards else ()
        return Node(f"address {row.pk}", row.tenant_id, mailbox=local, targets=onward, pays=row)
    alias = getattr(row, "alias", None)
    found = targets.get(alias.pk, ()) if alias else ()
    return Node(f"address {row.pk}", row.tenant_id, targets=found, pays=row)


def expiry_of(row: mailboxes.Address) -> datetime | None:
    """When the alias at this address expires, if it is one and does."""
    alias = getattr(row, "alias", None)
    return alias.expires_at if alias else None


def has_expired(row: mailboxes.Address, now: datetime) -> bool:
    """Whether this is the address of an alias that has expired."""
    ends = expiry_of(row)
    return ends is not None and ends <= now


def targets_of(rows: Sequence[mailboxes.Address]) -> dict[int, tuple[Address, ...]]:
    """The targets of the aliases among the rows; one that can't be read leads nowhere."""
    aliases = [row.alias.pk for row in rows if getattr(row, "alias", None)]
    found: dict[int, list[Address]] = {}
    if aliases:
        query = mailboxes.AliasTarget.objects.filter(alias__in=aliases).order_by("pk")
        for alias_id, text in query.values_list("alias_id", "target"):
            try:
                found.setdefault(alias_id, []).append(parse_address(text).canonical)
            except BadAddress:
                continue
    return {alias_id: tuple(targets) for alias_id, targets in found.items()}


def blocked_by(rows: Sequence[mailboxes.Address]) -> dict[int, frozenset[str]]:
    """Whom the mailboxes among the rows that have rules block; no question when none has any."""
    ruled = [row.mailbox.pk for row in rows if getattr(getattr(row, "mailbox", None), "rules", None)]
    found: dict[int, set[str]] = {}
    if ruled:
        entries = mailboxes.BlockEntry.objects.filter(mailbox__in=ruled).order_by()
        for mailbox_id, sender in entries.values_list("mailbox_id", "sender"):
            found.setdefault(mailbox_id, set()).add(sender)
    return {mailbox_id: frozenset(senders) for mailbox_id, senders in found.items()}


def _mail_rules(row: mailboxes.Address, blocked: Mapping[int, frozenset[str]]) -> MailRules | None:
    """The rules of the mailbox at this address; None when none does anything.

    Who may not send neither forwards nor answers: what was set by a thief who is locked out ends with that.
    """
    box = row.mailbox
    stored = getattr(box, "rules", None)
    if stored is None:
        return None
    status = address_status(row)
    vacation = Vacation(
        text=stored.vacation_text, subject=stored.vacation_subject, name=box.name, days=stored.vacation_days,
        first=stored.vacation_from, last=stored.vacation_until,
    )
    answers = stored.vacation and policy.may_go(status, Proof(row.domain.proof))
    forwards = bool(stored.forward_to) and status.may_send
    rules = MailRules(
        vacation=vacation if answers else None, junk=stored.junk, forwards=forwards,
        keeps=stored.forward_keep or not forwards, blocked=blocked.get(box.pk, frozenset()),
    )
    return None if rules == MailRules() else rules


def _parsed(texts: Iterable[str]) -> tuple[Address, ...]:
    found = []
    for text in texts:
        try:
            found.append(parse_address(text).canonical)
        except BadAddress:
            continue
    return tuple(found)
