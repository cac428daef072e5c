"""A reseller's customers: the tenants below it, which it makes on plans that the provider gave it for them."""

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from panel.operations.invitations import LinkTo, invite
from panel.tenants import decided
from panel.tenants.changes import KEEP, Gone, ServiceError, alone, count_against_plan, lock
from panel.tenants.models import Membership, Plan, Tenant, User
from panel.tenants.services import PLAN_NUMBERS, TREE, change_tenant, create_tenant


def plans_for(reseller: Tenant) -> "QuerySet[Plan]":
    """Those that it may give: for customers, and in no number above its own plan."""
    rows = Plan.objects.filter(for_customers=True)
    for name in PLAN_NUMBERS:
        own = getattr(reseller.plan, name)
        if own is not None:
            rows = rows.filter(**{f"{name}__lte": own})  # which leaves out what is unlimited
    return rows.order_by("name")


def plans_between(reseller: Tenant, customer: Tenant) -> "QuerySet[Plan]":
    """Those that the reseller may give to the customer, which may be a customer's own: they are within both plans.

    None where its plan isn't one of them: the provider gave it that, and alone takes it away.
    """
    rows = plans_for(reseller)
    if customer.parent and customer.parent != reseller:
        rows = rows & plans_for(customer.parent)
    return rows if rows.filter(pk=customer.plan_id).exists() else rows.none()


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


def change_customer(
    reseller: Tenant, customer: Tenant, *, name: str, plan: Plan, shown: int, actor: User, ip: str | None = None
) -> Tenant:
    """Give a customer another name or plan. What it has beyond a smaller plan it keeps.

    `shown` is the plan that it had when this was chosen; one who was given another since then keeps that.
    Raises ServiceError.
    """
    with transaction.atomic():
        alone(TREE)  # as in create_customer
        above, stored = lock(reseller), lock(customer)
        if not customers_of(above).filter(pk=stored.pk).exists():
            raise Gone(_("{name} is no longer here.").format(name=customer))
        decided.refuse_held(stored, actor)
        chosen = KEEP
        if plan.pk != shown:
            if stored.plan_id != shown:
                raise ServiceError(_("It was given another plan in the meantime: choose again."), "plan")
            if not plans_between(above, stored).filter(pk=plan.pk).exists():
                raise ServiceError(_("Choose one of the plans that are offered."), "plan")
            chosen = plan
        return change_tenant(customer, name=name, plan=chosen, actor=actor, ip=ip)
