"""Changes to plans, tenants, memberships and panel accounts.

Each is atomic, audited, and told to the mailserver's caches where the wire depends on it.
A refusal is a ServiceError. Creating an account and giving it an address asks what is hosted
here, so these stand in operations/services; so do a tenant's suspension and closing.
"""

from collections.abc import Collection
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from panel.tenants import audit, decided
from panel.tenants.changes import (
    KEEP,
    AlreadySo,
    HashedPassword,
    ServiceError,
    alone,
    choice,
    delete,
    everything_changed,
    hash_password,
    lock,
    many_lines,
    number,
    one_line,
    owners_alone,
    taken_means,
    tenant_changed,
    write,
)
from panel.tenants.models import (
    Membership,
    PanelSession,
    PasswordReset,
    Plan,
    ProviderRole,
    SecondFactor,
    Tenant,
    User,
)
from panel.tenants.standing import with_parents

STANDARD_PLAN = "Standard"
TREE = "tenant tree"  # what whoever places a tenant under another is alone in
MOST_STORAGE_BYTES = 2**63 - 1
PLAN_NUMBERS = (
    "domains", "mailboxes", "aliases", "credentials", "storage_bytes", "mailbox_hour", "mailbox_day", "tenant_hour",
    "tenant_day", "customers",
)


# Plans


@transaction.atomic
def create_plan(
    *, name: str, for_customers: bool = False, actor: User | None, ip: str | None = None, **numbers: int | None
) -> Plan:
    """A new plan. `numbers` are of PLAN_NUMBERS; one that is None or left out is unlimited, customers left out 0."""
    values = _plan_values(name=name, for_customers=for_customers, **numbers)
    with taken_means(_("There is a plan {name} already.").format(name=values["name"]), "name"):
        plan = Plan.objects.create(**values)
    audit.record(actor, "plan.created", plan, tenant=None, after=values, ip=ip)
    return plan


@transaction.atomic
def change_plan(plan: Plan, *, actor: User | None, ip: str | None = None, **values: Any) -> Plan:
    """Give the plan another name or other numbers; they hold for its tenants at once."""
    with taken_means(_("There is a plan {name} already.").format(name=values.get("name")), "name"):
        before, after = write(plan, **_plan_values(**values))
    if after:
        audit.record(actor, "plan.changed", plan, tenant=None, before=before, after=after, ip=ip)
        everything_changed()
    return plan


@transaction.atomic
def delete_plan(plan: Plan, *, actor: User | None, ip: str | None = None) -> None:
    """Delete a plan that no tenant is on."""
    audit.record(actor, "plan.deleted", plan, tenant=None, ip=ip)
    delete(plan, _("Tenants are on the plan {plan}: move them to another one first.").format(plan=plan))
    everything_changed()


def _plan_values(**values: Any) -> dict[str, Any]:
    unknown = set(values) - {"name", "for_customers", *PLAN_NUMBERS}
    if unknown:
        raise TypeError(f"a plan has no {', '.join(sorted(unknown))}")
    for name in values:
        if name == "name":
            values[name] = one_line(values[name], "name", most=100, required=True)
        elif name == "for_customers":
            values[name] = bool(values[name])
        else:
            most = MOST_STORAGE_BYTES if name == "storage_bytes" else 2**31 - 1
            values[name] = number(values[name], name, most=most)
    return values


# Tenants


@transaction.atomic
def create_tenant(
    *,
    name: str,
    plan: Plan | None = None,
    parent: Tenant | None = None,
    notes: str = "",
    second_factor_required: bool = False,
    people_second_factor_required: bool = False,
    actor: User | None,
    ip: str | None = None,
) -> Tenant:
    """A new tenant, on the plan Standard when none is given."""
    name = one_line(name, "name", most=100, required=True)
    notes = many_lines(notes, "notes", most=10_000)
    plan = plan or Plan.objects.filter(name=STANDARD_PLAN).first()
    if plan is None:
        raise ServiceError(
            _("There is no plan {name}: name the tenant's plan.").format(name=STANDARD_PLAN), "plan"
        )
    if parent:
        _place_under(None, parent)
    with taken_means(_("There is a tenant {name} already.").format(name=name), "name"):
        tenant = Tenant.objects.create(
            name=name, plan=plan, parent=parent, notes=notes, second_factor_required=second_factor_required,
            people_second_factor_required=people_second_factor_required,
        )
    after = {"name": name, "plan": plan, "parent": parent}
    if second_factor_required:
        after["second_factor_required"] = True
    if people_second_factor_required:
        after["people_second_factor_required"] = True
    audit.record(actor, "tenant.created", tenant, tenant=tenant, after=after, ip=ip)
    return tenant


