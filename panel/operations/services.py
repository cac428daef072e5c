"""Changes that cross apps: suspend, resume, close and restore; panel accounts beside hosted addresses.

Each is conditional, atomic, audited, and told to the mailserver's caches: it takes hold on
open connections within a second, and the queue asks again at its next claim.
"""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from panel.domains.models import Domain, DomainAlias, Proof
from panel.mailboxes import links
from panel.mailboxes.models import Mailbox
from panel.rules import addresses
from panel.rules.addresses import BadAddress
from panel.rules.status import Status
from panel.sending.services import release_suspended
from panel.tenants import audit, decided
from panel.tenants import services as tenants
from panel.tenants.changes import (
    KEEP,
    AlreadySo,
    HashedPassword,
    ServiceError,
    Taken,
    changed,
    choice,
    hash_password,
    lock,
    one_line,
    owners_alone,
    taken_means,
    tenant_changed,
    write,
)
from panel.tenants.models import AuditEntry, PasswordReset, ProviderRole, Tenant, User
from panel.tenants.services import keep_an_owner
from panel.tenants.standing import status_words

Suspendable = Mailbox | Domain | Tenant


class AlreadySuspended(AlreadySo):
    """It is suspended already: the audit log holds one entry an event."""


class NotSuspended(AlreadySo):
    """There is nothing to resume."""


# Suspend and resume, close and restore


@transaction.atomic
def suspend(
    subject: Suspendable, *, reason: str, sending_only: bool = False, actor: User | None, ip: str | None = None
) -> None:
    """Stop the subject's logins and sending, or with `sending_only` its sending; its mail still comes in.

    What a tenant's account suspended somebody above it suspends over again: then the tenant can't resume it. What
    somebody above suspended may be suspended further, and stays theirs. Raises AlreadySuspended.
    """
    reason = one_line(reason, "reason", most=audit.MOST_REASON, required=True)
    status = Status.NO_SENDING if sending_only else Status.SUSPENDED
    stored = lock(subject)
    over_again = stored.status == status and decided.is_above(stored, actor)
    before = _move(subject, status, reason, range(status + over_again))
    if before is None:
        now = Status(lock(subject).status)
        raise AlreadySuspended(_("{what} is {word} already.").format(
            what=decided.named(subject), word=status_words(now)
        ))
    _tell(subject, "suspended", before, status, reason, actor, ip)


@transaction.atomic
def resume(subject: Suspendable, *, reason: str = "", actor: User | None, ip: str | None = None) -> None:
    """Make a suspended subject active again, and what waits of it due.

    Only this one: what it belongs to, or what belongs to it, stays as it is. Raises NotSuspended; ServiceError
    where somebody above the actor suspended it.
    """
    reason = one_line(reason, "reason", most=audit.MOST_REASON)
    stored = lock(subject)  # whoever decides something meanwhile has to be seen
    if stored.status != Status.CLOSED:
        decided.refuse_held(stored, actor)
    before = _move(subject, Status.ACTIVE, "", (Status.NO_SENDING, Status.SUSPENDED))
    if before is None:
        now = Status(lock(subject).status)
        raise NotSuspended(_("{what} is {word}, not suspended.").format(
            what=decided.named(subject), word=status_words(now)
        ))
    _tell(subject, "resumed", before, Status.ACTIVE, reason, actor, ip)
    release_suspended(_tenants_of(subject))


@transaction.atomic
def close(subject: Suspendable, *, reason: str = "", actor: User | None, ip: str | None = None) -> None:
    """Close the subject: no logins, no sending, its mail is refused.

    Everything is kept, and its queue waits, until the grace period ends (POSTHOUSE_GRACE_DAYS);
    then operations/closing removes it. Raises AlreadySo; ServiceError where somebody above the actor suspended it.
    """
    reason = one_line(reason, "reason", most=audit.MOST_REASON)
    stored = lock(subject)
    if stored.status != Status.CLOSED:
        decided.refuse_held(stored, actor)
    ends_at = timezone.now() + timedelta(days=settings.ENVIRONMENT.grace_days)
    before = _move(subject, Status.CLOSED, reason, range(Status.CLOSED), grace_ends_at=ends_at)
    if before is None:
        raise AlreadySo(_("{what} is closed already.").format(what=decided.named(subject)))
    _tell(subject, "closed", before, Status.CLOSED, reason, actor, ip)


