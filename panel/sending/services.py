"""Changes to sending limits, routes and the queue: each atomic and audited.

Limits and routes are told to the mailserver's caches; the queue is read afresh at each claim.
"""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import Count, F, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from panel.database import ids
from panel.domains.models import Domain
from panel.domains.services import canonical_name
from panel.mailboxes.models import Credential, Mailbox
from panel.rules import addresses, reply
from panel.sending.given import Given, given
from panel.sending.models import Content, Hold, Message, OutboundRoute, Recipient, SendingLimit, Window
from panel.tenants import audit
from panel.tenants.changes import (
    MOST_NUMBER,
    ServiceError,
    changed,
    choice,
    delete,
    everything_changed,
    lock,
    one_line,
    tenant_changed,
)
from panel.tenants.decided import is_bound
from panel.tenants.models import Tenant, User

MORE_TIME = timedelta(days=1)  # for what is released after its time
CHUNK = 1000  # rows that one statement names

LimitSubject = Tenant | Domain | Mailbox | Credential


class Inherit(Enum):
    """No limit of its own: the plan's holds, or that of the level above."""

    INHERIT = "inherit"


INHERIT = Inherit.INHERIT


# Limits


@transaction.atomic
def set_limit(
    subject: LimitSubject, *, window: str, recipients: int | None, actor: User | None, ip: str | None = None
) -> SendingLimit:
    """Let the subject reach `recipients` in a window ("hour", "day": sliding); None is unlimited, 0 is nobody.

    A tenant's account sets no more than the provider gave, and nothing on the tenant itself.
    """
    window = choice(window, Window, "window")
    if recipients is not None and (
        isinstance(recipients, bool) or not isinstance(recipients, int) or not 0 <= recipients <= MOST_NUMBER
    ):
        raise ServiceError(
            _("A limit is a whole number from 0 to {most}, or unlimited.").format(most=MOST_NUMBER), "recipients"
        )
    field, owner = _limit_of(subject)
    lock(subject)
    if is_bound(actor) and not _bound_by(subject, window).allows(recipients):
        raise _more_than_given(_bound_by(subject, window))
    old = SendingLimit.objects.filter(**{field: subject}, window=window).first()
    if old and old.recipients == recipients:
        return old
    key: dict[str, Any] = {field: subject, "window": window}
    limit, _made = SendingLimit.objects.update_or_create(**key, defaults={"recipients": recipients, "owner": owner})
    audit.record(
        actor, "limit.set", subject, tenant=owner, before={window: _in_words(old.recipients if old else INHERIT)},
        after={window: _in_words(recipients)}, ip=ip,
    )
    _limit_changed(subject)
    return limit


@transaction.atomic
def inherit_limit(subject: LimitSubject, *, window: str, actor: User | None, ip: str | None = None) -> None:
    """Take the subject's own limit away. Raises ServiceError when it has none.

    A tenant's account takes away only what it set itself: where the provider set one, that holds again.
    """
    window = choice(window, Window, "window")
    field, owner = _limit_of(subject)
    lock(subject)
    if is_bound(actor) and (own := _bound_by(subject, window)).is_own:
        set_limit(subject, window=window, recipients=own.recipients, actor=actor, ip=ip)
        return
    old = SendingLimit.objects.filter(**{field: subject}, window=window).first()
    if old is None:
        raise ServiceError(_("{name} has no limit of its own for this window: {window}.").format(
            name=_named(subject), window=Window(window).label
        ), "window")
    audit.record(
        actor, "limit.inherited", subject, tenant=owner, before={window: _in_words(old.recipients)},
        after={window: INHERIT.value}, ip=ip,
    )
    delete(old, _("The limit is in use."))
    _limit_changed(subject)


def _bound_by(subject: LimitSubject, window: str) -> Given:
    """What a tenant's account may choose from. Raises ServiceError for a tenant: what it may send is the provider's."""
    if isinstance(subject, Tenant):
        raise ServiceError(_("What an organisation may send is its provider's to say."), "recipients")
    return given(subject, window)


def _more_than_given(most: Given) -> ServiceError:
    return ServiceError(
        _("Your provider gave {most:,}: choose that or less.").format(most=most.recipients), "recipients"
    )


def read_limit(text: str) -> int | Inherit | None:
    """The limit that a person wrote: a number, "unlimited" (None) or "inherit". Raises ServiceError."""
    text = text.strip().lower()
    if text == "unlimited":
        return None
    if text == INHERIT.value:
        return INHERIT
    if text.isascii() and text.isdigit() and int(text) <= MOST_NUMBER:
        return int(text)
    raise ServiceError(
        _("{text!r} is no limit: write a whole number from 0 to {most}, unlimited or inherit.").format(
            text=text[:40], most=MOST_NUMBER
        ), "recipients"
    )


