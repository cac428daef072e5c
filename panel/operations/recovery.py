"""A mailbox's recovery address: asked for, confirmed by a link that is sent there, and removed.

A new one counts once the mailbox's person, signed in, has opened the link: a mistyped address is nobody's way in, and
the one before goes on until then. When it changes a letter goes to the address before and into the mailbox itself,
whoever changed it: who learned the main password can't make a way back in that nobody hears of.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum
from functools import partial

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from panel.mailboxes.language import language_of
from panel.mailboxes.models import Mailbox, RecoveryAsked
from panel.mailboxes.recovery import parse_recovery
from panel.operations.notices.readers import reaches
from panel.sending import letters
from panel.sending.letters import Aside, Facts, Letter, Link, Purpose, Words
from panel.tenants import audit
from panel.tenants.changes import ServiceError, changed, lock, write
from panel.tenants.decided import Freezer
from panel.tenants.models import PasswordReset, User

LIFE = timedelta(days=1)  # of a link
WITHIN = timedelta(days=1)
MOST_LETTERS_A_DAY = 12  # about one mailbox: some four changes
MOST_TO_ONE = 5  # of them to one new address

LinkTo = Callable[[str], str]  # from a token to the path that opens it


class Became(Enum):
    """What came of what was written into the field."""

    NOTHING = "nothing"
    ASKED = "asked"
    REMOVED = "removed"


@transaction.atomic
def ask_recovery(mailbox: Mailbox, text: str, *, link: LinkTo, actor: User | None, ip: str | None = None) -> Became:
    """Send the link to a new address; an empty one removes what is there, and what was asked for.

    Raises ServiceError ("recovery").
    """
    address = parse_recovery(mailbox, text)
    stored = lock(mailbox)
    if not address:
        is_changed = set_recovery(mailbox, "", actor=actor, ip=ip)
        return Became.REMOVED if cancel_recovery(mailbox, actor=actor, ip=ip) or is_changed else Became.NOTHING
    if address == stored.recovery:
        return Became.NOTHING
    token, now = secrets.token_urlsafe(24), timezone.now()
    RecoveryAsked.objects.update_or_create(mailbox=mailbox, defaults={
        "address": address, "by": int(Freezer.of(actor)), "sent_at": now, "token": _digest(token),
    })
    audit.record(actor, "mailbox.recovery_address_asked", mailbox, tenant=mailbox.address.tenant, ip=ip)
    about = f"recovery of {mailbox.pk}"
    if letters.count(about, now - letters.DAY) >= MOST_LETTERS_A_DAY:
        raise ServiceError(_("The recovery address was changed too often today: try again tomorrow."), "recovery")
    if not letters.send(
        address, language_of(mailbox), partial(_confirm, mailbox, link(token)), purpose=Purpose.RECOVERY, about=about,
        most_about=MOST_TO_ONE, now=now, within=WITHIN,
    ):
        raise ServiceError(
            _("This address was made a recovery address too often today: try again tomorrow."), "recovery"
        )
    return Became.ASKED


def asked_of(mailbox: Mailbox) -> RecoveryAsked | None:
    """What waits for its person to open the link, even if that is too old by now."""
    return RecoveryAsked.objects.filter(mailbox=mailbox).first()


def ends_at(asked: RecoveryAsked) -> datetime:
    """When its link opens nothing any more."""
    return asked.sent_at + LIFE


@transaction.atomic
def send_again(mailbox: Mailbox, *, link: LinkTo, actor: User | None, ip: str | None = None) -> RecoveryAsked:
    """A new letter with a new link; the link before is void. Raises ServiceError."""
    asked = asked_of(lock(mailbox))
    if asked is None:
        raise _over(mailbox)
    ask_recovery(mailbox, asked.address, link=link, actor=actor, ip=ip)
    # Who asked first, not who sent it once more, is told of.
    RecoveryAsked.objects.filter(mailbox=mailbox).update(by=asked.by)
    return asked


@transaction.atomic
def cancel_recovery(mailbox: Mailbox, *, actor: User | None, ip: str | None = None) -> bool:
    """Take back what was asked for; False if nothing was. The address that holds goes on."""
    if not RecoveryAsked.objects.filter(mailbox=mailbox).delete()[0]:
        return False
    audit.record(actor, "mailbox.recovery_address_cancelled", mailbox, tenant=mailbox.address.tenant, ip=ip)
    return True


def opened(mailbox: Mailbox, token: str) -> RecoveryAsked:
    """What the link would make this mailbox's recovery address now. Raises ServiceError."""
    asked = _open(mailbox, token).first()
    if asked is None:
        raise _over(mailbox)
    return asked


