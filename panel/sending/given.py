"""What the provider gave something to send, below which its tenant may choose.

A tenant's own limits and the provider's are rows of one table (SendingLimit): which of them the
provider set tells the audit log. Where it set none, the plan's number is what it gave.
"""

from dataclasses import dataclass
from typing import Any

from panel.domains.models import Domain
from panel.mailboxes.models import Credential, Mailbox
from panel.rules.limits import Window
from panel.tenants.decided import of_provider
from panel.tenants.models import AuditEntry, Tenant

INHERITED, UNLIMITED = "inherit", "unlimited"  # as the audit log has them


@dataclass(frozen=True, slots=True)
class Given:
    """The most that a tenant may choose in a window."""

    recipients: int | None  # None: unlimited
    is_own: bool  # set on the subject itself, not its plan's

    def allows(self, recipients: int | None) -> bool:
        if self.recipients is None:
            return True
        return recipients is not None and recipients <= self.recipients


def given(subject: Tenant | Domain | Mailbox | Credential, window: str) -> Given:
    """What the provider gave the subject in this window: one query, and the plan's."""
    entries = AuditEntry.objects.filter(
        subject_type=subject._meta.model_name, subject_id=subject.pk, action__in=("limit.set", "limit.inherited"),
        after__has_key=window,
    )
    last = of_provider(entries).order_by("-pk").first()
    told = last.after[window] if last else INHERITED
    if told == INHERITED:
        return Given(_of_plan(subject, window), is_own=False)
    return Given(None if told == UNLIMITED else int(told), is_own=True)


def _of_plan(subject: Any, window: str) -> int | None:
    if not isinstance(subject, Mailbox):
        return None
    plan = subject.address.tenant.plan
    allowed: int | None = plan.mailbox_hour if window == Window.HOUR.value else plan.mailbox_day
    return allowed
