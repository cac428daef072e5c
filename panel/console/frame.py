"""The frame around every page: where one can go, where one is, and how much of the limit is used.

`page` is how a view answers. The side shows what exists: an entry appears with the address of its name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from panel.console import persons
from panel.console.places import MailboxPlace, Place, TenantPlace
from panel.mailboxes.models import Mailbox
from panel.sending.used import Bar, day_of
from panel.tenants.models import Tenant, User

MOST_TENANTS = 12  # in the switcher; all of them have a page of their own
THEMES = ("light", "dark")
STARTS = ("home", "me")

# Name of the address, words, icon; in the order of the side.
OF_A_TENANT: Sequence[tuple[str, Any, str]] = (
    ("home", _("Home"), "home"),
    ("domains", _("Domains"), "world"),
    ("mailboxes", _("Mailboxes"), "inbox"),
    ("aliases", _("Aliases"), "at"),
    ("messages", _("Messages"), "send"),
    ("usage", _("Usage and limits"), "chart-bar"),
)
OF_AN_ORGANISATION: Sequence[tuple[str, Any, str]] = (
    ("customers", _("Customers"), "building"),
    ("people", _("People"), "users"),
    ("audit", _("Audit log"), "history"),
    ("settings", _("Settings"), "settings"),
)
OF_A_PERSON: Sequence[tuple[str, Any, str]] = (
    ("me", _("Your mailbox"), "home"),
    ("me-mail", _("Read mail"), "mail"),
    ("me-passwords", _("App passwords"), "key"),
    ("me-rules", _("Forward and vacation"), "arrow-forward-up"),
    ("me-sent", _("Sent mail"), "send"),
    ("me-sign-ins", _("Password and sign-ins"), "shield-check"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the side."""

    words: Any
    icon: str
    url: str
    is_here: bool


class Frame:
    """What base.html draws. Queries run only where it is drawn."""

    def __init__(self, request: HttpRequest, place: Place) -> None:
        self.request, self.place = request, place

    @property
    def tenant_place(self) -> TenantPlace | None:
        return self.place if isinstance(self.place, TenantPlace) else None

    @property
    def mailbox_place(self) -> MailboxPlace | None:
        return self.place if isinstance(self.place, MailboxPlace) else None

    @property
    def start(self) -> str:
        """Where the logo leads."""
        entries = self.entries
        return entries[0].url if entries else reverse("console:start")

    @cached_property
    def entries(self) -> list[Entry]:
        if self.tenant_place:
            return list(self._entries(OF_A_TENANT, {"tenant": self.tenant_place.tenant.pk}))
        return list(self._entries(OF_A_PERSON, {})) if self.mailbox_place else []

    @cached_property
    def organisation(self) -> list[Entry]:
        if not self.tenant_place:
            return []
        hidden = () if self.tenant_place.is_reseller else ("customers",)
        some = [each for each in OF_AN_ORGANISATION if each[0] not in hidden]
        return list(self._entries(some, {"tenant": self.tenant_place.tenant.pk}))

    @cached_property
    def find(self) -> str:
        """The address of the search; empty while there is none."""
        if self.tenant_place:
            return address("search", tenant=self.tenant_place.tenant.pk)
        return address("me-sent") if self.mailbox_place else ""

    @cached_property
    def sign_ins(self) -> str:
        """The address of the account's password and sign-ins."""
        if self.place.account.is_staff:
            return reverse("account:own")
        return address("me-sign-ins") if self.mailbox_place else address("account-own")

    @cached_property
    def day(self) -> Bar | None:
        """Sent in 24 hours; a person's page shows its own."""
        return day_of(self.tenant_place.tenant) if self.tenant_place else None

    @cached_property
    def usage(self) -> str:
        return address("usage", tenant=self.tenant_place.tenant.pk) if self.tenant_place else ""

    @cached_property
    def tenants(self) -> list[Tenant]:
        """For the switcher: one query. One more than MOST_TENANTS says that there are more."""
        if self.tenant_place and self.tenant_place.visit:
            return [self.tenant_place.tenant]
        return list(Tenant.objects.of(self.account)[: MOST_TENANTS + 1])

    @cached_property
    def account(self) -> User:
        """Who is signed in: in a mailbox that is reached by a tie the panel account."""
        return (self.mailbox_place.tied if self.mailbox_place else None) or self.place.account

    @cached_property
    def mailboxes(self) -> list[Mailbox]:
        """For the switcher: what the panel account is tied to. In a tenant one entry leads to them."""
        if self.tenant_place or self.account.kind != User.Kind.PANEL:
            return []
        return persons.reached_by(self.account, self.place.ip)

    @property
    def has_mailbox(self) -> bool:
        return bool(self.tenant_place and not self.tenant_place.visit and self.tenant_place.tenant.has_ties)

    @property
    def shown_tenants(self) -> list[Tenant]:
        return self.tenants[:MOST_TENANTS]

    @property
    def has_more_tenants(self) -> bool:
        return len(self.tenants) > MOST_TENANTS

    def _entries(self, some: Sequence[tuple[str, Any, str]], named: Mapping[str, Any]) -> Iterator[Entry]:
        for name, words, icon in some:
            url = address(name, **named)
            if url:
                # Below the start lie all others.
                is_here = self.request.path == url if name in STARTS else self.request.path.startswith(url)
                yield Entry(words, icon, url, is_here)


def address(name: str, **named: Any) -> str:
    """The path of a console page; empty where there is none of this name."""
    try:
        return reverse(f"console:{name}", kwargs=named)
    except NoReverseMatch:
        return ""


def page(
    request: HttpRequest, place: Place, template: str, title: Any, *, crumbs: Sequence[tuple[Any, str]] = (),
    status: int = 200, **context: Any,
) -> HttpResponse:
    """The answer of a view: the template, in the frame of this place.

    `crumbs` are the pages above this one, as (words, address). A `form` in the context that has errors
    makes the title begin with "Error:".
    """
    context = {"frame": Frame(request, place), "place": place, "title": title, "crumbs": crumbs, **context}
    return TemplateResponse(request, template, context, status=status)


def look(request: HttpRequest) -> dict[str, Any]:
    """Django's context processor: what pages without a frame need as well."""
    theme = request.COOKIES.get("theme", "")
    return {
        "theme": theme if theme in THEMES else "",
        "languages": settings.LANGUAGES if len(settings.LANGUAGES) > 1 else (),
    }