@transaction.atomic
def restore(subject: Suspendable, *, reason: str = "", actor: User | None, ip: str | None = None) -> None:
    """Undo the closing within its grace period: the subject is what it was before, suspended if it was.

    Only this one: what it belongs to, or what belongs to it, stays as it is. Raises AlreadySo
    when it isn't closed; ServiceError where somebody above the actor closed it.
    """
    reason = one_line(reason, "reason", most=audit.MOST_REASON)
    stored = lock(subject)
    if stored.status == Status.CLOSED:
        decided.refuse_held(stored, actor)
    model = subject._meta.model_name
    entries = AuditEntry.objects.filter(subject_type=model, subject_id=subject.pk, action=f"{model}.closed")
    closing = entries.order_by("-pk").first()
    # Without its entry nobody knows; suspended is then the safe one.
    status = Status[closing.before["status"]] if closing else Status.SUSPENDED
    old_reason = closing.before.get("status_reason", "") if closing else ""
    ended_at = _ended_at(subject)
    if ended_at:
        raise ServiceError(_(
            "{what} can't be restored any more: its grace period ended on {ended_at:%Y-%m-%d %H:%M} UTC."
        ).format(what=decided.named(subject), ended_at=ended_at))
    before = _move(subject, status, old_reason, (Status.CLOSED,))
    if before is None:
        raise AlreadySo(_("{what} is not closed.").format(what=decided.named(subject)))
    _tell(subject, "restored", before, status, reason, actor, ip)
    release_suspended(_tenants_of(subject))


def _ended_at(subject: Suspendable) -> datetime | None:
    """When the grace period of a closed subject ended; None while it can be restored, or isn't closed."""
    stored = lock(subject)
    over = stored.status == Status.CLOSED and stored.grace_ends_at and stored.grace_ends_at <= timezone.now()
    return stored.grace_ends_at if over else None


def _move(
    subject: Suspendable, status: Status, reason: str, from_: Any, grace_ends_at: datetime | None = None
) -> dict[str, str] | None:
    """Set the status if it is one of `from_`; gives what was before, or None when it was not."""
    stored = lock(subject)
    before = {"status": Status(stored.status).name, "status_reason": stored.status_reason}
    rows = type(subject)._default_manager.filter(pk=subject.pk, status__in=list(from_))
    if not rows.update(status=status, status_reason=reason, grace_ends_at=grace_ends_at):
        return None
    subject.status, subject.status_reason, subject.grace_ends_at = status, reason, grace_ends_at
    return before


def _tell(
    subject: Suspendable, act: str, before: dict[str, str], status: Status, reason: str, actor: User | None,
    ip: str | None,
) -> None:
    action = f"{subject._meta.model_name}.{act}"
    after: dict[str, Any] = {"status": status.name}
    if subject.grace_ends_at:
        after["can be restored until"] = subject.grace_ends_at
    tenant: Tenant | None
    match subject:
        case Mailbox():
            tenant = subject.address.tenant
            changed(subject.address.domain.name)
        case Domain():
            tenant = subject.tenant
            changed(subject.name, *subject.aliases.values_list("name", flat=True))
        case Tenant():
            tenant = subject
            tenant_changed(subject)
    audit.record(actor, action, subject, tenant=tenant, before=before, after=after, reason=reason, ip=ip)


def _tenants_of(subject: Suspendable) -> Any:
    """Whose recipients may have waited for the subject."""
    match subject:
        case Mailbox():
            return [subject.address.tenant_id]
        case Tenant():
            # A tenant's suspension holds for those below it too.
            family = Q(pk=subject.pk) | Q(parent=subject) | Q(parent__parent=subject)
            return Tenant.objects.filter(family).values("pk")
    return [subject.tenant_id] if subject.tenant_id else subject.addresses.values("tenant")


