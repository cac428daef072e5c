"""The queue on the command line."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Min, QuerySet
from django.utils import timezone

from panel.database import ids
from panel.operations.management import base
from panel.sending.log import SeenRecipient, recipients_seen_by
from panel.sending.models import Attempt, Hold, Message, Recipient
from panel.sending.services import discard, retry
from panel.tenants.changes import NotFound, ServiceError

MOST_SHOWN = 100


class Command(base.Command):
    help = (
        "The queue: what waits to be delivered. Mail is tried for five days, more and more rarely. A recipient is "
        "held while its sender is suspended, or when it can neither be delivered nor returned."
    )
    examples = """
        queue list
        queue show 0B5X3ZX4T0G00
        queue retry --domain partner.example
        queue retry 0B5X3ZX4T0G00 --release
    """

    def add_acts(self, acts: base.Acts) -> None:
        listing = acts.add_list(
            self.list, help=f"Show where mail waits for, and the {MOST_SHOWN} recipients that have waited longest.",
            examples="queue list --domain partner.example",
        )
        listing.add_argument("--tenant", metavar="TENANT", help="only what this tenant may see of its own")
        listing.add_argument("--domain", metavar="DOMAIN", help="only what goes to this next hop")
        show = acts.add(
            "show", self.show, help="Show a message, its recipients and every try.", examples="queue show 0B5X3ZX4T0G00"
        )
        show.add_argument("queue_id", metavar="QUEUE_ID", help='as the reply "queued as …" names it')
        show.add_argument("--tenant", metavar="TENANT", help="only what this tenant may see of it")
        again = acts.add(
            "retry", self.retry, help="Make what waits due now.",
            examples="queue retry 0B5X3ZX4T0G00\n queue retry --domain partner.example\n queue retry --all",
        )
        what = again.add_mutually_exclusive_group(required=True)
        what.add_argument("queue_id", metavar="QUEUE_ID", nargs="?")
        what.add_argument("--domain", metavar="DOMAIN", help="what goes to this next hop or domain")
        what.add_argument("--all", action="store_true", dest="everything", help="all that waits")
        again.add_argument("--release", action="store_true", help="also what is held as undeliverable or as poison")
        base.add_reason(again, required=False)
        give_up = acts.add(
            "discard", self.discard, help="Give up waiting recipients for good: never delivered, and nobody is told.",
            examples='queue discard 0B5X3ZX4T0G00 --recipient ann@gone.example --reason "as the sender asked"',
        )
        give_up.add_argument("queue_id", metavar="QUEUE_ID")
        give_up.add_argument("--recipient", metavar="ADDRESS", help="only this one of the message")
        base.add_reason(give_up, required=True)

    def list(self, *, tenant: str | None, domain: str | None) -> None:
        if tenant is not None:
            seen = recipients_seen_by(
                [base.find_tenant(tenant).pk], states=[Recipient.State.WAITING], limit=MOST_SHOWN
            )
            self._list_seen([one for one in seen if domain is None or one.original.endswith(f"@{domain}")])
            return
        waiting: QuerySet[Recipient] = Recipient.objects.filter(state=Recipient.State.WAITING)
        if domain is not None:
            waiting = _towards(waiting, domain)
        hops = (
            waiting.values("next_hop")
            .annotate(count=Count("pk"), first=Min("pk"), due=Min("due_at"), tries=Max("tries"))
            .order_by("-count", "next_hop")
        )
        groups = [
            (hop["next_hop"], hop["count"], _ago(ids.made_at_ms(hop["first"])), hop["tries"], _when(hop["due"]))
            for hop in hops
        ]
        rows = [
            (ids.to_text(one.message_id), one.original, one.next_hop, one.tries, _when(one.due_at), _held(one.holds),
             one.last_reply)
            for one in waiting.order_by("pk")[:MOST_SHOWN]
        ]
        if groups and not self.as_json:
            self.table(("NEXT HOP", "WAITING", "OLDEST", "TRIES", "NEXT TRY"), groups, empty="")
            self.say("")
        self.table(
            ("QUEUE ID", "RECIPIENT", "NEXT HOP", "TRIES", "NEXT TRY", "HELD", "LAST REPLY"), rows,
            empty="Nothing waits.",
        )

    def _list_seen(self, seen: Iterable[SeenRecipient]) -> None:
        rows = [
            (one.queue_id, one.original, one.reverse_path or "<>", one.tries, _when(one.due_at), one.reply)
            for one in seen
        ]
        self.table(
            ("QUEUE ID", "RECIPIENT", "FROM", "TRIES", "NEXT TRY", "LAST REPLY"), rows,
            empty="Nothing waits.",
        )

    def show(self, *, queue_id: str, tenant: str | None) -> None:
        number = _number(queue_id)
        if tenant is not None:
            self._show_seen(queue_id, list(recipients_seen_by([base.find_tenant(tenant).pk], message_id=number)))
            return
        message = Message.objects.filter(pk=number).select_related("tenant").first()
        if message is None:
            raise NotFound(f"There is no message {queue_id}.")
        recipients = list(Recipient.objects.filter(message=number).order_by("pk"))
        attempts: dict[int, list[Attempt]] = {}
        for one in Attempt.objects.filter(recipient__in=[row.pk for row in recipients]).order_by("pk"):
            attempts.setdefault(one.recipient_id, []).append(one)
        if self.as_json:
            self.json(_whole(message, recipients, attempts))
            return
        accepted = _when(message.accepted_at)
        self.say(f"{message.queue_id}  accepted {accepted}  {message.direction}  {message.size} bytes")
        self.say(f"  from    <{message.reverse_path}>  tenant {message.tenant or 'none'}")
        if message.credential_text:
            self.say(f"  by      {message.credential_text}")
        self.say(f"  client  {message.client_ip or ''} {message.client_name}  {message.tls or 'without TLS'}")
        self.say(f"  subject {message.subject}")
        for row in recipients:
            leads = f" → {row.resolved}" if row.resolved != row.original else ""
            held = f"  held: {_held(row.holds)}" if row.holds else ""
            due = f"  next try {_when(row.due_at)}" if row.state == Recipient.State.WAITING else ""
            self.say(f"{row.original}{leads}  {row.state}  by {row.next_hop}{due}{held}  {row.last_reply}")
            for one in attempts.get(row.pk, ()):
                self.say(f"  {_when(one.at)}  {one.outcome}  {one.host} {one.address} {one.tls}  {one.reply}")

    def _show_seen(self, queue_id: str, seen: Iterable[SeenRecipient]) -> None:
        found = sorted(seen, key=lambda one: one.id)
        if not found:
            raise NotFound(f"There is no message {queue_id}.")
        first = next((one for one in found if one.submitted), found[0])
        if self.as_json:
            self.json(_whole_seen(first, found))
            return
        self.say(f"{first.queue_id}  accepted {_when(first.accepted_at)}  from <{first.reverse_path}>")
        if first.submitted:
            self.say(f"  by {first.credential}  client {first.client_ip}  subject {first.subject}")
        for row in found:
            leads = f" → {row.resolved}" if row.resolved not in ("", row.original) else ""
            due = f"  next try {_when(row.due_at)}" if row.due_at else ""
            self.say(f"{row.original}{leads}  {row.state}{due}  {row.reply}")
            for one in row.attempts:
                self.say(f"  {_when(one.at)}  {one.outcome}  {one.host} {one.address} {one.tls}  {one.reply}")

    def retry(
        self, *, queue_id: str | None, domain: str | None, everything: bool, release: bool, reason: str
    ) -> None:
        rows: QuerySet[Recipient] = Recipient.objects.filter(state=Recipient.State.WAITING)
        if queue_id is not None:
            rows = rows.filter(message=_number(queue_id))
        elif domain is not None:
            rows = _towards(rows, domain)
        count = retry(rows, release=release, reason=reason, actor=None)
        left = rows.exclude(holds=0).count()
        held = f" {left} {'is' if left == 1 else 'are'} held." if left else ""
        if queue_id is not None and not count and not left:
            raise NotFound(f"Nothing of {queue_id} waits.")
        said = f"{count} {'recipient is' if count == 1 else 'recipients are'} due now.{held}"
        self.done(said, {"due": count, "held": left})

    def discard(self, *, queue_id: str, recipient: str | None, reason: str) -> None:
        found = Recipient.objects.filter(message=_number(queue_id), state=Recipient.State.WAITING).order_by("pk")
        if recipient is not None:
            found = found.filter(original__iexact=recipient.strip())
        given_up = []
        for one in found:
            discard(one, reason=reason, actor=None)
            given_up.append(one.original)
        if not given_up:
            raise NotFound(f"Nothing of {queue_id} waits{f' for {recipient}' if recipient else ''}.")
        self.done(f"Given up: {', '.join(given_up)}.", {"queue_id": queue_id.strip(), "discarded": given_up})


def _whole(message: Message, recipients: Iterable[Recipient], attempts: dict[int, list[Attempt]]) -> base.Row:
    return {
        "queue_id": message.queue_id, "accepted_at": message.accepted_at, "direction": message.direction,
        "from": message.reverse_path, "tenant": str(message.tenant) if message.tenant else None,
        "by": message.credential_text, "client": message.client_ip, "tls": message.tls, "subject": message.subject,
        "size_bytes": message.size,
        "recipients": [
            {
                "recipient": row.original, "resolved": row.resolved, "state": row.state, "next_hop": row.next_hop,
                "tries": row.tries, "due_at": row.due_at if row.state == Recipient.State.WAITING else None,
                "held": _held(row.holds), "reply": row.last_reply,
                "attempts": [_attempt(one) for one in attempts.get(row.pk, ())],
            }
            for row in recipients
        ],
    }


def _whole_seen(first: SeenRecipient, found: Iterable[SeenRecipient]) -> base.Row:
    """The same as far as the tenant may see it."""
    return {
        "queue_id": first.queue_id, "accepted_at": first.accepted_at, "from": first.reverse_path,
        "by": first.credential if first.submitted else None, "client": first.client_ip if first.submitted else None,
        "subject": first.subject if first.submitted else None,
        "recipients": [
            {
                "recipient": row.original, "resolved": row.resolved, "state": row.state, "due_at": row.due_at,
                "reply": row.reply, "attempts": [_attempt(one) for one in row.attempts],
            }
            for row in found
        ],
    }


def _attempt(one: Any) -> base.Row:
    return {
        "at": one.at, "outcome": one.outcome, "host": one.host, "address": one.address, "tls": one.tls,
        "reply": one.reply,
    }


def _towards(rows: QuerySet[Recipient], domain: str) -> QuerySet[Recipient]:
    name = domain.strip().lower()
    return rows.filter(next_hop=name) | rows.filter(resolved__endswith=f"@{name}")


def _number(queue_id: str) -> int:
    try:
        return ids.from_text(queue_id.strip())
    except ValueError as error:
        raise ServiceError(f"{str(error)[0].upper()}{str(error)[1:]}.") from None


def _held(holds: int) -> str:
    return "; ".join(hold.label for hold in Hold if holds & hold)


def _when(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else ""


def _ago(at_ms: int) -> str:
    minutes = max(0, int(timezone.now().timestamp() * 1000) - at_ms) // 60_000
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
