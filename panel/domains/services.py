"""Changes to domains and domain aliases: each atomic, audited, and told to the mailserver's caches.

A name is given once, over both tables, and never under or over another tenant's
(STANDARDS §2: mail.acme.test beside acme.test). Suspending and closing stand in operations/services.
"""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from panel.domains.models import Domain, DomainAlias, DomainCheck, Proof
from panel.rules.addresses import BadAddress, canonical_domain
from panel.rules.status import Status
from panel.tenants import audit
from panel.tenants.changes import (
    AlreadySo,
    ServiceError,
    Taken,
    alone,
    changed,
    choice,
    count_against_plan,
    delete,
    lock,
    taken_means,
    write,
)
from panel.tenants.decided import refuse_held
from panel.tenants.models import Plan, Tenant, User

CHECKED_BY_US = "checked by us"
BY_RECORD = "by TXT record"


@transaction.atomic
def create_domain(
    *,
    name: str,
    tenant: Tenant | None,
    verified: bool = False,
    proved_by: str = CHECKED_BY_US,
    plans: Sequence[Plan] = (),
    actor: User | None,
    ip: str | None = None,
) -> Domain:
    """A new domain of a tenant; without one a shared domain of the provider's.

    It is pending, and doesn't exist for the wire, until its ownership is proved;
    `verified` says that it was, and `proved_by` how. `plans` (of a shared domain): whose tenants may
    place addresses there themselves.
    """
    name = canonical_name(name)
    if plans and tenant:
        raise ServiceError(_("Only a shared domain has plans."), "plans")
    alone("domain names")
    _refuse_foreign_name(name, tenant, verified)
    if tenant:
        tenant = count_against_plan(tenant, "domains", lambda one: one.domains.count())
    values = {
        "kind": Domain.Kind.OWN if tenant else Domain.Kind.SHARED,
        "proof": Proof.PROVED if verified else Proof.PENDING,
        "proved_by": proved_by if verified else "",
    }
    with taken_means(_("The name {name} is taken already: it is a domain.").format(name=name), "name"):
        domain = Domain.objects.create(name=name, tenant=tenant, **values)
    domain.plans.set(plans)
    after = {"name": name, **values, "plans": [str(plan) for plan in plans]}
    audit.record(actor, "domain.created", domain, tenant=tenant, after=after, ip=ip)
    changed(name)
    return domain


@transaction.atomic
def change_domain(
    domain: Domain,
    *,
    plans: Sequence[Plan] | None = None,
    store: str | None = None,
    actor: User | None,
    ip: str | None = None,
) -> Domain:
    """Change what is given: the plans whose tenants may place addresses in a shared domain, and who stores its mail.

    `store` is one of Domain.Store. It decides where mail goes from now on, that which waits
    included; what lies in mailboxes is not moved.
    """
    stored = lock(domain)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    if store is not None:
        store = choice(store, Domain.Store, "store")
        if store == Domain.Store.LMTP and settings.ENVIRONMENT.store.lmtp is None:
            raise ServiceError(
                _("No mail store is set up for LMTP: POSTHOUSE_STORE=maildir,lmtp:/path/to/socket names one."), "store"
            )
        before, after = write(domain, store=store)
    if plans is not None:
        if stored.kind != Domain.Kind.SHARED and plans:
            raise ServiceError(_("Only a shared domain has plans."), "plans")
        old, new = sorted(map(str, stored.plans.all())), sorted(map(str, plans))
        if old != new:
            stored.plans.set(plans)
            before["plans"], after["plans"] = old, new
    if after:
        audit.record(actor, "domain.changed", domain, tenant=stored.tenant, before=before, after=after, ip=ip)
        changed(stored.name)
    return domain


@transaction.atomic
def verify_domain(domain: Domain, *, actor: User | None, ip: str | None = None) -> None:
    """Say that we checked who owns the domain: it is proved from now on."""
    _verify(domain, domain.tenant, "domain.verified", actor, ip, domain.name)
    DomainCheck.objects.filter(domain=domain).update(missing_since=None)


@transaction.atomic
def delete_domain(domain: Domain, *, actor: User | None, ip: str | None = None) -> None:
    """Delete a domain that holds no address and has no alias.

    Raises ServiceError for any other, and where somebody above the actor suspended or closed it.
    """
    stored = lock(domain, to_delete=True)
    refuse_held(stored, actor)
    # Without their models, which are to the right of this app.
    for count, told in (
        (stored.addresses.count(), _("{name} still has {count} addresses: only an empty domain can be deleted.")),
        (stored.aliases.count(), _("{name} still has {count} domain aliases: only an empty domain can be deleted.")),
    ):
        if count:
            raise ServiceError(told.format(name=stored, count=count))
    audit.record(
        actor, "domain.deleted", domain, tenant=stored.tenant, before={"kind": stored.kind, "proof": stored.proof},
        ip=ip,
    )
    delete(stored, _("{name} is still in use.").format(name=stored))
    changed(stored.name)


