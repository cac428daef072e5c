"""A panel account tied to a mailbox: who signs in with the account reaches the mailbox's page as well.

Never the reverse: a mailbox's password opens the mailbox alone. A tie is made by whoever knows both passwords, and
holds while the main password is the one that was known: one that was set anew ends it, like a mailbox that may no
longer log in (console/persons looks at both). Beside a mailbox's second factor it leads in only where the account has
one as well. Whoever asks has looked at the passwords.
"""

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext as _

from panel.mailboxes import passwords
from panel.mailboxes.models import Credential, Mailbox, MailboxLink
from panel.tenants import audit
from panel.tenants.changes import Gone, ServiceError, lock
from panel.tenants.models import SecondFactor, User
from panel.tenants.sign_in import second_factor

MOST = 20  # of an account, and of a mailbox


def began_as(credential: Credential) -> str:
    """Tells a main password from the one before; what was hashed anew is still the same password."""
    return credential.began_as or passwords.fingerprint(credential.secret)


@transaction.atomic
def link(credential: Credential, account: User, *, actor: User | None, ip: str | None = None) -> MailboxLink:
    """Tie the account to the mailbox of this main password, which was just looked at. Raises ServiceError."""
    mailbox = credential.mailbox
    lock(mailbox)  # as whoever sets another password does
    if account.kind != User.Kind.PANEL or account.has_provider_role:
        raise ServiceError(_("An account of the provider's is not tied to a mailbox."), "email")
    asks = second_factor.of(mailbox.person) or second_factor.is_required(mailbox.person)
    if asks and second_factor.of(account) is None:
        raise ServiceError(_(
            "The mailbox takes only who signs in with a second factor: set one up for the account first."
        ), "email")
    if not Credential.objects.filter(pk=credential.pk, secret=credential.secret).exists():
        raise ServiceError(_("The mailbox has another password since a moment."), "mailbox_password")
    rows = MailboxLink.objects.exclude(mailbox=mailbox, account=account)
    if rows.filter(account=account).count() >= MOST or rows.filter(mailbox=mailbox).count() >= MOST:
        raise ServiceError(_("There are {most} ties already: end one first.").format(most=MOST))
    made, _is_new = MailboxLink.objects.update_or_create(
        mailbox=mailbox, account=account, defaults={"began_as": began_as(credential)}
    )
    _tell(made, "linked", actor, ip)
    return made


@transaction.atomic
def unlink(tie: MailboxLink, *, actor: User | None, ip: str | None = None) -> None:
    """End the tie, from either side. Raises Gone."""
    if not MailboxLink.objects.filter(pk=tie.pk).delete()[0]:
        raise Gone(_("This tie is ended already."))
    _tell(tie, "unlinked", actor, ip)


@transaction.atomic
def end_all(account: User, *, actor: User | None, ip: str | None = None) -> None:
    """End the account's ties, each told to its mailbox."""
    for tie in _rows().filter(account=account):
        unlink(tie, actor=actor, ip=ip)


@transaction.atomic
def keep(credential: Credential, account: User) -> None:
    """The account's tie goes on with this password: whoever set it over the tie knew the one before."""
    MailboxLink.objects.filter(mailbox=credential.mailbox_id, account=account).update(began_as=began_as(credential))


def of_account(account: User) -> "QuerySet[MailboxLink]":
    return _rows().filter(account=account)[:MOST]


def of_mailbox(mailbox: Mailbox) -> "QuerySet[MailboxLink]":
    return _rows().filter(mailbox=mailbox)[:MOST]


def _rows() -> "QuerySet[MailboxLink]":
    """With whether each account has a second factor (`has_factor`)."""
    rows: QuerySet[MailboxLink] = MailboxLink.objects.select_related("account", "mailbox__address__domain")
    own = SecondFactor.objects.filter(user=OuterRef("account"))
    return rows.annotate(has_factor=Exists(own)).order_by("pk")


def _tell(tie: MailboxLink, act: str, actor: User | None, ip: str | None) -> None:
    mailbox = tie.mailbox
    told = {"account": tie.account}
    audit.record(
        actor, f"mailbox.{act}", mailbox, tenant=mailbox.address.tenant, ip=ip,
        **({"after": told} if act == "linked" else {"before": told}),
    )
