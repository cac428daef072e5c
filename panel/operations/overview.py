"""The admin's first page: is mail flowing, and what must somebody do?

Asks only what an index answers: the newest messages by their ids, the waiting
recipients, and small tables.
"""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, Min, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from panel.database import ids
from panel.domains.models import Domain, DomainAlias, Proof
from panel.mailboxes.models import Mailbox
from panel.operations.models import Node
from panel.rules.status import Status
from panel.sending.models import Hold, Message, Recipient
from panel.tenants.models import Tenant
from panel.tenants.shown import moment

DAY = timedelta(hours=24)
MOST_HOPS = 5
SILENT_AFTER = timedelta(minutes=2)  # a mailserver writes when it was last seen more often than that


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the index page shows, added to its context (unfold's DASHBOARD_CALLBACK)."""
    now = timezone.now()
    context |= {"needs": _needs(request), **_day(request, now), **_queue(request, now), **_size(request)}
    context["machines"] = [_machine(node, now) for node in Node.objects.order_by("number")]
    return context


def _needs(request: HttpRequest) -> list[dict[str, str]]:
    user = request.user
    held = Recipient.objects.for_user(user).filter(state=Recipient.State.WAITING, holds__gt=0)
    found = held.aggregate(
        undeliverable=Count("pk", filter=Q(holds__in=_with(Hold.UNDELIVERABLE))),
        poison=Count("pk", filter=Q(holds__in=_with(Hold.POISON))),
    )
    pending = Domain.objects.for_user(user).filter(proof=Proof.PENDING).count()
    pending_aliases = DomainAlias.objects.for_user(user).filter(proof=Proof.PENDING).count()
    lapsed = Domain.objects.for_user(user).filter(proof=Proof.LAPSED).count()
    needs = [
        (found["poison"], "bad", "stuck", "{} that crashed a worker again and again", _list(Recipient, holds="poison")),
        (found["undeliverable"], "bad", "held", "{} that can neither be delivered nor returned",
         _list(Recipient, holds="undeliverable")),
        (lapsed, "bad", "lapsed", "{} whose proof of ownership lapsed", _list(Domain, proof__exact=Proof.LAPSED)),
        (pending, "warn", "pending", "{} whose ownership is not proved", _list(Domain, proof__exact=Proof.PENDING)),
        (pending_aliases, "warn", "pending", "{} whose ownership is not proved",
         _list(DomainAlias, proof__exact=Proof.PENDING)),
    ]
    nouns = ["recipient", "recipient", "domain", "domain", "domain alias"]
    return [
        {"look": look, "word": word, "sentence": sentence.format(_count(count, noun)), "url": url}
        for (count, look, word, sentence, url), noun in zip(needs, nouns, strict=True)
        if count
    ]


def _day(request: HttpRequest, now: datetime) -> dict[str, Any]:
    since = ids.first_of_ms(int((now - DAY).timestamp() * 1000))
    messages = Message.objects.for_user(request.user)
    counts = messages.filter(pk__gte=since).aggregate(
        submitted=Count("pk", filter=Q(direction=Message.Direction.SUBMISSION)),
        inbound=Count("pk", filter=Q(direction=Message.Direction.INBOUND)),
    )
    counts |= Recipient.objects.for_user(request.user).filter(pk__gte=since).aggregate(
        delivered=Count("pk", filter=Q(state=Recipient.State.DELIVERED)),
        failed=Count("pk", filter=Q(state=Recipient.State.FAILED)),
    )
    last = messages.order_by("-pk").values_list("accepted_at", flat=True).first()
    return {**{name: f"{count:,}" for name, count in counts.items()}, "last_message": moment(last) if last else ""}


def _queue(request: HttpRequest, now: datetime) -> dict[str, Any]:
    waiting = Recipient.objects.for_user(request.user).filter(state=Recipient.State.WAITING)
    hops = list(
        waiting.values("next_hop").annotate(count=Count("pk"), first=Min("pk")).order_by("-count", "next_hop")
    )
    oldest = min((hop["first"] for hop in hops), default=None)
    return {
        "waiting": f"{sum(hop['count'] for hop in hops):,}",
        "oldest": moment(datetime.fromtimestamp(ids.made_at_ms(oldest) / 1000, now.tzinfo)) if oldest else "",
        "hops": [
            {"name": hop["next_hop"], "count": f"{hop['count']:,}",
             "url": _list(Recipient, state__exact=Recipient.State.WAITING, q=hop["next_hop"])}
            for hop in hops[:MOST_HOPS]
        ],
        "more_hops": max(0, len(hops) - MOST_HOPS),
    }


def _size(request: HttpRequest) -> dict[str, Any]:
    counts = [(model, model.objects.for_user(request.user).count()) for model in (Tenant, Domain, Mailbox)]
    first_step = None
    if not Message.objects.exists():
        model, sentence = next(
            ((model, sentence) for (model, count), sentence in zip(counts, (
                "First make a tenant: the company whose mail is here.", "Now give a tenant its domain.",
                "Now make the first mailbox.",
            ), strict=True) if not count), (None, ""),
        )
        if model is not None and request.user.has_perm(f"{model._meta.app_label}.add_{model._meta.model_name}"):
            url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_add")
            first_step = {"sentence": sentence, "word": f"Add {model._meta.verbose_name}", "url": url}
    suspended = Tenant.objects.for_user(request.user).exclude(status=Status.ACTIVE).count()
    rows = [
        {"name": str(model._meta.verbose_name_plural).capitalize(), "count": f"{count:,}", "url": _list(model)}
        for model, count in counts
    ]
    if suspended:
        rows.insert(1, {"name": "of them not active", "count": f"{suspended:,}", "url": _list(Tenant, status__gt=0)})
    return {"counts": rows, "first_step": first_step}


def _machine(node: Node, now: datetime) -> dict[str, Any]:
    if now - node.last_seen_at > SILENT_AFTER:
        return {"name": node.name, "look": "off", "word": f"last seen {moment(node.last_seen_at, now, plain=True)}"}
    if node.draining:
        return {"name": node.name, "look": "warn", "word": "draining"}
    return {"name": node.name, "look": "good", "word": "running"}


def _with(hold: Hold) -> list[int]:
    """Every combination of holds in which this one is."""
    return [bits for bits in range(1, 1 << len(Hold)) if bits & hold]


def _list(model: Any, **filters: Any) -> str:
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return f"{url}?{urlencode(filters)}" if filters else url


def _count(count: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count:,} {noun if count == 1 else plural}"
