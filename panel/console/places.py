"""Where somebody is who may be there: a panel account, alone or in a tenant, or a person in the own mailbox."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext_lazy

from panel.mailboxes.models import Mailbox
from panel.rules.status import Status, strictest
from panel.tenants.models import Membership, User, Visit
from panel.tenants.roles import ROLES
from panel.tenants.scoping import ScopedQuerySet
from panel.tenants.standing import with_parents

_YOURS = {
    "owner": gettext_lazy("You are an owner"), "admin": gettext_lazy("You are an admin"),
    "viewer": gettext_lazy("You are a viewer"),
}


class Role(IntEnum):
    """What a member may do; the larger, the more."""

    VIEWER = 1
    ADMIN = 2
    OWNER = 3

    @classmethod
    def of(cls, membership: Membership) -> "Role":
        return cls[membership.role.upper()]

    @property
    def stored(self) -> str:
        """As Membership has it."""
        return self.name.lower()

    @property
    def word(self) -> Any:
        return ROLES[self.stored][0]

    @property
    def yours(self) -> Any:
        return _YOURS[self.stored]

    @property
    def may(self) -> Any:
        """What it may do, as a sentence goes on after "An admin"."""
        return ROLES[self.stored][1]


class Place(Protocol):
    """What the frame around a page is made of."""

    @property
    def account(self) -> User: ...

    @property
    def ip(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class AccountPlace:
    """A panel account, in no tenant."""

    account: User
    ip: str | None


@dataclass(frozen=True, slots=True)
class TenantPlace:
    """A panel account in a tenant that it is a member of, or of one above it, or that it looks into as staff."""

    account: User
    ip: str | None
    tenant: Any  # a Tenant with its plan, those above it, what `used.day_of` reads, `has_customers`, `has_ties`
    role: Role
    visit: Visit | None = None  # of the provider's staff, who only look

    @property
    def status(self) -> Status:
        """Of the tenant and of what stands above it, the strictest."""
        return strictest(Status(each.status) for each in with_parents(self.tenant))

    def may(self, role: Role) -> bool:
        """Whether an act that takes this role is to be offered."""
        return self.role >= role and self.status.may_log_in

    @property
    def is_reseller(self) -> bool:
        """Whether it has customers, or may have."""
        return self.tenant.plan.customers != 0 or bool(self.tenant.has_customers)

    @property
    def may_change(self) -> bool:
        return self.may(Role.ADMIN)

    @property
    def is_owner(self) -> bool:
        return self.role is Role.OWNER

    def of(self, rows: ScopedQuerySet) -> "QuerySet[Any]":
        """Of these rows the tenant's."""
        return rows.filter(**{rows.model.to_tenant: self.tenant.pk})

    def find(self, rows: ScopedQuerySet, **named: Any) -> Any:
        """The tenant's row. Raises Http404, also for another tenant's."""
        return get_object_or_404(self.of(rows), **named)


@dataclass(frozen=True, slots=True)
class MailboxPlace:
    """A person in the own mailbox."""

    account: User  # the person, also where a panel account came here by its tie
    ip: str | None
    mailbox: Mailbox  # with its address, domain, tenant and plan
    tied: User | None = None  # that panel account
