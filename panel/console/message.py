"""A message's page: where it is, what is next, why it was let through; try it now, give it up.

A request by htmx is answered with the parts that move alone, which ask again as long as something of it waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from panel.console import log_words
from panel.console.access import tenant_page
from panel.console.frame import page
from panel.console.places import Role, TenantPlace
from panel.database import ids
from panel.rules.limits import Window
from panel.sending import services, whereabouts
from panel.sending.log import SeenAttempt, SeenRecipient
from panel.sending.log_search import told_of
from panel.sending.message_page import tls_in_words
from panel.sending.models import Hold, Recipient
from panel.sending.used import window_words
from panel.sending.whereabouts import Whereabouts
from panel.tenants.changes import ServiceError
from panel.tenants.gauge import Gauge

SOON_S, LATER_S = 3, 30  # between two looks of a page that stands open
OUTCOMES = {
    "delivered": ("good", gettext_lazy("Delivered"), ""), "deferred": ("", gettext_lazy("Put off"), "clock"),
    "failed": ("bad", gettext_lazy("Refused"), ""),
}


@dataclass(frozen=True, slots=True)
class Try:
    """One try, as it is shown."""

    attempt: SeenAttempt
    number: int
    look: str
    word: Any
    drawing: str

    @property
    def tls(self) -> str:
        return tls_in_words(self.attempt.tls)

    @property
    def took(self) -> str:
        took_ms = self.attempt.duration_ms
        return f"{took_ms:,} ms" if took_ms < 1000 else f"{took_ms / 1000:,.1f} s"


@dataclass(frozen=True, slots=True)
class Leg:
    """A recipient's way as far as it went."""

    seen: SeenRecipient
    look: str
    word: Any
    drawing: str
    remark: str
    reply: str
    last: Try | None
    earlier: Sequence[Try]
    at: datetime | None
    may_give_up: bool

    @property
    def leads(self) -> str:
        """The address that took it, when it was written to another one."""
        return self.seen.resolved if self.seen.resolved != self.seen.original else ""

    @property
    def is_others(self) -> bool:
        """An address of another organisation's here: of the way to it nothing is told."""
        return not self.seen.resolved


class GiveUpForm(forms.Form):
    """Why, for the audit log."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=300, required=False,
        help_text=gettext_lazy("Optional. It stands in your audit log."),
    )


@tenant_page()
def message(request: HttpRequest, place: TenantPlace, message: str) -> HttpResponse:
    """The page, or the parts of it that move."""
    where = _find(place, message)
    now = timezone.now()
    live = request.headers.get("HX-Request") == "true"
    name = _name(where)
    every_s = 0 if not any(not each.holds for each in where.waiting) else SOON_S if where.is_soon(now) else LATER_S
    answer = page(
        request, place, "console/parts/message_live.html" if live else "console/message.html", name,
        crumbs=[(_("Messages"), _log(place))], where=where, own=where.message, every_s=every_s, live=live,
        legs=[_leg(each, where) for each in where.recipients], state=_state(where), next=_next(where, now),
        lost=_lost(where), charged=_charged(where), tls=tls_in_words(where.message.tls) if where.message else "",
        queue_id=message.upper(),
        try_url=reverse("console:message-try", args=[place.tenant.pk, message]),
        give_up_url=reverse("console:message-give-up", args=[place.tenant.pk, message]),
        may_try=place.may(Role.ADMIN) and bool(where.to_try),
        may_give_up=place.may(Role.ADMIN) and bool(where.to_give_up),
        all_url=f"{_log(place)}?q=id:{message}",
    )
    patch_vary_headers(answer, ["HX-Request"])
    return answer


@tenant_page(change=Role.ADMIN)
def try_now(request: HttpRequest, place: TenantPlace, message: str) -> HttpResponse:
    """Make due what of it waits and is the tenant's own."""
    where = _find(place, message)
    if request.method == "POST":
        going = where.to_try
        if whereabouts.tried_lately(going):
            messages.info(request, _("It was tried less than a minute ago. Give the other server a moment."))
        elif count := services.retry([each.id for each in going], actor=place.account, ip=place.ip):
            messages.success(request, ngettext(
                "{count} recipient is tried now.", "{count} recipients are tried now.", count
            ).format(count=count))
        else:
            messages.info(request, _("Nothing of it waits that could be tried now."))
    return _to(place, message)


@tenant_page(role=Role.ADMIN, change=Role.ADMIN)
def give_up(request: HttpRequest, place: TenantPlace, message: str) -> HttpResponse:
    """Give up what of it waits, or one recipient, after it was asked for."""
    where = _find(place, message)
    chosen = _chosen(request, where)
    if not chosen:
        messages.info(request, _("Nothing of it can be given up: what is being delivered just now goes on."))
        return _to(place, message)
    form = GiveUpForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            outcome = services.discard_of(
                where.message_id, [each.id for each in chosen], reason=form.cleaned_data["reason"],
                actor=place.account, ip=place.ip,
            )
        except ServiceError as error:
            form.add_error("reason" if error.field == "reason" else None, str(error))
        else:
            messages.success(request, ngettext(
                "{count} recipient was given up.", "{count} recipients were given up.", len(outcome.done)
            ).format(count=len(outcome.done)))
            return _to(place, message)
    named = chosen[0].original if len(chosen) == 1 else ngettext(
        "{count} recipient", "{count} recipients", len(chosen)
    ).format(count=len(chosen))
    return page(
        request, place, "console/confirm.html", _("Give up {what}?").format(what=named),
        crumbs=[(_("Messages"), _log(place)), (_name(where), _page(place, message))], form=form, button=_("Give up"),
        harmful=True, back=_page(place, message),
        sentence=_(
            "“{name}” is then never delivered to {what}, and nobody is told by mail. This can't be undone: it would "
            "have to be sent again. What has been delivered stays delivered."
        ).format(name=_name(where), what=named),
    )