@transaction.atomic
def change_tenant(
    tenant: Tenant,
    *,
    name: str = KEEP,
    plan: Plan = KEEP,
    parent: Tenant | None = KEEP,
    notes: str = KEEP,
    second_factor_required: bool = KEEP,
    people_second_factor_required: bool = KEEP,
    actor: User | None,
    ip: str | None = None,
) -> Tenant:
    """Give the tenant another name, plan, parent or notes; ask a second factor of its members or people with mailboxes.

    What it has beyond a smaller plan it keeps. Whoever asks for second factors as a member has one, and what
    somebody above asked for nobody lower leaves to each.
    """
    values: dict[str, Any] = {}
    if name is not KEEP:
        values["name"] = one_line(name, "name", most=100, required=True)
    if plan is not KEEP:
        values["plan"] = plan
    if parent is not KEEP:
        if parent:
            _place_under(tenant, parent)
        values["parent"] = parent
    if notes is not KEEP:
        values["notes"] = many_lines(notes, "notes", most=10_000)
    if second_factor_required is not KEEP:
        if second_factor_required and actor and not actor.has_provider_role and not _has_second_factor(actor):
            raise ServiceError(_("Set up your own second factor first, or you would lock yourself out."))
        if not second_factor_required and lock(tenant).second_factor_required:
            decided.refuse_factor_of_above(tenant, actor)
        values["second_factor_required"] = second_factor_required
    if people_second_factor_required is not KEEP:
        if not people_second_factor_required and lock(tenant).people_second_factor_required:
            decided.refuse_factor_of_above(tenant, actor, decided.OF_PEOPLE)
        values["people_second_factor_required"] = people_second_factor_required
    with taken_means(_("There is a tenant {name} already.").format(name=values.get("name")), "name"):
        before, after = write(tenant, **values)
    if after:
        # The notes are the provider's: the tenant reads this entry, not what they say.
        before.pop("notes", None)
        noted = after.pop("notes", None) is not None
        readers = tenant if after else None
        audit.record(
            actor, "tenant.changed" if after else "tenant.noted", tenant, tenant=readers, before=before, after=after,
            reason="notes changed" if noted and not after else "", ip=ip,
        )
        tenant_changed(tenant)
    return tenant


def _has_second_factor(account: User) -> bool:
    # Locked: it can't be taken away at the same moment.
    return SecondFactor.objects.select_for_update().filter(user=account).first() is not None


def without_second_factor(tenant: Tenant) -> QuerySet[Membership]:
    """The members who would be, or are, asked to set one up."""
    return Membership.objects.filter(tenant=tenant, user__is_active=True, user__second_factor=None)


def _place_under(tenant: Tenant | None, parent: Tenant) -> None:
    """Refuse a parent that is its own descendant, or a fourth level (scoping reaches grandchildren)."""
    alone(TREE)
    above = Tenant.objects.filter(pk=parent.pk).first()
    ancestors: list[int] = []
    while above is not None and len(ancestors) < 4:
        ancestors.append(above.pk)
        above = Tenant.objects.filter(pk=above.parent_id).first() if above.parent_id else None
    if tenant and tenant.pk in ancestors:
        raise ServiceError(_("{parent} can't be above {tenant}: it is {tenant} itself or below it.").format(
            parent=parent, tenant=tenant
        ), "parent")
    below = 0
    if tenant and Tenant.objects.filter(parent__parent=tenant).exists():
        below = 2
    elif tenant and Tenant.objects.filter(parent=tenant).exists():
        below = 1
    if len(ancestors) + below > 2:
        raise ServiceError(_("Tenants stand in three levels at most."), "parent")


# Memberships


@transaction.atomic
def create_membership(
    *, user: User, tenant: Tenant, role: str, actor: User | None, ip: str | None = None
) -> Membership:
    """Make a panel account a member of a tenant (and of the tenants below it)."""
    role = choice(role, Membership.Role, "role")
    if user.kind != User.Kind.PANEL:
        raise ServiceError(_("A person with a mailbox can't be a member: use a panel account."), "user")
    with taken_means(_("{user} is a member of {tenant} already.").format(user=user, tenant=tenant), "user"):
        membership = Membership.objects.create(user=user, tenant=tenant, role=role)
    audit.record(actor, "membership.created", membership, tenant=tenant, after={"user": user, "role": role}, ip=ip)
    return membership


@transaction.atomic
def change_membership(
    membership: Membership, *, role: str, among: Collection[str] = Membership.Role.values, actor: User | None,
    ip: str | None = None,
) -> Membership:
    """Give a member another role; a tenant's people can't leave it without an owner.

    `among` are the roles of members whom the actor may change, and who has become another in the meantime isn't.
    """
    if role != Membership.Role.OWNER:
        _keep_a_tenants_owner(membership, actor)
    _locked(membership, among)
    before, after = write(membership, role=choice(role, Membership.Role, "role"))
    if after:
        audit.record(
            actor, "membership.changed", membership, tenant=membership.tenant, before=before, after=after, ip=ip
        )
    return membership


