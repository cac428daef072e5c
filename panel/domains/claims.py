"""A domain or a domain alias that is added by whoever can prove it, though somebody else has typed its name before.

Who merely typed a name has no right to it: the TXT record of the other's claim decides. A proved
domain is never taken from anybody here.
"""

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from panel.domains import lookup
from panel.domains.checks import token
from panel.domains.models import Domain, DomainAlias, Proof
from panel.domains.services import BY_RECORD, canonical_name, create_domain, create_domain_alias
from panel.rules.records import Record, proof_record
from panel.rules.status import Status
from panel.tenants import audit
from panel.tenants.changes import ServiceError, Taken, alone, changed, delete, lock
from panel.tenants.models import Tenant, User

MOST_ALIASES = 100  # of one domain
OTHERS_CLAIM = "another proved that the domain is theirs"


class NeedsProof(Taken):
    """The name is free only to who proves it: `record` is to be set first, then it is to be added again."""

    def __init__(self, record: Record, name: str) -> None:
        super().__init__(_(
            "{name} can't be added before it is proved: somebody here has it, or began to add it. If it is yours, set "
            "the TXT record {record} to {value} and add the domain again."
        ).format(name=name, record=record.name, value=record.values[0]), "name")
        self.record = record


def claim_domain(*, name: str, tenant: Tenant, actor: User | None, ip: str | None = None) -> Domain:
    """A new domain of a tenant: pending, or proved at once where a pending claim of others is in its way.

    Theirs is removed then; one that has mailboxes or aliases by the next minutes' removals, and ServiceError
    says so. Raises NeedsProof while the record isn't there, in the same words whether those others
    proved it or not; Taken where it is and they did; ServiceError. Asks the DNS, so never inside a
    transaction.
    """
    name = canonical_name(name)
    _refuse_own(name, tenant)
    try:
        return create_domain(name=name, tenant=tenant, actor=actor, ip=ip)
    except Taken:
        pass
    _look_for_proof(name, tenant)
    with transaction.atomic():
        if _give_up_pending(name):
            return create_domain(name=name, tenant=tenant, verified=True, proved_by=BY_RECORD, actor=actor, ip=ip)
    raise _still_leaving(name)


def claim_domain_alias(*, name: str, domain: Domain, actor: User | None, ip: str | None = None) -> DomainAlias:
    """A new alias of a tenant's domain, on the terms of claim_domain; at most MOST_ALIASES of one domain."""
    name = canonical_name(name)
    if domain.tenant is None:
        raise ServiceError(_(
            "{domain} is shared by several tenants: aliases of it are the provider's to make."
        ).format(domain=domain), "name")
    _refuse_own(name, domain.tenant)
    try:
        with transaction.atomic():
            _refuse_full(domain)
            return create_domain_alias(name=name, domain=domain, actor=actor, ip=ip)
    except Taken:
        pass
    _look_for_proof(name, domain.tenant)
    with transaction.atomic():
        _refuse_full(domain)
        if _give_up_pending(name):
            return create_domain_alias(
                name=name, domain=domain, verified=True, proved_by=BY_RECORD, actor=actor, ip=ip
            )
    raise _still_leaving(name)


def _refuse_own(name: str, tenant: Tenant) -> None:
    """Raises Taken for a name that the tenant has already: whose it is, may be said then."""
    if Domain.objects.filter(name=name, tenant=tenant).exists():
        raise Taken(_("You have {name} already: it is a domain of yours.").format(name=name), "name")
    alias = DomainAlias.objects.filter(name=name, domain__tenant=tenant).select_related("domain").first()
    if alias:
        raise Taken(_("You have {name} already: it is a domain alias, of {domain}.").format(
            name=name, domain=alias.domain
        ), "name")


def _refuse_full(domain: Domain) -> None:
    """Raises ServiceError where no alias fits any more; until the transaction's end nobody else makes one."""
    alone("domain names")
    if domain.aliases.count() >= MOST_ALIASES:
        raise ServiceError(_("{domain} has {count} aliases, and no more fit. Remove one first.").format(
            domain=domain, count=MOST_ALIASES
        ), "name")


def _look_for_proof(name: str, tenant: Tenant) -> None:
    """Raises NeedsProof unless the record of this tenant is in the DNS now."""
    record = proof_record(name, token(name, tenant))
    wanted = lookup.Wanted(name, frozenset({(record.name, record.type)}))
    answer = lookup.look_up([wanted], settings.ENVIRONMENT.dns)[0].found.answer(record)
    if answer is None or record.values[0] not in answer.values:
        raise NeedsProof(record, name)


def _still_leaving(name: str) -> ServiceError:
    return ServiceError(_(
        "{name} is yours by its TXT record. What somebody else had begun under this name is being removed: add it "
        "again in three minutes."
    ).format(name=name), "name")


def _give_up_pending(name: str) -> bool:
    """Remove the claims to a name that nobody proved; whether it is free now.

    One that holds addresses is closed with a grace period that is over: mail that its people put into
    their mailboxes lies in files, which the removals that end every grace period know how to remove.
    """
    is_free = True
    alone("domain names")  # before any row, as a look that proves one: else each waits for the other
    for domain in Domain.objects.filter(name=name, proof=Proof.PENDING):
        stored = lock(domain, to_delete=True)
        if stored.proof != Proof.PENDING:
            continue
        if stored.addresses.exists():
            _close_for_good(stored)
            is_free = False
            continue
        names = list(stored.aliases.values_list("name", flat=True))
        audit.record(
            None, "domain.deleted", stored, tenant=stored.tenant, before={"proof": stored.proof, "aliases": names},
            reason=OTHERS_CLAIM, by="DNS check",
        )
        DomainAlias.objects.filter(domain=stored).delete()
        delete(stored, _("{name} is still in use.").format(name=stored))
        changed(name, *names)
    for alias in DomainAlias.objects.filter(name=name, proof=Proof.PENDING).select_related("domain__tenant"):
        audit.record(
            None, "domainalias.deleted", alias, tenant=alias.domain.tenant, before={"domain": alias.domain},
            reason=OTHERS_CLAIM, by="DNS check",
        )
        delete(alias, _("{name} is still in use.").format(name=alias))
        changed(name, alias.domain.name)
    return is_free


def _close_for_good(domain: Domain) -> None:
    now = timezone.now()
    if domain.status == Status.CLOSED and domain.grace_ends_at and domain.grace_ends_at <= now:
        return  # by this claim, a moment ago
    before = {"status": Status(domain.status).name, "status_reason": domain.status_reason}
    Domain.objects.filter(pk=domain.pk).update(status=Status.CLOSED, status_reason=OTHERS_CLAIM, grace_ends_at=now)
    audit.record(
        None, "domain.closed", domain, tenant=domain.tenant, before=before, after={"status": Status.CLOSED.name},
        reason=OTHERS_CLAIM, by="DNS check",
    )
    changed(domain.name, *domain.aliases.values_list("name", flat=True))
