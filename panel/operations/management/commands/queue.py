"""The queue on the command line."""

from collections.abc import Iterable
from datetime import datetime

from django.db.models import Count, Max, Min, QuerySet
from django.utils import timezone

from panel.database import ids
from panel.operations.management import base
from panel.sending.log import SeenRecipient, recipients_seen_by
from panel.sending.models import Attempt, Hold, Message, Recipient
from panel.sending.services import retry
from panel.tenants.changes import ServiceError

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
            self.list, help=f"Show where mail waits for, and the {MOST_SHOWN} recipients that have waited longest."
        )
        listing.add_argument("--tenant", metavar="TENANT", help="only what this tenant may see of its own")
        listing.add_argument("--domain", metavar="DOMAIN", help="only what goes to this next hop")
        show = acts.add("show", self.show, help="Show a message, its recipients and every try.")
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

    def list(self, *, tenant: str | None, domain: str | None, as_json: bool) -> None:
        if tenant is not None:
            seen = recipients_seen_by(
                [base.find_tenant(tenant).pk], states=[Recipient.State.WAITING], limit=MOST_SHOWN
            )
            self._list_seen([one for one in seen if domain is None or one.original.endswith(f"@{domain}")], as_json)
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
        if not as_json and groups:
            self.table(("NEXT HOP", "WAITING", "OLDEST", "TRIES", "NEXT TRY"), groups, as_json=False, empty="")
            self.say("")
        self.table(
            ("QUEUE ID", "RECIPIENT", "NEXT HOP", "TRIES", "NEXT TRY", "HELD", "LAST REPLY"), rows, as_json=as_json,
            empty="Nothing waits.",
        )

    def _list_seen(self, seen: Iterable[SeenRecipient], as_json: bool) -> None:
        rows = [
            (one.queue_id, one.original, one.reverse_path or "<>", one.tries, _when(one.due_at), one.reply)
            for one in seen
        ]
        self.table(
            ("QUEUE ID", "RECIPIENT", "FROM", "TRIES", "NEXT TRY", "LAST REPLY"), rows, as_json=as_json,
            empty="Nothing waits.",
        )

    def show(self, *, queue_id: str, tenant: str | None) -> None:
        number = _number(queue_id)
        if tenant is not None:
            self._show_seen(queue_id, list(recipients_seen_by([base.find_tenant(tenant).pk], message_id=number)))
            return
        message = Message.objects.filter(pk=number).select_related("tenant").first()
        if message is None:
            raise ServiceError(f"There is no message {queue_id}.")
        accepted = _when(message.accepted_at)
        self.say(f"{message.queue_id}  accepted {accepted}  {message.direction}  {message.size} bytes")
        self.say(f"  from    <{message.reverse_path}>  tenant {message.tenant or 'none'}")
        if message.credential_text:
            self.say(f"  by      {message.credential_text}")
        self.say(f"  client  {message.client_ip or ''} {message.client_name}  {message.tls or 'without TLS'}")
        self.say(f"  subject {message.subject}")
        recipients = list(Recipient.objects.filter(message=number).order_by("pk"))
        attempts: dict[int, list[Attempt]] = {}
        for one in Attempt.objects.filter(recipient__in=[row.pk for row in recipients]).order_by("pk"):
            attempts.setdefault(one.recipient_id, []).append(one)
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
            raise ServiceError(f"There is no message {queue_id}.")
        first = next((one for one in found if one.submitted), found[0])
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
            raise ServiceError(f"Nothing of {queue_id} waits.")
        self.say(f"{count} {'recipient is' if count == 1 else 'recipients are'} due now.{held}")


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
