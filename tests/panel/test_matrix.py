"""Every address of the panel × every role: what is answered, and that nothing changes where it may not.

The addresses are the URL resolver's and the admin registry's. Of the admin's models the rules of ROLES decide
(what reads is everybody's of the provider, what changes isn't support's, accounts and memberships are the
owner's); every other address stands in ADDRESSES. Whoever adds one is told by the first test what to write.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import models
from django.http import HttpResponse
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils.translation import override

from panel.tenants.models import Membership, User
from tests.panel.test_admin_generated import CASES, EVERYTHING_AN_ACTION_ASKS, OF_ALL_STAFF, REDIRECTS, filled, named
from tests.support.english import JAPANESE, WORD, english, known_words
from tests.support.standing import OUTSIDE, STAFF, Standing, everything, undone
from tests.support.traces import Traces

pytestmark = [pytest.mark.django_db, pytest.mark.once("postgresql")]


@pytest.fixture
def _django_db_helper(standing: Standing) -> Iterator[None]:
    """In place of pytest-django's, which closes the connection after each test: the world is in its transaction."""
    with undone():
        yield


# What is answered.
PAGE = "page"
FILE = "file"  # what isn't a page: a script, JSON, an empty answer
SIGN_IN = "to the sign-in"
FACTOR = "to the second factor's set-up"
ELSEWHERE = "to another page"
BAD, FORBIDDEN, NOTHING, NOT_SO = "400", "403", "404", "405"

Answers = tuple[str, str]  # to GET and to POST


@dataclass(frozen=True)
class Expected:
    """What an address that is no model's answers, to GET and to POST with no fields."""

    path: str  # one that the route matches
    staff: Answers
    outside: Answers = (SIGN_IN, SIGN_IN)
    without_factor: Answers = (FACTOR, FACTOR)
    support: Answers | None = None  # as the other staff

    def of(self, role: str) -> Answers:
        if role == "support" and self.support:
            return self.support
        return self.staff if role in STAFF else self.outside if role in OUTSIDE else self.without_factor


def everybody(path: str, get: str, post: str) -> Expected:
    return Expected(path, (get, post), (get, post), (get, post))


