"""Changes to what a mailbox does with its mail: vacation, forward, junk, block list.

Atomic, audited, told to the mailserver's caches. What the rules make of a message is decided
in panel/rules/filtering; that a forward doesn't lead in a circle, here. A mailbox without
rules has no row, so that its mail costs nothing more.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from panel.domains.models import Domain
from panel.mailboxes import loops
from panel.mailboxes.models import BlockEntry, Mailbox, MailRules, VacationAnswer
from panel.rules import addresses
from panel.rules.addresses import BadAddress
from panel.tenants import audit
from panel.tenants.changes import KEEP, ServiceError, alone, changed, lock, many_lines, one_line
from panel.tenants.models import User

MOST_FORWARDS = 10
MOST_BLOCKED = 500
MOST_TEXT = 5000  # characters of the vacation's text
MOST_DAYS = 365
VACATION = ("vacation", "vacation_from", "vacation_until", "vacation_subject", "vacation_text", "vacation_days")
# What `clear_rules` takes, and what a mailbox without rules has.
PARTS: dict[str, dict[str, Any]] = {
    "vacation": {
        "vacation": False, "vacation_from": None, "vacation_until": None, "vacation_subject": "", "vacation_text": "",
        "vacation_days": 7,
    },
    "forward": {"forward_to": [], "forward_keep": True},
    "junk": {"junk": False},
    "block": {"blocked": []},
}


@dataclass(frozen=True, slots=True)
class Rules:
    """A mailbox's rules as they are, whether it has a row or not."""

    vacation: bool = False
    vacation_from: date | None = None
    vacation_until: date | None = None
    vacation_subject: str = ""
    vacation_text: str = ""
    vacation_days: int = 7
    forward_to: tuple[str, ...] = ()
    forward_keep: bool = True
    junk: bool = False
    blocked: tuple[str, ...] = ()

    def sentences(self, today: date) -> list[str]:
        """What they do, for a person; nothing when they do nothing."""
        said = [self._of_vacation(today)] if self.vacation else []
        if self.forward_to:
            forwards = (
                _("Forwards to {addresses} and keeps a copy.") if self.forward_keep
                else _("Forwards to {addresses} without keeping a copy.")
            )
            said.append(forwards.format(addresses=_(", ").join(self.forward_to)))
        if self.junk:
            said.append(_("Puts what is marked as junk into Junk."))
        if self.blocked:
            shown, more = _(", ").join(self.blocked[:3]), len(self.blocked) - 3
            takes = _("Takes nothing from {senders} and {more} more.") if more > 0 else (
                _("Takes nothing from {senders}.")
            )
            said.append(takes.format(senders=shown, more=more))
        return said

    def _of_vacation(self, today: date) -> str:
        if self.vacation_until and today > self.vacation_until:
            return _("Answered senders until {day:%Y-%m-%d}; that is over.").format(day=self.vacation_until)
        is_to_come = self.vacation_from and today < self.vacation_from
        begins = _(" from {day:%Y-%m-%d}").format(day=self.vacation_from) if is_to_come else ""
        ends = _(" until {day:%Y-%m-%d}").format(day=self.vacation_until) if self.vacation_until else ""
        days = ngettext("a day", "{count} days", self.vacation_days).format(count=self.vacation_days)
        return _("Answers each sender once in {days}{begins}{ends}.").format(days=days, begins=begins, ends=ends)


def rules_of(mailbox: Mailbox) -> Rules:
    """The mailbox's rules. Two queries, one when it has none."""
    row = MailRules.objects.filter(mailbox=mailbox).first()
    if row is None:
        return Rules()
    return _read(row)


def rules_without_blocked(mailbox: Mailbox) -> Rules:
    """The same but whom it blocks: no query where `rules` was selected with the mailbox."""
    row: MailRules | None = getattr(mailbox, "rules", None)
    return _of_row(row, ()) if row else Rules()


