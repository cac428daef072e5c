"""The provider's pages of the queue: by next hop, the list's filters, and acts on many at once."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IS_FACETS_VAR
from django.contrib.admin.views.main import ALL_VAR, ERROR_FLAG, ORDER_VAR, PAGE_VAR, SEARCH_VAR
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext_lazy
from unfold.contrib.filters.admin import TextFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget, UnfoldBooleanSwitchWidget

from panel.sending import bulk
from panel.sending.hops import Hop, last_said, oldest_of, waiting_hops
from panel.sending.models import BulkAct, BulkKind, Hold, Message, Recipient
from panel.sending.selection import (
    HELD,
    HERE,
    HOLDS,
    NOT_HELD,
    PARAMETERS,
    Selection,
    held,
    read_span,
    span,
    span_words,
    which_of,
)
from panel.tenants.changes import ServiceError
from panel.tenants.history import kept_words
from panel.tenants.pages import AFTER, BEFORE
from panel.tenants.scoped_admin import ScopedAdmin, badge, by
from panel.tenants.shown import moment

HOPS = 50  # a page
# What stands in a list's address beside its filters.
NARROW_NOTHING = {ALL_VAR, ERROR_FLAG, IS_FACETS_VAR, ORDER_VAR, PAGE_VAR, SEARCH_VAR, AFTER, BEFORE}
AGES = (600, 3600, 6 * 3600, 86400, 3 * 86400)
WORDS: dict[BulkKind, dict[str, Any]] = {
    BulkKind.RETRY: {
        "title": pgettext_lazy("recipients", "Try {} now"), "button": gettext_lazy("Try {n:,} now"),
        "done": gettext_lazy("made due now, to be tried in a moment"),
    },
    BulkKind.DISCARD: {
        "title": gettext_lazy("Give up {}"), "button": gettext_lazy("Give up {n:,}"), "done": gettext_lazy("given up"),
    },
}


# --- the filters of the list --------------------------------------------------------------


class SelectionFilter(TextFilter):
    """A text that narrows as Selection says. What can't be understood narrows to nothing."""

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if not self.value():
            return queryset
        try:
            chosen = Selection.read({self.parameter_name: self.value()})
        except ServiceError as error:
            messages.warning(request, str(error))
            return queryset.none()
        return chosen.narrow(queryset, timezone.now())


class HopFilter(SelectionFilter):
    title = gettext_lazy("next hop")
    parameter_name = "hop"


class DomainFilter(SelectionFilter):
    title = gettext_lazy("next hop, or the recipients' domain")
    parameter_name = "domain"


class RecipientFilter(SelectionFilter):
    title = gettext_lazy("recipient, or their domain")
    parameter_name = "recipient"


class SenderFilter(SelectionFilter):
    title = gettext_lazy("sender, or their domain")
    parameter_name = "sender"


class MessageFilter(SelectionFilter):
    title = gettext_lazy("message")
    parameter_name = "message"


class HoldFilter(admin.SimpleListFilter):
    title = gettext_lazy("what holds it")
    parameter_name = "holds"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            (NOT_HELD, _("nothing")), (HELD, _("anything")), *((name, str(hold.label)) for name, hold in HOLDS.items()),
        ]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if self.value() not in (NOT_HELD, HELD, *HOLDS):
            return queryset
        return queryset.filter(held(str(self.value())), state=Recipient.State.WAITING)


class OlderFilter(admin.SimpleListFilter):
    title = gettext_lazy("age")
    parameter_name = "older"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            (span(seconds).replace(" ", ""), _("older than {span}").format(span=span_words(seconds)))
            for seconds in AGES
        ]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        try:
            chosen = Selection(older_s=read_span(str(self.value()))) if self.value() else Selection()
        except ServiceError:
            return queryset
        return chosen.narrow(queryset, timezone.now())


# --- what the recipients' admin gains -----------------------------------------------------


class BulkForm(forms.Form):
    """The count that was confirmed goes with the form: what comes later is left alone."""

    upto = forms.IntegerField(min_value=0, max_value=2**63 - 1, widget=forms.HiddenInput)
    asked_at = forms.DateTimeField(widget=forms.HiddenInput)


