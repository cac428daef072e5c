"""The provider's admin of mailboxes, aliases and credentials."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.db.models import Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext, pgettext_lazy
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextInputWidget,
)

from panel.database.indexed import Folded, begins, begins_folded
from panel.domains.models import Domain
from panel.mailboxes import found, services
from panel.mailboxes.factor_admin import RemovesSecondFactor
from panel.mailboxes.form_fields import LinesField
from panel.mailboxes.main_passwords import is_beside_factor
from panel.mailboxes.models import BY_ADDRESS, Address, Alias, AliasTarget, Credential, LoginEvent, Mailbox
from panel.mailboxes.recovery import shown_recovery
from panel.mailboxes.rule_services import rules_of
from panel.mailboxes.rules_admin import RulesPage
from panel.mailboxes.standing import of_credential, of_mailbox
from panel.mailboxes.storage import Storage
from panel.rules.searched import Searched
from panel.sending import latest
from panel.sending.models import SendingLimit
from panel.sending.used import levels_of, used
from panel.tenants import standing
from panel.tenants.admin import OptionalReasonForm, PasswordForm, SuspendableAdmin
from panel.tenants.changes import RULES_IN_WORDS
from panel.tenants.credential_words import credential_words
from panel.tenants.listed import first, only
from panel.tenants.models import SecondFactor, Tenant
from panel.tenants.scoped_admin import (
    ReasonForm,
    ScopedAdmin,
    ScopedFilter,
    SizeField,
    badge,
    by,
    linked,
    list_url,
    mono,
    state_of,
)
from panel.tenants.shown import moment

SHARED_TENANT_HELP = gettext_lazy(
    "Only for an address in a shared domain: whose it is. Elsewhere it is the domain's tenant's."
)
SCOPE_CHOICES = [
    ("submission", gettext_lazy("send (submission)")), ("imap", gettext_lazy("read (IMAP)")),
    ("pop3", gettext_lazy("read (POP3)")), ("sieve", gettext_lazy("filters")),
]


PROTOCOLS: dict[str, Any] = {
    "submission": gettext_lazy("sending"), "imap": "IMAP", "pop3": "POP3", "sieve": gettext_lazy("filters"),
    "panel": gettext_lazy("the panel"),
}
MOST_SIGN_INS = 10  # on the mailbox's page
MOST_MESSAGES = 10
MOST_ALIASES = 10
OUTCOME_LOOKS = {
    "ok": "good", "wrong": "warn", "refused": "warn", "scope": "warn", "factor": "warn", "suspended": "off",
    "locked": "bad",
}


class HeldForm(forms.ModelForm):
    """A form of something with an address, which in a shared domain is some tenant's."""

    tenant = forms.ModelChoiceField(
        queryset=Tenant.objects.none(), required=False, label=gettext_lazy("Tenant"), help_text=SHARED_TENANT_HELP,
    )


