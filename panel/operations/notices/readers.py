"""Whom a letter about a tenant goes to, and whether one to a mailbox's own address would come there."""

from collections.abc import Sequence
from typing import Any

from panel.domains.models import Proof
from panel.mailboxes.models import Mailbox
from panel.mailboxes.standing import READ
from panel.rules.status import Status, strictest
from panel.tenants.models import Membership, ProviderRole, Tenant, User
from panel.tenants.standing import with_parents

MOST = 20
# What `reaches` reads of a mailbox, for select_related.
OF_MAILBOX = READ
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


def reaches(mailbox: Mailbox) -> bool:
    """Whether mail to its address comes into it now.

    In a domain that nobody has proved a mailbox may bear anybody's address, and mail to it goes to whose that is. Where
    it, its domain or a tenant of theirs is closed it is refused.
    """
    address, domain = mailbox.address, mailbox.address.domain
    all_of_them: tuple[Any, ...] = (mailbox, domain, *with_parents(address.tenant), *with_parents(domain.tenant))
    return domain.proof != Proof.PENDING and strictest(Status(each.status) for each in all_of_them) != Status.CLOSED
