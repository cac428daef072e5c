"""Every page of the sign-in and of an account's own, by who asks: what isn't in the table fails."""

import pytest
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse

from panel.operations.services import create_account
from panel.tenants.models import User
from panel.tenants.services import create_membership
from panel.tenants.sign_in import second_factor, urls
from panel.tenants.sign_in.views import SignIn
from panel.urls import urlpatterns
from tests.support import world
from tests.support.authenticator import code_of
from tests.support.traces import Traces

pytestmark = pytest.mark.django_db

PASSWORD = "an unusual password"
ROLES = ["support", "operator", "owner"]
OPEN = {
    "password_change/": "leads to the account's own page",
    "login/": "the door", "login/code/": "its second step",
    "login/forgot/": "asks for a link", "login/reset/<str:token>/": "the link's",
}
# What only does something, when it is posted.
ACTS = {"end-all-sessions": (), "end-session": ("x",), "offer-passkey": (), "prove-passkey": ()}
OF_A_PASSKEY = {"rename-passkey", "remove-passkey"}
# Page to what an account without and with a second factor is answered.
PAGES = {
    "own": (200, 200), "password": (200, 200), "second-factor": (200, 302),
    "remove-second-factor": (302, 200), "recovery-codes": (302, 200),
    # At this address there are no passkeys (tests/panel/test_passkeys.py).
    "add-passkey": (302, 302), "rename-passkey": (404, 404), "remove-passkey": (404, 404),
}


def account(role: str) -> User:
    made = create_account(email=f"{role or 'member'}@provider.test", password=PASSWORD, provider_role=role, actor=None)
    if not role:
        create_membership(user=made, tenant=world.tenant("Acme"), role="owner", actor=None)
    return made


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def path_of(name: str) -> str:
    return reverse(f"account:{name}", args=ACTS.get(name, (0,) if name in OF_A_PASSKEY else ()))


def test_every_page_stands_in_the_table():
    assert {pattern.name for pattern in urls.urlpatterns} == {*PAGES, *ACTS}


def test_what_is_open_to_everybody_is_known():
    beside = [str(each.pattern).removeprefix("admin/") for each in urlpatterns if isinstance(each, URLPattern)]
    assert set(beside) == {*OPEN, "search/"}
    assert Client().get("/admin/search/").status_code == 302
    assert get_resolver().resolve("/admin/login/").func.view_class is SignIn, "not the admin's own"


@pytest.mark.parametrize("name", [*PAGES, *ACTS])
@pytest.mark.parametrize("who", ["nobody", "a tenant's account", "a closed account"])
def test_who_is_no_staff_is_led_to_the_door(name, who):
    client = Client()
    if who == "a tenant's account":
        client = client_of(account(""))
    elif who == "a closed account":
        closed = account("support")
        client = client_of(closed)
        User.objects.update(is_active=False)
    seen = Traces()
    for answer in (client.get(path_of(name)), client.post(path_of(name), {"password": PASSWORD, "code": "000000"})):
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith("/admin/login/")
    assert seen.nothing


@pytest.mark.parametrize("role", ROLES)
def test_each_role_has_its_own_account_read_only_support_too(role):
    user, secret = account(role), second_factor.new_secret()
    client = client_of(user)
    assert [client.get(path_of(name)).status_code for name in PAGES] == [without for without, _ in PAGES.values()]
    second_factor.add(user, secret, code_of(secret))
    client = client_of(user)  # the session before it has ended
    assert [client.get(path_of(name)).status_code for name in PAGES] == [having for _, having in PAGES.values()]
    for name in set(PAGES) - OF_A_PASSKEY:
        headers = client.get(path_of(name)).headers
        assert "no-store" in headers["Cache-Control"], name
        assert "script-src 'self'" in headers["Content-Security-Policy"], name


@pytest.mark.parametrize("name", ACTS)
def test_what_does_something_is_only_posted(name):
    client = client_of(account("owner"))
    seen = Traces()
    assert client.get(path_of(name)).status_code == 405
    assert seen.nothing


@pytest.mark.parametrize("name", [*PAGES, *ACTS])
def test_a_form_from_elsewhere_is_refused(name):
    client = Client(enforce_csrf_checks=True)
    client.force_login(account("owner"))
    assert client.post(path_of(name), {"password": PASSWORD}).status_code == 403
