"""A reseller's customers: the tenants below it, which it makes on plans that the provider gave it for them."""

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from panel.operations.invitations import LinkTo, invite
from panel.tenants.changes import ServiceError, alone, count_against_plan
from panel.tenants.models import Membership, Plan, Tenant, User
from panel.tenants.services import PLAN_NUMBERS, TREE, create_tenant


def plans_for(reseller: Tenant) -> "QuerySet[Plan]":
    """Those that it may give: for customers, and in no number above its own plan."""
    rows = Plan.objects.filter(for_customers=True)
    for name in PLAN_NUMBERS:
        own = getattr(reseller.plan, name)
        if own is not None:
            rows = rows.filter(**{f"{name}__lte": own})  # which leaves out what is unlimited
    return rows.order_by("name")


def customers_of(reseller: Tenant) -> "QuerySet[Tenant]":
    """Its customers and theirs."""
    return Tenant.objects.filter(Q(parent=reseller) | Q(parent__parent=reseller))


def create_customer(
    reseller: Tenant, *, name: str, plan: Plan, owner: str, link: LinkTo, actor: User, ip: str | None = None
) -> Tenant:
    """A tenant below the reseller, to which its first owner is invited.

    Holds the reseller's plan to its number of customers, also when several are made at once. Raises ServiceError.
    """
    with transaction.atomic():
        alone(TREE)  # before any row, as whoever moves the reseller: else each waits for the other
        if not plans_for(reseller).filter(pk=plan.pk).exists():
            raise ServiceError(_("Choose one of the plans that are offered."), "plan")
        count_against_plan(reseller, "customers", lambda above: Tenant.objects.filter(parent=above).count())
        made = create_tenant(name=name, plan=plan, parent=reseller, actor=actor, ip=ip)
        invite(tenant=made, email=owner, role=Membership.Role.OWNER, link=link, actor=actor, ip=ip)
    return made
