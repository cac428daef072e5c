"""The queue on the command line."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Count, Max, Min, QuerySet
from django.utils import timezone

from panel.database import ids
from panel.operations.management import base
from panel.sending import bulk
from panel.sending.log import SeenRecipient, recipients_seen_by
from panel.sending.models import Attempt, BulkAct, BulkKind, Hold, Message, Recipient
from panel.sending.selection import HOLDS, Selection, as_kept
from panel.sending.services import discard
from panel.tenants.changes import AlreadySo, NotFound, ServiceError

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
            "retry", self.retry, help="Make what waits due now: of a message, or all that the options name.",
            examples="queue retry 0B5X3ZX4T0G00\n queue retry --hop gmail.com --older-than 10min\n queue retry --all",
        )
        again.add_argument("queue_id", metavar="QUEUE_ID", nargs="?")
        _add_selection(again)
        again.add_argument("--all", action="store_true", dest="everything", help="all that waits")
        again.add_argument("--release", action="store_true", help="also what is held as undeliverable or as poison")
        base.add_reason(again, required=False)
        give_up = acts.add(
            "discard", self.discard,
            help="Give up waiting recipients for good: never delivered, and nobody is told. Of a message, or all that "
            "the options name.",
            examples='queue discard 0B5X3ZX4T0G00 --recipient ann@gone.example --reason "as the sender asked"\n'
            'queue discard --hop gone.example --older-than 2d --dry-run --reason "the domain is gone"',
        )
        give_up.add_argument("queue_id", metavar="QUEUE_ID", nargs="?")
        _add_selection(give_up)
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
        self, *, queue_id: str | None, hop: str, domain: str, tenant: str | None, recipient: str, sender: str,
        held: str, older_than: str, everything: bool, release: bool, reason: str, dry_run: bool, yes: bool,
    ) -> None:
        chosen = _selection(queue_id, hop, domain, tenant, recipient, sender, held, older_than)
        if everything == chosen.narrows:
            raise base.Usage(
                "--all goes with nothing else." if everything else
                "Say what to try: a queue id, --hop, --tenant, another option of these, or --all."
            )
        # As harmless as waiting: asked only of who is there to answer.
        act = self._act(
            BulkKind.RETRY, chosen, release=release, reason=reason, dry_run=dry_run,
            asks=not yes and queue_id is None and sys.stdin.isatty(),
        )
        if act is None:
            return
        if queue_id is not None and not act.done and not act.held and not act.on_the_way:
            raise NotFound(f"Nothing of {queue_id} waits.")
        said = f"{act.done:,} {'recipient is' if act.done == 1 else 'recipients are'} due now.{_left_alone(act)}"
        self.done(said, {"due": act.done, **_report(act)})

    def discard(
        self, *, queue_id: str | None, hop: str, domain: str, tenant: str | None, recipient: str, sender: str,
        held: str, older_than: str, reason: str, dry_run: bool, yes: bool,
    ) -> None:
        if queue_id is not None and not any((hop, domain, tenant, sender, held, older_than)):
            self._discard_of(queue_id, recipient, reason, dry_run=dry_run)
            return
        chosen = _selection(queue_id, hop, domain, tenant, recipient, sender, held, older_than)
        if not chosen.narrows:
            raise base.Usage("Say what to give up: a queue id, --hop, --tenant or another option of these.")
        act = self._act(
            BulkKind.DISCARD, chosen, release=False, reason=reason, dry_run=dry_run, asks=not yes
        )
        if act is not None:
            which = "recipient is" if act.done == 1 else "recipients are"
            self.done(f"{act.done:,} {which} given up.{_left_alone(act)}", {"discarded": act.done, **_report(act)})

    def _discard_of(self, queue_id: str, recipient: str, reason: str, *, dry_run: bool) -> None:
        """One message's, each by itself: the audit log names it."""
        found = Recipient.objects.filter(message=_number(queue_id), state=Recipient.State.WAITING).order_by("pk")
        if recipient:
            found = found.filter(original__iexact=recipient.strip())
        if not found:
            raise NotFound(f"Nothing of {queue_id} waits{f' for {recipient}' if recipient else ''}.")
        names = [one.original for one in found]
        if dry_run:
            self.done(f"Would be given up: {', '.join(names)}.", {"queue_id": queue_id.strip(), "discarded": []})
            return
        with transaction.atomic():  # all of them or none
            for one in found:
                discard(one, reason=reason, actor=None)
        self.done(f"Given up: {', '.join(names)}.", {"queue_id": queue_id.strip(), "discarded": names})

    def _act(
        self, kind: BulkKind, chosen: Selection, *, release: bool, reason: str, dry_run: bool, asks: bool
    ) -> BulkAct | None:
        """The act at its end; None when nothing was done, which was said. Raises AlreadySo where nothing waits."""
        now = timezone.now()
        count, upto = bulk.count(chosen, now)
        which = bulk.waiting(chosen).sentence(count)
        nothing = {"which": which, "asked": count, "done": 0, "held": 0, "on_the_way": 0, "settled": 0}
        if dry_run:
            verb = "tried" if kind is BulkKind.RETRY else "given up"
            self.done(f"Would be {verb}: {which}.", nothing)
            return None
        if not count:
            if chosen.message is not None:
                raise NotFound(f"Nothing of {ids.to_text(chosen.message)} waits.")
            raise AlreadySo(f"There are no {bulk.waiting(chosen).sentence()}.")
        if asks:
            if not sys.stdin.isatty():
                raise ServiceError(f"{which[0].upper()}{which[1:]} would be given up: confirm it with --yes.", "yes")
            verb = "Try" if kind is BulkKind.RETRY else "Give up"
            self.stderr.write(f"{verb} {base.clean(which)}? [y/N] ", style_func=str, ending="")
            self.stderr.flush()
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                self.done("Nothing was done.", nothing)
                return None
        act = bulk.ask(kind, chosen, release=release, reason=reason, upto=upto, now=now, actor=None)
        shows = act.asked > bulk.STEP
        while act.finished_at is None:
            act = bulk.step(act)
            if shows:
                self.stderr.write(f"{act.looked_at:,} of {act.asked:,}", style_func=str)
        return act


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hop", metavar="HOP", default="", help="what goes to this next hop, as `queue list` names it")
    parser.add_argument("--domain", metavar="DOMAIN", default="", help="what goes to this next hop or domain")
    parser.add_argument("--tenant", metavar="TENANT", help="what this tenant sent")
    parser.add_argument("--recipient", metavar="ADDRESS", default="", help="what is for this address, or @domain")
    parser.add_argument("--sender", metavar="ADDRESS", default="", help="what is from this address, or @domain, or <>")
    parser.add_argument(
        "--held", metavar="WHY", default="", choices=("any", "none", *HOLDS),
        help=f"only what is held, by {', '.join(HOLDS)} or any; none: only what nothing holds",
    )
    parser.add_argument("--older-than", metavar="TIME", default="", help="what was accepted so long ago: 10min, 6h, 2d")
    parser.add_argument("--dry-run", action="store_true", help="only say how many there are")
    parser.add_argument("--yes", action="store_true", help="don't ask whether the count is right")