def _read(row: MailRules) -> Rules:
    blocked = BlockEntry.objects.filter(mailbox=row.mailbox_id).order_by("sender").values_list("sender", flat=True)
    return _of_row(row, tuple(blocked))


def _of_row(row: MailRules, blocked: tuple[str, ...]) -> Rules:
    return Rules(
        **{name: getattr(row, name) for name in (*VACATION, "forward_keep", "junk")},
        forward_to=tuple(row.forward_to), blocked=blocked,
    )


@transaction.atomic
def change_rules(
    mailbox: Mailbox,
    *,
    vacation: bool = KEEP,
    vacation_from: date | None = KEEP,
    vacation_until: date | None = KEEP,
    vacation_subject: str = KEEP,
    vacation_text: str = KEEP,
    vacation_days: int = KEEP,
    forward_to: Iterable[str] = KEEP,
    forward_keep: bool = KEEP,
    junk: bool = KEEP,
    blocked: Iterable[str] = KEEP,
    block: Iterable[str] = (),
    unblock: Iterable[str] = (),
    actor: User | None,
    ip: str | None = None,
) -> Rules:
    """Change what is given; `blocked` is the whole list, `block` and `unblock` what is added and taken away.

    Days are in UTC, both included. A changed vacation forgets whom it has answered. Gives
    the rules as they are then. Raises ServiceError with the name of what is wrong.
    """
    given = {
        "vacation": vacation, "vacation_from": vacation_from, "vacation_until": vacation_until,
        "vacation_subject": vacation_subject, "vacation_text": vacation_text, "vacation_days": vacation_days,
        "forward_to": forward_to, "forward_keep": forward_keep, "junk": junk,
    }
    values = _checked({name: value for name, value in given.items() if value is not KEEP}, mailbox)
    if values.get("forward_to"):
        alone("aliases")  # Two changes at once could make a circle that neither sees.
    stored = lock(mailbox)
    row = MailRules.objects.filter(mailbox=stored).first()
    before = _read(row) if row else Rules()
    after = _after(before, values)
    senders = before.blocked if blocked is KEEP else _senders(blocked, "blocked", mailbox)
    senders = tuple(sorted({*senders, *_senders(block, "block", mailbox)} - set(_senders(unblock, "unblock", mailbox))))
    if len(senders) > MOST_BLOCKED:
        raise ServiceError(_("A mailbox blocks {most} senders at most.").format(most=MOST_BLOCKED), "blocked")
    told = {name: getattr(after, name) for name in given if getattr(after, name) != getattr(before, name)}
    if senders != before.blocked:
        told["blocked"] = senders
    if told:
        if "forward_to" in told:
            _refuse_circle(mailbox, after.forward_to)
        _write(mailbox, row, after, told)
        audit.record(
            actor, "mailbox.rules_changed", mailbox, tenant=mailbox.address.tenant, ip=ip,
            before={name: getattr(before, name) for name in told}, after=told,
        )
        changed(mailbox.address.domain.name)
    return Rules(**{**_fields(after), "blocked": senders})


def clear_rules(
    mailbox: Mailbox, parts: Iterable[str] = tuple(PARTS), *, actor: User | None, ip: str | None = None
) -> Rules:
    """Take these parts of the rules away: vacation, forward, junk, block; all of them unless told."""
    values: dict[str, Any] = {}
    for part in parts:
        if part not in PARTS:
            raise ServiceError(f"There is no rule {part!r}: write one of {', '.join(PARTS)}.", "parts")
        values |= PARTS[part]
    return change_rules(mailbox, **values, actor=actor, ip=ip)


def _fields(rules: Rules) -> dict[str, Any]:
    return {name: getattr(rules, name) for name in Rules.__dataclass_fields__}