# By route. An address of your own goes here, unless it is an action of a registered admin.
ADDRESSES: dict[str, Expected] = {
    # The sign-in
    "admin/login/": Expected("/admin/login/", (ELSEWHERE, PAGE), (PAGE, PAGE)),
    "admin/login/code/": Expected("/admin/login/code/", (SIGN_IN, SIGN_IN), without_factor=(SIGN_IN, SIGN_IN)),
    "admin/login/forgot/": Expected("/admin/login/forgot/", (PAGE, PAGE), (PAGE, PAGE)),
    "admin/login/reset/<str:token>/": Expected("/admin/login/reset/x/", (PAGE, PAGE), (PAGE, PAGE)),
    "admin/logout/": Expected("/admin/logout/", (NOT_SO, PAGE), (ELSEWHERE, ELSEWHERE), (NOT_SO, PAGE)),
    # The own account
    "admin/password_change/": Expected(
        "/admin/password_change/", (ELSEWHERE, ELSEWHERE), (ELSEWHERE, ELSEWHERE)
    ),
    "admin/password_change/done/": Expected("/admin/password_change/done/", (PAGE, NOT_SO)),
    "admin/account/": Expected("/admin/account/", (PAGE, PAGE)),
    "admin/account/password/": Expected("/admin/account/password/", (PAGE, PAGE)),
    "admin/account/sessions/end/": Expected("/admin/account/sessions/end/", (NOT_SO, SIGN_IN)),
    "admin/account/sessions/<slug:name>/end/": Expected("/admin/account/sessions/x/end/", (NOT_SO, ELSEWHERE)),
    "admin/account/second-factor/": Expected(
        "/admin/account/second-factor/", (PAGE, PAGE), without_factor=(PAGE, PAGE)
    ),
    "admin/account/second-factor/remove/": Expected("/admin/account/second-factor/remove/", (ELSEWHERE, ELSEWHERE)),
    "admin/account/recovery-codes/": Expected("/admin/account/recovery-codes/", (ELSEWHERE, ELSEWHERE)),
    # There are no passkeys at this address.
    "admin/account/passkeys/add/": Expected(
        "/admin/account/passkeys/add/", (ELSEWHERE, ELSEWHERE), without_factor=(ELSEWHERE, ELSEWHERE)
    ),
    "admin/account/passkeys/offer/": Expected(
        "/admin/account/passkeys/offer/", (NOT_SO, FILE), without_factor=(NOT_SO, FILE)
    ),
    "admin/account/passkeys/prove/": Expected("/admin/account/passkeys/prove/", (NOT_SO, FILE)),
    "admin/account/passkeys/<int:passkey>/rename/": Expected(
        "/admin/account/passkeys/0/rename/", (NOTHING, NOTHING)
    ),
    "admin/account/passkeys/<int:passkey>/remove/": Expected(
        "/admin/account/passkeys/0/remove/", (NOTHING, NOTHING)
    ),
    # The admin as a whole
    "admin/": Expected("/admin/", (PAGE, PAGE)),
    "admin/search/": Expected("/admin/search/", (PAGE, NOT_SO)),
    "admin/tenants/user/<path:object_id>/end-session/<str:name>/": Expected(
        "/admin/tenants/user/0/end-session/x/", (NOTHING, NOTHING)
    ),
    # The queue
    "admin/sending/recipient/queue/": Expected("/admin/sending/recipient/queue/", (PAGE, PAGE)),
    "admin/sending/recipient/bulk/<str:kind>/": Expected(
        "/admin/sending/recipient/bulk/retry/", (PAGE, PAGE), support=(FORBIDDEN, FORBIDDEN)
    ),
    "admin/sending/bulkact/<int:pk>/go-on/": Expected(
        "/admin/sending/bulkact/0/go-on/", (NOT_SO, NOTHING), support=(FORBIDDEN, FORBIDDEN)
    ),
    "admin/sending/bulkact/<int:pk>/stop/": Expected(
        "/admin/sending/bulkact/0/stop/", (NOT_SO, NOTHING), support=(FORBIDDEN, FORBIDDEN)
    ),
    "admin/autocomplete/": Expected("/admin/autocomplete/", (FORBIDDEN, NOT_SO)),
    "admin/jsi18n/": Expected("/admin/jsi18n/", (FILE, NOT_SO), without_factor=(FILE, NOT_SO)),
    "admin/r/<path:content_type_id>/<path:object_id>/": Expected("/admin/r/1/1/", (NOTHING, NOTHING)),
    "admin/^(?P<app_label>": Expected("/admin/tenants/", (PAGE, PAGE)),
    "admin/(?P<url>.*)$": Expected("/admin/nothing/", (NOTHING, NOTHING)),
    # What mail clients ask, under the name of a hosted domain; nobody is signed in there.
    ".well-known/autoconfig/mail/config-v1.1.xml": everybody(
        "/.well-known/autoconfig/mail/config-v1.1.xml", FILE, NOT_SO
    ),
    "mail/config-v1.1.xml": everybody("/mail/config-v1.1.xml", FILE, NOT_SO),
    r"^(?i:autodiscover/autodiscover\.xml)\Z": everybody("/autodiscover/autodiscover.xml", NOT_SO, FILE),
    r"^(?i:autodiscover/autodiscover\.json)(?:/[^/]+){0,2}\Z": everybody(
        "/autodiscover/autodiscover.json", BAD, NOT_SO
    ),
    "apple.mobileconfig": everybody("/apple.mobileconfig?email=ann@acme.test", FILE, NOT_SO),
    # And what mail servers ask; nothing while no host for policies is set.
    ".well-known/mta-sts.txt": everybody("/.well-known/mta-sts.txt?domain=mta-sts.acme.test", NOTHING, NOT_SO),
}
OWNERS_ALONE = {User, Membership}
# Actions that only show something, so that support has them too: {(Message, "explain")}. All others change.
READING_ACTIONS: set[tuple[type[models.Model], str]] = set()
# Acts on chosen rows of a list that show a page before they do anything: {(Recipient, "discard")}.
ASKING_FIRST: set[tuple[type[models.Model], str]] = set()


@dataclass(frozen=True)
class Of:
    """An address of a registered model. `kind`: changelist, add, change, delete, history, old, or an action's name."""

    model: type[models.Model]
    kind: str


def routes(resolver: URLResolver, before: str = "", spaces: str = "") -> Iterator[tuple[str, str]]:
    """Each route with the name that leads to it."""
    for one in resolver.url_patterns:
        route = before + str(one.pattern)
        if isinstance(one, URLPattern):
            yield route, f"{spaces}{one.name or ''}"
        else:
            yield from routes(one, route, f"{spaces}{one.namespace}:" if one.namespace else spaces)