@transaction.atomic
def remove_unproved(domain: Domain, *, actor: User | None, ip: str | None = None) -> None:
    """Delete a domain that was only typed: no proof, nothing in it. Raises ServiceError for any other."""
    stored = lock(domain, to_delete=True)
    if stored.proof != Proof.PENDING:
        raise ServiceError(_("{name} is proved: close it.").format(name=stored))
    delete_domain(domain, actor=actor, ip=ip)


@transaction.atomic
def create_domain_alias(
    *, name: str, domain: Domain, verified: bool = False, proved_by: str = CHECKED_BY_US, actor: User | None,
    ip: str | None = None,
) -> DomainAlias:
    """Make a whole domain stand for another: anything@name is anything@domain.

    `verified` says that its ownership was proved, and `proved_by` how.
    """
    name = canonical_name(name)
    alone("domain names")
    stored = lock(domain)
    if stored.status == Status.CLOSED:
        raise ServiceError(_("{domain} is closed.").format(domain=stored), "domain")
    _refuse_foreign_name(name, stored.tenant, verified)
    values = {"proof": Proof.PROVED if verified else Proof.PENDING, "proved_by": proved_by if verified else ""}
    if Domain.objects.filter(name=name).exists():
        raise Taken(_("The name {name} is taken already: it is a domain.").format(name=name), "name")
    with taken_means(_("The name {name} is taken already: it is a domain alias.").format(name=name), "name"):
        alias = DomainAlias.objects.create(name=name, domain=stored, **values)
    audit.record(
        actor, "domainalias.created", alias, tenant=stored.tenant, after={"name": name, "domain": stored, **values},
        ip=ip,
    )
    changed(name, stored.name)
    return alias


@transaction.atomic
def verify_domain_alias(alias: DomainAlias, *, actor: User | None, ip: str | None = None) -> None:
    """Say that we checked who owns the alias's name."""
    _verify(alias, alias.domain.tenant, "domainalias.verified", actor, ip, alias.domain.name)
    DomainAlias.objects.filter(pk=alias.pk).update(missing_since=None)


@transaction.atomic
def delete_domain_alias(alias: DomainAlias, *, actor: User | None, ip: str | None = None) -> None:
    """Let a domain no longer stand for another."""
    audit.record(
        actor, "domainalias.deleted", alias, tenant=alias.domain.tenant, before={"domain": alias.domain}, ip=ip
    )
    delete(alias, _("{name} is still in use.").format(name=alias))
    changed(alias.name, alias.domain.name)


def canonical_name(name: str, field: str = "name") -> str:
    """The domain's name as it is stored. Raises ServiceError."""
    try:
        return canonical_domain(name)
    except BadAddress as error:
        raise ServiceError(error.said(_), field) from None


def _verify(
    row: Domain | DomainAlias, tenant: Tenant | None, action: str, actor: User | None, ip: str | None, main: str
) -> None:
    alone("domain names")
    refuse_neighbours(row.name, tenant, only_proved=True)
    before, after = write(row, proof=Proof.PROVED.value, proved_by=CHECKED_BY_US)
    if "proof" not in after:
        raise AlreadySo(_("The ownership of {name} is proved already.").format(name=row.name), "proof")
    audit.record(actor, action, row, tenant=tenant, before=before, after=after, ip=ip)
    changed(row.name, main)


def _refuse_foreign_name(name: str, tenant: Tenant | None, verified: bool) -> None:
    if DomainAlias.objects.filter(name=name).exists():
        raise Taken(_("The name {name} is taken already: it is a domain alias.").format(name=name), "name")
    if tenant and not verified and name == settings.ENVIRONMENT.hostname:
        raise ServiceError(_(
            "{name} is this server's own name: a tenant has it only when its ownership was checked by us."
        ).format(name=name), "name")
    refuse_neighbours(name, tenant, only_proved=verified)


def refuse_neighbours(name: str, tenant: Tenant | None, *, only_proved: bool) -> None:
    """Refuse a name under or over one that isn't this tenant's.

    Once we checked the ownership ourselves, only proved names stand in the way: whoever
    merely typed a name must not keep its owner out.
    """
    labels = name.split(".")
    over = [".".join(labels[at:]) for at in range(1, len(labels))]
    near = Q(name__in=over) | Q(name__endswith=f".{name}")
    domains: QuerySet = Domain.objects.filter(near).exclude(tenant=tenant)
    aliases: QuerySet = DomainAlias.objects.filter(near).exclude(domain__tenant=tenant)
    for rows in (domains, aliases):
        if only_proved:
            rows = rows.exclude(proof=Proof.PENDING)
        other = rows.first()
        if other:
            told = _("{name} lies under {other}, which belongs to somebody else here.") if other.name in over else (
                _("{name} lies over {other}, which belongs to somebody else here.")
            )
            raise Taken(told.format(name=name, other=other.name), "name")
