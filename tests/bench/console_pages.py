"""The tenants' pages of the console, found by its addresses: of the largest tenant, as its owner sees them."""

from typing import Any

from django.db import transaction
from django.urls import URLPattern, reverse

from panel.console.urls import OF_A_TENANT
from panel.domains.models import Domain
from panel.mailboxes.models import Alias, Credential, Mailbox
from panel.sending.models import Recipient
from panel.tenants.models import Membership, Tenant, User
from tests.bench.pages import Page

OWNER = "bench@tenant.example"


def of_largest() -> tuple[User, list[Page]]:
    """An owner of the oldest tenant, which is the largest, and its pages; none that asks the DNS."""
    tenant = Tenant.objects.order_by("pk")[0]
    with transaction.atomic():
        owner, _ = User.objects.get_or_create(email=OWNER, defaults={"password": "!"})
        Membership.objects.get_or_create(user=owner, tenant=tenant, defaults={"role": "owner"})
    of = Mailbox.objects.filter(tenant=tenant)
    recipient = Recipient.objects.filter(tenant=tenant).order_by("-pk").first()
    known: dict[str, Any] = {
        "domain": Domain.objects.filter(tenant=tenant).order_by("pk").first(),
        "mailbox": of.order_by("pk").first(),
        "alias": Alias.objects.filter(tenant=tenant).order_by("pk").first(),
        "credential": Credential.objects.filter(mailbox__tenant=tenant, kind="app").order_by("pk").first(),
        "member": Membership.objects.filter(tenant=tenant).order_by("pk").first(),
    }
    found = []
    for route in OF_A_TENANT:
        if not isinstance(route, URLPattern) or route.name == "leave":  # which staff press, while they look in
            continue
        names = set(route.pattern.converters) - {"tenant"}
        if route.name == "message" and recipient is not None:
            where = reverse("console:message", args=[tenant.pk, recipient.message.queue_id])
        elif all(known.get(name) is not None for name in names):
            where = reverse(f"console:{route.name}", kwargs={
                "tenant": tenant.pk, **{name: known[name].pk for name in names},
            })
        else:
            continue
        found.append(Page(f"console {route.name}", (where,)))
    for name, asked in (("mailboxes", "q=a"), ("messages", "q=status:waiting"), ("aliases", "q=a")):
        found.append(Page(f"console {name} search", (f"{reverse(f'console:{name}', args=[tenant.pk])}?{asked}",)))
    return owner, found
