"""The audit log: who did what to whose data. Written by the services, in their transaction."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from django.db import models
from django.utils.translation import override

from panel.tenants.models import AuditEntry, Tenant, Untold, User

COMMAND_LINE = "command line"
MOST_REASON = 500
MOST_NAME = 254  # as AuditEntry.actor_name has it
BY_TIE = " as the mailbox's person"  # behind the account that came by its tie

# Of what people are told by letter (operations/notices): of these always,
TOLD = frozenset(
    f"{model}.{act}" for model in ("account", "mailbox") for act in (
        "password_set", "passkey_added", "passkey_removed", "second_factor_added", "second_factor_removed",
        "authenticator_removed",
    )
)
# and of these where nobody did it, but time and the DNS.
TOLD_OF_NOBODY = frozenset(
    f"{model}.{act}" for model in ("domain", "domainalias")
    for act in ("proof_missing", "lapsed", "proof_found", "proved", "records_changed")
)


def record(actor: User | None, action: str, subject: models.Model | str, **facts: Any) -> AuditEntry:
    """Write one entry; `facts` are those of `entry`. Whoever is to hear of it by letter does within minutes."""
    written = entry(actor, action, subject, **facts)
    written.save(force_insert=True)
    if action in TOLD or (actor is None and action in TOLD_OF_NOBODY):
        Untold.objects.create(entry=written, due_at=written.at)
    return written


def entry(
    actor: User | None,
    action: str,
    subject: models.Model | str,
    *,
    tenant: Tenant | None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
    ip: str | None = None,
    by: str = COMMAND_LINE,
) -> AuditEntry:
    """An entry to be written, which `tenant` may read (None: only the provider).

    Without an actor it was the command line, or what `by` names. `subject` is a row, or words for what is
    none ("the queue"). `before` and `after` hold the fields that changed, never a secret.
    """
    row = subject if isinstance(subject, models.Model) else None
    with override("en"):  # whoever reads it may read another language
        kept, before, after = str(subject), _plain(before or {}), _plain(after or {})
        actor_name = _name(actor) if actor else by
    return AuditEntry(
        actor=actor,
        actor_name=actor_name,
        action=action,
        tenant=tenant,
        subject_type=row._meta.model_name or "" if row else "",
        subject_id=row.pk if row else None,
        subject_name=kept[:400],
        before=before,
        after=after,
        reason=reason,
        ip=ip,
    )


def _name(actor: User) -> str:
    if actor.by_tie is None:
        return str(actor)
    return f"{str(actor.by_tie)[: MOST_NAME - len(BY_TIE)]}{BY_TIE}"


def _plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
