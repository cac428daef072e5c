"""The provider's admin of plans, tenants, accounts, memberships and the audit log."""

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.models import Group
from django.db.models import Case, Q, QuerySet, When
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import smart_split, unescape_string_literal
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminPasswordWidget

from panel.database.indexed import Folded, begins_folded
from panel.domains.models import Domain, Proof
from panel.operations import services as operations
from panel.operations.holdings import holdings, with_counts
from panel.rules.status import Status
from panel.sending import latest
from panel.sending.models import SendingLimit
from panel.sending.used import day_of, levels_of, used, with_day
from panel.tenants import services, standing, visits
from panel.tenants.changes import RULES_IN_WORDS
from panel.tenants.history import action_words, actor_words, kept_words, subject_words, written
from panel.tenants.listed import first, only
from panel.tenants.models import AuditEntry, Membership, Plan, Tenant, User
from panel.tenants.scoped_admin import (
    ReasonForm,
    ScopedAdmin,
    SizeField,
    badge,
    by,
    list_url,
    state_of,
)
from panel.tenants.shown import about, moment
from panel.tenants.sign_in import second_factor, sessions

MOST_DOMAINS = 10  # on a tenant's page
MOST_PEOPLE = 10
MOST_MESSAGES = 20
MOST_TENANTS = 10  # on an account's page
# Where a plan's numbers are listed, and by which filter.
_HELD = {
    "domains": ("domains_domain", "tenant__id__exact"),
    "mailboxes": ("mailboxes_mailbox", "tenant__id__exact"),
    "aliases": ("mailboxes_alias", "tenant__id__exact"),
}

admin.site.site_title = "Posthouse"
admin.site.index_title = gettext_lazy("Overview")
# Rights come from an account's role, not from groups.
admin.site.unregister(Group)


class SuspensionForm(ReasonForm):
    """A reason, and how far it goes."""

    level = forms.ChoiceField(
        choices=[("all", gettext_lazy("Logins and sending")), ("sending", gettext_lazy("Sending only"))],
        label=gettext_lazy("What stops"),
        widget=forms.RadioSelect,
        initial="all",
        help_text=gettext_lazy("Mail for it is accepted in either case."),
    )


class OptionalReasonForm(ReasonForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = False
        self.fields["reason"].help_text = _("For the audit log; may stay empty.")


class SuspendableAdmin(ScopedAdmin):
    """An admin of what can be suspended and resumed: both are services of operations."""

    actions_detail = ["suspend", "resume", "close", "restore"]
    noun: ClassVar[Any]
    falls: ClassVar[Any]  # what becomes of it when the grace period ends

    def told_state(self, obj: Any) -> list[str]:
        """The fields that tell the state: the reason, and the end of the grace period, only where there is one."""
        reason = ["status_reason"] if obj.status_reason else []
        return ["state", *reason, *(["grace_ends_at"] if obj.grace_ends_at else [])]

    def offered(self, obj: Any) -> set[str]:
        if obj.status == Status.CLOSED:
            over = obj.grace_ends_at and obj.grace_ends_at <= timezone.now()
            return super().offered(obj) - {"suspend", "resume", "close", *(["restore"] if over else [])}
        return super().offered(obj) - {"restore", "resume" if obj.status == Status.ACTIVE else "suspend"}

    @action(description=gettext_lazy("Suspend…"), url_path="suspend", permissions=["act"], icon="block")
    def suspend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Any, data: dict[str, Any]) -> str:
            operations.suspend(
                obj, reason=data["reason"], sending_only=data["level"] == "sending", **by(request))
            return _("{obj} is suspended. Open connections are refused within a second.").format(obj=obj)

        return self.confirm(
            request, object_id, title=_(
                "Suspend {}"
            ), button=_("Suspend"), act=act, form_class=SuspensionForm, harmful=True,
            sentence=_(
                "The {noun} {{}} can no longer log in or send; mail for it is still accepted, and what it has in "
                "the queue waits. Resume undoes it at any time."
            ).format(noun=self.noun),
        )

    @action(description=gettext_lazy("Resume…"), url_path="resume", permissions=["act"], icon="play_arrow")
    def resume(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Any, data: dict[str, Any]) -> str:
            operations.resume(obj, reason=data["reason"], **by(request))
            return _("{obj} is active again.").format(obj=obj)

        return self.confirm(
            request, object_id, title=_("Resume {}"), button=_("Resume"), act=act, form_class=OptionalReasonForm,
            sentence=_(
                "The {noun} {{}} may log in and send again, and what waits in its queue goes on. What is suspended "
                "for itself, below or above it, stays suspended."
            ).format(noun=self.noun),
        )

    @action(description=gettext_lazy("Close…"), url_path="close", permissions=["act"], icon="cancel")
    def close(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Any, data: dict[str, Any]) -> str:
            operations.close(obj, reason=data["reason"], **by(request))
            return _(
                "{obj} is closed. It can be restored until {grace_ends_at:%Y-%m-%d %H:%M} UTC."
            ).format(obj=obj, grace_ends_at=obj.grace_ends_at)

        days = settings.ENVIRONMENT.grace_days
        return self.confirm(
            request, object_id, title=_("Close {}"), button=pgettext("to end", "Close"), act=act,
            form_class=ReasonForm, harmful=True,
            sentence=_(
                "The {noun} {{}} can no longer log in or send, and mail for it is refused. For {days} days Restore "
                "undoes it. Then {falls}; nothing brings that back."
            ).format(noun=self.noun, days=days, falls=self.falls),
        )

    @action(description=gettext_lazy("Restore…"), url_path="restore", permissions=["act"], icon="undo")
    def restore(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Any, data: dict[str, Any]) -> str:
            operations.restore(obj, reason=data["reason"], **by(request))
            return _("{obj} is {words} again.").format(obj=obj, words=standing.status_words(obj.status))

        return self.confirm(
            request, object_id, title=_("Restore {}"), button=_("Restore"), act=act, form_class=OptionalReasonForm,
            sentence=_(
                "The {noun} {{}} becomes what it was before it was closed. What is closed or suspended for itself, "
                "below or above it, stays so."
            ).format(noun=self.noun),
        )


