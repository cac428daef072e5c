"""The provider's admin of limits and routes, and its view of messages and the queue (read only)."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextInputWidget

from panel.database import ids
from panel.mailboxes.admin import SearchedByAddress
from panel.rules.searched import Searched
from panel.sending import found, message_page, services
from panel.sending.models import Message, OutboundRoute, Recipient, SendingLimit
from panel.sending.queue_admin import (
    DomainFilter,
    HoldFilter,
    HopFilter,
    MessageFilter,
    OlderFilter,
    QueuePages,
    RecipientFilter,
    SenderFilter,
)
from panel.tenants.changes import ServiceError
from panel.tenants.listed import MOST_LISTED, only
from panel.tenants.models import Tenant
from panel.tenants.scoped_admin import ScopedAdmin, by, linked, mono
from panel.tenants.shown import about, moment


class DiscardForm(forms.Form):
    reason = forms.CharField(
        max_length=500, label=gettext_lazy(
            "Reason"
        ), help_text=gettext_lazy("For the audit log; the tenant can read it."),
        widget=UnfoldAdminTextInputWidget,
    )


@admin.register(SendingLimit)
class LimitAdmin(SearchedByAddress):
    empty_words = gettext_lazy("Without a limit of its own, a tenant and a mailbox have their plan's.")
    list_display = ["subject", "window", "number"]
    list_filter = ["window"]
    search_help_text = gettext_lazy("How an address begins, a whole domain, or a tenant's name")
    to_domain, from_address = ("domain", "mailbox__address__domain"), "mailbox__limits"
    list_select_related = [
        "tenant", "domain", "mailbox__address__domain", "credential__mailbox__address__domain",
    ]
    autocomplete_fields = ["tenant", "domain", "mailbox", "credential"]
    removable = True
    fieldsets = [
        (gettext_lazy("Whose"), {
            "fields": ["tenant", "domain", "mailbox", "credential"],
            "description": gettext_lazy(
                "Choose exactly one; anything else stays empty. Without a limit of its own, a tenant and a mailbox "
                "have their plan's."
            ),
        }),
        (gettext_lazy("How many"), {
            "fields": ["window", "recipients"],
            "description": gettext_lazy(
                "Recipients in the last hour or in the last 24 hours. An empty number means unlimited."
            ),
        }),
    ]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return super().get_fieldsets(request, obj)
        return [(None, {
            "fields": ["subject", "window", "recipients"],
            "description": _("Deleting this limit lets the plan's hold again, or that of the level above."),
        })]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["subject", "window"] if obj else []

    def audited(self, obj: SendingLimit) -> Any:
        return services.limit_subject(obj)

    def also_found(self, request: HttpRequest, rows: QuerySet[Any], searched: Searched) -> list[QuerySet[Any]]:
        named = Tenant.objects.for_user(request.user).filter(name__icontains=searched.name)
        return [rows.filter(tenant__in=named).order_by().values_list("pk", flat=True)] if searched.name else []

    @display(description=gettext_lazy("Whose"))
    def subject(self, limit: SendingLimit) -> str:
        if limit.credential:
            return _(
                "{password} of {mailbox}"
            ).format(password=limit.credential.words, mailbox=limit.credential.mailbox)
        if limit.tenant:
            return _("the tenant {tenant}").format(tenant=limit.tenant)
        return _("the domain {domain}").format(domain=limit.domain) if limit.domain else str(limit.mailbox)

    @display(description=gettext_lazy("Recipients"), ordering="recipients")
    def number(self, limit: SendingLimit) -> str:
        return _("unlimited") if limit.recipients is None else f"{limit.recipients:,}"

    def create(self, request: HttpRequest, data: dict[str, Any]) -> SendingLimit:
        subjects = [data[name] for name in ("tenant", "domain", "mailbox", "credential") if data[name]]
        if len(subjects) != 1:
            raise ServiceError(_("Choose exactly one: a tenant, a domain, a mailbox or a password."), "tenant")
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
        help_texts = {"host": gettext_lazy(
            "A name or an IP address. Yours may be private: only what MX records say is checked."
        )}


@admin.register(OutboundRoute)
class RouteAdmin(ScopedAdmin):
    empty_words = gettext_lazy(
        "All mail goes by MX. A route leads the mail for a domain to another server, such as a smarthost."
    )
    list_display = ["shown_domain", "way", "tls"]
    search_fields = ["domain", "host"]
    form = RouteForm
    removable = True
    readonly_fields = ["shown_domain"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["shown_domain" if obj else "domain", "host", "port", "tls"]

    @display(description=gettext_lazy("Mail for"), ordering="domain")
    def shown_domain(self, route: OutboundRoute) -> str:
        return mono(route.domain) if route.domain else _("every other domain")

    @display(description=gettext_lazy("Goes to"), ordering="host")
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

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        obj = self.get_object(request, unquote(object_id)) if object_id else None
        where = {"where": self.where(request, obj)} if obj is not None else {}
        return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **where})

    def where(self, request: HttpRequest, obj: Any) -> SafeString:
        """What stands above the facts: where the mail is."""
        return SafeString("")


@admin.register(Message)
class MessageAdmin(TraceAdmin):
    empty_words = gettext_lazy("Each message that is accepted, from a tenant or from elsewhere, is listed here.")
    list_display = ["shown_id", "accepted", "direction", "shown_from", "short_subject", "tenant_name", "shown_size"]
    list_filter = ["direction", ("tenant", AutocompleteSelectFilter)]
    search_fields = ["id"]  # there is a box; get_search_results decides
    search_help_text = gettext_lazy("Queue id, how a sender or recipient begins, Message-ID, or client's IP")
    list_select_related = ["tenant"]
    ordering = ["-id"]
    actions_detail = ["retry", "discard"]
    fields: list[str] = []
    sortable_by = ["shown_id", "accepted"]  # what an index answers

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        searched = Searched.of(search_term)
        if not searched.text:
            return queryset, False
        own = found.messages(queryset, searched, MOST_LISTED)
        to = found.messages_to(Recipient.objects.for_user(request.user), searched, MOST_LISTED)
        return only(request, queryset, {*own.pks, *to.pks}, own.more or to.more)

    @display(description=gettext_lazy("Queue id"), ordering="id")
    def shown_id(self, message: Message) -> str:
        return mono(message.queue_id)

    @display(description=gettext_lazy("Sender"), ordering="reverse_path")
    def shown_from(self, message: Message) -> str:
        return mono(message.reverse_path or "<>")

    @display(description=gettext_lazy("Accepted"), ordering="id")
    def accepted(self, message: Message) -> str:
        return moment(message.accepted_at)

    @display(description=gettext_lazy("Subject"))
    def short_subject(self, message: Message) -> str:
        return Truncator(message.subject).chars(60) or _("(no subject)")

    @display(description=gettext_lazy("Tenant"))
    def tenant_name(self, message: Message) -> str:
        return str(message.tenant) if message.tenant_id else "–"

    @display(description=gettext_lazy("Size"), ordering="size")
    def shown_size(self, message: Message) -> str:
        return about(message.size)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return []  # all of it stands in `where`

    def where(self, request: HttpRequest, message: Message) -> SafeString:
        recipients = Recipient.objects.for_user(request.user).filter(message=message.pk)
        return render_to_string("admin/posthouse/message.html", {
            **message_page.shown(message, recipients),
            "may_act": self.has_act_permission(request),
            "try_now": reverse("admin:sending_message_retry", args=(message.pk,)),
            "give_up": reverse("admin:sending_message_discard", args=(message.pk,)),
        }, request=request)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        return []  # its buttons stand beside what is next

    @action(description=gettext_lazy("Try now"), url_path="retry", permissions=["act"])
    def retry(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(message: Message, data: dict[str, Any]) -> str:
            count = services.retry_message(message, **by(request))
            return tried(count)

        return self.confirm(
            request, object_id, title=_("Try {} now"), button=_("Try now"), act=act,
            sentence=_(
                "What of {} waits is tried at once instead of at its next time; what was held as undeliverable is "
                "let go."
            ),
        )

    @action(description=gettext_lazy("Give up…"), url_path="discard", permissions=["act"])
    def discard(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(message: Message, data: dict[str, Any]) -> str:
            count, left = services.discard_message(message, reason=data["reason"], **by(request))
            given_up = ngettext("{n:,} recipient is given up.", "{n:,} recipients are given up.", count)
            going = ngettext(
                "{n:,} is on the way just now and left alone.", "{n:,} are on the way just now and left alone.", left
            ).format(n=left) if left else ""
            return f"{given_up.format(n=count)} {going}".strip()

        return self.confirm(
            request, object_id, title=_(
                "Give {} up"
            ), button=_("Give up"), act=act, form_class=DiscardForm, harmful=True,
            sentence=_(
                "What of {} waits is never delivered, and nobody is told: neither the sender nor the recipients. "
                "It can't be undone."
            ),
        )


@admin.register(Recipient)
class RecipientAdmin(QueuePages, TraceAdmin):
    empty_words = gettext_lazy("Each recipient of each message is listed here; those that wait are the queue.")
    list_display = ["shown_message", "shown_original", "state_badge", "shown_hop", "next_try", "tries", "shown_reply"]
    list_filter = [
        "state", HoldFilter, OlderFilter, HopFilter, DomainFilter, RecipientFilter, SenderFilter, MessageFilter,
        ("tenant", AutocompleteSelectFilter),
    ]
    search_fields = ["id"]  # there is a box; get_search_results decides
    search_help_text = gettext_lazy("Queue id, how a recipient begins, or the next hop that it waits for")
    ordering = ["-id"]
    sortable_by: list[str] = []  # no other order has an index
    actions = ["retry"]
    actions_detail = ["retry_one", "discard_one"]
    readonly_fields = ["message_link", "tenant_name", "shown_hop", "next_try", "tried_until", "tries"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        waits = ["next_try", "tried_until"] if obj and obj.state == Recipient.State.WAITING else []
        return ["message_link", "tenant_name", "shown_hop", *waits, "tries"]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        searched = Searched.of(search_term)
        if not searched.text:
            return queryset, False
        named = found.recipients(queryset, searched, MOST_LISTED)
        return only(request, queryset, named.pks, named.more)

    @display(description=gettext_lazy("Message"))
    def message_link(self, recipient: Recipient) -> SafeString:
        url = reverse("admin:sending_message_change", args=(recipient.message_id,))
        return linked(url, ids.to_text(recipient.message_id), is_mono=True)

    @display(description=gettext_lazy("Caused by the tenant"))
    def tenant_name(self, recipient: Recipient) -> str:
        return str(recipient.tenant) if recipient.tenant_id else "–"

    @display(description=gettext_lazy("Next hop"), ordering="next_hop")
    def shown_hop(self, recipient: Recipient) -> SafeString:
        return mono(recipient.next_hop)

    @display(description=gettext_lazy("Next try"), ordering="due_at")
    def next_try(self, recipient: Recipient) -> str:
        goes = recipient.state == Recipient.State.WAITING and not recipient.holds
        return moment(recipient.due_at) if goes else "–"

    @display(description=gettext_lazy("Tried until"))
    def tried_until(self, recipient: Recipient) -> str:
        return moment(recipient.expires_at)

    @display(description=gettext_lazy("Queue id"), ordering="message_id")
    def shown_message(self, recipient: Recipient) -> str:
        return mono(ids.to_text(recipient.message_id))

    @display(description=gettext_lazy("Recipient"), ordering="original")
    def shown_original(self, recipient: Recipient) -> str:
        return mono(recipient.original)

    @display(description=gettext_lazy("State"), ordering="state")
    def state_badge(self, recipient: Recipient) -> str:
        return message_page.recipient_state(recipient)

    @display(description=gettext_lazy("Last reply"))
    def shown_reply(self, recipient: Recipient) -> str:
        if not recipient.last_reply:
            return "–"
        return format_html('<span class="ph-reply">{}</span>', recipient.last_reply)

    def where(self, request: HttpRequest, recipient: Recipient) -> SafeString:
        return render_to_string("admin/posthouse/recipient.html", {"legs": message_page.legs([recipient])})

    def offered(self, obj: Recipient) -> set[str]:
        return super().offered(obj) if obj.state == Recipient.State.WAITING else set()

    @action(description=gettext_lazy("Try now…"), url_path="retry", permissions=["act"], icon="refresh")
    def retry_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Recipient, data: dict[str, Any]) -> str:
            count = services.retry(
                Recipient.objects.filter(pk=obj.pk), release=True, **by(request))
            if not count:
                raise ServiceError(_("{name} no longer waits in the queue.").format(name=obj))
            obj.refresh_from_db(fields=["holds"])
            if obj.holds:
                return _("{obj} waits until its sender is resumed.").format(obj=obj)
            return _("{obj} is tried in a moment.").format(obj=obj)

        return self.confirm(
            request, object_id, title=_("Try {} now"), button=_("Try now"), act=act,
            sentence=_(
                "The delivery to {} is tried at once instead of at its next time; if it was held as undeliverable, "
                "it is let go."
            ),
        )

    @action(description=gettext_lazy("Give up…"), url_path="discard", permissions=["act"], icon="block")
    def discard_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Recipient, data: dict[str, Any]) -> str:
            services.discard(obj, reason=data["reason"], **by(request))
            return _("{obj} is given up.").format(obj=obj)

        return self.confirm(
            request, object_id, title=_(
                "Give {} up"
            ), button=_("Give up"), act=act, form_class=DiscardForm, harmful=True,
            sentence=_(
                "The message is never delivered to {}, and nobody is told: neither the sender nor the recipient. "
                "It can't be undone."
            ),
        )

    @action(description=gettext_lazy("Try the chosen recipients now"), permissions=["act"])
    def retry(self, request: HttpRequest, queryset: Any) -> None:
        chosen = queryset.filter(state=Recipient.State.WAITING)
        count = services.retry(chosen, **by(request))
        left = chosen.exclude(holds=0).count()
        held = _("{n} stay held: open each and choose Try now, or resume its sender.").format(n=left) if left else ""
        self.message_user(request, f"{tried(count)} {held}".strip())


def tried(count: int) -> str:
    """"1,204 recipients are tried in a moment."."""
    words = ngettext("{n:,} recipient is tried in a moment.", "{n:,} recipients are tried in a moment.", count)
    return words.format(n=count)