class OfDomain(ScopedFilter):
    """Of what stands at addresses those in a domain, by the domain's name, which is in the index of their order."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        found = super().queryset(request, queryset)  # which refuses what can't be a key
        if not str(self.value() or "").isdecimal():
            return found
        return queryset.filter(domain_name=Subquery(Domain.objects.filter(pk=self.value()).order_by().values("name")))


class SearchedByAddress(ScopedAdmin):
    """A list that is searched by a whole domain, by how addresses begin, and by what `also_found` adds."""

    to_domain: ClassVar[str | tuple[str, ...]]  # the way, or ways, from a row to its domain or the domain's name
    from_address: ClassVar[str]  # and from an address to the row
    search_fields = ["pk"]  # there is a box; get_search_results decides

    def also_found(self, request: HttpRequest, rows: QuerySet[Any], searched: Searched) -> list[QuerySet[Any]]:
        """The keys of rows that the text names otherwise, each query by an index."""
        return []

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        searched = Searched.of(search_term)
        if not searched.text:
            return queryset, False
        domain = Domain.objects.filter(name=searched.domain).first() if searched.domain else None
        if domain is not None:
            ways = (self.to_domain,) if isinstance(self.to_domain, str) else self.to_domain
            by_name = [(way, domain.name if way.endswith("domain_name") else domain) for way in ways]
            return queryset.filter(Q(*by_name, _connector=Q.OR)), False
        there = Address.objects.for_user(request.user).filter(**{f"{self.from_address}__isnull": False})
        named = found.addresses(there, searched)
        keys = None if named is None else named.values_list(self.from_address, flat=True)
        return only(request, queryset, *first(keys, *self.also_found(request, queryset, searched)))


class HeldAdmin(SearchedByAddress):
    """An admin of such: its tenants are those that the person may see."""

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        if "tenant" in form.base_fields:
            form.base_fields["tenant"].queryset = Tenant.objects.for_user(request.user).order_by("name")
            # Asked for by its name: nobody looks through a thousand.
            form.base_fields["tenant"].widget = AutocompleteSelect(
                Address._meta.get_field("tenant"), self.admin_site, choices=form.base_fields["tenant"].choices
            )
        return form


class MailboxForm(HeldForm):
    full_address = forms.CharField(
        max_length=320, label=gettext_lazy("Address"),
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "ann@acme.example"}),
        help_text=gettext_lazy("Its domain must be hosted here."),
    )
    quota_bytes = SizeField()
    password = forms.CharField(
        strip=False, widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text=format_lazy("{} {}", gettext_lazy("The main password, for the mail client."), RULES_IN_WORDS),
    )

    class Meta:
        model = Mailbox
        fields = ["name", "quota_bytes"]


class KnownMailboxForm(forms.ModelForm):
    quota_bytes = SizeField(label=gettext_lazy("Storage allowed"))


@admin.register(Mailbox)
class MailboxAdmin(RemovesSecondFactor, HeldAdmin, SuspendableAdmin, RulesPage):
    noun = gettext_lazy("mailbox")
    falls = gettext_lazy(
        "its mail and its passwords are removed, what it has in the queue bounces, and the address is free again"
    )
    form = KnownMailboxForm
    empty_words = gettext_lazy(
        "A mailbox is an address with a person, a place for mail and a password. Its domain comes first."
    )
    list_display = ["shown_address", "name", "state", "storage", "shown_tenant"]
    list_filter = [
        "status", ("tenant", AutocompleteSelectFilter), ("address__domain", OfDomain),
    ]
    search_help_text = gettext_lazy("How an address or a person's name begins, or a whole domain")
    to_domain, from_address = "domain_name", "mailbox"
    list_select_related = ["address__domain", "tenant", "usage"]
    ordering = BY_ADDRESS
    actions_detail = [
        "rules", "add_app_password", "set_password", "remove_second_factor", "suspend", "resume", "close", "restore",
    ]
    readonly_fields = ["recovery_address", "folder", "created_at"]
    above_template = "admin/posthouse/mailbox_above.html"
    below_template = "admin/posthouse/mailbox_below.html"

    page_select_related = (
        "address__domain__tenant__parent__parent", "address__tenant__plan", "address__tenant__parent__parent", "usage",
        "person__second_factor",
    )

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = MailboxForm
            kwargs["fields"] = ["name", "quota_bytes"]
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Mailbox | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ["full_address", "tenant", "name", "password", "quota_bytes"]})]
        return [(_("The mailbox"), {"fields": ["name", "quota_bytes", "recovery_address", "folder", "created_at"]})]

    def told(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        address = obj.address
        its_standing = of_mailbox(obj, by(request)["actor"])
        rows = obj.credentials.annotate(has_factor=is_beside_factor())
        credentials = list(rows.order_by("-kind", "label", "pk"))
        passwords = self.admin_site.get_model_admin(Credential)
        may_freeze = isinstance(passwords, CredentialAdmin) and passwords.has_act_permission(request)
        leading_here = Alias.objects.filter(targets__target=str(address), address__tenant=address.tenant)
        aliases = list(leading_here.select_related("address__domain").order_by("address")[: MOST_ALIASES + 1])
        events = LoginEvent.objects.filter(mailbox=obj)[:MOST_SIGN_INS]
        return {
            "name": mono(address),
            "standing": its_standing,
            "about": format_html(
                _("{name}, a mailbox of {tenant}") if obj.name else _("A mailbox of {tenant}"), name=obj.name,
                tenant=linked(reverse("admin:tenants_tenant_change", args=(address.tenant_id,)), address.tenant),
            ),
            "storage": Storage.of(obj).whole(),
            "levels": used(levels_of(obj)),
            "limit_url": self.add_url(request, SendingLimit, mailbox=obj.pk),
            "passwords": [
                (
                    each, credential_badge(each, its_standing), moment(each.last_used_at) if each.last_used_at else "",
                    may_freeze, passwords.has_delete_permission(request, each),
                )
                for each in credentials
            ],
            "add_password_url": self.add_url(request, Credential, mailbox=obj.pk),
            "aliases": aliases[:MOST_ALIASES],
            "more_aliases_url": list_url("mailboxes_alias", "q", address) if len(aliases) > MOST_ALIASES else "",
            "add_alias_url": self.add_url(request, Alias, targets=str(address)),
            "rules_url": (
                reverse("admin:mailboxes_mailbox_rules", args=(obj.pk,)) if self.has_act_permission(request) else ""
            ),
            "rules": list(rules_of(obj).sentences(timezone.now().date())),
            "sent": latest.sent_with([each.pk for each in credentials], MOST_MESSAGES),
            "got": latest.got_by(str(address), MOST_MESSAGES),
            "sign_ins": [(event, moment(event.last_at), outcome_badge(event), by_what(event)) for event in events],
            "sign_ins_url": list_url("mailboxes_loginevent", "mailbox__id__exact", obj.pk),
        }

    def also_found(self, request: HttpRequest, rows: QuerySet[Any], searched: Searched) -> list[QuerySet[Any]]:
        named = rows.filter(begins_folded("name", searched.name)).order_by(Folded("name"))
        return [named.values_list("pk", flat=True)] if searched.name else []

    @display(description=gettext_lazy("Address"), ordering="local_part")
    def shown_address(self, mailbox: Mailbox) -> str:
        return mono(mailbox.address)

    @display(description=gettext_lazy("Tenant"), ordering="tenant__name")
    def shown_tenant(self, mailbox: Mailbox) -> str:
        return str(mailbox.tenant)

    @display(description=gettext_lazy("State"), ordering="status")
    def state(self, mailbox: Mailbox) -> str:
        return state_of(mailbox)

    @display(description=gettext_lazy("Storage"))
    def storage(self, mailbox: Mailbox) -> str:
        return Storage.of(mailbox).bar()

    @display(description=gettext_lazy("recovery address"))
    def recovery_address(self, mailbox: Mailbox) -> str:
        """As whoever looks after the mailbox sees it: its person changes it, and the tenant's admins do."""
        return shown_recovery(mailbox) or "–"

    @display(description=gettext_lazy("Folder in the data folder"))
    def folder(self, mailbox: Mailbox) -> str:
        return mono(f"mail/{mailbox.opaque_id[:2]}/{mailbox.opaque_id}/Maildir")

    @action(description=gettext_lazy("Set password…"), url_path="set-password", permissions=["act"], icon="key")
    def set_password(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Mailbox, data: dict[str, Any]) -> str:
            services.set_password(obj, data["password"], **by(request))
            return _("{obj} has a new password; the old one no longer works.").format(obj=obj)

        return self.confirm(
            request, object_id, title=_("Set the password of {}"), button=_("Set password"), act=act,
            form_class=PasswordForm, sentence=_("The mail client of {} logs in with it from now on."),
        )

    @action(description=gettext_lazy("Add app password…"), url_path="app-password", permissions=["act"], icon="add")
    def add_app_password(self, request: HttpRequest, object_id: str) -> HttpResponse:
        obj = self.object_or_404(request, object_id)
        return HttpResponseRedirect(f"{_add_url('credential')}?mailbox={obj.pk}")

    def create(self, request: HttpRequest, data: dict[str, Any]) -> Mailbox:
        data["address"] = data.pop("full_address")
        with _field("address", "full_address"):
            return services.create_mailbox(**data, **by(request))

    def change(self, request: HttpRequest, obj: Mailbox, data: dict[str, Any]) -> None:
        services.change_mailbox(obj, **data, **by(request))


