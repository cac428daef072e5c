"""Whether what holds was decided from above: nobody undoes what somebody higher decided.

The lowest are a tenant's own people; above them are those of its reseller (and of the reseller's), and the
provider is above all. Who decided what is read from the audit log, which is never changed and never pruned.
"""

from enum import IntEnum
from typing import Any

from django.db import models
from django.db.models import Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.rules.status import Status
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, Membership, ProviderRole, Tenant, User

OF_MEMBERS, OF_PEOPLE = "second_factor_required", "people_second_factor_required"  # of whom one is asked: the field
OWN, RESELLERS, ABOVE_RESELLERS, PROVIDERS = range(4)  # how high somebody stands above a tenant
_NAMED: dict[str, Any] = {
    "tenant": gettext_lazy("The tenant {name}"), "domain": gettext_lazy("The domain {name}"),
    "mailbox": gettext_lazy("The mailbox {name}"),
}


def named(subject: Any) -> str:
    """A tenant, domain or mailbox, as a sentence begins with it."""
    return str(_NAMED[subject._meta.model_name]).format(name=subject)


def is_bound(actor: User | None) -> bool:
    """Whether the provider's decisions bind whoever acts: everybody but the provider and the command line."""
    return actor is not None and not actor.has_provider_role


def is_held(subject: Any, account: User) -> bool:
    """Whether somebody above the account stopped the mailbox, domain or tenant: it neither undoes that nor closes it.

    Two queries at most; none where it is active.
    """
    if subject.status == Status.ACTIVE:
        return False
    height, own = _heights(subject, account)
    return own < height


def refuse_held(stored: Any, actor: User | None) -> None:
    """Raise ServiceError where somebody above `actor` suspended or closed the row.

    Neither may it then be closed or removed: it would be restored, or made again, and be free.
    """
    if not is_bound(actor) or stored.status == Status.ACTIVE:
        return
    height, own = _heights(stored, actor)
    if height <= own:
        return
    told = (
        _("{what} is closed by your provider: ask there.") if height == PROVIDERS
        else _("{what} was closed by somebody above it: ask your provider.")
    ) if stored.status == Status.CLOSED else (
        _("{what} is suspended by your provider: ask there.") if height == PROVIDERS
        else _("{what} was suspended by somebody above it: ask your provider.")
    )
    raise ServiceError(told.format(what=named(stored)))


def is_above(subject: Any, account: User | None) -> bool:
    """Whether the account is above everybody who gave the subject its status: two queries at most."""
    height, own = _heights(subject, account)
    return own > height


def refuse_factor_of_above(tenant: Tenant, actor: User | None, of_whom: str = OF_MEMBERS) -> None:
    """Raise ServiceError where somebody above `actor` asked a second factor of the tenant's members, or people."""
    if not is_bound(actor):
        return
    height, own = _factor_heights(tenant, actor, of_whom)
    if height <= own:
        return
    raise ServiceError((
        _("Your provider asks for a second factor here: ask there.") if height == PROVIDERS
        else _("Somebody above {tenant} asks for a second factor here: ask your provider.")
    ).format(tenant=tenant))


def is_factor_of_above(tenant: Tenant, account: User, of_whom: str = OF_MEMBERS) -> bool:
    """Whether somebody above the account asks a second factor of the tenant's members, or people: two queries."""
    if not getattr(tenant, of_whom):
        return False
    height, own = _factor_heights(tenant, account, of_whom)
    return own < height


class Freezer(IntEnum):
    """Who froze a password, the highest last: nobody lower lets it go on."""

    PERSON = 0  # whose mailbox it is
    TENANT = 1
    PROVIDER = 2

    @classmethod
    def of(cls, actor: User | None) -> "Freezer":
        if not is_bound(actor):
            return cls.PROVIDER
        return cls.PERSON if actor is not None and actor.kind == User.Kind.PERSON else cls.TENANT


def froze(credential: models.Model) -> Freezer:
    """The highest who froze it since it was last unfrozen: two queries at most."""
    entries = _since(credential, "credential.frozen", "credential.unfrozen")
    if of_provider(entries).exists():
        return Freezer.PROVIDER
    return Freezer.TENANT if entries.filter(actor__kind=User.Kind.PANEL).exists() else Freezer.PERSON


