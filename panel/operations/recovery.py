"""Setting a mailbox's recovery address, which those who lose or gain by it are told of.

A letter goes to the address before, to the new one and into the mailbox itself, whoever changes it: who
learned the main password can't make a way back in that nobody hears of.
"""

from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from panel.mailboxes.language import language_of
from panel.mailboxes.models import Mailbox
from panel.mailboxes.recovery import parse_recovery
from panel.sending import letters
from panel.sending.letters import Aside, Facts, Letter, Link, Purpose, Words
from panel.tenants import audit, decided
from panel.tenants.changes import ServiceError, changed, write
from panel.tenants.models import PasswordReset, User

WITHIN = timedelta(days=1)
MOST_LETTERS_A_DAY = 12  # about one mailbox: some four changes


@transaction.atomic
def set_recovery(mailbox: Mailbox, recovery: str, *, actor: User | None, ip: str | None = None) -> bool:
    """Let links for another main password go there, or nowhere if empty; False when it is so already.

    The audit log says that it was set or removed, never which address. Raises ServiceError ("recovery").
    """
    recovery = parse_recovery(mailbox, recovery)
    is_own = bool(recovery) and decided.Freezer.of(actor) is decided.Freezer.PERSON
    before, after = write(mailbox, recovery=recovery, recovery_is_own=is_own)
    if not after:
        return False
    # Links went to the address before.
    PasswordReset.objects.filter(user=mailbox.person_id).update(token="")
    act = "mailbox.recovery_address_set" if recovery else "mailbox.recovery_address_removed"
    audit.record(actor, act, mailbox, tenant=mailbox.address.tenant, ip=ip)
    changed(mailbox.address.domain.name)
    _tell(mailbox, before.get("recovery", recovery), actor, ip)
    return True


def _tell(mailbox: Mailbox, old: str, actor: User | None, ip: str | None) -> None:
    """Raises ServiceError beyond the bounds, which hold for no removal: who finds a stranger's address ends it."""
    now, language = timezone.now(), language_of(mailbox)
    about, new = f"recovery of {mailbox.pk}", mailbox.recovery
    if new == old:
        return  # another's word for the same address
    if new and letters.count(about, now - letters.DAY) >= MOST_LETTERS_A_DAY:
        raise ServiceError(_("The recovery address was changed too often today: try again tomorrow."), "recovery")
    if new and not letters.send(
        new, language, partial(_welcome, mailbox), purpose=Purpose.RECOVERY, about=about, now=now, within=WITHIN
    ):
        raise ServiceError(
            _("This address was made a recovery address too often today: try again tomorrow."), "recovery"
        )
    for to in filter(None, (str(mailbox), old)):
        letters.send(
            to, language, partial(_notice, mailbox, actor, ip), purpose=Purpose.RECOVERY_CHANGED, about=about, now=now,
            within=WITHIN,
        )


def _welcome(mailbox: Mailbox) -> Letter:
    name = letters.cleaned(mailbox, 320)
    return Letter(_("The recovery address of {name}").format(name=name), (
        Words(_("This address is now the recovery address of the mailbox {name} on {hostname}.").format(
            name=name, hostname=settings.ENVIRONMENT.hostname
        )),
        Words(_(
            "If its password is forgotten, ask for a link to choose another one: it comes here. Now you need not do "
            "anything."
        )),
        Link(_("Forgot your password?"), letters.url("/admin/login/forgot/")),
        Aside(_("If you don't know the mailbox, somebody mistyped an address: you may leave this as it is.")),
    ))


def _notice(mailbox: Mailbox, actor: User | None, ip: str | None) -> Letter:
    name = letters.cleaned(mailbox, 320)
    who, facts = decided.Freezer.of(actor), [(_("When"), f"{timezone.now():%Y-%m-%d %H:%M} UTC")]
    facts.append((_("Changed by"), {
        decided.Freezer.PERSON: _("somebody who knows the main password"),
        decided.Freezer.TENANT: _("your organisation"), decided.Freezer.PROVIDER: _("your provider"),
    }[who]))
    if who is decided.Freezer.PERSON:
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