class PlanForm(forms.ModelForm):
    storage_bytes = SizeField(
        help_text=gettext_lazy(
            "The quotas of all its mailboxes together, such as 50 GB; each new mailbox then needs one."
        )
    )


@admin.register(Plan)
class PlanAdmin(ScopedAdmin):
    form = PlanForm
    empty_words = gettext_lazy(
        "A plan says how many domains and mailboxes a tenant may have, and how much they may send."
    )
    list_display = ["name", "domains", "mailboxes", "mailbox_limits", "tenant_limits", "tenants_on_it"]
    search_fields = ["name"]
    list_counts = {"tenant_count": "tenants"}
    removable = True
    fieldsets = [
        (None, {"fields": ["name"]}),
        (gettext_lazy("What a tenant may have"), {
            "fields": ["domains", "mailboxes", "aliases", "credentials", "storage_bytes"],
            "description": gettext_lazy("An empty number means unlimited."),
        }),
        (gettext_lazy("What may be sent"), {
            "fields": ["mailbox_hour", "mailbox_day", "tenant_hour", "tenant_day"],
            "description": gettext_lazy(
                "Recipients in the last hour and in the last 24 hours. An empty number means unlimited."
            ),
        }),
        (gettext_lazy("Resellers"), {
            "fields": ["customers", "for_customers"],
            "description": gettext_lazy(
                "How many tenants a tenant may make below itself, as a reseller: 0 is none, an empty number means "
                "unlimited."
            ),
        }),
    ]

    @display(description=gettext_lazy("A mailbox may send"))
    def mailbox_limits(self, plan: Plan) -> str:
        return _limits(plan.mailbox_hour, plan.mailbox_day)

    @display(description=gettext_lazy("A tenant may send"))
    def tenant_limits(self, plan: Plan) -> str:
        return _limits(plan.tenant_hour, plan.tenant_day)

    @display(description=gettext_lazy("Tenants"))
    def tenants_on_it(self, plan: Any) -> int:
        return int(plan.tenant_count)

    def create(self, request: HttpRequest, data: dict[str, Any]) -> Plan:
        return services.create_plan(**data, **by(request))

    def change(self, request: HttpRequest, obj: Plan, data: dict[str, Any]) -> None:
        services.change_plan(obj, **data, **by(request))

    def remove(self, request: HttpRequest, obj: Plan) -> None:
        services.delete_plan(obj, **by(request))


def _limits(hour: int | None, day: int | None) -> str:
    windows = ((hour, _("1 hour")), (day, _("24 hours")))
    parts = [
        _("{number:,} in {window}").format(number=number, window=window)
        for number, window in windows if number is not None
    ]
    return " · ".join(parts) or _("unlimited")