def _checked(values: dict[str, Any], mailbox: Mailbox) -> dict[str, Any]:
    if "vacation_subject" in values:
        values["vacation_subject"] = one_line(values["vacation_subject"], "vacation_subject", most=200)
    if "vacation_text" in values:
        values["vacation_text"] = many_lines(values["vacation_text"], "vacation_text", most=MOST_TEXT)
    if "vacation_days" in values:
        days = values["vacation_days"]
        if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= MOST_DAYS:
            raise ServiceError(_("Write a number of days from 1 to {most}.").format(most=MOST_DAYS), "vacation_days")
    if "forward_to" in values:
        values["forward_to"] = _targets(values["forward_to"], mailbox)
    return values


def _after(before: Rules, values: dict[str, Any]) -> Rules:
    after = Rules(**{**_fields(before), **values})
    if after.vacation and not after.vacation_text:
        raise ServiceError(_("Write what senders are answered."), "vacation_text")
    if after.vacation_from and after.vacation_until and after.vacation_until < after.vacation_from:
        raise ServiceError(_("The last day is before the first."), "vacation_until")
    return after


def _write(mailbox: Mailbox, row: MailRules | None, after: Rules, told: dict[str, Any]) -> None:
    values = {name: getattr(after, name) for name in told if name != "blocked"}
    if "forward_to" in values:
        values["forward_to"] = list(values["forward_to"])
    if row is None:
        MailRules.objects.create(mailbox=mailbox, **values)
    elif values:
        MailRules.objects.filter(pk=row.pk).update(**values)
    if "blocked" in told:
        BlockEntry.objects.filter(mailbox=mailbox).exclude(sender__in=told["blocked"]).delete()
        BlockEntry.objects.bulk_create(
            [BlockEntry(mailbox=mailbox, sender=sender) for sender in told["blocked"]], ignore_conflicts=True
        )
    if told.keys() & set(VACATION):
        VacationAnswer.objects.filter(mailbox=mailbox).delete()


def _targets(texts: Iterable[str], mailbox: Mailbox) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for text in texts:
        try:
            parsed = addresses.parse_address(text).canonical
        except BadAddress as error:
            raise ServiceError(f"{text.strip()[:60]!r}: {error.said(_)}", "forward_to") from None
        if parsed in _own(mailbox, parsed):
            raise ServiceError(
                _("{address} is this mailbox itself; keep a copy instead.").format(address=parsed), "forward_to"
            )
        found[str(parsed)] = None
    if len(found) > MOST_FORWARDS:
        raise ServiceError(
            _("A mailbox forwards to {most} addresses at most.").format(most=MOST_FORWARDS), "forward_to"
        )
    return tuple(found)


def _own(mailbox: Mailbox, asked: addresses.Address) -> set[addresses.Address]:
    """The asked address, if it is the mailbox's own: under its domain or an alias of that, with a subaddress or not."""
    plain = asked.without_subaddress(settings.ENVIRONMENT.separator)
    if mailbox.address.local_part not in (asked.local_part, plain.local_part):
        return set()
    domain = mailbox.address.domain
    here = asked.domain == domain.name or Domain.objects.filter(pk=domain.pk, aliases__name=asked.domain).exists()
    return {asked} if here else set()


def _refuse_circle(mailbox: Mailbox, targets: tuple[str, ...]) -> None:
    chain = loops.chain_back_to(mailbox.address, targets, settings.ENVIRONMENT.separator)
    if chain:
        raise ServiceError(_("The mail would come back here: {chain}.").format(chain=" → ".join(chain)), "forward_to")


def _senders(texts: Iterable[str], field: str, mailbox: Mailbox) -> tuple[str, ...]:
    """Addresses and domains, canonical."""
    found: dict[str, None] = {}
    for text in texts:
        text = text.strip()
        try:
            if "@" in text.removeprefix("@"):
                sender = str(addresses.parse_address(text).canonical)
            else:
                sender = addresses.canonical_domain(text.removeprefix("@"), single_label=True)
        except BadAddress as error:
            raise ServiceError(f"{text[:60]!r}: {error.said(_)}", field) from None
        if field != "unblock" and sender == str(mailbox.address):
            raise ServiceError(_("{address} is this mailbox itself.").format(address=sender), field)
        found[sender] = None
    return tuple(found)
