"""Who may open a page of the console, and change something on it. What isn't declared isn't served.

Every view is declared by one of these; a test walks the addresses and finds what is not:

    @tenant_page()                                   members see it; nothing is changed on it
    @tenant_page(change=Role.ADMIN)                  a POST takes an admin
    @tenant_page(role=Role.OWNER, change=Role.OWNER)
    @mailbox_page(change=True)                       the person of a mailbox
    @mailbox_page(change=True, sets_up=True)         also before there is the second factor that the tenant asks for
    @account_page()                                  whoever is signed in with a panel account
    @visit_act                                       the provider's staff, while they look into a tenant
    @anybody                                         the sign-in, and what it leads to

A tenant's page is called with the request and a TenantPlace, a person's with a MailboxPlace, and both
with what else the address holds. Whoever is no member gets 404: nothing tells that the tenant exists.
Rows of the tenant are found by `place.find(queryset, pk=…)`, which answers 404 for another's.

The provider's staff see no tenant's page, but while they look into one (tenants/visits): then what a viewer of
that one sees. Whatever else than reading they ask for is refused here, before any view.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.contrib import messages
from django.db.models import Exists, OuterRef
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache

from panel.client_address import client_ip
from panel.console import persons, refusal
from panel.console.places import AccountPlace, MailboxPlace, Role, TenantPlace
from panel.sending.used import with_day
from panel.tenants import visits
from panel.tenants.models import Membership, Tenant, User
from panel.tenants.sign_in.gate import lead, to_second_factor
from panel.tenants.sign_in.second_factor import is_required
from panel.tenants.sign_in.sessions import VERIFIED
from panel.tenants.standing import with_parents

READING = ("GET", "HEAD")
CHANGING = ("POST",)

View = Callable[..., HttpResponse]


@dataclass(frozen=True, slots=True)
class Declared:
    """What a view says of itself; the tests read it."""

    kind: str  # tenant, mailbox, account, visit or anybody
    role: Role | None = None
    change: Role | bool | None = None


def tenant_page(
    role: Role = Role.VIEWER, change: Role | None = None, *, while_stopped: bool = False
) -> Callable[[View], View]:
    """A page of a tenant, for members of at least `role`; a POST takes `change`, and without it is 405.

    A tenant that is suspended or closed can be read; `while_stopped` lets it be changed all the same.
    """

    def declare(view: View) -> View:
        @wraps(view)
        def page(request: HttpRequest, tenant: int, **named: Any) -> HttpResponse:
            account = _account(request)
            if account is None:
                return to_sign_in(request)
            place, needs_factor = _place(request, account, tenant)
            if needs_factor and not request.session.get(VERIFIED):
                return _to_second_factor(request, place)
            if place.visit and request.method not in READING:
                return refusal.only_looking(request, place)
            if refused := _other_method(request, change):
                return refused
            needs = role if request.method in READING or change is None else max(role, change)
            if place.role < needs:
                return refusal.role_too_small(request, place, needs)
            # A form alone isn't shown either: nobody fills in what is refused then.
            changes = request.method not in READING or (change is not None and role >= change)
            if changes and not (while_stopped or place.status.may_log_in):
                return refusal.stopped(request, place)
            return view(request, place, **named)

        return _declared(page, Declared("tenant", role, change))

    return declare


def mailbox_page(*, change: bool = False, sets_up: bool = False) -> Callable[[View], View]:
    """A page of the person whose mailbox it is, or who came with an account tied to it; a POST only with `change`.

    `sets_up`: it is also for who must have a second factor and has none.
    """

    def declare(view: View) -> View:
        @wraps(view)
        def page(request: HttpRequest, **named: Any) -> HttpResponse:
            account = _account(request)
            if account is None:
                return to_sign_in(request)
            mailbox = persons.mailbox_of(request, account)
            if mailbox is None:
                if account.kind == User.Kind.PERSON:
                    # The mailbox is suspended, or has another password than the one that it was opened with.
                    request.session.flush()
                    return to_sign_in(request)
                raise Http404
            tied = account if account.kind == User.Kind.PANEL else None
            # What is reached by a tie needs the account's own one, as persons.reached_by has it.
            if not (tied or sets_up or request.session.get(VERIFIED)) and is_required(mailbox.person):
                return to_second_factor(request, mailbox.person)
            if refused := _other_method(request, change):
                return refused
            if tied:
                persons.came_by_tie(request, tied, mailbox)
                mailbox.person.by_tie = tied
            return view(request, MailboxPlace(mailbox.person, client_ip(request), mailbox, tied), **named)

        return _declared(page, Declared("mailbox", None, change))

    return declare


def account_page(*, change: bool = False) -> Callable[[View], View]:
    """A page of a panel account, in no tenant; a POST only with `change`."""

    def declare(view: View) -> View:
        @wraps(view)
        def page(request: HttpRequest, **named: Any) -> HttpResponse:
            account = _account(request)
            if account is None:
                return to_sign_in(request)
            if account.kind != User.Kind.PANEL or account.is_staff:
                raise Http404
            if refused := _other_method(request, change):
                return refused
            return view(request, AccountPlace(account, client_ip(request)), **named)

        return _declared(page, Declared("account", None, change))

    return declare


def visit_act(view: View) -> View:
    """What staff do to their visit into a tenant's console, by POST: to end it. Nobody else finds it."""

    @wraps(view)
    def act(request: HttpRequest, tenant: int, **named: Any) -> HttpResponse:
        account = _account(request)
        if account is None:
            return to_sign_in(request)
        visit = visits.of(request, account)
        if visit is None or visit.tenant_id != tenant:
            raise Http404
        if request.method not in CHANGING:
            return HttpResponseNotAllowed(CHANGING)
        return view(request, visit, **named)

    return _declared(act, Declared("visit", None, True))