@transaction.atomic
def delete_membership(
    membership: Membership, *, among: Collection[str] = Membership.Role.values, actor: User | None,
    ip: str | None = None,
) -> None:
    """Take an account out of a tenant, whose people can't leave it without an owner. `among`: see change_membership."""
    _keep_a_tenants_owner(membership, actor)
    stored = _locked(membership, among)
    audit.record(
        actor, "membership.deleted", membership, tenant=membership.tenant,
        before={"user": membership.user, "role": stored.role}, ip=ip,
    )
    delete(membership, _("The membership is in use."))


def _locked(membership: Membership, among: Collection[str]) -> Membership:
    """As it is now. Raises ServiceError for another role than these, Gone."""
    stored = lock(membership, to_delete=True)
    if stored.role not in among:
        raise ServiceError(_("{user} is {role} now, and yours is a lesser role.").format(
            user=membership.user, role=stored.role
        ))
    return stored


def _keep_a_tenants_owner(membership: Membership, actor: User | None) -> None:
    """Refuse what would leave the tenant without an owner, its own or one above it; the provider may.

    An account of the provider's is none of them: the console has no page for it.
    """
    if actor is None or actor.has_provider_role:
        return
    tenant = membership.tenant
    alone(f"owners of tenant {tenant.pk}")
    above = [each.pk for each in with_parents(tenant)]
    owners = Membership.objects.filter(
        tenant__in=above, role=Membership.Role.OWNER, user__is_active=True, user__provider_role=ProviderRole.NONE
    )
    now_owner = Membership.objects.filter(pk=membership.pk, role=Membership.Role.OWNER).exists()
    if now_owner and not owners.exclude(pk=membership.pk).exists():
        raise ServiceError(_("{user} is the last owner of {tenant}: make somebody else an owner first.").format(
            user=membership.user, tenant=tenant
        ))


# Panel accounts


def set_account_password(
    account: User, password: str | HashedPassword, *, keep: str | None = None, reason: str = "",
    actor: User | None, ip: str | None = None,
) -> None:
    """Give a panel account another password; its open sessions end, but for the one of the key `keep`.

    Links that were sent to set one are void as well.
    """
    owners_alone(actor, account)
    hashed = hash_password(password, account)
    with transaction.atomic():
        accounts = User.objects.filter(pk=account.pk, kind=User.Kind.PANEL)
        if not accounts.update(password=hashed.stored):
            raise ServiceError(_("Only a panel account has a password of its own here."), "password")
        account.password = hashed.stored
        PanelSession.objects.filter(user=account).exclude(pk=keep or "").delete()
        PasswordReset.objects.filter(user=account).update(token="")
        audit.record(actor, "account.password_set", account, tenant=None, reason=reason, ip=ip)


@transaction.atomic
def close_account(account: User, *, reason: str = "", actor: User | None, ip: str | None = None) -> None:
    """Let a panel account no longer sign in."""
    _set_active(account, False, "account.closed", reason, actor, ip)


@transaction.atomic
def reopen_account(account: User, *, reason: str = "", actor: User | None, ip: str | None = None) -> None:
    """Let a closed panel account sign in again."""
    _set_active(account, True, "account.reopened", reason, actor, ip)


@transaction.atomic
def delete_account(account: User, *, actor: User | None, ip: str | None = None) -> None:
    """Delete a panel account and its memberships; the audit log keeps its name."""
    if account.kind != User.Kind.PANEL:
        raise ServiceError(_("The person of a mailbox can't be deleted: close the mailbox."))
    owners_alone(actor, account)
    keep_an_owner(without=account)
    audit.record(actor, "account.deleted", account, tenant=None, ip=ip)
    delete(account, _("The account {account} is in use.").format(account=account))


def keep_an_owner(*, without: User) -> None:
    """Refuse what would leave the installation without an active account of the role owner."""
    alone("provider owners")
    owners = User.objects.filter(provider_role=ProviderRole.OWNER, is_active=True)
    if owners.filter(pk=without.pk).exists() and not owners.exclude(pk=without.pk).exists():
        raise ServiceError(
            _("{name} is the last provider owner: make another one first.").format(name=without), "provider_role"
        )


def _set_active(account: User, active: bool, action: str, reason: str, actor: User | None, ip: str | None) -> None:
    reason = one_line(reason, "reason", most=audit.MOST_REASON)
    if account.kind != User.Kind.PANEL:
        raise ServiceError(_("The person of a mailbox can't be closed: close the mailbox."))
    owners_alone(actor, account)
    if not active:
        keep_an_owner(without=account)
    before, after = write(account, is_active=active)
    if not after:
        told = _("The account {account} is open already.") if active else _("The account {account} is closed already.")
        raise AlreadySo(told.format(account=account))
    PanelSession.objects.filter(user=account).delete()
    PasswordReset.objects.filter(user=account).update(token="")
    audit.record(actor, action, account, tenant=None, before=before, after=after, reason=reason, ip=ip)