@admin.register(Tenant)
class TenantAdmin(SuspendableAdmin):
    noun = gettext_lazy("tenant")
    falls = gettext_lazy("its domains, mailboxes and all their mail are removed, and what it has in the queue bounces")
    empty_words = gettext_lazy("A tenant is a company whose mail is here. Its domains and mailboxes come after it.")
    list_display = ["name", "plan", "domain_count", "mailbox_count", "sent_in_a_day", "state"]
    list_filter = ["status", "plan"]
    search_fields = ["name"]
    list_select_related = ["plan"]
    sortable_by = ["name", "plan", "state"]
    autocomplete_fields = ["parent"]
    readonly_fields = ["created_at"]
    above_template = "admin/posthouse/tenant_above.html"
    below_template = "admin/posthouse/tenant_below.html"
    page_select_related = ("plan", "parent__parent__parent")
    actions_detail = ["view_as", *SuspendableAdmin.actions_detail]

    @action(description=gettext_lazy("View as…"), url_path="view-as", permissions=["view"], icon="visibility")
    def view_as(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Tenant, data: dict[str, Any]) -> str:
            visits.enter(request, visits.begin(obj, reason=data["reason"], **by(request)))
            return ""

        return self.confirm(
            request, object_id, title=_("Look into the console of {}"), button=_("Look"), act=act,
            form_class=ReasonForm, reads=True, next_page=lambda obj: reverse("console:home", args=[obj.pk]),
            sentence=_(
                "You see what a viewer of {} sees, and change nothing, for an hour at most. The tenant is told: on its "
                "home, and in its audit log with the reason."
            ),
        )

    def get_fieldsets(self, request: HttpRequest, obj: Tenant | None = None) -> Any:
        created = ["created_at"] if obj else []
        fields = [
            "name", "plan", "parent", "second_factor_required", "people_second_factor_required", "notes", *created,
        ]
        return [(_("The tenant") if obj else None, {"fields": fields})]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tenant]:
        rows = super().get_queryset(request)
        match = request.resolver_match
        # Only its list shows them: not its page, nor where it completes another's field.
        is_listed = match is not None and match.url_name == "tenants_tenant_changelist"
        return with_day(with_counts(rows)) if is_listed else rows

    def told(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        parents = list(standing.with_parents(obj))[1:]
        numbers, storage = holdings(obj)
        # What isn't as it should be comes first.
        troubled = Case(When(status=Status.ACTIVE, proof=Proof.PROVED, then=1), default=0)
        domains = list(Domain.objects.filter(tenant=obj).order_by(troubled, "name")[:MOST_DOMAINS])
        people = list(Membership.objects.filter(tenant=obj).select_related("user").order_by("pk")[: MOST_PEOPLE + 1])
        return {
            "name": obj.name,
            "standing": standing.standing(
                obj, parents, by(request)["actor"],
                standing.Standing("good", _("active"), _("Its mailboxes log in, send and receive.")),
            ),
            "about": _("A customer of the reseller {name}.").format(name=parents[0]) if parents else "",
            "levels": used(levels_of(obj)),
            "limit_url": self.add_url(request, SendingLimit, tenant=obj.pk),
            "numbers": [
                *((each, list_url(*_HELD[each.name], obj.pk) if each.name in _HELD else "") for each in numbers),
                (storage, ""),
            ],
            "filled": about(storage.filled),
            "domains": [(domain, domain_badge(domain, [obj, *parents])) for domain in domains],
            "more_domains": (numbers[0].used or 0) > MOST_DOMAINS,
            "domain_count": f"{numbers[0].used:,}",
            "domains_url": list_url("domains_domain", "tenant__id__exact", obj.pk),
            "add_domain_url": self.add_url(request, Domain, tenant=obj.pk),
            "people": people[:MOST_PEOPLE],
            "more_people": len(people) > MOST_PEOPLE,
            "people_url": list_url("tenants_membership", "tenant__id__exact", obj.pk),
            "add_member_url": self.add_url(request, Membership, tenant=obj.pk),
            "messages": latest.of_tenant(obj.pk, MOST_MESSAGES),
            "messages_url": list_url("sending_message", "tenant__id__exact", obj.pk),
        }

    @display(description=gettext_lazy("State"), ordering="status")
    def state(self, tenant: Tenant) -> str:
        return state_of(tenant)

    @display(description=gettext_lazy("Domains"))
    def domain_count(self, tenant: Any) -> int:
        return int(tenant.domains_count)

    @display(description=gettext_lazy("Mailboxes"))
    def mailbox_count(self, tenant: Any) -> int:
        return int(tenant.mailboxes_count)

    @display(description=gettext_lazy("Sent in 24 hours"))
    def sent_in_a_day(self, tenant: Any) -> SafeString:
        return day_of(tenant).in_a_list

    def create(self, request: HttpRequest, data: dict[str, Any]) -> Tenant:
        return services.create_tenant(**data, **by(request))

    def change(self, request: HttpRequest, obj: Tenant, data: dict[str, Any]) -> None:
        services.change_tenant(obj, **data, **by(request))


def domain_badge(domain: Domain, tenants: Iterable[Tenant]) -> SafeString:
    """A domain's state in a word: what was done to it or its tenants, else what its proof lets it do."""
    rows: list[Any] = [domain, *tenants]
    strictest = max(rows, key=lambda row: row.status)
    if strictest.status != Status.ACTIVE:
        return state_of(strictest)
    return {
        Proof.PENDING: badge("warn", _("not proved")), Proof.PROVED: badge("good", _("sends and receives")),
        Proof.LAPSED: badge("bad", _("proof lapsed")),
    }[Proof(domain.proof)]


class AccountForm(forms.ModelForm):
    password = forms.CharField(
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}), strip=False,
        help_text=RULES_IN_WORDS,
    )

    class Meta:
        model = User
        fields = ["email", "name", "provider_role", "second_factor_required"]
        help_texts = {
            "email": gettext_lazy("The login: an address that is not hosted here."),
            "provider_role": gettext_lazy(
                "What it may do for the provider. A tenant's account has none, and memberships instead."
            ),
        }


