"""Closing and restoring by a tenant's own people: what the provider stopped is the provider's to release.

Else whoever is suspended would close, remove or restore the thing, and be free again.
"""

from django.db import transaction

from panel.domains.models import Domain, Proof
from panel.domains.services import delete_domain
from panel.operations import services
from panel.operations.services import Suspendable
from panel.rules.status import Status
from panel.tenants.changes import ServiceError, lock
from panel.tenants.models import AuditEntry, User


def stopped_by_provider(subject: Suspendable) -> bool:
    """Whether the provider (staff, the command line, or nobody known any more) gave it the status it has: one query.

    Without one where it is active.
    """
    if subject.status == Status.ACTIVE:
        return False
    model = subject._meta.model_name
    act = "closed" if subject.status == Status.CLOSED else "suspended"
    decided = AuditEntry.objects.select_related("actor").filter(
        subject_type=model, subject_id=subject.pk, action=f"{model}.{act}"
    ).order_by("-pk").first()
    return decided is None or decided.actor is None or decided.actor.is_staff


@transaction.atomic
def close(subject: Suspendable, *, reason: str = "", actor: User, ip: str | None = None) -> None:
    """As services.close. Raises ServiceError for what the provider suspended."""
    stored = lock(subject)
    if stored.status != Status.CLOSED:
        _refuse_stopped(stored)
    services.close(subject, reason=reason, actor=actor, ip=ip)


@transaction.atomic
def restore(subject: Suspendable, *, actor: User, ip: str | None = None) -> None:
    """As services.restore. Raises ServiceError for what the provider closed."""
    stored = lock(subject)
    if stored.status == Status.CLOSED:
        _refuse_stopped(stored)
    services.restore(subject, actor=actor, ip=ip)


@transaction.atomic
def remove_unproved(domain: Domain, *, actor: User, ip: str | None = None) -> None:
    """Remove a domain that was only typed: no proof, nothing in it. Raises ServiceError for any other."""
    stored = lock(domain, to_delete=True)
    if stored.proof != Proof.PENDING:
        raise ServiceError(f"{stored} is proved: close it.")
    _refuse_stopped(stored)
    delete_domain(domain, actor=actor, ip=ip)


def _refuse_stopped(stored: Suspendable) -> None:
    if stopped_by_provider(stored):
        raise ServiceError(f"{stored} is {Status(stored.status).words} by your provider: ask there.")
