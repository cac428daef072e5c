"""What tenants, domains and addresses may do: the strictest of all that they belong to holds (DESIGN §4)."""

from panel.domains.models import Domain
from panel.mailboxes import models as mailboxes
from panel.rules.addresses import Address
from panel.rules.status import Status, strictest
from panel.tenants.models import Tenant

MOST_PARENTS = 10  # of a tenant
# To be selected with an address: who decides over its status and its limits.
OWNERS = ("tenant__parent__parent", "tenant__plan", "domain__tenant__parent__parent")


def tenant_status(tenant: Tenant | None) -> Status:
    """The strictest of a tenant's and its parents'; ACTIVE for none (a shared domain)."""
    status = Status.ACTIVE
    for _ in range(MOST_PARENTS):
        if tenant is None:
            break
        status = strictest((status, Status(tenant.status)))
        tenant = tenant.parent
    return status


def domain_status(domain: Domain) -> Status:
    return strictest((Status(domain.status), tenant_status(domain.tenant)))


def address_status(address: mailboxes.Address) -> Status:
    """The strictest of mailbox, domain, the domain's tenant and the address's."""
    box = getattr(address, "mailbox", None)
    own = Status(box.status) if box else Status.ACTIVE
    return strictest((own, domain_status(address.domain), tenant_status(address.tenant)))


def what_is_suspended(row: mailboxes.Address) -> str:
    """Which of mailbox, domain and tenant is not active, the strictest first; empty when all are."""
    candidates: list[tuple[Status, str]] = [
        (Status(row.mailbox.status), str(Address(row.local_part, row.domain.name))),
        (Status(row.domain.status), row.domain.name),
        (
            strictest((tenant_status(row.tenant), tenant_status(row.domain.tenant))),
            f"the tenant {row.tenant.name}",
        ),
    ]
    status, name = max(candidates, key=lambda candidate: candidate[0])
    return "" if status is Status.ACTIVE else name
