"""The admin's first page: is mail flowing, is anybody hurting us, and what must somebody do?

Gathers what the modules beside it find. Asks a fixed number of questions, each of an index or of a small
table; what a day's mail was is counted once (traffic.py).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from panel.database import ids
from panel.domains.models import Domain
from panel.mailboxes.models import Mailbox
from panel.operations import needs, room, traffic
from panel.operations.models import Node
from panel.sending.hops import Hop, oldest_of, waiting_hops
from panel.sending.models import Message, Recipient
from panel.sending.used import window_words
from panel.tenants.models import Tenant, User
from panel.tenants.shown import moment

MOST_HOPS = 5
MOST_NEEDS = 40
# Counting takes a third of a microsecond a recipient: so many are counted at most once in so long, and it says so.
LONG_QUEUE, FRESH, QUEUE = 20_000, timedelta(seconds=15), "overview-queue"
# The chart: a bar an hour, in the units of its own view box.
BAR, GAP, HEIGHT = 14, 4, 64


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What the index page shows, added to its context (unfold's DASHBOARD_CALLBACK)."""
    user, now = request.user, timezone.now()
    assert isinstance(user, User)
    queue, counted_at = _hops(user, now)
    nodes = list(Node.objects.order_by("number"))
    tenants = room.room(user, now)
    ends_at, why = needs.read_certificate()
    found = [
        *needs.of_machines(nodes, now), *needs.of_queue(queue), *needs.of_certificate(ends_at, why, nodes, now),
        *needs.of_hostname(),
        *needs.of_domains(user), *needs.of_passwords(user, now), *needs.of_lockouts(user, now),
        *needs.of_closed(user, now), *tenants.full[: needs.NAMED],
        *needs.rest(len(tenants.full), _("more tenants have nearly all that their plan allows"), needs.listed(Tenant)),
    ]
    found.sort(key=lambda need: need.look != "bad")
    day = traffic.last_day(now)
    last = day.last_message or Message.objects.order_by("-pk").values_list("pk", flat=True).first()
    context |= {
        "needs": found[:MOST_NEEDS], "needs_count": sum(not need.is_rest for need in found),
        "last_message": moment(_made_at(last), now) if last else "",
        **_day(day), **_queue(queue, now), **_room(tenants),
        "counted": moment(counted_at, now) if counted_at != now else "",
        "machines": [_machine(node, now) for node in nodes],
        "certificate": _certificate(ends_at, now),
        "first_step": None if last else _first_step(user, tenants.tenants),
    }
    return context


def _day(day: traffic.Day) -> dict[str, Any]:
    share = day.prompt * 1000 // day.recipients / 10 if day.recipients else None
    most = max((max(hour.inbound, hour.outbound) for hour in day.hours), default=0)
    return {
        "inbound": f"{day.inbound:,}", "outbound": f"{day.outbound:,}",
        "prompt": None if share is None else f"{share:.1f}",
        "prompt_look": "" if share is None or share >= 95 else "is-warn" if share >= 80 else "is-bad",
        "chart": _chart(day.hours, most) if most else None,
    }