def limit_subject(limit: SendingLimit) -> LimitSubject:
    """What the limit stands on."""
    subject = limit.tenant or limit.domain or limit.mailbox or limit.credential
    assert subject is not None, "the database holds limits with exactly one"
    return subject


def _limit_of(subject: LimitSubject) -> tuple[str, Tenant]:
    """The limit's column for such a subject, and whose it is."""
    match subject:
        case Tenant():
            return "tenant", subject
        case Domain():
            if subject.tenant is None:
                raise ServiceError(
                _("{name} is a shared domain: limit the tenants who send in it.").format(name=subject), "domain"
            )
            return "domain", subject.tenant
        case Mailbox():
            return "mailbox", subject.address.tenant
    return "credential", subject.mailbox.address.tenant


def _limit_changed(subject: LimitSubject) -> None:
    match subject:
        case Tenant():
            tenant_changed(subject)
        case Domain():
            changed(subject.name)
        case Mailbox():
            changed(subject.address.domain.name)
        case Credential():
            changed(subject.mailbox.address.domain.name)


def _named(subject: LimitSubject) -> str:
    if not isinstance(subject, Credential):
        return str(subject)
    return _("The {password} of {mailbox}").format(password=subject.words, mailbox=subject.mailbox)


def _in_words(limit: int | Inherit | None) -> int | str:
    if isinstance(limit, Inherit):
        return limit.value
    return "unlimited" if limit is None else limit


# Routes


def parse_route(url: str) -> tuple[str, int]:
    """Host and port of "smtp://host:port" (port 25 when left out). Raises ServiceError."""
    example = "write smtp://HOST:PORT, for example smtp://relay.example.com:25"
    try:
        parts = urlsplit(one_line(url, "route", most=300, required=True))
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        if isinstance(error, ServiceError):
            raise
        raise ServiceError(f"The route is not understood: {example}.", "route") from None
    if parts.scheme == "smtps":
        raise ServiceError("Routes by smtps:// (TLS from the first byte) come later: use smtp:// instead.", "route")
    if parts.username is not None or parts.password is not None:
        raise ServiceError("Routes with a login come later: leave user name and password out.", "route")
    if parts.scheme != "smtp" or not host or parts.path.strip("/") or parts.query or parts.fragment:
        raise ServiceError(f"The route is not understood: {example}.", "route")
    return host, 25 if port is None else port


@transaction.atomic
def set_route(
    *,
    domain: str,
    host: str,
    port: int = 25,
    tls: str = OutboundRoute.Tls.OPPORTUNISTIC,
    actor: User | None,
    ip: str | None = None,
) -> OutboundRoute:
    """Send mail for `domain` to this host in place of its MX; "" or "*": for every domain without a route."""
    name = "" if domain.strip() in ("", "*") else canonical_name(domain, "domain")
    values = {"host": _route_host(host), "port": port, "tls": choice(tls, OutboundRoute.Tls, "tls")}
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ServiceError(_("A port is a number from 1 to 65535."), "port")
    old = OutboundRoute.objects.select_for_update().filter(domain=name).first()
    before = {field: getattr(old, field) for field in values} if old else {}
    if old and before == values:
        return old
    route, _made = OutboundRoute.objects.update_or_create(domain=name, defaults=values)
    audit.record(actor, "route.set", route, tenant=None, before=before, after=values, ip=ip)
    _route_changed(name)
    return route


@transaction.atomic
def remove_route(route: OutboundRoute, *, actor: User | None, ip: str | None = None) -> None:
    """Let mail for the route's domain go by its MX again."""
    before = {"host": route.host, "port": route.port, "tls": route.tls}
    audit.record(actor, "route.removed", route, tenant=None, before=before, ip=ip)
    delete(route, _("The route {route} is in use.").format(route=route))
    _route_changed(route.domain)


def _route_host(host: str) -> str:
    host = host.strip()
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    try:
        return addresses.canonical_domain(host, single_label=True)
    except addresses.BadAddress as error:
        raise ServiceError(_("The host {host!r} can't be used: {why}").format(
            host=host[:100], why=error.said(_)
        ), "host") from None


def _route_changed(domain: str) -> None:
    if domain:
        changed(domain)
    else:
        everything_changed()


# The queue


