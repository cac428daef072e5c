"""The provider's admin of domains and domain aliases."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldBooleanSwitchWidget

from panel.domains import checks, services
from panel.domains.models import Domain, DomainAlias, Proof
from panel.mailboxes.models import Address
from panel.rules.addresses import display_domain
from panel.sending.models import SendingLimit
from panel.sending.used import levels_of, used
from panel.tenants import standing
from panel.tenants.admin import SuspendableAdmin
from panel.tenants.scoped_admin import ScopedAdmin, badge, by, linked, list_url, mono, state_of
from panel.tenants.shown import moment

MOST_ALIASES = 10  # on a domain's page
IN_DOMAIN = "address__domain__id__exact"  # the filter of mailboxes and aliases

# What a domain does that nobody suspended: its proof decides.
_ACTIVE: dict[Proof, tuple[str, Any, Any]] = {
    Proof.PENDING: (
        "warn", gettext_lazy("not proved"),
        gettext_lazy("Its mail isn't taken and nobody sends as it: its ownership isn't proved yet."),
    ),
    Proof.PROVED: ("good", gettext_lazy("active"), gettext_lazy("Sends and receives.")),
    Proof.LAPSED: (
        "bad", gettext_lazy("proof lapsed"),
        gettext_lazy("Receives, but nobody sends as it: the proof of its ownership lapsed."),
    ),
}


# What is kept of how it was proved, in the reader's language.
_PROVED_BY: dict[str, Any] = {
    services.CHECKED_BY_US: gettext_lazy("checked by us"), services.BY_RECORD: gettext_lazy("by TXT record"),
}


def proof_badge(row: Domain | DomainAlias) -> str:
    look = {Proof.PENDING: "warn", Proof.PROVED: "good", Proof.LAPSED: "bad"}[Proof(row.proof)]
    state = str(row.get_proof_display())
    if not row.proved_by:
        return badge(look, state)
    return badge(look, _("{state}, {by}").format(state=state, by=_PROVED_BY.get(row.proved_by, row.proved_by)))


def domain_name(name: str) -> SafeString:
    """The name on the wire, and in its own script where that differs."""
    own = display_domain(name)
    return mono(name) if own == name else format_html("{} ({})", mono(name), own)


class VerifiedMixin(forms.ModelForm):
    verified = forms.BooleanField(
        required=False, label=gettext_lazy("Ownership checked by us"), widget=UnfoldBooleanSwitchWidget,
        help_text=gettext_lazy("Without it the domain is pending: its mail is not taken and nobody sends as it."),
    )


class DomainForm(VerifiedMixin):
    class Meta:
        model = Domain
        fields = ["name", "tenant", "plans"]
        help_texts = {
            "name": gettext_lazy("Such as acme.example or bücher.example."),
            "tenant": gettext_lazy("Whose domain it is. Empty: a shared domain of the provider's."),
        }


class DomainAliasForm(VerifiedMixin):
    class Meta:
        model = DomainAlias
        fields = ["name", "domain"]
        help_texts = {"domain": gettext_lazy("Where its mail goes: anything@alias reaches anything@domain.")}


class VerifiableAdmin(ScopedAdmin):
    def verify_row(self, request: HttpRequest, obj: Any) -> None:
        """Subclasses prove it by their service."""
        raise PermissionDenied

    @action(description=gettext_lazy("Ownership checked…"), url_path="verify", permissions=["act"], icon="verified")
    def verify(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Any, data: dict[str, Any]) -> str:
            self.verify_row(request, obj)
            return _("{obj} is proved; mail for it is taken from now on.").format(obj=obj)

        return self.confirm(
            request, object_id, title=_("Ownership of {}"), button=_("We checked it"), act=act,
            sentence=_(
                "Say that you checked who owns {}. Its mail is taken and may be sent from then on; the audit log "
                "keeps your name."
            ),
        )


@admin.register(Domain)
class DomainAdmin(VerifiableAdmin, SuspendableAdmin):
    noun = gettext_lazy("domain")
    falls = gettext_lazy(
        "its mailboxes with all their mail and its aliases are removed, and what they have in the queue bounces"
    )
    empty_words = gettext_lazy(
        "A domain is a tenant's own, or a shared one of yours in which tenants hold single addresses."
    )
    list_display = ["shown_name", "ownership", "state", "tenant", "address_count"]
    list_filter = ["proof", "status", "kind", ("tenant", AutocompleteSelectFilter)]
    search_fields = ["name", "tenant__name"]
    list_counts = {"addresses_count": "addresses"}
    list_select_related = ["tenant"]
    autocomplete_fields = ["tenant"]
    removable = True
    actions_detail = ["check_now", "verify", "suspend", "resume", "close", "restore"]
    readonly_fields = ["created_at"]
    above_template = "admin/posthouse/domain_above.html"
    page_select_related = ("tenant__plan", "tenant__parent__parent", "latest_check")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = DomainForm
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Domain | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": ["name", "tenant", "verified", "plans"]})]
        return [(_("The domain"), {"fields": ["store", *([] if obj.tenant_id else ["plans"]), "created_at"]})]

    def told(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        held = Address.objects.filter(domain=obj).aggregate(
            mailboxes=Count("mailbox"), aliases=Count("alias"), tenants=Count("tenant", distinct=True)
        )
        aliases = list(obj.aliases.order_by("name")[: MOST_ALIASES + 1])
        records = checks.shown(obj)
        look, word, sentence = _ACTIVE[Proof(obj.proof)]
        return {
            "name": domain_name(obj.name),
            "standing": standing.standing(
                obj, list(standing.with_parents(obj.tenant)), by(request)["actor"],
                standing.Standing(look, str(word), str(sentence)),
            ),
            "about": format_html(_("A domain of {}"), linked(
                reverse("admin:tenants_tenant_change", args=(obj.tenant_id,)), obj.tenant
            )) if obj.tenant else _("A shared domain of the provider's: each address in it is some tenant's."),
            "proof": proof_badge(obj),
            "records": records,
            "looked_at": moment(records.checked_at) if records.checked_at else "",
            "sending_ends": moment(records.sending_ends_at) if records.sending_ends_at else "",
            "levels": used(levels_of(obj)),
            "limit_url": self.add_url(request, SendingLimit, domain=obj.pk) if obj.tenant else "",
            "numbers": [
                (_("Mailboxes"), f"{held['mailboxes']:,}", list_url("mailboxes_mailbox", IN_DOMAIN, obj.pk)),
                (_("Aliases"), f"{held['aliases']:,}", list_url("mailboxes_alias", IN_DOMAIN, obj.pk)),
                *([] if obj.tenant else [(_("Tenants who hold them"), f"{held['tenants']:,}", "")]),
            ],
            "aliases": [(each, proof_badge(each)) for each in aliases[:MOST_ALIASES]],
            "more_aliases_url": (
                list_url("domains_domainalias", "q", obj.name) if len(aliases) > MOST_ALIASES else ""
            ),
            "add_alias_url": self.add_url(request, DomainAlias, domain=obj.pk),
        }

    @action(description=gettext_lazy("Check now…"), url_path="check-now", permissions=["act"], icon="dns")
    def check_now(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Domain, data: dict[str, Any]) -> str:
            found = checks.check(obj, **by(request)).overall
            return _("{obj} was looked up: {words}.").format(obj=obj, words=found.words.said(_))

        return self.confirm(
            request, object_id, title=_("DNS records of {}"), button=_("Check now"), act=act,
            sentence=_("Ask the DNS for the records of {}. If its TXT record is there, that proves who owns it."),
        )

    def offered(self, obj: Domain) -> set[str]:
        return super().offered(obj) - ({"verify"} if obj.proof == Proof.PROVED else set())

    @display(description=gettext_lazy("Domain"), ordering="name")
    def shown_name(self, domain: Domain) -> str:
        return domain_name(domain.name)

    @display(description=gettext_lazy("Ownership"), ordering="proof")
    def ownership(self, domain: Domain) -> str:
        return proof_badge(domain)

    @display(description=gettext_lazy("State"), ordering="status")
    def state(self, domain: Domain) -> str:
        return state_of(domain)

    @display(description=gettext_lazy("Addresses"))
    def address_count(self, domain: Any) -> int:
        return int(domain.addresses_count)

    def verify_row(self, request: HttpRequest, obj: Domain) -> None:
        services.verify_domain(obj, **by(request))

    def create(self, request: HttpRequest, data: dict[str, Any]) -> Domain:
        return services.create_domain(**data, **by(request))

    def change(self, request: HttpRequest, obj: Domain, data: dict[str, Any]) -> None:
        services.change_domain(obj, plans=data.get("plans"), store=data.get("store"), **by(request))

    def remove(self, request: HttpRequest, obj: Domain) -> None:
        services.delete_domain(obj, **by(request))


@admin.register(DomainAlias)
class DomainAliasAdmin(VerifiableAdmin):
    empty_words = gettext_lazy("A domain alias stands for a whole domain: anything@alias reaches anything@domain.")
    list_display = ["shown_name", "domain", "ownership"]
    list_filter = ["proof"]
    search_fields = ["name", "domain__name"]
    list_select_related = ["domain"]
    autocomplete_fields = ["domain"]
    removable = True
    changeable = False
    actions_detail = ["verify"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = DomainAliasForm
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["shown_name", "domain", "ownership", "created_at"] if obj else ["name", "domain", "verified"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["shown_name", "domain", "ownership", "created_at"] if obj else []

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Nothing in it can be changed; the page is shown read-only.
        return False

    def offered(self, obj: DomainAlias) -> set[str]:
        return super().offered(obj) - ({"verify"} if obj.proof == Proof.PROVED else set())

    @display(description=gettext_lazy("Name"), ordering="name")
    def shown_name(self, alias: DomainAlias) -> str:
        return domain_name(alias.name)

    @display(description=gettext_lazy("Ownership"), ordering="proof")
    def ownership(self, alias: DomainAlias) -> str:
        return proof_badge(alias)

    def verify_row(self, request: HttpRequest, obj: DomainAlias) -> None:
        services.verify_domain_alias(obj, **by(request))

    def create(self, request: HttpRequest, data: dict[str, Any]) -> DomainAlias:
        return services.create_domain_alias(**data, **by(request))

    def remove(self, request: HttpRequest, obj: DomainAlias) -> None:
        services.delete_domain_alias(obj, **by(request))
