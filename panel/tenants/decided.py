"""Whether what holds was decided by the provider: a tenant's account doesn't undo that.

Read from the audit log, which is never changed and never pruned.
"""

from typing import Any

from django.db import models
from django.db.models import Q, QuerySet

from panel.tenants.models import AuditEntry, ProviderRole, User


def is_bound(actor: User | None) -> bool:
    """Whether the provider's decisions bind whoever acts: everybody but the provider and the command line."""
    return actor is not None and not actor.has_provider_role


def by_provider(subject: models.Model, done: str, undone: str) -> bool:
    """Whether the provider did `done` ("mailbox.suspended") to it since it was last undone: two queries."""
    entries = _entries(subject)
    last = entries.filter(action=undone).order_by("-pk").values_list("pk", flat=True).first()
    since = entries.filter(action=done) if last is None else entries.filter(action=done, pk__gt=last)
    return of_provider(since).exists()


def of_provider(entries: "QuerySet[AuditEntry]") -> "QuerySet[AuditEntry]":
    """Those that no tenant's account wrote. Without an actor it was the command line, or nobody knows any more."""
    return entries.filter(Q(actor=None) | ~Q(actor__provider_role=ProviderRole.NONE))


def _entries(subject: models.Model) -> "QuerySet[Any]":
    return AuditEntry.objects.filter(subject_type=subject._meta.model_name, subject_id=subject.pk)
