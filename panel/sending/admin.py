"""The provider's admin of limits and routes, and its view of messages and the queue (read only)."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import action, display
from unfold.paginator import InfinitePaginator

from panel.database import ids
from panel.rules.searched import Searched
from panel.sending import found, services
from panel.sending.models import Attempt, Hold, Message, OutboundRoute, Recipient, SendingLimit, Window
from panel.tenants.changes import ServiceError
from panel.tenants.listed import MOST_LISTED, only
from panel.tenants.scoped_admin import ScopedAdmin, badge, by, mono
from panel.tenants.shown import about, moment

LOOKS = {
    Recipient.State.WAITING: "warn",
    Recipient.State.DELIVERED: "good",
    Recipient.State.FAILED: "bad",
    Recipient.State.DISCARDED: "off",
}


def recipient_state(recipient: Recipient) -> SafeString:
    if recipient.state == Recipient.State.WAITING and recipient.holds:
        why = ", ".join(hold.label for hold in list(Hold) if recipient.holds & hold)
        return format_html('{} <span class="ph-dim ph-why">{}</span>', badge("bad", "held"), why)
    return badge(LOOKS[Recipient.State(recipient.state)], recipient.get_state_display())


@admin.register(SendingLimit)
class LimitAdmin(ScopedAdmin):
    empty_words = "Without a limit of its own, a tenant and a mailbox have their plan's."
    list_display = ["subject", "window", "number"]
    list_filter = ["window"]
    search_fields = ["tenant__name", "domain__name", "mailbox__address__local_part", "mailbox__address__domain__name"]
    list_select_related = [
        "tenant", "domain", "mailbox__address__domain", "credential__mailbox__address__domain",
    ]
    autocomplete_fields = ["tenant", "domain", "mailbox", "credential"]
    removable = True
    fieldsets = [
        ("Whose", {
            "fields": ["tenant", "domain", "mailbox", "credential"],
            "description": "Choose exactly one; anything else stays empty. Without a limit of its own, a tenant and a "
            "mailbox have their plan's.",
        }),
        ("How many", {
            "fields": ["window", "recipients"],
            "description": "Recipients in the last hour or in the last 24 hours. An empty number means unlimited.",
        }),
    ]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return super().get_fieldsets(request, obj)
        return [(None, {
            "fields": ["subject", "window", "recipients"],
            "description": "Deleting this limit lets the plan's hold again, or that of the level above.",
        })]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["subject", "window"] if obj else []

    @display(description="Whose")
    def subject(self, limit: SendingLimit) -> str:
        if limit.credential:
            return f"{limit.credential} of {limit.credential.mailbox}"
        if limit.tenant:
            return f"the tenant {limit.tenant}"
        return f"the domain {limit.domain}" if limit.domain else str(limit.mailbox)

    @display(description="Recipients", ordering="recipients")
    def number(self, limit: SendingLimit) -> str:
        return "unlimited" if limit.recipients is None else f"{limit.recipients:,}"

    def create(self, request: HttpRequest, data: dict[str, Any]) -> SendingLimit:
        subjects = [data[name] for name in ("tenant", "domain", "mailbox", "credential") if data[name]]
        if len(subjects) != 1:
            raise ServiceError("Choose exactly one: a tenant, a domain, a mailbox or a password.", "tenant")
        return services.set_limit(
            subjects[0], window=data["window"], recipients=data["recipients"], **by(request))

    def change(self, request: HttpRequest, obj: SendingLimit, data: dict[str, Any]) -> None:
        services.set_limit(
            services.limit_subject(obj), window=obj.window, recipients=data["recipients"],
            **by(request))

    def remove(self, request: HttpRequest, obj: SendingLimit) -> None:
        services.inherit_limit(
            services.limit_subject(obj), window=obj.window, **by(request))


class RouteForm(forms.ModelForm):
    class Meta:
        model = OutboundRoute
        fields = ["domain", "host", "port", "tls"]
        help_texts = {"host": "A name or an IP address. Yours may be private: only what MX records say is checked."}


@admin.register(OutboundRoute)
class RouteAdmin(ScopedAdmin):
    empty_words = "All mail goes by MX. A route leads the mail for a domain to another server, such as a smarthost."
    list_display = ["shown_domain", "way", "tls"]
    search_fields = ["domain", "host"]
    form = RouteForm
    removable = True
    readonly_fields = ["shown_domain"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["shown_domain" if obj else "domain", "host", "port", "tls"]

    @display(description="Mail for", ordering="domain")
    def shown_domain(self, route: OutboundRoute) -> str:
        return mono(route.domain) if route.domain else "every other domain"

    @display(description="Goes to", ordering="host")
    def way(self, route: OutboundRoute) -> str:
        return mono(route.way)

    def create(self, request: HttpRequest, data: dict[str, Any]) -> OutboundRoute:
        return services.set_route(**data, **by(request))

    def change(self, request: HttpRequest, obj: OutboundRoute, data: dict[str, Any]) -> None:
        services.set_route(**{"domain": obj.domain, **data}, **by(request))

    def remove(self, request: HttpRequest, obj: OutboundRoute) -> None:
        services.remove_route(obj, **by(request))


class TraceAdmin(ScopedAdmin):
    """What happened: never changed by hand."""

    creatable = changeable = False
    paginator = InfinitePaginator  # no count of a table that grows with traffic
    show_full_result_count = False

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        obj = self.get_object(request, unquote(object_id)) if object_id else None
        where = {"where": self.where(obj)} if obj is not None else {}
        return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **where})

    def where(self, obj: Any) -> SafeString:
        """What stands above the facts: where the mail is."""
        raise NotImplementedError


@admin.register(Message)
class MessageAdmin(TraceAdmin):
    empty_words = "Each message that is accepted, from a tenant or from elsewhere, is listed here."
    list_display = ["shown_id", "accepted", "direction", "shown_from", "short_subject", "tenant_name", "shown_size"]
    list_filter = ["direction", ("tenant", AutocompleteSelectFilter)]
    search_fields = ["id"]  # there is a box; get_search_results decides
    search_help_text = "Queue id, how a sender or recipient begins, Message-ID, or client's IP"
    list_select_related = ["tenant"]
    ordering = ["-id"]
    readonly_fields = fields = [
        "shown_id", "accepted_at", "direction", "tenant_name", "shown_from", "header_from", "shown_subject",
        "message_id", "credential_text", "client_ip", "client_name", "shown_tls", "shown_size", "charged",
    ]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        searched = Searched.of(search_term)
        if not searched.text:
            return queryset, False
        own = found.messages(queryset, searched, MOST_LISTED)
        to = found.messages_to(Recipient.objects.for_user(request.user), searched, MOST_LISTED)
        return only(request, queryset, {*own.pks, *to.pks}, own.more or to.more)

    @display(description="Queue id", ordering="id")
    def shown_id(self, message: Message) -> str:
        return mono(message.queue_id)

    @display(description="Sender", ordering="reverse_path")
    def shown_from(self, message: Message) -> str:
        return mono(message.reverse_path or "<>")

    @display(description="Accepted", ordering="id")
    def accepted(self, message: Message) -> str:
        return moment(message.accepted_at)

    @display(description="TLS")
    def shown_tls(self, message: Message) -> str:
        return message.tls or "none"

    @display(description="Subject")
    def short_subject(self, message: Message) -> str:
        return Truncator(message.subject).chars(60) or "(no subject)"

    @display(description="Subject")
    def shown_subject(self, message: Message) -> str:
        return message.subject or "(no subject)"

    @display(description="Tenant")
    def tenant_name(self, message: Message) -> str:
        return str(message.tenant) if message.tenant_id else "–"

    @display(description="Size", ordering="size")
    def shown_size(self, message: Message) -> str:
        return about(message.size)

    @display(description="Why it was let through")
    def charged(self, message: Message) -> str:
        lines = [
            f"{each.get('kind', '')} {each.get('name')}: {_figure(each.get('used'))} of {_figure(each.get('allowed'))} "
            f"in {dict(Window.choices).get(each.get('window'), each.get('window'))}"
            for each in message.facts.get("charged", [])
        ]
        return " · ".join(lines) or "nothing was charged"

    def where(self, message: Message) -> SafeString:
        recipients = list(Recipient.objects.filter(message_id=message.pk).order_by("id")[:200])
        tries: dict[int, list[Attempt]] = {}
        for attempt in Attempt.objects.filter(recipient_id__in=[each.pk for each in recipients]).order_by("-id"):
            tries.setdefault(attempt.recipient_id, []).append(attempt)
        rows = [(each, recipient_state(each), tries.get(each.pk, [])) for each in recipients]
        return render_to_string("admin/posthouse/recipients.html", {"rows": rows})


def _figure(number: int | None) -> str:
    return "unlimited" if number is None else f"{number:,}"


class HoldFilter(admin.SimpleListFilter):
    title = "what holds it"
    parameter_name = "holds"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(hold.name.lower(), str(hold.label)) for hold in Hold]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if self.value() is None:
            return queryset
        hold = Hold[str(self.value()).upper()]
        bits = [bits for bits in range(1, 1 << len(Hold)) if bits & hold]
        return queryset.filter(state=Recipient.State.WAITING, holds__in=bits)


@admin.register(Recipient)
class RecipientAdmin(TraceAdmin):
    empty_words = "Each recipient of each message is listed here; those that wait are the queue."
    list_display = ["shown_message", "shown_original", "state_badge", "shown_hop", "next_try", "tries", "shown_reply"]
    list_filter = ["state", HoldFilter, ("tenant", AutocompleteSelectFilter)]
    search_fields = ["id"]  # there is a box; get_search_results decides
    search_help_text = "Queue id, how a recipient begins, or the next hop that it waits for"
    ordering = ["-id"]
    actions = ["retry"]
    actions_detail = ["retry_one"]
    readonly_fields = ["message_link", "tenant_name", "shown_hop", "due_at", "expires_at", "tries"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        waits = ["due_at", "expires_at"] if obj and obj.state == Recipient.State.WAITING else []
        return ["message_link", "tenant_name", "shown_hop", *waits, "tries"]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        searched = Searched.of(search_term)
        if not searched.text:
            return queryset, False
        named = found.recipients(queryset, searched, MOST_LISTED)
        return only(request, queryset, named.pks, named.more)

    @display(description="Message")
    def message_link(self, recipient: Recipient) -> SafeString:
        url = reverse("admin:sending_message_change", args=(recipient.message_id,))
        link = '<a class="ph-mono text-primary-600 dark:text-primary-500" href="{}">{}</a>'
        return format_html(link, url, ids.to_text(recipient.message_id))

    @display(description="Caused by the tenant")
    def tenant_name(self, recipient: Recipient) -> str:
        return str(recipient.tenant) if recipient.tenant_id else "–"

    @display(description="Next hop", ordering="next_hop")
    def shown_hop(self, recipient: Recipient) -> SafeString:
        return mono(recipient.next_hop)

    @display(description="Next try", ordering="due_at")
    def next_try(self, recipient: Recipient) -> str:
        goes = recipient.state == Recipient.State.WAITING and not recipient.holds
        return moment(recipient.due_at) if goes else "–"

    @display(description="Queue id", ordering="message_id")
    def shown_message(self, recipient: Recipient) -> str:
        return mono(ids.to_text(recipient.message_id))

    @display(description="Recipient", ordering="original")
    def shown_original(self, recipient: Recipient) -> str:
        return mono(recipient.original)

    @display(description="State", ordering="state")
    def state_badge(self, recipient: Recipient) -> str:
        return recipient_state(recipient)

    @display(description="Last reply")
    def shown_reply(self, recipient: Recipient) -> str:
        if not recipient.last_reply:
            return "–"
        return format_html('<span class="ph-reply">{}</span>', recipient.last_reply)

    def where(self, recipient: Recipient) -> SafeString:
        tries = list(Attempt.objects.filter(recipient_id=recipient.pk).order_by("-id"))
        rows = [(recipient, recipient_state(recipient), tries)]
        return render_to_string("admin/posthouse/recipients.html", {"rows": rows})

    def offered(self, obj: Recipient) -> set[str]:
        return super().offered(obj) if obj.state == Recipient.State.WAITING else set()

    @action(description="Try now…", url_path="retry", permissions=["act"], icon="refresh")
    def retry_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Recipient, data: dict[str, Any]) -> str:
            count = services.retry(
                Recipient.objects.filter(pk=obj.pk), release=True, **by(request))
            return f"{obj} is tried in a moment." if count else f"{obj} waits until its sender is resumed."

        return self.confirm(
            request, object_id, title="Try {} now", button="Try now", act=act,
            sentence="The delivery to {} is tried at once instead of at its next time; if it was held as "
            "undeliverable, it is let go.",
        )

    @action(description="Try the chosen recipients now", permissions=["act"])
    def retry(self, request: HttpRequest, queryset: Any) -> None:
        chosen = queryset.filter(state=Recipient.State.WAITING)
        count = services.retry(chosen, **by(request))
        left = chosen.exclude(holds=0).count()
        held = f" {left} stay held: open each and choose Try now, or resume its sender." if left else ""
        which = "1 recipient is" if count == 1 else f"{count:,} recipients are"
        self.message_user(request, f"{which} tried in a moment.{held}")