# Panel accounts


def create_account(
    *,
    email: str,
    password: str | HashedPassword,
    name: str = "",
    provider_role: str = ProviderRole.NONE,
    second_factor_required: bool = False,
    actor: User | None,
    ip: str | None = None,
    by: str = audit.COMMAND_LINE,
) -> User:
    """A new panel account. Refused for an address hosted here: that signs in with its mailbox.

    `by` is who did it where there is no actor yet.
    """
    values: dict[str, Any] = {
        "email": account_email(email),
        "name": one_line(name, "name", most=100),
        "provider_role": choice(provider_role, ProviderRole, "provider_role"),
        "second_factor_required": second_factor_required,
    }
    owners_alone(actor, role=values["provider_role"])
    hashed = hash_password(password, User(**values))
    with transaction.atomic():
        refuse_hosted(values["email"])
        with taken_means(_("There is an account {email} already.").format(email=values["email"]), "email"):
            account = User.objects.create(kind=User.Kind.PANEL, password=hashed.stored, **values)
        audit.record(actor, "account.created", account, tenant=None, after=values, ip=ip, by=by)
    return account


@transaction.atomic
def change_account(
    account: User,
    *,
    email: str = KEEP,
    name: str = KEEP,
    provider_role: str = KEEP,
    second_factor_required: bool = KEEP,
    actor: User | None,
    ip: str | None = None,
) -> User:
    """Give a panel account another address, name or provider role, or make it have a second factor."""
    if account.kind != User.Kind.PANEL:
        raise ServiceError(_("The person of a mailbox can't be changed here: change the mailbox."))
    owners_alone(actor, account)
    values: dict[str, Any] = {}
    if email is not KEEP:
        values["email"] = account_email(email)
        if not User.objects.filter(pk=account.pk, email=values["email"]).exists():
            refuse_hosted(values["email"])
    if name is not KEEP:
        values["name"] = one_line(name, "name", most=100)
    if provider_role is not KEEP:
        values["provider_role"] = choice(provider_role, ProviderRole, "provider_role")
        if values["provider_role"] != account.provider_role:
            owners_alone(actor, role=values["provider_role"])
        if values["provider_role"] != ProviderRole.OWNER:
            keep_an_owner(without=account)
    if second_factor_required is not KEEP:
        values["second_factor_required"] = second_factor_required
    with taken_means(_("There is an account {email} already.").format(email=values.get("email")), "email"):
        before, after = write(account, **values)
    if "email" in after:
        PasswordReset.objects.filter(user=account).update(token="")  # links went to the old address
    if after:
        audit.record(actor, "account.changed", account, tenant=None, before=before, after=after, ip=ip)
    return account


@transaction.atomic
def delete_account(account: User, *, actor: User | None, ip: str | None = None) -> None:
    """Delete a panel account, and end its ties to mailboxes, whose logs tell of it."""
    links.end_all(account, actor=actor, ip=ip)
    tenants.delete_account(account, actor=actor, ip=ip)


def account_email(text: str) -> str:
    """The address as an account has it. Raises ServiceError (field "email")."""
    try:
        email = str(addresses.parse_address(text, smtputf8=False).canonical)
    except BadAddress as error:
        raise ServiceError(error.said(_), "email") from None
    return one_line(email, "email", most=254, required=True)


def refuse_hosted(email: str) -> None:
    """Raises Taken for an address in a domain hosted here."""
    if is_hosted(email):
        domain = email.rpartition("@")[2]
        raise Taken(_("{domain} is hosted here: addresses hosted here sign in with their mailbox.").format(
            domain=domain
        ), "email")


def is_hosted(email: str) -> bool:
    """Whether the address lies in a domain hosted here (a pending one isn't: anybody may type a name)."""
    domain = email.rpartition("@")[2]
    proved = (Proof.PROVED, Proof.LAPSED)
    alias = DomainAlias.objects.filter(name=domain, proof__in=proved)
    return Domain.objects.filter(name=domain, proof__in=proved).exists() or alias.exists()