class RetryForm(BulkForm):
    release = forms.BooleanField(
        required=False, label=gettext_lazy("Also what is held as undeliverable, or because it crashed its worker"),
        help_text=gettext_lazy("What is held for a suspended sender stays so until its sender is resumed."),
        widget=UnfoldBooleanSwitchWidget,
    )


class DiscardForm(BulkForm):
    reason = forms.CharField(
        max_length=500, label=gettext_lazy(
            "Reason"
        ), help_text=gettext_lazy("For the audit log; the tenants concerned can read it."),
        widget=UnfoldAdminTextInputWidget,
    )


class QueuePages(ScopedAdmin):
    """The queue by next hop, the list's sentence, and acts in bulk on what it names."""

    list_before_template = "admin/posthouse/selection.html"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("queue/", view(self.queue), name="sending_queue"),
            path("bulk/<str:kind>/", view(self.bulk), name="sending_bulk"),
            *super().get_urls(),
        ]

    def queue(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        hops = waiting_hops(self.get_queryset(request), deferred=False)
        sought = request.GET.get("q", "").strip().lower()[:255]
        shown = [hop for hop in hops if sought in hop.name.lower()] if sought else hops
        pages = Paginator(shown, HOPS).get_page(request.GET.get("p"))
        said = last_said(list(pages))
        oldest = oldest_of(hops)
        acts = self.may_act_in_bulk(request)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Queue"),
            "pages": pages,
            "rows": [_shown(hop, said.get(hop.name), acts) for hop in pages],
            "sought": sought,
            "hops": len(hops),
            "waits": _what_waits(hops, moment(oldest)) if oldest else "",
            "held": _held(sum(hop.held for hop in hops)),
            "last_message": "" if hops else _last_message(request),
            "unfinished": [(act.pk, str(_told(act))) for act in bulk.unfinished()[:5]] if acts else [],
            "all_held": _list(Selection(state=Recipient.State.WAITING, hold=HELD)),
            "retry_all": _act(BulkKind.RETRY, Selection(state=Recipient.State.WAITING)) if acts else "",
            "acts": reverse("admin:sending_bulkact_changelist"),
        }
        return TemplateResponse(request, "admin/posthouse/queue.html", context)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {**(extra_context or {}), "selection": self._sentence(request)})

    def _sentence(self, request: HttpRequest) -> dict[str, Any] | None:
        """What stands above the list: its filters as a sentence, and what can be done with all of it."""
        try:
            chosen = Selection.read(request.GET)
        except ServiceError:
            return None
        if not chosen.narrows or not _names_all(chosen, request):
            return None
        sought = bool(request.GET.get("q"))
        # Counted only where an index leads: among what waits.
        number = None
        if chosen.waits and not sought:
            number = chosen.narrow(self.get_queryset(request), timezone.now()).count()
        words = chosen.sentence(number, seen_by=by(request)["actor"])
        acts = bool(number) and self.may_act_in_bulk(request)
        return {
            "words": words[:1].upper() + words[1:],
            "none": number == 0,
            "retry": _act(BulkKind.RETRY, chosen) if acts else "",
            "discard": _act(BulkKind.DISCARD, chosen) if acts else "",
        }

    def may_act_in_bulk(self, request: HttpRequest) -> bool:
        """Acts in bulk reach over tenants: they are the provider's."""
        return self.has_act_permission(request) and bool(getattr(request.user, "has_provider_role", False))

    def bulk(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Names the sentence and the count, then begins the act that was confirmed."""
        if not self.may_act_in_bulk(request):
            raise PermissionDenied
        if kind not in BulkKind.values:
            raise Http404
        act = BulkKind(kind)
        try:
            chosen = bulk.waiting(Selection.read(request.GET))
            now = timezone.now()
            count, upto = bulk.count(chosen, now)
        except ServiceError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(reverse("admin:sending_queue"))
        form_class = RetryForm if act is BulkKind.RETRY else DiscardForm
        form = form_class(request.POST or None, initial={"upto": upto, "asked_at": now.isoformat()})
        if request.method == "POST" and form.is_valid():
            data = form.cleaned_data
            try:
                made = bulk.ask(
                    act, chosen, release=data.get("release", False), reason=data.get("reason", ""),
                    upto=data["upto"], now=min(now, data["asked_at"]), **by(request),
                )
                return HttpResponseRedirect(reverse("admin:sending_bulkact_change", args=(made.pk,)))
            except ServiceError as error:
                form.add_error(error.field if error.field in form.fields else None, str(error))
        sentence = chosen.sentence(count, seen_by=by(request)["actor"])
        context = {
            **self.admin_site.each_context(request),
            "title": str(WORDS[act]["title"]).format(sentence),
            "button": str(WORDS[act]["button"]).format(n=count),
            "kind": act.value,
            "count": count,
            "form": form,
            "opts": self.opts,
            "back": _list(chosen),
        }
        return TemplateResponse(request, "admin/posthouse/bulk.html", context)


def _names_all(chosen: Selection, request: HttpRequest) -> bool:
    """Whether the list is narrowed by what the selection names alone: its address can name any other column as well."""
    named = chosen.params()
    return all(
        name in NARROW_NOTHING or (len(values) == 1 and (name in named or (name in PARAMETERS and not values[0])))
        for name, values in request.GET.lists()
    )


HELD_WORDS: dict[Hold, Any] = {
    Hold.SUSPENDED: gettext_lazy("sender suspended"), Hold.UNDELIVERABLE: gettext_lazy("undeliverable"),
    Hold.POISON: gettext_lazy("crashed a worker"),
}


def _what_waits(hops: list[Hop], oldest: str) -> SafeString:
    waiting = sum(hop.waiting for hop in hops)
    recipients = ngettext("{n:,} recipient", "{n:,} recipients", waiting).format(n=waiting)
    everything = _list(Selection(state=Recipient.State.WAITING))
    return format_html(
        ngettext(
            "{recipients} waits for {hops}; the oldest was accepted {oldest}.",
            "{recipients} wait for {hops}; the oldest was accepted {oldest}.", waiting,
        ),
        recipients=format_html('<a class="ph-link" href="{}">{}</a>', everything, recipients),
        hops=hop_count(len(hops)), oldest=oldest,
    )


def _held(held: int) -> str:
    return ngettext("{n:,} of them is held.", "{n:,} of them are held.", held).format(n=held) if held else ""


def hop_count(hops: int) -> str:
    return ngettext("{n:,} next hop", "{n:,} next hops", hops).format(n=hops)


def _shown(hop: Hop, said: Any, acts: bool) -> dict[str, Any]:
    chosen = Selection(state=Recipient.State.WAITING.value, hop=hop.name)
    return {
        "name": str(HERE.get(hop.name, hop.name)),
        "is_here": hop.name in HERE,
        "url": _list(chosen),
        "waiting": f"{hop.waiting:,}",
        "oldest": moment(hop.oldest_at),
        "next": moment(hop.due_at) if hop.due_at else "",
        "overdue": hop.due_at is not None and hop.due_at <= timezone.now(),
        "reply": said.reply if said else "",
        "said_at": moment(said.at) if said and said.at else "",
        "held_count": f"{hop.held:,}",
        "held": [
            {"count": f"{count:,}", "words": HELD_WORDS[hold], "url": _list(
                Selection(state=Recipient.State.WAITING.value, hop=hop.name, hold=hold.name.lower())
            )}
            for hold, count in sorted(hop.by_hold.items())
        ],
        "retry": _act(BulkKind.RETRY, chosen) if acts else "",
        "discard": _act(BulkKind.DISCARD, chosen) if acts else "",
    }


def _list(chosen: Selection) -> str:
    return f"{reverse('admin:sending_recipient_changelist')}?{urlencode(chosen.params())}"


def _act(kind: BulkKind, chosen: Selection) -> str:
    return f"{reverse('admin:sending_bulk', args=(kind.value,))}?{urlencode(chosen.params())}"


def _told(act: BulkAct) -> BulkAct:
    act.told = which_of(act)
    return act


def _last_message(request: HttpRequest) -> str:
    at = Message.objects.for_user(request.user).order_by("-pk").values_list("accepted_at", flat=True).first()
    return moment(at) if at else ""


# --- the acts -----------------------------------------------------------------------------


@admin.register(BulkAct)
class BulkActAdmin(ScopedAdmin):
    """What was done with many at once, and how far what is not at its end yet came."""

    creatable = changeable = False
    empty_words = gettext_lazy(
        "An act on all that waits for a next hop, or on whatever the list of recipients was filtered to."
    )
    list_display = ["asked_on", "kind", "shown_which", "asked_by", "looked_at", "state"]
    list_filter = ["kind"]
    ordering = ["-pk"]
    fields = ["asked_by", "asked_at", "shown_reason"]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:pk>/go-on/", view(self.go_on), name="sending_bulk_go_on"),
            path("<int:pk>/stop/", view(self.stop), name="sending_bulk_stop"),
            *super().get_urls(),
        ]

    def get_object(self, *args: Any, **kwargs: Any) -> BulkAct | None:
        act = super().get_object(*args, **kwargs)
        return _told(act) if act else None

    @display(description=gettext_lazy("Asked"), ordering="pk")
    def asked_on(self, act: BulkAct) -> str:
        return moment(act.asked_at)

    @display(description=gettext_lazy("which"), ordering="which")
    def shown_which(self, act: BulkAct) -> str:
        return which_of(act)

    @display(description=gettext_lazy("by"), ordering="actor_name")
    def asked_by(self, act: BulkAct) -> str:
        return kept_words(act.actor_name)

    @display(description=gettext_lazy("Looked at"))
    def looked_at(self, act: BulkAct) -> str:
        return _("{looked_at:,} of {asked:,}").format(looked_at=act.looked_at, asked=act.asked)

    @display(description=gettext_lazy("State"))
    def state(self, act: BulkAct) -> SafeString:
        if act.finished_at is None:
            return badge("warn", _("not at its end"))
        return badge("off", _("stopped")) if act.stopped else badge("good", _("done"))

    @display(description=gettext_lazy("Reason"))
    def shown_reason(self, act: BulkAct) -> str:
        return act.reason or "–"

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        act = self.get_object(request, str(object_id)) if object_id else None
        where = {"where": self._progress(request, act), "title": _("Bulk act")} if act is not None else {}
        return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **where})

    def _progress(self, request: HttpRequest, act: BulkAct) -> SafeString:
        acts = self.has_act_permission(request)
        left = [
            (act.on_the_way, _("on the way just now")),
            (act.held, _("held for suspended senders") if act.release else _(
                "held (“also what is held” tries all of it but what is held for a suspended sender)"
            )),
            (act.settled, _("no longer waiting when their turn came")),
        ]
        context = {
            "act": act,
            "state": self.state(act),
            "title": str(WORDS[BulkKind(act.kind)]["title"]).format(
                Selection.stored(act.selection).sentence(act.asked)
            ),
            "done_words": WORDS[BulkKind(act.kind)]["done"],
            "done": f"{act.done:,}",
            "looked_at": _("{looked_at:,} of {asked:,}").format(looked_at=act.looked_at, asked=act.asked),
            "left": [(f"{number:,}", words) for number, words in left if number],
            "share": min(100, act.looked_at * 100 // max(1, act.asked)),
            "go_on": reverse("admin:sending_bulk_go_on", args=(act.pk,)) if acts else "",
            "stop": reverse("admin:sending_bulk_stop", args=(act.pk,)) if acts else "",
            "queue": reverse("admin:sending_queue"),
            "waiting": _list(Selection.stored(act.selection)),
        }
        return render_to_string("admin/posthouse/bulk_act.html", context, request=request)

    def go_on(self, request: HttpRequest, pk: int) -> HttpResponse:
        return self._post(request, pk, lambda act: bulk.step(act))

    def stop(self, request: HttpRequest, pk: int) -> HttpResponse:
        return self._post(request, pk, lambda act: bulk.stop(act, **by(request)))

    def _post(self, request: HttpRequest, pk: int, act: Callable[[BulkAct], BulkAct]) -> HttpResponse:
        if not self.has_act_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        try:
            act(self.object_or_404(request, str(pk)))
        except ServiceError as error:
            messages.error(request, str(error))
        return HttpResponseRedirect(self.url_of(pk))