def credential_badge(credential: Credential, of_mailbox: standing.Standing | None = None) -> SafeString:
    """Its state in a word; with its mailbox's standing, whether it opens anything now."""
    if credential.frozen_at:
        return badge("bad", _("frozen"))
    if credential.expires_at and credential.expires_at <= timezone.now():
        return badge("off", _("expired"))
    if of_mailbox is not None and not of_mailbox.may_log_in:
        return badge("off", _("mailbox {word}").format(word=of_mailbox.word))
    if credential.kind == Credential.Kind.MAIN and getattr(credential, "has_factor", False):
        return badge("good", _("beside a second factor"))
    return badge("good", _("works"))


class AliasForm(HeldForm):
    full_address = forms.CharField(
        max_length=320, label=gettext_lazy("Address"),
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "info@acme.example"}),
        help_text=gettext_lazy(
            "Its domain must be hosted here. @acme.example alone takes whatever has no address of its own."
        ),
    )
    targets = LinesField(label=gettext_lazy(
        "Leads to"
    ), help_text=gettext_lazy("Addresses here or elsewhere, one a line."))

    class Meta:
        model = Alias
        fields = ["description", "expires_at"]
        help_texts = {
            "expires_at": gettext_lazy("In UTC. From then on its address is as if it weren't there. Empty: never.")
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            del self.fields["full_address"], self.fields["tenant"]
            self.initial["targets"] = [target.target for target in self.instance.targets.all()]


@admin.register(Alias)
class AliasAdmin(HeldAdmin):
    empty_words = gettext_lazy("An alias is an address that leads to others, here or elsewhere.")
    list_filter = [("tenant", AutocompleteSelectFilter), ("address__domain", OfDomain)]
    list_display = ["shown_address", "leads_to", "description", "expiry", "shown_tenant"]
    to_domain, from_address = "domain_name", "alias"
    search_help_text = gettext_lazy("How an address, a target or a description begins, or a whole domain")
    list_select_related = ["address__domain", "tenant"]
    list_prefetch_related = ["targets"]
    ordering = BY_ADDRESS
    form = AliasForm
    removable = True
    readonly_fields = ["shown_address", "shown_tenant", "all_targets"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        kwargs["fields"] = ["description", "expires_at"]
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj:
            # A field of the form alone can't be shown read-only.
            targets = "targets" if self.has_change_permission(request, obj) else "all_targets"
            return ["shown_address", "shown_tenant", targets, "description", "expires_at"]
        return ["full_address", "tenant", "targets", "description", "expires_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Alias]:
        return super().get_queryset(request).prefetch_related("targets")

    def also_found(self, request: HttpRequest, rows: QuerySet[Any], searched: Searched) -> list[QuerySet[Any]]:
        leading = AliasTarget.objects.for_user(request.user).filter(begins("target", searched.begins))
        described = rows.filter(begins_folded("description", searched.name)).order_by()
        return [
            *([leading.order_by("target").values_list("alias", flat=True)] if searched.begins else []),
            *([described.values_list("pk", flat=True)] if searched.name else []),
        ]

    @display(description=gettext_lazy("Address"), ordering="local_part")
    def shown_address(self, alias: Alias) -> str:
        return mono(alias.address)

    @display(description=gettext_lazy("Tenant"), ordering="tenant__name")
    def shown_tenant(self, alias: Alias) -> str:
        return str(alias.tenant)

    @display(description=gettext_lazy("Leads to"))
    def all_targets(self, alias: Alias) -> str:
        return format_html_join(mark_safe("<br>"), "{}", ((mono(each.target),) for each in alias.targets.all()))

    @display(description=gettext_lazy("Leads to"))
    def leads_to(self, alias: Alias) -> str:
        targets = [each.target for each in alias.targets.all()]
        some = ", ".join(targets[:3])
        return mono(_("{some} and {n} more").format(some=some, n=len(targets) - 3) if len(targets) > 3 else some)

    @display(description=gettext_lazy("Expires"), ordering="expires_at")
    def expiry(self, alias: Alias) -> str:
        if alias.has_expired:
            return badge("off", _("expired"))
        return moment(alias.expires_at) if alias.expires_at else pgettext("expires", "never")

    def create(self, request: HttpRequest, data: dict[str, Any]) -> Alias:
        data["address"] = data.pop("full_address")
        with _field("address", "full_address"):
            return services.create_alias(**data, **by(request))

    def change(self, request: HttpRequest, obj: Alias, data: dict[str, Any]) -> None:
        services.change_alias(
            obj, targets=data["targets"], description=data["description"], expires_at=data["expires_at"], **by(request)
        )

    def remove(self, request: HttpRequest, obj: Alias) -> None:
        services.delete_alias(obj, **by(request))


class CredentialForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=SCOPE_CHOICES, initial=["submission"], widget=UnfoldAdminCheckboxSelectMultipleWidget,
        label=gettext_lazy("Good for"),
    )
    networks = LinesField(
        required=False, label=gettext_lazy("Only from"),
        help_text=gettext_lazy("Networks such as 203.0.113.0/24, one a line. Empty: from anywhere."),
    )

    class Meta:
        model = Credential
        fields = ["mailbox", "label", "expires_at"]
        help_texts = {
            "label": gettext_lazy("What uses it, such as web shop or Ann's phone."),
            "expires_at": gettext_lazy("In UTC. Empty: it works until it is revoked."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            # What isn't shown as it stands would be lost when something else is saved.
            self.initial["scopes"], self.initial["networks"] = self.instance.scopes, self.instance.networks


@admin.register(Credential)
class CredentialAdmin(SearchedByAddress):
    empty_words = gettext_lazy("Each mailbox has a main password, and an app password for each program that uses it.")
    list_display = ["label_or_kind", "shown_mailbox", "good_for", "state", "last_used"]
    list_filter = ["kind", ("frozen_at", admin.EmptyFieldListFilter)]
    to_domain, from_address = "mailbox__domain_name", "mailbox__credentials"
    search_help_text = gettext_lazy("How a label or the mailbox's address begins, or a whole domain")
    list_select_related = ["mailbox__address__domain"]
    autocomplete_fields = ["mailbox"]
    form = CredentialForm
    removable = True
    actions_detail = ["freeze", "unfreeze"]
    readonly_fields = ["created_at"]
    above_template = "admin/posthouse/credential_above.html"
    page_select_related = (
        "mailbox__address__domain__tenant__plan", "mailbox__address__domain__tenant__parent__parent",
        "mailbox__address__tenant__plan", "mailbox__address__tenant__parent__parent",
    )

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None and obj.kind == Credential.Kind.MAIN:
            kwargs["form"] = forms.ModelForm
            kwargs["fields"] = []
        else:
            kwargs["fields"] = ["mailbox", "label", "expires_at"] if obj is None else ["label", "expires_at"]
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ["mailbox", "label", "scopes", "networks", "expires_at"]
        if obj.kind == Credential.Kind.MAIN:
            return ["created_at"]
        return ["label", "scopes", "networks", "expires_at", "created_at"]

    def told(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        used_last = format_html(
            _("used {when} from {place}") if obj.last_used_ip else _("used {when}"), when=moment(obj.last_used_at),
            place=mono(obj.last_used_ip),
        ) if obj.last_used_at else _("never used")
        return {
            "name": obj.words[:1].upper() + obj.words[1:],
            "standing": of_credential(obj, of_mailbox(obj.mailbox, by(request)["actor"])),
            "about": format_html(
                "{} · {}", format_html(_("Of {}"), linked(
                    reverse("admin:mailboxes_mailbox_change", args=(obj.mailbox_id,)), obj.mailbox, is_mono=True
                )), used_last,
            ),
            "levels": used(levels_of(obj)),
            "limit_url": self.add_url(request, SendingLimit, credential=obj.pk),
        }

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or obj.kind == Credential.Kind.APP)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or obj.kind == Credential.Kind.APP)

    def read_beside(self, rows: Sequence[Credential]) -> None:
        mains = [row for row in rows if row.kind == Credential.Kind.MAIN]
        people = SecondFactor.objects.filter(user__in={row.mailbox.person_id for row in mains})
        with_factor = set(people.values_list("user", flat=True)) if mains else set()
        for row in mains:
            row.has_factor = row.mailbox.person_id in with_factor  # type: ignore[attr-defined]

    def offered(self, obj: Credential) -> set[str]:
        return super().offered(obj) - ({"freeze"} if obj.frozen_at else {"unfreeze"})

    def also_found(self, request: HttpRequest, rows: QuerySet[Any], searched: Searched) -> list[QuerySet[Any]]:
        labelled = rows.filter(begins_folded("label", searched.name)).order_by()
        return [labelled.values_list("pk", flat=True)] if searched.name else []

    @display(description=gettext_lazy("Password"), ordering="label")
    def label_or_kind(self, credential: Credential) -> str:
        return credential.words

    @display(description=gettext_lazy("Mailbox"), ordering="mailbox__local_part")
    def shown_mailbox(self, credential: Credential) -> str:
        return mono(credential.mailbox)

    @display(description=gettext_lazy("Good for"))
    def good_for(self, credential: Credential) -> str:
        if credential.kind == Credential.Kind.MAIN:
            return _("the console alone") if getattr(credential, "has_factor", False) else _("everything")
        return ", ".join(
            str(PROTOCOLS.get(scope, scope)) for scope in credential.scopes
        )

    @display(description=gettext_lazy("State"))
    def state(self, credential: Credential) -> str:
        return credential_badge(credential)

    @display(description=gettext_lazy("Last used"), ordering="last_used_at")
    def last_used(self, credential: Credential) -> str:
        return moment(credential.last_used_at) if credential.last_used_at else _("never")

    @action(description=gettext_lazy("Freeze…"), url_path="freeze", permissions=["act"], icon="ac_unit")
    def freeze(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Credential, data: dict[str, Any]) -> str:
            services.freeze_credential(obj, reason=data["reason"], **by(request))
            return _("The {name} is frozen: nobody logs in or sends with it.").format(name=obj.words)

        return self.confirm(
            request, object_id, title=_(
                "Freeze the {}"
            ), button=_("Freeze"), act=act, form_class=ReasonForm, harmful=True,
            sentence=_("Nobody can log in or send with the {} any more, on open connections too. Thaw undoes it."),
        )

    @action(description=gettext_lazy("Thaw…"), url_path="thaw", permissions=["act"], icon="sunny")
    def unfreeze(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Credential, data: dict[str, Any]) -> str:
            services.unfreeze_credential(obj, reason=data["reason"], **by(request))
            return _("The {name} works again.").format(name=obj.words)

        return self.confirm(
            request, object_id, title=_("Thaw the {}"), button=_("Thaw"), act=act, form_class=OptionalReasonForm,
            sentence=_("The {} works again as before."),
        )

    def create(self, request: HttpRequest, data: dict[str, Any]) -> Credential:
        made, secret = services.create_credential(**data, **by(request))
        request.new_secret = secret  # type: ignore[attr-defined]
        return made

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        return self.show_secret(
            request, obj.pk, title=_("The new app password of {mailbox}").format(mailbox=obj.mailbox),
            sentence=_(
                'For "{label}": put it into the program that sends, with {mailbox} as user name.'
            ).format(label=obj.label, mailbox=obj.mailbox),
            secret=request.new_secret,  # type: ignore[attr-defined]
        )

    def change(self, request: HttpRequest, obj: Credential, data: dict[str, Any]) -> None:
        services.change_credential(obj, **data, **by(request))

    def remove(self, request: HttpRequest, obj: Credential) -> None:
        services.revoke_credential(obj, **by(request))


class ProtocolFilter(admin.SimpleListFilter):
    title = pgettext_lazy("a protocol", "By")
    parameter_name = "protocol"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return list(PROTOCOLS.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[LoginEvent]) -> QuerySet[LoginEvent]:
        return queryset.filter(protocol=self.value()) if self.value() in PROTOCOLS else queryset


class SinceFilter(admin.SimpleListFilter):
    title = gettext_lazy("When")
    parameter_name = "since"
    hours: ClassVar = {
        "1": gettext_lazy("the last hour"), "24": gettext_lazy("24 hours"), "168": gettext_lazy("7 days"),
        "720": gettext_lazy("30 days"),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return list(self.hours.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[LoginEvent]) -> QuerySet[LoginEvent]:
        hours = self.value()
        if hours not in self.hours:
            return queryset
        return queryset.filter(at__gte=timezone.now() - timedelta(hours=int(hours)))


@admin.register(LoginEvent)
class LoginEventAdmin(ScopedAdmin):
    empty_words = gettext_lazy(
        "Each login stands here within seconds, right or wrong: to send, read, filter or sign in."
    )
    list_display = ["when", "shown_login", "came_of_it", "times", "come_from", "by_what"]
    list_filter = [
        "outcome", SinceFilter, ProtocolFilter, ("mailbox", AutocompleteSelectFilter),
        ("tenant", AutocompleteSelectFilter),
    ]
    search_fields = ["login"]  # there is a box; get_search_results decides
    search_help_text = gettext_lazy("How a login name begins, or the IP address or network it came from")
    sortable_by = ["when"]  # what an index answers
    creatable = changeable = False
    fields = [
        "shown_login", "came_of_it", "times", "first", "last", "come_from", "by_what", "leads_to_mailbox", "tenant",
    ]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> LoginEvent | None:
        event = super().get_object(request, object_id, from_field)
        if event is not None and event.mailbox_id:
            # No foreign key holds the mailbox: it may be gone.
            event.its_mailbox = Mailbox.objects.select_related("address__domain").filter(pk=event.mailbox_id).first()
        return event

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        searched = Searched.of(search_term)
        if not searched.text:
            return queryset, False
        events = found.logins(queryset, searched)
        return only(request, queryset, *first(events.values_list("pk", flat=True) if events is not None else None))

    @display(description=gettext_lazy("When"), ordering="id")
    def when(self, event: LoginEvent) -> str:
        return moment(event.last_at)

    @display(description=gettext_lazy("Login"), ordering="login")
    def shown_login(self, event: LoginEvent) -> str:
        return format_html('<span class="ph-mono ph-clip" title="{0}">{0}</span>', event.login)

    @display(description=gettext_lazy("What came of it"), ordering="outcome")
    def came_of_it(self, event: LoginEvent) -> str:
        return outcome_badge(event)

    @display(description=gettext_lazy("Times"), ordering="count")
    def times(self, event: LoginEvent) -> str:
        return f"{event.count:,}"

    @display(description=pgettext_lazy("a place", "From"), ordering="ip")
    def come_from(self, event: LoginEvent) -> str:
        return mono(event.ip) if event.ip else _("many networks")

    @display(description=pgettext_lazy("a protocol", "By"), ordering="protocol")
    def by_what(self, event: LoginEvent) -> str:
        return by_what(event)

    @display(description=gettext_lazy("The first of them"))
    def first(self, event: LoginEvent) -> str:
        return f"{event.at:%Y-%m-%d %H:%M:%S} UTC"

    @display(description=gettext_lazy("The last of them"))
    def last(self, event: LoginEvent) -> str:
        return f"{event.last_at:%Y-%m-%d %H:%M:%S} UTC"

    @display(description=gettext_lazy("Mailbox"))
    def leads_to_mailbox(self, event: LoginEvent) -> str:
        mailbox = getattr(event, "its_mailbox", None)
        if mailbox is None:
            return _("none") if event.mailbox_id is None else _("one that is gone")
        return linked(reverse("admin:mailboxes_mailbox_change", args=(mailbox.pk,)), mailbox)


def by_what(event: LoginEvent) -> str:
    """IMAP, app password “phone”."""
    protocol = str(PROTOCOLS.get(event.protocol, event.protocol))
    if not event.credential_text:
        return protocol
    return _("{protocol}, {password}").format(protocol=protocol, password=credential_words(event.credential_text))


def outcome_badge(event: LoginEvent) -> str:
    return badge(OUTCOME_LOOKS[event.outcome], str(event.get_outcome_display()))


def _add_url(model: str) -> str:
    return reverse(f"admin:mailboxes_{model}_add")


class _field:
    """A service names its own field; the form may call it otherwise."""

    def __init__(self, service: str, form: str) -> None:
        self.service, self.form = service, form

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if getattr(error, "field", None) == self.service:
            error.field = self.form
