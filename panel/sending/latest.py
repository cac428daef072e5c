"""The latest messages of a tenant or a mailbox, as the provider's pages list them.

Each question is answered from the end of an index, and their number doesn't grow with messages or
recipients. It is for the provider's eyes: what a tenant may see of messages decides log.py.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext

from panel.database import ids
from panel.sending.models import Message, Recipient
from panel.tenants.shown import moment

State = Recipient.State
LONGEST_SUBJECT = 120  # characters in a list

# What is told of several recipients is the first of these that is true of one.
_TELLING: dict[str, tuple[str, Q]] = {
    "held": ("bad", Q(recipients__state=State.WAITING, recipients__holds__gt=0)),
    "failed": ("bad", Q(recipients__state=State.FAILED)),
    "waiting": ("warn", Q(recipients__state=State.WAITING, recipients__holds=0)),
    "discarded": ("off", Q(recipients__state=State.DISCARDED)),
}

_WORDS: dict[str, Any] = {
    "held": gettext_lazy("held"), "failed": gettext_lazy("failed"), "waiting": gettext_lazy("waiting"),
    "discarded": gettext_lazy("discarded"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One message, with what became of its recipients."""

    message_id: int
    at: datetime
    sender: str  # empty: the null path
    subject: str
    first: str  # of the recipients, as it was addressed; empty: none is here any more
    others: int  # further recipients
    look: str  # good, warn, bad or off
    words: str  # "delivered"; "waiting, 2 of 3"

    @property
    def cells(self) -> SafeString:
        """Its row in a table: written here, for a template takes a quarter of a page's time for twenty of them."""
        subject = self.subject
        if len(subject) > LONGEST_SUBJECT:
            subject = Truncator(subject).chars(LONGEST_SUBJECT)
        others = format_html(
            ' <span class="ph-dim ph-num">{}</span>', _("and {n} more").format(n=self.others)
        ) if self.others else ""
        return format_html(
            '<tr><td>{}</td><td><span class="ph-state is-{}">{}</span></td><td class="ph-subject" title="{}">{}</td>'
            '<td data-label="{}">{}</td><td data-label="{}">{}{}</td>'
            '<td><a href="{}" class="ph-mono text-primary-600 dark:text-primary-500">{}</a></td></tr>',
            moment(self.at), self.look, self.words, self.subject, subject or _dim(_("(no subject)")),
            pgettext("a sender", "from"), _clipped(self.sender or "<>"), pgettext("a recipient", "to"),
            _clipped(self.first) if self.first else _dim("–"), others,
            reverse("admin:sending_message_change", args=(self.message_id,)), ids.to_text(self.message_id),
        )


def _clipped(address: str) -> SafeString:
    return format_html('<span class="ph-mono ph-clip" title="{0}">{0}</span>', address)


def _dim(words: str) -> SafeString:
    return format_html('<span class="ph-dim">{}</span>', words)


def of_tenant(tenant_id: int, most: int) -> list[Row]:
    """What it sent and what came for it, the latest first: three queries, one more after mail to many of it."""
    sent = Message.objects.filter(tenant=tenant_id).order_by("-id").values_list("pk", flat=True)[:most]
    # A message to many of its addresses has a row for each.
    got = Recipient.objects.filter(recipient_tenant=tenant_id).order_by("-id").values_list("message_id", flat=True)
    rows = list(got[: 5 * most])
    if len(rows) == 5 * most and len(set(rows)) < most:
        rows = list(got[: 250 * most])
    found: set[int] = {*sent, *rows}
    return _rows(sorted(found, reverse=True)[:most])


def sent_with(credentials: Collection[int], most: int) -> list[Row]:
    """What was sent by logging in with one of these, the latest first: two queries."""
    found = Message.objects.filter(credential__in=credentials).order_by("-id").values_list("pk", flat=True)[:most]
    return _rows(list(found))


def got_by(address: str, most: int) -> list[Row]:
    """What came for the mailbox of this address, also by an alias, the latest first: one query.

    `first` is how it was addressed, and the state is this recipient's alone.
    """
    found = Recipient.objects.filter(resolved=address).select_related("message").order_by("-id")[:most]
    return [
        Row(it.pk, it.accepted_at, it.reverse_path, it.subject, each.original, 0, *_of_one(each))
        for each in found for it in (each.message,)
    ]


def _rows(messages: Collection[int]) -> list[Row]:
    """One query, however many recipients they have.

    The messages were chosen before: SQLite counts recipients for all that it sorts, not for those it keeps.
    """
    first = Recipient.objects.filter(message=OuterRef("pk")).order_by("id").values("original")[:1]
    counted = (
        Message.objects.filter(pk__in=messages).order_by("-id").values("pk", "accepted_at", "reverse_path", "subject")
        .annotate(
            first=Coalesce(Subquery(first), Value("")), count=Count("recipients"),
            **{name: Count("recipients", filter=condition) for name, (_look, condition) in _TELLING.items()},
        )
    )
    return [
        Row(each["pk"], each["accepted_at"], each["reverse_path"], each["subject"], each["first"],
            max(0, each["count"] - 1), *_of_all(each))
        for each in counted
    ]


def _of_all(counts: Mapping[str, Any]) -> tuple[str, str]:
    count = counts["count"]
    for name, (look, _condition) in _TELLING.items():
        if number := counts[name]:
            word = str(_WORDS[name])
            return look, word if number == count else _("{word}, {number:,} of {count:,}").format(
                word=word, number=number, count=count
            )
    return ("good", _("delivered")) if count else ("off", _("no recipients here any more"))


def _of_one(recipient: Recipient) -> tuple[str, str]:
    if recipient.state == State.WAITING and recipient.holds:
        return "bad", _("held")
    look = {State.WAITING: "warn", State.DELIVERED: "good", State.FAILED: "bad"}.get(State(recipient.state), "off")
    return look, str(recipient.get_state_display())