def of_provider(entries: "QuerySet[AuditEntry]") -> "QuerySet[AuditEntry]":
    """Those that no tenant's account wrote. Without an actor it was the command line, or nobody knows any more."""
    return entries.filter(Q(actor=None) | ~Q(actor__provider_role=ProviderRole.NONE))


def _heights(subject: Any, account: User | None) -> tuple[int, int]:
    """How high the highest stands of those who suspended or closed the subject, and how high the account does.

    All count who did it since it was last undone: what the provider suspended a tenant may suspend further.
    """
    model = subject._meta.model_name
    done, undone = ("closed", "restored") if subject.status == Status.CLOSED else ("suspended", "resumed")
    return _heights_in(_since(subject, f"{model}.{done}", f"{model}.{undone}"), subject, account)


def _factor_heights(tenant: Tenant, account: User | None, of_whom: str) -> tuple[int, int]:
    """How high the highest stands who asked for it since it was last left to each, and how high the account does."""
    entries = AuditEntry.objects.filter(
        subject_type=tenant._meta.model_name, subject_id=tenant.pk, action__in=["tenant.created", "tenant.changed"]
    )
    last = entries.filter(**{f"after__{of_whom}": False}).order_by("-pk").values("pk")[:1]
    return _heights_in(
        entries.filter(**{f"after__{of_whom}": True}, pk__gt=Coalesce(Subquery(last), 0)), tenant, account
    )


def _heights_in(entries: "QuerySet[AuditEntry]", subject: Any, account: User | None) -> tuple[int, int]:
    """How high the highest who wrote one of the entries stands above the subject, and how high the account does."""
    who = dict(entries.order_by().values_list("actor", "actor__provider_role").distinct())
    bound = {account.pk} if account is not None and is_bound(account) else set()
    is_providers = not who or any(pk is None or role for pk, role in who.items())
    tenant = None if is_providers else _tenant_of(subject)
    if tenant is None:
        return PROVIDERS, OWN if bound else PROVIDERS
    members = _members(tenant, {*who, *bound})
    # Who is in none of the tenants any more may have been in any: then it isn't the tenant's own people's to undo.
    unknown = OWN if tenant.parent_id is None else RESELLERS
    height = max(members.get(pk, unknown) for pk in who)
    return height, max((members.get(pk, OWN) for pk in bound), default=PROVIDERS)


def _members(tenant: Tenant, accounts: set[int]) -> dict[int, int]:
    """How high each of the accounts stands that may change something in the tenant or in one above it."""
    if tenant.parent_id is None:
        return dict.fromkeys(accounts, OWN)
    chain = Q(tenant__in=[tenant.pk, tenant.parent_id]) | Q(
        tenant__in=Tenant.objects.filter(pk=tenant.parent_id).values("parent")
    )
    rows = Membership.objects.filter(chain, user__in=accounts).exclude(role=Membership.Role.VIEWER)
    heights = {tenant.pk: OWN, tenant.parent_id: RESELLERS}
    found: dict[int, int] = {}
    for account, at in rows.order_by().values_list("user", "tenant"):
        found[account] = max(found.get(account, OWN), heights.get(at, ABOVE_RESELLERS))
    return found


def _tenant_of(row: Any) -> Tenant | None:
    """None for a shared domain, which is the provider's."""
    if isinstance(row, Tenant):
        return row
    row = getattr(row, "address", row)  # what stands at one is read with it and with its tenant
    found = row
    for name in row.to_tenant.split("__"):
        found = getattr(found, name)
    return found


def _since(subject: models.Model, done: str, undone: str) -> "QuerySet[Any]":
    """The entries of `done` since the last of `undone`."""
    entries = AuditEntry.objects.filter(subject_type=subject._meta.model_name, subject_id=subject.pk)
    last = entries.filter(action=undone).order_by("-pk").values("pk")[:1]
    return entries.filter(action=done, pk__gt=Coalesce(Subquery(last), 0))