@transaction.atomic
def retry(
    recipients: QuerySet[Recipient] | Iterable[int],
    *,
    release: bool = False,
    reason: str = "",
    actor: User | None,
    ip: str | None = None,
) -> int:
    """Make waiting recipients due now; gives how many. One audit entry a tenant.

    `release` also lifts that they were held as undeliverable or as poison, and gives those
    whose time is over a day more. Whoever is held because the sender is suspended stays so:
    resuming lifts that.
    """
    reason = one_line(reason, "reason", most=audit.MOST_REASON)
    waiting = _waiting(recipients)
    lifted = Hold.UNDELIVERABLE | Hold.POISON if release else 0
    if not release:
        waiting = waiting.filter(holds=0)
    found = _lock(waiting)
    tenants = found.values_list("tenant").annotate(Count("pk")).order_by("tenant")
    for tenant_id, count in list(tenants):
        audit.record(
            actor, "queue.retried", "the queue", tenant=_tenant(tenant_id),
            after={"recipients": count, "released": release}, reason=reason, ip=ip,
        )
    now = timezone.now()
    if release:
        found.filter(expires_at__lt=now + MORE_TIME).update(expires_at=now + MORE_TIME)
    return found.update(due_at=now, holds=F("holds").bitand(~lifted & 0x7FFF))


@transaction.atomic
def discard(recipient: Recipient, *, reason: str = "", actor: User | None, ip: str | None = None) -> None:
    """Give a waiting recipient up: it is never delivered, and nobody is told.

    Refused while a try is under way. The message's content goes with its last recipient;
    a body kept as a file is removed by the mailserver's sweep.
    """
    reason = one_line(reason, "reason", most=audit.MOST_REASON)
    outcome = give_up([recipient.pk], timezone.now())
    if outcome.on_the_way:
        raise ServiceError(_("{name} is being delivered just now: try again in a minute.").format(name=recipient))
    if not outcome.done:
        raise ServiceError(_("{name} no longer waits in the queue.").format(name=recipient))
    audit.record(
        actor, "queue.discarded", recipient, tenant=_tenant(recipient.tenant_id),
        before={"queue_id": ids.to_text(recipient.message_id), "last_reply": recipient.last_reply},
        reason=reason, ip=ip,
    )


@transaction.atomic
def discard_of(
    message_id: int, recipients: Sequence[int], *, reason: str = "", actor: User | None, ip: str | None = None
) -> "Outcome":
    """Give up those of these recipients of one message that wait, as `discard`. One audit entry a tenant."""
    reason = one_line(reason, "reason", most=audit.MOST_REASON)
    found = Recipient.objects.filter(pk__in=recipients, message=message_id)
    whose = dict(found.values_list("pk", "tenant"))
    outcome = give_up(list(whose), timezone.now())
    for tenant_id in sorted({whose[pk] for pk in outcome.done}, key=lambda each: each or 0):
        count = sum(whose[pk] == tenant_id for pk in outcome.done)
        audit.record(
            actor, "queue.discarded", ids.to_text(message_id), tenant=_tenant(tenant_id),
            after={"recipients": count}, reason=reason, ip=ip,
        )
    return outcome


@transaction.atomic
def retry_message(message: Message, *, actor: User | None, ip: str | None = None) -> int:
    """Make due now what of the message waits, as `retry` with `release`; gives how many. Raises ServiceError."""
    outcome = _of_message(message, lambda chosen, now: make_due(chosen, now, release=True))
    if not outcome.done:
        if outcome.held:
            raise ServiceError(_("It waits until its sender is resumed."))
        raise ServiceError(
            _("It is being delivered just now.") if outcome.on_the_way else _("Nothing of it waits any more.")
        )
    audit.record(
        actor, "queue.retried", message, tenant=_tenant(message.tenant_id),
        after={"recipients": len(outcome.done), "released": True}, ip=ip,
    )
    return len(outcome.done)


@transaction.atomic
def discard_message(message: Message, *, reason: str, actor: User | None, ip: str | None = None) -> tuple[int, int]:
    """Give up what of the message waits; how many, and how many were on the way and go on. Raises ServiceError."""
    reason = one_line(reason, "reason", most=audit.MOST_REASON, required=True)
    outcome = _of_message(message, give_up)
    if not outcome.done:
        if outcome.on_the_way:
            raise ServiceError(_("It is being delivered just now: try again in a minute."))
        raise ServiceError(_("Nothing of it waits any more."))
    audit.record(
        actor, "queue.discarded", message, tenant=_tenant(message.tenant_id),
        after={"recipients": len(outcome.done)}, reason=reason, ip=ip,
    )
    return len(outcome.done), len(outcome.on_the_way)