@transaction.atomic
def confirm_recovery(mailbox: Mailbox, token: str, *, actor: User, ip: str | None = None) -> str:
    """Its person, signed in, opened the link: the address counts from now on. Raises ServiceError."""
    lock(mailbox)
    asked = opened(mailbox, token)
    if not _open(mailbox, token).delete()[0]:
        raise _over(mailbox)
    address = parse_recovery(mailbox, asked.address)  # it may lead here alone by now
    set_recovery(mailbox, address, actor=actor, by=Freezer(asked.by), ip=ip)
    return address


@transaction.atomic
def set_recovery(
    mailbox: Mailbox, recovery: str, *, actor: User | None, by: Freezer | None = None, ip: str | None = None
) -> bool:
    """Let links for another main password go there, or nowhere if empty; False when it is so already.

    `by` is who chose it, if not who does it. The audit log says that it was set or removed, never which
    address. Raises ServiceError ("recovery").
    """
    recovery, by = parse_recovery(mailbox, recovery), Freezer.of(actor) if by is None else by
    before, after = write(mailbox, recovery=recovery, recovery_is_own=bool(recovery) and by is Freezer.PERSON)
    if not after:
        return False
    # Links went to the address before.
    PasswordReset.objects.filter(user=mailbox.person_id).update(token="")
    act = "mailbox.recovery_address_set" if recovery else "mailbox.recovery_address_removed"
    audit.record(actor, act, mailbox, tenant=mailbox.address.tenant, ip=ip)
    changed(mailbox.address.domain.name)
    old = before.get("recovery", recovery)
    if old == recovery:
        return True  # another's word for the same address
    for to in filter(None, (str(mailbox) if reaches(mailbox) else "", old)):
        letters.send(
            to, language_of(mailbox), partial(_notice, mailbox, by, ip), purpose=Purpose.RECOVERY_CHANGED,
            about=f"recovery of {mailbox.pk}", now=timezone.now(), within=WITHIN,
        )
    return True


def _over(mailbox: Mailbox) -> ServiceError:
    # Whoever has several mailboxes may be in another one than the link's.
    return ServiceError(_(
        "This link was used already, was taken back, is older than a day, or belongs to another mailbox than {mailbox}."
    ).format(mailbox=mailbox))


def _open(mailbox: Mailbox, token: str) -> "QuerySet[RecoveryAsked]":
    return RecoveryAsked.objects.filter(mailbox=mailbox, token=_digest(token), sent_at__gt=timezone.now() - LIFE)


def _digest(token: str) -> str:
    """Tells one token from another; without the secret key it opens nothing."""
    data = token.encode("utf-8", "surrogatepass")
    return hmac.new(settings.SECRET_KEY.encode(), b"recovery" + data, hashlib.sha256).hexdigest()[:40]


def _confirm(mailbox: Mailbox, path: str) -> Letter:
    name = letters.cleaned(mailbox, 320)
    return Letter(_("Confirm the recovery address of {name}").format(name=name), (
        Words(_(
            "This address is to become the recovery address of the mailbox {name} on {hostname}: if its password is "
            "forgotten, a link to choose another one comes here."
        ).format(name=name, hostname=letters.cleaned(settings.ENVIRONMENT.hostname))),
        Words(_("If that is right, open this within a day, sign in to the mailbox, and confirm it there:")),
        Link(_("Confirm the address"), letters.url(path)),
        Aside(_(
            "If you don't know the mailbox, somebody mistyped an address: you need not do anything, and nothing comes "
            "of it."
        )),
    ))


def _notice(mailbox: Mailbox, by: Freezer, ip: str | None) -> Letter:
    name, facts = letters.cleaned(mailbox, 320), [(_("When"), f"{timezone.now():%Y-%m-%d %H:%M} UTC")]
    facts.append((_("Changed by"), {
        Freezer.PERSON: _("somebody who knows the main password"), Freezer.TENANT: _("your organisation"),
        Freezer.PROVIDER: _("your provider"),
    }[by]))
    if by is Freezer.PERSON:
        facts.append((_("From where"), ip or _("an unknown address")))
    subject, what = (
        _("The recovery address of {name} was changed"),
        _("If the password of {name} is forgotten, a link to choose another one goes to the new address now."),
    ) if mailbox.recovery else (
        _("The recovery address of {name} was removed"),
        _("No link to choose another password for {name} is sent any more."),
    )
    return Letter(subject.format(name=name), (
        Words(what.format(name=name)),
        Facts(tuple(facts)),
        Words(_("If you know of it, you need not do anything.")),
        Words(_("If not, sign in, choose another main password, and look whether the recovery address is yours.")),
        Link(_("Password and sign-ins"), letters.url("/me/sign-ins/")),
    ))