class PasswordForm(forms.Form):
    password = forms.CharField(
        label=gettext_lazy(
            "New password"
        ), strip=False, widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text=RULES_IN_WORDS,
    )


@admin.register(User)
class AccountAdmin(ScopedAdmin):
    list_display = ["email", "name", "role", "factor", "state"]
    list_filter = ["provider_role", "is_active", "second_factor_required"]
    list_select_related = ["second_factor"]
    search_fields = ["email", "name"]
    fields = ["email", "name", "provider_role", "second_factor_required"]
    removable = True
    above_template = "admin/posthouse/account_above.html"
    page_select_related = ("second_factor",)
    actions_detail = ["set_password", "end_sessions", "remove_second_factor", "close", "reopen"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).filter(kind=User.Kind.PANEL)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = AccountForm
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj:
            return self.fields
        return ["email", "name", "provider_role", "password", "second_factor_required"]

    @display(description=gettext_lazy("Provider role"), ordering="provider_role")
    def role(self, user: User) -> str:
        return user.get_provider_role_display()

    @display(description=gettext_lazy("State"), ordering="is_active")
    def state(self, user: User) -> str:
        return badge("good", _("active")) if user.is_active else badge("off", _("closed"))

    @display(description=gettext_lazy("Second factor"))
    def factor(self, user: User) -> str:
        if hasattr(user, "second_factor"):
            return badge("good", _("set up"))
        return badge("warn", _("must set one up")) if second_factor.is_required(user) else _("none")

    def told(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        may_act = self.has_act_permission(request)
        memberships = list(obj.memberships.select_related("tenant").order_by("tenant__name")[: MOST_TENANTS + 1])
        return {
            "name": obj.email,
            "standing": _account_standing(obj),
            "about": obj.name,
            "factor": self.factor(obj),
            "role": obj.get_provider_role_display(),
            "sessions": [
                (
                    each, sessions.browser(each.browser), moment(each.began_at), moment(each.seen_at),
                    each.session_key == request.session.session_key,
                    reverse("admin:account_session_end", args=(obj.pk, sessions.name_of(each.session_key)))
                    if may_act else "",
                )
                for each in sessions.of(obj)
            ],
            "memberships": memberships[:MOST_TENANTS],
            "more_memberships_url": (
                list_url("tenants_membership", "q", obj.email) if len(memberships) > MOST_TENANTS else ""
            ),
            "add_membership_url": self.add_url(request, Membership, user=obj.pk),
        }

    def get_urls(self) -> list[Any]:
        ended = path(
            "<path:object_id>/end-session/<str:name>/", self.admin_site.admin_view(self.end_session),
            name="account_session_end",
        )
        return [ended, *super().get_urls()]

    def end_session(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Sign the account out of one browser."""
        account = self.object_or_404(request, object_id)
        found = next((each for each in sessions.of(account) if sessions.name_of(each.session_key) == name), None)
        if found is None and self.has_act_permission(request):
            messages.error(request, _("This session is over already."))
            return HttpResponseRedirect(self.url_of(object_id))

        def act(obj: User, data: dict[str, Any]) -> str:
            sessions.end(obj, name, **by(request))
            return _("{obj} is signed out of {browser}.").format(obj=obj, browser=browser)

        browser = sessions.browser(found.browser) if found else ""
        # What a browser calls itself is anybody's to choose: no placeholder of the sentence.
        place = (found.ip if found else "") or _("an unknown address")
        return self.confirm(
            request, object_id, title=_("Sign {} out of one browser"), button=_("Sign out"), act=act,
            sentence=_(
                "The session of {{}} in {browser}, signed in from {place}, ends with its next click. The others go on."
            ).format(browser=browser.replace("{", "{{").replace("}", "}}"), place=place),
        )

    def offered(self, obj: User) -> set[str]:
        without = {"reopen"} if obj.is_active else {"close"}
        return super().offered(obj) - without - (set() if second_factor.of(obj) else {"remove_second_factor"})

    @action(description=gettext_lazy("Set password…"), url_path="set-password", permissions=["act"], icon="key")
    def set_password(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: User, data: dict[str, Any]) -> str:
            services.set_account_password(obj, data["password"], **by(request))
            return _("{obj} has a new password; sessions that were open have ended.").format(obj=obj)

        return self.confirm(
            request, object_id, title=_("Set the password of {}"), button=_("Set password"), act=act,
            form_class=PasswordForm, sentence=_("The account {} signs in with it from now on."),
        )

    @action(description=gettext_lazy(
        "Sign out everywhere…"
    ), url_path="end-sessions", permissions=["act"], icon="logout")
    def end_sessions(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: User, data: dict[str, Any]) -> str:
            ended = sessions.end_all(obj, reason=data["reason"], **by(request))
            return ngettext(
                "{obj} is signed out: {ended} session ended.", "{obj} is signed out: {ended} sessions ended.", ended
            ).format(obj=obj, ended=ended)

        return self.confirm(
            request, object_id, title=_("Sign {} out everywhere"), button=_("Sign out"), act=act,
            form_class=OptionalReasonForm,
            sentence=_(
                "All open sessions of {} end with their next click. Whoever knows the password, and has the second "
                "factor if there is one, can sign in again."
            ),
        )

    @action(
        description=gettext_lazy("Remove second factor…"), url_path="remove-second-factor", permissions=["act"],
        icon="phonelink_erase",
    )
    def remove_second_factor(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: User, data: dict[str, Any]) -> str:
            second_factor.remove(obj, reason=data["reason"], **by(request))
            return _("{obj} has no second factor any more.").format(obj=obj)

        return self.confirm(
            request, object_id, title=_("Remove the second factor of {}"), button=_("Remove"), act=act,
            form_class=OptionalReasonForm, harmful=True,
            sentence=_(
                "For somebody who lost the phone, the passkeys and the recovery codes: all of it goes. Be sure that it "
                "is {} who asks: the password alone opens the account then. If it must have one, it is set up anew at "
                "the next sign-in."
            ),
        )

    @action(description=gettext_lazy("Close…"), url_path="close", permissions=["act"], icon="block")
    def close(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: User, data: dict[str, Any]) -> str:
            services.close_account(obj, reason=data["reason"], **by(request))
            return _("{obj} can no longer sign in.").format(obj=obj)

        return self.confirm(
            request, object_id, title=_("Close {}"), button=pgettext("to end", "Close"), act=act,
            form_class=ReasonForm, harmful=True,
            sentence=_("The account {} can no longer sign in. Reopen undoes it at any time."),
        )

    @action(description=gettext_lazy("Reopen…"), url_path="reopen", permissions=["act"], icon="play_arrow")
    def reopen(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: User, data: dict[str, Any]) -> str:
            services.reopen_account(obj, reason=data["reason"], **by(request))
            return _("{obj} may sign in again.").format(obj=obj)

        return self.confirm(
            request, object_id, title=_("Reopen {}"), button=_("Reopen"), act=act, form_class=OptionalReasonForm,
            sentence=_("The account {} may sign in again with its password."),
        )

    def create(self, request: HttpRequest, data: dict[str, Any]) -> User:
        return operations.create_account(**data, **by(request))

    def change(self, request: HttpRequest, obj: User, data: dict[str, Any]) -> None:
        operations.change_account(obj, **data, **by(request))

    def remove(self, request: HttpRequest, obj: User) -> None:
        operations.delete_account(obj, **by(request))


def _account_standing(account: User) -> standing.Standing:
    if not account.is_active:
        return standing.Standing("off", _("closed"), _("Closed: it can't sign in. Reopen undoes it."))
    if account.provider_role:
        return standing.Standing("good", _("active"), _("Signs in to this admin."))
    return standing.Standing("good", _("active"), _("Signs in for its tenants; this admin doesn't let it in."))


@admin.register(Membership)
class MembershipAdmin(ScopedAdmin):
    empty_words = gettext_lazy("A membership lets a panel account into a tenant: as owner, admin or viewer.")
    list_display = ["user", "tenant", "role"]
    list_filter = ["role", ("tenant", AutocompleteSelectFilter)]
    search_fields = ["user__email", "tenant__name"]
    list_select_related = ["user", "tenant"]
    autocomplete_fields = ["user", "tenant"]
    removable = True

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["user", "tenant"] if obj else []

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        # As search_fields have it, but among panel accounts alone: joined, PostgreSQL reads all persons' as well.
        accounts = User.objects.filter(kind=User.Kind.PANEL).order_by()
        for word in smart_split(search_term.replace("\0", " ")):
            text = unescape_string_literal(word) if word[0] in "\"'" and word[0] == word[-1] != word else word
            queryset = queryset.filter(
                Q(user__in=accounts.filter(email__icontains=text))
                | Q(tenant__in=Tenant.objects.filter(name__icontains=text).order_by())
            )
        return queryset, False

    def create(self, request: HttpRequest, data: dict[str, Any]) -> Membership:
        return services.create_membership(**data, **by(request))

    def change(self, request: HttpRequest, obj: Membership, data: dict[str, Any]) -> None:
        services.change_membership(obj, role=data["role"], **by(request))

    def remove(self, request: HttpRequest, obj: Membership) -> None:
        services.delete_membership(obj, **by(request))


@admin.register(AuditEntry)
class AuditAdmin(ScopedAdmin):
    empty_words = gettext_lazy("Every change to a tenant, an address, a limit or an account is written here.")
    list_display = ["when", "who", "what", "subject", "tenant", "why"]
    list_filter = [("tenant", AutocompleteSelectFilter)]
    search_fields = ["subject_name"]  # there is a box; get_search_results decides
    search_help_text = gettext_lazy("How it begins: to what, by whom, or what (mailbox.suspended)")
    list_select_related = ["tenant"]
    sortable_by = ["when"]  # what an index answers
    creatable = changeable = False
    readonly_fields = fields = ["exactly", "who", "ip", "what", "subject", "tenant", "told_before", "told_after", "why"]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        text = search_term.strip()
        if not text:
            return queryset, False
        return only(request, queryset, *first(*(
            queryset.filter(begins_folded(column, text)).order_by(Folded(column), "-pk").values_list("pk", flat=True)
            for column in ("subject_name", "actor_name", "action")
        )))

    @display(description=gettext_lazy("When"), ordering="-id")
    def when(self, entry: AuditEntry) -> str:
        return moment(entry.at)

    @display(description=gettext_lazy("When"))
    def exactly(self, entry: AuditEntry) -> str:
        return f"{entry.at:%Y-%m-%d %H:%M:%S} UTC"

    @display(description=gettext_lazy("Who"), ordering="actor_name")
    def who(self, entry: AuditEntry) -> str:
        return actor_words(entry.actor_name)

    @display(description=gettext_lazy("To what"), ordering="subject_name")
    def subject(self, entry: AuditEntry) -> str:
        return subject_words(entry)

    @display(description=gettext_lazy("What"), ordering="action")
    def what(self, entry: AuditEntry) -> str:
        return format_html('<span title="{}">{}</span>', entry.action, action_words(entry.action))

    @display(description=gettext_lazy("Reason"), ordering="reason")
    def why(self, entry: AuditEntry) -> str:
        return kept_words(entry.reason)

    @display(description=gettext_lazy("Before"))
    def told_before(self, entry: AuditEntry) -> str:
        return _lines(written(entry).before)

    @display(description=gettext_lazy("After"))
    def told_after(self, entry: AuditEntry) -> str:
        return _lines(written(entry).after)


def _lines(values: Iterable[tuple[str, str]]) -> SafeString | str:
    return format_html_join("", '<div><span class="ph-dim">{}:</span> {}</div>', values) or "–"
