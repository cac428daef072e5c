"""What a tenant has, beside what its plan allows: counted as the services do that enforce it."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce, JSONObject
from django.utils.translation import gettext as _

from panel.domains.models import Domain
from panel.mailboxes.models import Alias, Credential, Mailbox
from panel.tenants.gauge import Gauge
from panel.tenants.models import Tenant
from panel.tenants.shown import about, size


@dataclass(frozen=True, slots=True)
class Holding(Gauge):
    """One of the plan's numbers."""

    name: str  # the plan's field: "domains"
    title: str = ""


@dataclass(frozen=True, slots=True)
class Storage(Holding):
    """Bytes: the quotas that were given to mailboxes, of which some are filled."""

    filled: int = 0

    @property
    def words(self) -> str:
        given = about(self.used or 0)
        if self.allowed is None:
            return _("{given} given, unlimited").format(given=given)
        return _("{given} given of {allowed}").format(given=given, allowed=size(self.allowed))


def with_counts(tenants: "QuerySet[Tenant]") -> "QuerySet[Tenant]":
    """The tenants with `domains_count` and `mailboxes_count`, counted for the rows that are shown alone."""
    return tenants.annotate(
        domains_count=_number(Domain.objects.filter(tenant=OuterRef("pk")), "tenant", Count("pk")),
        mailboxes_count=_number(Mailbox.objects.filter(tenant=OuterRef("pk")), "tenant", Count("pk")),
    )


def holdings(tenant: Tenant) -> tuple[list[Holding], Storage]:
    """What this tenant has of each of its plan's numbers, and of storage: one query.

    What is asked of its mailboxes is asked of each of them once. The tenant in the parts is the outer row's: with its
    number PostgreSQL reads the whole table of what all mailboxes hold for a large one.
    """
    its = OuterRef("pk")
    told = JSONObject(
        mailboxes_count=Count("pk"), granted=Coalesce(Sum("quota_bytes"), 0),
        filled=Coalesce(Sum("usage__used_bytes"), 0),
    )
    boxes = Mailbox.objects.filter(tenant=its).order_by().values("tenant").annotate(told=told)
    passwords = Credential.objects.filter(mailbox__tenant=its, kind=Credential.Kind.APP)
    row = Tenant.objects.filter(pk=tenant.pk).values(
        domains_count=_number(Domain.objects.filter(tenant=its), "tenant", Count("pk")),
        aliases_count=_number(Alias.objects.filter(tenant=its), "tenant", Count("pk")),
        credentials_count=_number(passwords, "mailbox__tenant", Count("mailbox")),
        boxes=Subquery(boxes.values("told")),
    ).get()
    counted = {"mailboxes_count": 0, "granted": 0, "filled": 0, **row, **(row["boxes"] or {})}
    plan = tenant.plan
    found = [
        Holding(counted[f"{name}_count"], getattr(plan, name), name, title)
        for name, title in (
            ("domains", _("Domains")), ("mailboxes", _("Mailboxes")), ("aliases", _("Aliases")),
            ("credentials", _("App passwords")),
        )
    ]
    return found, Storage(counted["granted"], plan.storage_bytes, "storage_bytes", _("Storage"), counted["filled"])


def _number(rows: "QuerySet[Any]", tenant: str, number: Any) -> Coalesce:
    """The number over the rows of the outer tenant, 0 when it has none."""
    return Coalesce(Subquery(rows.order_by().values(tenant).annotate(number=number).values("number")), 0)