def _chart(hours: Sequence[traffic.Hour], most: int) -> dict[str, Any]:
    """Two bars an hour, in and out, as the words of the SVG's attributes: numbers would be asked for a local form."""
    width = (BAR - 2) // 2
    bars = []
    for at, hour in enumerate(hours):
        x = at * (BAR + GAP)
        tall_in, tall_out = (max(1, n * HEIGHT // most) if n else 0 for n in (hour.inbound, hour.outbound))
        bars.append({
            "x": str(x), "slot": str(BAR), "width": str(width), "out_x": str(x + width + 1),
            "in_y": str(HEIGHT - tall_in), "in_height": str(tall_in or ""),
            "out_y": str(HEIGHT - tall_out), "out_height": str(tall_out or ""),
            "words": _("from {at:%H:%M} UTC: {inbound:,} in, {outbound:,} out").format(
                at=hour.begins_at, inbound=hour.inbound, outbound=hour.outbound
            ),
            "label": f"{hour.begins_at:%H:%M}" if at % 6 == 0 else "",
        })
    return {"bars": bars, "width": str(len(hours) * (BAR + GAP) - GAP), "height": str(HEIGHT),
            "below": str(HEIGHT + 16), "most": f"{most:,}"}


def _hops(user: User, now: datetime) -> tuple[list[Hop], datetime]:
    """What waits, by next hop, and when that was counted: a long queue for each look anew, but not within seconds."""
    kept: tuple[list[Hop], datetime] | None = cache.get(QUEUE) if user.has_provider_role else None
    if kept is not None and timedelta(0) <= now - kept[1] <= FRESH:
        return kept
    found = waiting_hops(Recipient.objects.for_user(user)), now
    if user.has_provider_role and sum(hop.waiting for hop in found[0]) > LONG_QUEUE:
        cache.set(QUEUE, found, FRESH.total_seconds())
    return found


def _queue(queue: Sequence[Hop], now: datetime) -> dict[str, Any]:
    oldest = oldest_of(queue)
    return {
        "waiting": f"{sum(hop.waiting for hop in queue):,}",
        "oldest": moment(oldest, now) if oldest else "",
        "hops": [
            {
                "name": hop.name, "count": f"{hop.waiting:,}",
                "url": needs.listed(Recipient, state__exact="waiting", hop=hop.name),
            }
            for hop in queue[:MOST_HOPS]
        ],
        "more_hops": max(0, len(queue) - MOST_HOPS),
    }


def _room(found: room.Room) -> dict[str, Any]:
    return {
        "near": [
            {"name": each.tenant, "url": each.url, "percent": each.percent, "meter": min(each.percent, 100),
             "share": _("{percent} % of {window}").format(percent=each.percent, window=window_words(each.window)),
             "words": _("{used:,} of {allowed:,} recipients").format(used=each.used, allowed=each.allowed),
             "look": "is-bad" if each.percent >= 100 else "is-warn"}
            for each in found.near[: room.NAMED]
        ],
        "more_near": max(0, len(found.near) - room.NAMED),
        "looked_at": f"{room.MOST_TENANTS:,}" if found.bounded else "",
    }


def _certificate(ends_at: datetime | None, now: datetime) -> dict[str, Any]:
    if ends_at is None:
        return {"look": "off", "word": _("none"), "words": _("No certificate was read on this machine.")}
    days = (ends_at - now).days
    look = "bad" if days < 0 else "warn" if ends_at - now <= needs.CERTIFICATE_WITHIN else "good"
    word = _("expired") if days < 0 else ngettext("{n:,} day", "{n:,} days", days).format(n=days)
    return {"look": look, "word": word, "words": _("until {end:%Y-%m-%d %H:%M} UTC").format(end=ends_at)}


def _machine(node: Node, now: datetime) -> dict[str, Any]:
    if needs.is_silent(node, now):
        look = "off" if node.draining else "bad"
        return {"name": node.name, "look": look, "word": _("last seen {when}").format(
            when=moment(node.last_seen_at, now, plain=True)
        )}
    if node.draining:
        return {"name": node.name, "look": "warn", "word": _("draining")}
    return {"name": node.name, "look": "good", "word": _("running")}


def _first_step(user: User, tenants: int) -> dict[str, str] | None:
    """What a new installation lacks first."""
    for model, there, sentence in (
        (Tenant, lambda: tenants > 0, _("First make a tenant: the company whose mail is here.")),
        (Domain, Domain.objects.for_user(user).exists, _("Now give a tenant its domain.")),
        (Mailbox, Mailbox.objects.for_user(user).exists, _("Now make the first mailbox.")),
    ):
        if not there():
            label, name = model._meta.app_label, model._meta.model_name
            if not user.has_perm(f"{label}.add_{name}"):
                return None
            return {"sentence": sentence, "word": _("Add {noun}").format(noun=model._meta.verbose_name),
                    "url": reverse(f"admin:{label}_{name}_add")}
    return None


def _made_at(number: int) -> datetime:
    return datetime.fromtimestamp(ids.made_at_ms(number) / 1000, timezone.get_default_timezone())