def _of_message(message: Message, act: "Callable[[Sequence[int], datetime], Outcome]") -> "Outcome":
    """What the act made of all that waits of the message, CHUNK at a time."""
    waiting = Recipient.objects.filter(message=message, state=Recipient.State.WAITING).order_by("pk")
    chosen, now = list(waiting.values_list("pk", flat=True)), timezone.now()
    parts = [act(chosen[at:at + CHUNK], now) for at in range(0, len(chosen), CHUNK)]
    return Outcome(
        [pk for part in parts for pk in part.done], [pk for part in parts for pk in part.on_the_way],
        [pk for part in parts for pk in part.held],
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of some recipients, by their ids; those that no longer waited are in none of them."""

    done: Sequence[int] = ()
    on_the_way: Sequence[int] = ()  # being delivered just now
    held: Sequence[int] = ()


def make_due(recipients: Sequence[int], now: datetime, *, release: bool) -> Outcome:
    """Within a transaction: make due now what of these waits and is not on the way; see `retry` for `release`."""
    lifted = Hold.UNDELIVERABLE | Hold.POISON if release else 0
    done, on_the_way, held = [], [], []
    for pk, holds, lease_until in _locked(recipients):
        if lease_until is not None and lease_until > now:
            on_the_way.append(pk)
        elif holds & ~lifted:
            held.append(pk)
        else:
            done.append(pk)
    going = Recipient.objects.filter(pk__in=done)
    if release:
        going.filter(expires_at__lt=now + MORE_TIME).update(expires_at=now + MORE_TIME)
    going.update(due_at=now, holds=0)
    return Outcome(done, on_the_way, held)


def give_up(recipients: Sequence[int], now: datetime) -> Outcome:
    """Within a transaction: discard what of these waits and is not on the way, and content that none needs then.

    Content is locked first, and both in the order of their ids, as the mailserver does it: no
    deadlock, and of two who end a message's last recipients the second sees what the first did.
    """
    messages = Recipient.objects.filter(pk__in=recipients).values("message")
    contents = Content.objects.select_for_update().filter(pk__in=messages).order_by("pk")
    kept = list(contents.values_list("pk", flat=True))
    done: list[int] = []
    on_the_way: list[int] = []
    for pk, _message, lease_until in _locked(recipients):
        (on_the_way if lease_until is not None and lease_until > now else done).append(pk)
    Recipient.objects.filter(pk__in=done).update(
        state=Recipient.State.DISCARDED, settled_at=now, lease_until=None, lease_by="", last_reply=str(reply.DISCARDED)
    )
    waiting = Recipient.objects.filter(message__in=kept, state=Recipient.State.WAITING).order_by()
    needed = set(waiting.values_list("message", flat=True).distinct())
    Content.objects.filter(pk__in=[pk for pk in kept if pk not in needed]).delete()
    return Outcome(done, on_the_way)


def _locked(recipients: Sequence[int]) -> list[tuple[int, int, datetime | None]]:
    """Those of the recipients that wait, locked in the order of their ids: id, holds, lease_until."""
    rows = Recipient.objects.filter(pk__in=recipients, state=Recipient.State.WAITING).order_by("pk")
    return list(rows.select_for_update().values_list("pk", "holds", "lease_until"))


def release_suspended(tenants: QuerySet[Tenant] | Iterable[int]) -> int:
    """Make due what waits because its sender's tenant, or something of it, was suspended; gives how many.

    In the transaction of whoever resumes. What still may not go is held again at its next claim.
    """
    held = Recipient.objects.filter(tenant__in=tenants, state=Recipient.State.WAITING)
    held = held.annotate(suspended=F("holds").bitand(Hold.SUSPENDED)).filter(suspended=Hold.SUSPENDED)
    return _lock(held).update(due_at=timezone.now(), holds=F("holds").bitand(~Hold.SUSPENDED & 0x7FFF))


def _waiting(recipients: QuerySet[Recipient] | Iterable[int]) -> QuerySet[Recipient]:
    rows = recipients if isinstance(recipients, QuerySet) else Recipient.objects.filter(pk__in=list(recipients))
    return rows.filter(state=Recipient.State.WAITING)


def _lock(rows: QuerySet[Recipient]) -> QuerySet[Recipient]:
    """The rows, locked in the order of their ids, as the mailserver does it: no deadlock."""
    for _row in rows.order_by("pk").select_for_update(of=("self",)).values_list("pk").iterator():
        pass
    return rows.order_by()


def _tenant(number: int | None) -> Tenant | None:
    """The tenant of a trace row, which no foreign key holds."""
    return None if number is None else Tenant.objects.filter(pk=number).first()
