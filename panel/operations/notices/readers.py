"""Whom a letter about a tenant goes to."""

from collections.abc import Sequence

from panel.rules.status import Status, strictest
from panel.tenants.models import Membership, ProviderRole, Tenant, User
from panel.tenants.standing import with_parents

MOST = 20
OWNERS = (Membership.Role.OWNER,)
OWNERS_AND_ADMINS = (Membership.Role.OWNER, Membership.Role.ADMIN)


def readers(tenant: Tenant, roles: Sequence[str]) -> list[User]:
    """The tenant's own people of these roles; where it has none, those of the tenant above it.

    Nobody of a tenant that is suspended or closed, and no account of the provider's.
    """
    above = list(with_parents(tenant))
    if not strictest(Status(each.status) for each in above).may_log_in:
        return []
    for each in above:
        found = User.objects.filter(
            memberships__tenant=each, memberships__role__in=roles, is_active=True, provider_role=ProviderRole.NONE
        )
        if people := list(found.order_by("pk")[:MOST]):
            return people
    return []