def anybody(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A page that nobody needs to be signed in for."""

    @wraps(view)
    def page(request: HttpRequest, *args: Any, **named: Any) -> HttpResponseBase:
        return view(request, *args, **named)

    return _declared(page, Declared("anybody"))


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """To the sign-in, and from there back here; after a POST to the start."""
    asked = {"next": request.get_full_path()} if request.method in READING else {}
    return lead(request, f"{reverse('console:sign-in')}{'?' if asked else ''}{urlencode(asked)}")


def _other_method(request: HttpRequest, change: Role | bool | None) -> HttpResponse | None:
    """405 for what the page doesn't take: POST only where something can be changed."""
    takes = READING + (CHANGING if change else ())
    return None if request.method in takes else HttpResponseNotAllowed(takes)


def _declared(page: Any, declared: Declared) -> Any:
    page = never_cache(page)
    page.declared = declared
    return page


def _account(request: HttpRequest) -> User | None:
    """Who is signed in; a closed account isn't."""
    return request.user if isinstance(request.user, User) and request.user.is_active else None


def _to_second_factor(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """To where one is set up; the tenant's console waits."""
    if request.method in READING and "HX-Request" not in request.headers:
        messages.info(request, _("{tenant} lets in only those who sign in with a second factor.").format(
            tenant=place.tenant
        ))
    return to_second_factor(request, place.account)


def _place(request: HttpRequest, account: User, tenant: int) -> tuple[TenantPlace, bool]:
    """And whether a second factor is asked for, by the tenant or by one above it whose member this is.

    Three queries at most. Raises Http404 for whoever is no member and doesn't look into it either. Whether the
    provider's staff need a second factor is said elsewhere.
    """
    if account.kind != User.Kind.PANEL:
        raise Http404
    visit = visits.of(request, account) if account.is_staff else None
    if account.is_staff and (visit is None or visit.tenant_id != tenant):
        raise Http404
    below = Tenant.objects.filter(parent=OuterRef("pk")).order_by()
    rows = with_day(Tenant.objects.filter(pk=tenant)).annotate(
        has_customers=Exists(below), has_ties=persons.has_ties(account)
    )
    found = rows.select_related("plan", "parent__parent").first()
    if found is None:
        raise Http404
    ip = client_ip(request)
    if visit is not None:
        return TenantPlace(account, ip, found, Role.VIEWER, visit), False
    above = {each.pk: each.second_factor_required for each in with_parents(found)}
    memberships = list(Membership.objects.filter(user=account, tenant__in=above))
    if not memberships:
        raise Http404
    needs_factor = found.second_factor_required or any(above[each.tenant_id] for each in memberships)
    return TenantPlace(account, ip, found, max(map(Role.of, memberships))), needs_factor