def _find(place: TenantPlace, text: str) -> Whereabouts:
    """Raises Http404, also for what only others see."""
    try:
        where = whereabouts.of(place.tenant.pk, ids.from_text(text))
    except ValueError:
        where = None
    if where is None or not where.recipients:
        raise Http404
    return where


def _chosen(request: HttpRequest, where: Whereabouts) -> list[SeenRecipient]:
    """All, or the one that the address names; what may not be given up is not among them."""
    asked = request.GET.get("recipient", "")
    return [each for each in where.to_give_up if not asked or str(each.id) == asked]


def _name(where: Whereabouts) -> str:
    if where.message:
        return where.message.subject or _("(no subject)")
    return _("Mail from {sender}").format(sender=where.reverse_path) if where.reverse_path else _("A report")


def _state(where: Whereabouts) -> tuple[str, str, str]:
    """Look, words and drawing for all of it."""
    total = len(where.recipients)
    counts = {state: sum(each.state == state for each in where.recipients) for state in Recipient.State}
    delivered, waiting = counts[Recipient.State.DELIVERED], counts[Recipient.State.WAITING]
    failed = counts[Recipient.State.FAILED]
    look, drawing = ("bad", "") if failed else ("", "clock") if waiting else ("", "x")
    if where.more:
        return look, _("More than {count} recipients").format(count=total), drawing
    if delivered == total:
        return "good", _("Delivered") if total == 1 else _("Delivered to all {total}").format(total=total), ""
    if delivered:
        return look, _("Delivered to {count} of {total}").format(count=delivered, total=total), drawing
    if waiting:
        held = all(each.holds for each in where.waiting)
        return look, _("Held") if held else _("Waiting"), "player-pause" if held and not failed else drawing
    return look, _("Bounced") if failed else _("Given up"), drawing


def _next(where: Whereabouts, now: datetime) -> dict[str, Any] | None:
    """What happens next, and until when."""
    following = where.next
    if following is None:
        return None
    others = len(where.waiting) - 1
    more = ngettext("{count} more recipient waits.", "{count} more recipients wait.", others).format(count=others)
    told: dict[str, Any] = {"address": following.original, "others": more if others else "", "seen": following}
    if following.holds:
        goes = _("It goes as soon as its sender is resumed.") if following.holds & Hold.SUSPENDED else _(
            "Your provider looks at it; nobody else has to do anything."
        )
        return {**told, "held": log_words.held_because(following.holds), "sentence": goes}
    until = _("We keep trying until {time}; nobody has to do anything.").format(
        time=log_words.utc(following.expires_at)
    ) if following.expires_at else ""
    number = _("That will be try {number}.").format(number=following.tries + 1) if following.tries else ""
    return {
        **told, "on_the_way": following.on_the_way, "is_due": following.due_at is not None and following.due_at <= now,
        "again": following.tries > 0, "sentence": " ".join(filter(None, (number, until))),
    }


def _lost(where: Whereabouts) -> dict[str, Any] | None:
    """Whom it never reached, when nothing of it waits any more: the first of them, and how many more.

    `is_told`: what came back is shown.
    """
    failed = [each for each in where.recipients if each.state == Recipient.State.FAILED]
    if not failed or where.waiting:
        return None
    others = len(failed) - 1
    more = ngettext("Nor to {count} more.", "Nor to {count} more.", others).format(count=others)
    return {"address": failed[0].original, "others": more if others else "", "is_told": any(
        each.resolved and each.reply for each in failed
    )}


def _leg(seen: SeenRecipient, where: Whereabouts) -> Leg:
    look, word, drawing = log_words.STATES[told_of(seen)]
    tries = [Try(each, number, *OUTCOMES.get(each.outcome, ("", each.outcome, "clock")))
             for number, each in enumerate(seen.attempts, start=max(1, seen.tries - len(seen.attempts) + 1))]
    last = tries[-1] if tries else None
    remark, reply = log_words.remark(seen)
    return Leg(
        seen, look, word, drawing, remark, reply or (last.attempt.reply if last and not seen.here else ""), last,
        tries[-2::-1], seen.settled_at or (last.attempt.at if last else None),
        len(where.to_give_up) > 1 and seen in where.to_give_up,
    )


def _charged(where: Whereabouts) -> list[tuple[str, Gauge]]:
    """Each limit of the tenant's own as it stood with this message counted."""
    facts = next((each.facts for each in where.recipients if each.facts), None) or {}
    found = []
    for each in facts.get("charged", ()):
        used, allowed, window = each.get("used"), each.get("allowed"), each.get("window")
        if isinstance(used, int) and isinstance(allowed, int) and window in [one.value for one in Window]:
            title = _("{name}, {window}").format(name=each.get("name", ""), window=window_words(Window(window)))
            found.append((title, Gauge(used, allowed)))
    return found


def _log(place: TenantPlace) -> str:
    return reverse("console:messages", args=[place.tenant.pk])


def _page(place: TenantPlace, message: str) -> str:
    return reverse("console:message", args=[place.tenant.pk, message])


def _to(place: TenantPlace, message: str) -> HttpResponse:
    return HttpResponseRedirect(_page(place, message))
