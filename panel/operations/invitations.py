"""Inviting somebody to look after a tenant: a link by mail to the address, for one use within seven days.

Nobody is made a member without having said so: an account that is there accepts, and where there is
none it is made by whoever opens the link, with a password of their own. Who invites learns nothing of
which accounts exist: the same letter goes out, and the same is answered. The provider makes members
directly (tenants/services).

An invitation holds while whoever sent it may still name somebody for its role: who is no longer an
admin leaves no way back in.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from functools import partial

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from panel.mailboxes.language import language_of
from panel.operations.services import account_email, create_account, refuse_hosted
from panel.rules.status import Status
from panel.sending import letters
from panel.sending.letters import Aside, Facts, Letter, Link, Purpose, Words
from panel.tenants import audit
from panel.tenants.changes import Gone, ServiceError, Taken, choice, hash_password, lock, taken_means
from panel.tenants.models import Invitation, Membership, Tenant, User
from panel.tenants.roles import ROLES, at_least
from panel.tenants.services import create_membership
from panel.tenants.standing import with_parents

LIFE = timedelta(days=7)
MOST_PENDING = 100  # of a tenant
MOST_A_DAY = 50  # letters of a tenant
MOST_TO_ONE = 5  # of these to one address: below what an address gets from all, so that no tenant takes another's

LinkTo = Callable[[str], str]  # from a token to the path that opens it


# Asking


@transaction.atomic
def invite(
    *, tenant: Tenant, email: str, role: str, link: LinkTo, actor: User, ip: str | None = None
) -> Invitation:
    """Ask whoever reads this address to become a member, by a letter.

    Refused for a member, for an address hosted here, and beyond the bounds of letters. Raises ServiceError.
    """
    email, role = account_email(email), choice(role, Membership.Role, "role")
    refuse_hosted(email)  # whoever makes aliases there would read it
    if lock(tenant).status == Status.CLOSED:
        raise ServiceError(_("{tenant} is closed.").format(tenant=tenant))
    if Membership.objects.filter(tenant=tenant, user__email=email).exists():
        raise Taken(_("{user} is a member of {tenant} already.").format(user=email, tenant=tenant), "email")
    old = Invitation.objects.filter(tenant=tenant, email=email).select_related("tenant", "invited_by").first()
    if old and holding([old], tenant, timezone.now()):
        raise Taken(_("{email} is invited already: send the invitation again, or withdraw it.").format(
            email=email
        ), "email")
    if old:
        old.delete()
    if Invitation.objects.filter(tenant=tenant).count() >= MOST_PENDING:
        raise ServiceError(_("{count} invitations wait for an answer: withdraw some of them first.").format(
            count=MOST_PENDING
        ))
    token = secrets.token_urlsafe(24)
    with taken_means(lambda: _("{email} is invited already: send the invitation again, or withdraw it.").format(
        email=email
    ), "email"):
        made = Invitation.objects.create(
            tenant=tenant, email=email, role=role, invited_by=actor, sent_at=timezone.now(), token=_digest(token)
        )
    audit.record(actor, "invitation.sent", made, tenant=tenant, after={"email": email, "role": role}, ip=ip)
    _write(made, actor, link(token))
    return made


@transaction.atomic
def send_again(
    invitation: Invitation, *, among: Collection[str], link: LinkTo, actor: User, ip: str | None = None
) -> None:
    """A new letter with a new link, valid from now on; the link before is void. `among`: roles the actor may give."""
    stored = _locked(invitation, among)
    token, now = secrets.token_urlsafe(24), timezone.now()
    Invitation.objects.filter(pk=stored.pk).update(token=_digest(token), sent_at=now, invited_by=actor)
    stored.sent_at, stored.invited_by = now, actor
    audit.record(actor, "invitation.sent_again", stored, tenant=stored.tenant, ip=ip)
    _write(stored, actor, link(token))


@transaction.atomic
def withdraw(
    invitation: Invitation, *, among: Collection[str], actor: User, ip: str | None = None
) -> None:
    """Take it back: its link is void. `among`: roles the actor may give."""
    stored = _locked(invitation, among)
    audit.record(actor, "invitation.withdrawn", stored, tenant=stored.tenant, ip=ip)
    stored.delete()


def holding(some: Iterable[Invitation], tenant: Tenant, now: datetime) -> set[int]:
    """Those of the tenant's invitations (with `invited_by`) whose link opens now, by id. One query, or two."""
    fresh = [each for each in some if ends_at(each) > now and each.invited_by and each.invited_by.is_active]
    if not fresh:
        return set()
    above = [each.pk for each in with_parents(tenant)]
    of_inviters = Membership.objects.filter(user__in={each.invited_by_id for each in fresh}, tenant__in=above)
    roles: dict[int, set[str]] = {}
    for user, role in of_inviters.values_list("user", "role"):
        roles.setdefault(user, set()).add(role)
    return {each.pk for each in fresh if roles.get(each.invited_by_id or 0, set()) & set(_may_name(each.role))}


def ends_at(invitation: Invitation) -> datetime:
    """When its link opens nothing any more."""
    return invitation.sent_at + LIFE