def of_a_model(route: str, name: str) -> Of | None:
    for model in admin.site._registry:
        app, called = model._meta.app_label, model._meta.model_name
        if name.startswith(f"admin:{app}_{called}_"):
            return Of(model, name.removeprefix(f"admin:{app}_{called}_"))
        if route == f"admin/{app}/{called}/<path:object_id>/" and name == "admin:":
            return Of(model, "old")
    return None


# The console's are tests/console/test_matrix.py's.
ALL = [
    (route, name)
    for route, name in (*routes(get_resolver("panel.urls")), *routes(get_resolver("panel.autoconfig.urls")))
    if not name.startswith("console:")
]
OF_MODELS = list(filter(None, (of_a_model(*one) for one in ALL)))
OTHERS = sorted({route for route, name in ALL if of_a_model(route, name) is None})


def expected_of(route: str) -> Expected | None:
    # The admin's pattern of its apps names them all: its beginning stands for it.
    return ADDRESSES.get(route) or next((ADDRESSES[each] for each in ADDRESSES if each and route.startswith(each)
                                         and "(?P<app_label>" in each), None)


def actions_of(model: type[models.Model]) -> set[str]:
    """The names of all that unfold gives an address: above the list, in its rows, and on the page."""
    one = admin.site._registry[model]
    found: set[str] = set()
    for each in (*one.actions_detail, *one.actions_list, *one.actions_row):
        found |= set(each["items"]) if isinstance(each, dict) else {each}
    return found


def answered(answer: HttpResponse) -> str:
    if answer.status_code in (301, 302):
        where = answer["Location"]
        if where.startswith("/admin/login/"):
            return SIGN_IN
        return FACTOR if where == reverse("account:second-factor") else ELSEWHERE
    if answer.status_code == 200:
        return PAGE if answer["Content-Type"].startswith("text/html") else FILE
    return str(answer.status_code)


def ask(standing: Standing, role: str, path: str, data: dict[str, Any] | None = None, **options: Any) -> HttpResponse:
    """GET, or POST of the data, by a fresh browser of this role."""
    client = standing.client(role)
    return client.get(path, **options) if data is None else client.post(path, data, **options)


def says_nothing_of_tenants(answer: HttpResponse) -> bool:
    content = answer.content.decode(errors="replace") + answer.get("Location", "")
    # But for what is drawn by lot, the forms' tokens and nonces: once in some thousand times it holds these letters.
    content = re.sub(r'\b[A-Za-z0-9]{64}\b|nonce="[^"]*"', "", content)
    return not re.search(r"acme|beta\b|Above", content, re.I)


# --- addresses that are no model's --------------------------------------------------------


def test_every_address_has_an_expectation():
    unknown = [route for route in OTHERS if expected_of(route) is None]
    assert not unknown, "say in ADDRESSES what these answer, to whom"
    strays = [one for one in OF_MODELS
              if one.kind not in ("changelist", "add", "change", "delete", "history", "old")
              and one.kind not in actions_of(one.model)]
    assert not strays, "these are no actions (actions_detail, actions_list, actions_row) of their admin"
    gone = [route for route in ADDRESSES if not any(known.startswith(route) for known in OTHERS)]
    assert not gone, "these in ADDRESSES are no addresses any more"


@pytest.mark.parametrize("route", [route for route in OTHERS if expected_of(route)])
def test_an_address_answers_each_role_as_expected_and_changes_nothing(route, standing):
    expected = expected_of(route)
    host = {"HTTP_HOST": "autoconfig.acme.test"} if not route.startswith("admin") and route else {}
    before = everything()
    wrong = {}
    for role in (*OUTSIDE, "without factor", *STAFF):
        wanted = expected.of(role)
        with undone():
            get = ask(standing, role, expected.path, **host)
        with undone():
            seen = Traces()
            post = ask(standing, role, expected.path, {}, **host)
            changed = seen.actions
        got = (answered(get), answered(post))
        if got != wanted:
            wrong[role] = f"{got}, expected {wanted}"
        if role in OUTSIDE and not host:
            assert says_nothing_of_tenants(get) and says_nothing_of_tenants(post), role
            assert not changed, role
    assert not wrong
    assert everything() == before


# --- addresses of models ------------------------------------------------------------------


