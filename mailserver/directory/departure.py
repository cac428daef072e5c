"""Whether what waits in the queue may leave: while its tenant and sender may send; and when it never will."""

from datetime import datetime

from django.db.models import Q

from mailserver.directory.found import ANY_CHANGE, Found
from mailserver.directory.hosting import find_hosted
from mailserver.directory.statuses import OWNERS, address_status, domain_status, tenant_status
from panel.domains.models import Domain
from panel.mailboxes import models as mailboxes
from panel.rules import policy
from panel.rules.addresses import Address
from panel.rules.status import Status
from panel.tenants.models import Tenant


def may_go(tenant_id: int, sender: Address | None, *, separator: str) -> Found[bool]:
    """Whether mail that this tenant caused may leave now: it, and the sender if its own, may send.

    False while one of them is suspended: the queue waits.
    """
    return Found(_may_go(tenant_id, sender, separator), frozenset({ANY_CHANGE}))


def _may_go(tenant_id: int, sender: Address | None, separator: str) -> bool:
    tenant = Tenant.objects.select_related("parent__parent").filter(pk=tenant_id).first()
    if tenant is None or not tenant_status(tenant).may_send:
        return False
    if sender is None:
        return True
    sender = sender.canonical
    hosted = find_hosted([sender.domain]).get(sender.domain)
    if hosted is None:
        return True
    plain = sender.without_subaddress(separator).local_part
    query = mailboxes.Address.objects.filter(domain=hosted.row, local_part__in={sender.local_part, plain})
    rows = {row.local_part: row for row in query.select_related("mailbox", *OWNERS).order_by()}
    row = rows.get(sender.local_part) or rows.get(plain)
    if row is not None:
        # Another tenant's sender came in through an alias: its suspension is not this tenant's.
        return row.tenant_id != tenant_id or policy.may_go(address_status(row), hosted.proof)
    return hosted.row.tenant_id != tenant_id or policy.may_go(domain_status(hosted.row), hosted.proof)


def is_over(tenant_id: int, sender: Address | None, credential_id: int | None, *, now: datetime) -> bool:
    """Whether the grace period of the tenant, or of the mailbox or domain that sent it, has ended."""

    def over(path: str = "") -> Q:
        return Q(**{f"{path}status": Status.CLOSED, f"{path}grace_ends_at__lte": now})

    if Tenant.objects.filter(over(), pk=tenant_id).exists():
        return True
    of_box = over("mailbox__") | over("mailbox__address__domain__")
    if credential_id is not None and mailboxes.Credential.objects.filter(of_box, pk=credential_id).exists():
        return True
    if sender is None:
        return False
    sender = sender.canonical
    here = mailboxes.Address.objects.filter(domain__name=sender.domain, tenant=tenant_id)
    if here.filter(over("mailbox__") | over("domain__"), local_part=sender.local_part).exists():
        return True
    return Domain.objects.filter(over(), name=sender.domain, tenant=tenant_id).exists()