def _may_name(role: str) -> list[str]:
    """The roles of those who may invite somebody as `role`: no viewer."""
    return [each for each in at_least(role) if each != Membership.Role.VIEWER]


def _locked(invitation: Invitation, among: Collection[str]) -> Invitation:
    """As it is now. Raises Gone, ServiceError for another role than these."""
    try:
        stored = lock(invitation, to_delete=True)
    except Gone:
        raise Gone(_("The invitation of {email} was answered or withdrawn meanwhile.").format(
            email=invitation.email
        )) from None
    if stored.role not in among:
        raise ServiceError(_("Only an owner invites owners."))
    return stored


def _write(invitation: Invitation, inviter: User, path: str) -> None:
    """The letter. Raises ServiceError beyond a bound, so that nothing is made that nobody hears of."""
    now = timezone.now()
    about = f"invitation to {invitation.tenant_id}"
    account = User.objects.filter(kind=User.Kind.PANEL, email=invitation.email).first()
    if letters.count(about, now - letters.DAY) >= MOST_A_DAY or not letters.send(
        invitation.email, language_of(account), partial(_letter, invitation, inviter, path),
        purpose=Purpose.INVITATION, about=about, most_about=MOST_TO_ONE, now=now, within=LIFE,
    ):
        raise ServiceError(_("No more invitations go out today, to this address or from here. Try again tomorrow."))


def _letter(invitation: Invitation, inviter: User, path: str) -> Letter:
    who, tenant = letters.cleaned(inviter, 254), letters.cleaned(invitation.tenant)
    word, may = ROLES[invitation.role]
    return Letter(_("{who} invites you to {tenant}").format(who=who, tenant=tenant), (
        Words(_("{who} invites you to look after the mail of {tenant} on {hostname}, as {role}.").format(
            who=who, tenant=tenant, hostname=settings.ENVIRONMENT.hostname, role=word
        )),
        Facts((
            (_("Organisation"), tenant), (_("Your role"), str(word)), (_("What it may do"), str(may)),
            (_("Your sign-in"), letters.cleaned(invitation.email, 254)),
            (_("Valid until"), f"{ends_at(invitation):%Y-%m-%d %H:%M} UTC"),
        )),
        Link(_("See the invitation"), letters.url(path)),
        Aside(_("Nothing begins unless you accept. If you don't know {who}, you need not do anything.").format(
            who=who
        )),
    ))


# Answering


def of(token: str) -> Invitation | None:
    """What the token opens now, with its tenant and who sent it."""
    found = _open(token).select_related("tenant__parent__parent", "invited_by").first()
    if found is None or Status.CLOSED in [each.status for each in with_parents(found.tenant)]:
        return None
    return found if holding([found], found.tenant, timezone.now()) else None


def accept(token: str, account: User, *, ip: str | None) -> Membership:
    """The account becomes a member; only the one that was invited. Uses the token up. Raises ServiceError."""
    with transaction.atomic():
        found = _taken(token)
        if account.kind != User.Kind.PANEL or account.email != found.email or account.has_provider_role:
            raise ServiceError(_("This invitation is for {email}.").format(email=found.email))
        return _join(found, account, ip)


def accept_as_new(token: str, password: str, *, ip: str | None) -> tuple[User, Membership]:
    """An account for the address that has none yet, and a member at once. Raises ServiceError ("password")."""
    found = of(token)
    if found is None:
        raise _over()
    hashed = hash_password(password, User(email=found.email))
    with transaction.atomic():
        found = _taken(token)
        account = create_account(email=found.email, password=hashed, actor=None, ip=ip, by=found.email)
        return account, _join(found, account, ip)


@transaction.atomic
def decline(token: str, *, ip: str | None) -> None:
    """Whoever has the link wants no part in it. Uses the token up. Raises ServiceError."""
    found = _taken(token)
    audit.record(None, "invitation.declined", found, tenant=found.tenant, ip=ip, by=found.email)


def _join(found: Invitation, account: User, ip: str | None) -> Membership:
    audit.record(
        account, "invitation.accepted", found, tenant=found.tenant, after={"invited by": found.invited_by}, ip=ip
    )
    known = Membership.objects.filter(user=account, tenant=found.tenant).first()  # the provider was faster
    return known or create_membership(user=account, tenant=found.tenant, role=found.role, actor=account, ip=ip)


def _taken(token: str) -> Invitation:
    """What the token opens, which it then opens no more: of two that come at once one has it."""
    found = of(token)
    if found is None or not _open(token).filter(pk=found.pk).delete()[0]:
        raise _over()
    return found


def _over() -> ServiceError:
    return ServiceError(_("This invitation was answered, was withdrawn, or is older than seven days."))


def _open(token: str) -> QuerySet[Invitation]:
    return Invitation.objects.filter(token=_digest(token), sent_at__gt=timezone.now() - LIFE)


def _digest(token: str) -> str:
    """Tells one token from another; without the secret key it opens nothing."""
    data = token.encode("utf-8", "surrogatepass")
    return hmac.new(settings.SECRET_KEY.encode(), b"invitation" + data, hashlib.sha256).hexdigest()[:40]