def may(role: str, one: Of) -> bool:
    """Whether the role may do what this address does, beyond reading."""
    if (one.model, one.kind) in OF_ALL_STAFF:
        return role in STAFF
    if role not in ("operator", "owner") or (one.model in OWNERS_ALONE and role != "owner"):
        return False
    case = CASES[one.model]
    return {"add": bool(case.add), "change": is_changeable(one.model), "delete": case.removable}.get(one.kind, True)


def is_changeable(model: type[models.Model]) -> bool:
    return bool(CASES[model].change) or model.__name__ == "Domain"  # only what is shared, or its store


def is_reading(one: Of) -> bool:
    return one.kind in ("changelist", "history", "old") or (one.model, one.kind) in READING_ACTIONS


def wanted_of(one: Of, role: str) -> Answers:
    if role in OUTSIDE:
        return (SIGN_IN, SIGN_IN)
    if role == "without factor":
        return (FACTOR, FACTOR)
    if one.kind == "old":
        return (ELSEWHERE, ELSEWHERE)
    if one.kind == "changelist" or is_reading(one):
        return (PAGE, PAGE)
    get = PAGE if one.kind == "change" or may(role, one) else FORBIDDEN
    if (one.model, one.kind) in REDIRECTS and may(role, one):
        return (ELSEWHERE, ELSEWHERE)
    return (get, ELSEWHERE if may(role, one) else FORBIDDEN)


def path_of(standing: Standing, one: Of) -> str:
    pk = standing.rows[one.model].mine.pk
    if one.kind == "old":
        return reverse(f"admin:{one.model._meta.app_label}_{one.model._meta.model_name}_changelist") + f"{pk}/"
    listed = one.kind in ("changelist", "add") or one.kind in admin.site._registry[one.model].actions_list
    name = f"admin:{one.model._meta.app_label}_{one.model._meta.model_name}_{one.kind}"
    return reverse(name, args=() if listed else (pk,))


def data_of(standing: Standing, one: Of) -> dict[str, Any]:
    """What the owner's browser would send from this page."""
    case = CASES[one.model]
    given = {"add": standing.rows[one.model].add, "change": case.change or {}, "delete": {"post": "yes"}}
    data = given.get(one.kind, EVERYTHING_AN_ACTION_ASKS)
    if one.kind not in ("add", "change"):
        return data
    page = ask(standing, "owner", path_of(standing, one))
    return filled(case, page.context["adminform"].form, data) if page.status_code == 200 else data


def prepare(standing: Standing, one: Of) -> None:
    """What comes before an action that undoes another."""
    first = CASES[one.model].before.get(one.kind)
    if first:
        answer = ask(standing, "owner", path_of(standing, Of(one.model, first)), EVERYTHING_AN_ACTION_ASKS)
        assert answer.status_code == 302


@pytest.mark.parametrize("one", OF_MODELS, ids=lambda one: f"{named(one.model)}-{one.kind}")
def test_a_page_of_the_admin_answers_each_role_as_expected(one, standing, request):
    where = path_of(standing, one)
    if one.kind == "check_now":
        request.getfixturevalue("its_proof")(standing.rows[one.model].mine)
    before = everything()
    wrong = {}
    with undone():
        prepare(standing, one)
        data = data_of(standing, one)
        prepared = everything()
        for role in (*OUTSIDE, "without factor", *STAFF):
            wanted = wanted_of(one, role)
            get = ask(standing, role, where)
            if may(role, one) and not is_reading(one):
                got = (answered(get), wanted[1])
            else:
                post = ask(standing, role, where, data)
                got = (answered(get), answered(post))
                assert role in STAFF or (says_nothing_of_tenants(get) and says_nothing_of_tenants(post)), role
            if got != wanted:
                wrong[role] = f"{got}, expected {wanted}"
        assert everything() == prepared, "somebody changed what they may not, or by looking"
        for role in filter(lambda role: may(role, one) and not is_reading(one), STAFF):
            with undone():
                seen = Traces()
                post = ask(standing, role, where, data)
                if answered(post) != wanted_of(one, role)[1] and not is_a_secret(one, post):
                    wrong[role] = f"POST: {answered(post)} {errors(post)}"
                does = (one.model, one.kind) not in REDIRECTS and (one.kind != "change" or CASES[one.model].change)
                if len(seen.actions) != bool(does):
                    wrong[role] = f"wrote {seen.actions}"
    assert not wrong
    assert everything() == before


