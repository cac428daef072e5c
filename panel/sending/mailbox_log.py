"""The latest messages of one mailbox, as its tenant may see them: log.py says what that is.

An address that a message of its own went to is told as it was written, with what became of all that is
behind it; of what came for it only this recipient, never the message's others.
"""

from collections.abc import Collection
from typing import Any

from django.db.models import Count, Exists, OuterRef, Subquery

from panel.mailboxes.models import Mailbox
from panel.sending.log import SeenLine
from panel.sending.models import Message, Recipient

# Of several recipients the first of these that one is in is told.
TELLING = (
    Recipient.State.WAITING, Recipient.State.FAILED, Recipient.State.DISCARDED, Recipient.State.DELIVERED,
)


def latest_of_mailbox(mailbox: Mailbox, credentials: Collection[int], limit: int) -> list[SeenLine]:
    """The newest that was sent with one of these or came for the mailbox, for its tenant's eyes: three queries.

    Of what was sent the addresses as they were written, and what became of all of them together.
    """
    sent = Message.objects.filter(credential__in=credentials, tenant=mailbox.address.tenant_id).order_by("-id")
    to = Recipient.objects.filter(message=OuterRef("pk"), tenant=mailbox.address.tenant_id).order_by()
    chosen: Any = Message.objects.filter(pk__in=list(sent.values_list("pk", flat=True)[:limit])).annotate(
        first=Subquery(to.order_by("id").values("original")[:1]),
        count=Subquery(to.values("message").annotate(n=Count("original", distinct=True)).values("n")),
        **{f"is_{state.value}": Exists(to.filter(state=state)) for state in TELLING},
    )
    lines = [
        SeenLine(
            each.pk, each.accepted_at, each.first,
            next(state for state in TELLING if getattr(each, f"is_{state.value}")), True, each.subject,
            max(0, (each.count or 1) - 1),
        )
        for each in chosen if each.first
    ]
    came = Recipient.objects.filter(resolved=str(mailbox), recipient_tenant=mailbox.address.tenant_id)
    for row in came.order_by("-id").select_related("message")[:limit]:
        submitted = row.message.tenant_id == mailbox.address.tenant_id
        lines.append(SeenLine(
            row.message_id, row.message.accepted_at, row.original, row.state, False,
            row.message.subject if submitted else "", sender=row.message.reverse_path,
        ))
    return sorted(lines, key=lambda line: -line.message_id)[:limit]