def _selection(
    queue_id: str | None, hop: str, domain: str, tenant: str | None, recipient: str, sender: str, held: str, older: str
) -> Selection:
    chosen = Selection.read({
        "hop": hop, "domain": domain, "recipient": recipient, "sender": sender, "holds": held, "older": older,
        "tenant__id__exact": base.find_tenant(tenant).pk if tenant is not None else "",
    })
    return chosen if queue_id is None else replace(chosen, message=_number(queue_id))


def _left_alone(act: BulkAct) -> str:
    parts = [
        (act.held, "is held", "are held"), (act.on_the_way, "is on the way just now", "are on the way just now"),
        (act.settled, "no longer waited", "no longer waited"),
    ]
    return "".join(f" {number:,} {one if number == 1 else many}." for number, one, many in parts if number)


def _report(act: BulkAct) -> base.Row:
    return {
        "which": act.which, "asked": act.asked, "done": act.done, "held": act.held, "on_the_way": act.on_the_way,
        "settled": act.settled,
    }


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
    name = as_kept(domain.strip())
    return rows.filter(next_hop=name) | rows.filter(resolved__endswith=f"@{name}")


def _number(queue_id: str) -> int:
    try:
        return ids.from_text(queue_id.strip())
    except ValueError as error:
        raise ServiceError(f"{str(error)[0].upper()}{str(error)[1:]}.") from None


def _held(holds: int) -> str:
    return "; ".join(str(hold.label) for hold in Hold if holds & hold)


def _when(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else ""


def _ago(at_ms: int) -> str:
    minutes = max(0, int(timezone.now().timestamp() * 1000) - at_ms) // 60_000
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