def is_a_secret(one: Of, answer: HttpResponse) -> bool:
    """What is shown once is a page in answer to the POST."""
    return answer.status_code == 200 and "secret" in (answer.context or {})


def errors(answer: HttpResponse) -> object:
    context = answer.context or {}
    return context["adminform"].form.errors if "adminform" in context else context.get("form", {})


BULK = [(model, name) for model in CASES for name in {*admin.site._registry[model].actions, "delete_selected"}]


@pytest.mark.parametrize(("model", "name"), BULK, ids=named)
def test_an_act_on_chosen_rows_is_done_by_who_may_alone(model, name, standing):
    """Whoever may not is told nothing and changes nothing, also with all rows chosen."""
    one = Of(model, "delete" if name == "delete_selected" else name)
    where = path_of(standing, Of(model, "changelist"))
    chosen = {"action": name, ACTION_CHECKBOX_NAME: [standing.rows[model].mine.pk], "post": "yes"}
    before = everything()
    for role in filter(lambda role: not may(role, one), (*OUTSIDE, "without factor", *STAFF)):
        # Without any action that it may do, the list comes again by a redirect.
        wanted = {SIGN_IN} if role in OUTSIDE else {FACTOR} if role not in STAFF else {PAGE, ELSEWHERE}
        assert answered(ask(standing, role, where, chosen)) in wanted, role
        assert answered(ask(standing, role, where, {**chosen, "select_across": "1"})) in wanted, role
    assert everything() == before
    for role in filter(lambda role: may(role, one), STAFF):
        with undone():
            seen = Traces()
            assert answered(ask(standing, role, where, chosen)) in (ELSEWHERE, PAGE), role
            assert len(seen.actions) == ((model, name) not in ASKING_FIRST), (role, seen.actions)


def test_every_change_needs_the_forms_token(standing):
    """Nothing is exempt from the check for forged requests but what mail clients ask."""
    before = everything()
    data = {"post": "yes", **EVERYTHING_AN_ACTION_ASKS}
    for one in OF_MODELS:
        client = standing.client("owner", enforce_csrf_checks=True)
        if one.kind != "old":
            assert client.post(path_of(standing, one), data).status_code == 403, one
    for route in OTHERS:
        path = expected_of(route).path
        if route.startswith("admin"):
            status = standing.client("owner", enforce_csrf_checks=True).post(path, {}).status_code
            assert status in (403, 302), path
    assert everything() == before


# --- in another language ---------------------------------------------------------------------


def pages(standing: Standing) -> Iterator[tuple[str, Of | None]]:
    """Every page of the admin, with the model's address that it is."""
    for one in OF_MODELS:
        if one.kind != "old" and (one.model, one.kind) not in REDIRECTS:
            yield path_of(standing, one), one
            if one.kind == "changelist":
                yield f"{path_of(standing, one)}?q=zzz", None
    for expected in ADDRESSES.values():
        if expected.path.startswith("/admin/") and expected.staff[0] == PAGE:
            yield expected.path, None
    yield reverse("search") + "?q=zzz", None
    yield reverse("search") + "?q=e", None


@override("ja")  # the last request's language stays that of the thread
def test_no_page_shows_an_english_word_to_who_reads_japanese(standing):
    reader = standing.client("owner")
    known = known_words() | set(WORD.findall(str(EVERYTHING_AN_ACTION_ASKS)))
    wrong: dict[str, list[str]] = {}
    for path, one in pages(standing):
        with undone():
            first = one and CASES[one.model].before.get(one.kind)
            if first:
                reader.post(path_of(standing, Of(one.model, first)), EVERYTHING_AN_ACTION_ASKS, headers=JAPANESE)
            answers = [reader.get(path, headers=JAPANESE)]
            if one is not None and one.kind not in ("changelist", "history"):
                # What it refuses, or says when it is done.
                data = {} if one.kind in ("add", "change") else EVERYTHING_AN_ACTION_ASKS
                answers.append(reader.post(path, data, headers=JAPANESE, follow=True))
        for answer in answers:
            page = answer.content.decode()
            if answer.status_code == 200 and (found := english(page, known)):
                wrong[path] = found
            elif answer.status_code == 200:
                assert '<html lang="ja"' in page, path
    assert not wrong, "\n".join(f"{path}: {each}" for path, texts in wrong.items() for each in texts)
