"""Sessions of the panel: listed, ended one by one and all at once, and ended by what makes them unsafe."""

from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from panel.operations.services import create_account
from panel.tenants.models import AuditEntry, PanelSession, User
from panel.tenants.services import close_account, reopen_account, set_account_password
from panel.tenants.sign_in import second_factor, sessions
from tests.support.authenticator import code_of

pytestmark = pytest.mark.django_db

PASSWORD, OTHER_PASSWORD = "an unusual password", "another unusual one"
OWNER = "owner@provider.test"
INDEX, OWN, CHANGE, END_ALL = "/admin/", "/admin/account/", "/admin/account/password/", "/admin/account/sessions/end/"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.0 Mobile/15E148 Safari/604.1"
)


@pytest.fixture(autouse=True)
def quick(settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def owner() -> User:
    return create_account(email=OWNER, password=PASSWORD, provider_role="owner", actor=None)


def sign_in(email: str = OWNER, ip: str = "192.0.2.10", browser: str = FIREFOX) -> Client:
    client = Client(REMOTE_ADDR=ip, headers={"user-agent": browser})
    assert client.post("/admin/login/", {"username": email, "password": PASSWORD}).status_code == 302
    assert is_in(client)
    return client


def is_in(client: Client) -> bool:
    return client.get(INDEX).status_code == 200


def key_of(client: Client) -> str:
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def end(client: Client, whose: Client):
    return client.post(reverse("account:end-session", args=[sessions.name_of(key_of(whose))]), follow=True)


# Listed


def test_sessions_are_listed_with_browser_and_address_and_without_their_keys(owner):
    here, phone = sign_in(), sign_in(ip="2001:db8::7", browser=SAFARI)
    page = here.get(OWN).content.decode()
    for text in ("Firefox on Linux", "192.0.2.10", "Safari on iPhone", "2001:db8::7", "this one"):
        assert text in page
    assert key_of(here) not in page and key_of(phone) not in page
    listed = here.get(reverse("admin:tenants_user_change", args=[owner.pk])).content.decode()
    assert "Safari on iPhone" in listed and key_of(phone) not in listed


@pytest.mark.parametrize(("user_agent", "shown"), [
    (FIREFOX, "Firefox on Linux"), (SAFARI, "Safari on iPhone"), ("curl/8.5.0", "curl/8.5.0"), ("", "unknown"),
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36 "
     "Edg/142.0", "Edge on Windows"),
])
def test_a_browser_is_named_by_what_it_sends(user_agent, shown):
    assert sessions.browser(user_agent) == shown


def test_a_hostile_browser_is_shown_harmless(owner):
    client = sign_in(browser="<script>alert(1)</script>\x00" + "x" * 5000)
    for path in (OWN, reverse("admin:tenants_user_change", args=[owner.pk])):
        assert "<script>alert(1)" not in client.get(path).content.decode()


def test_use_is_noted_every_few_minutes(owner):
    client = sign_in()
    before = PanelSession.objects.get().seen_at
    is_in(client)
    assert PanelSession.objects.get().seen_at == before
    PanelSession.objects.update(seen_at=before - timedelta(minutes=6))
    is_in(client)
    assert PanelSession.objects.get().seen_at >= before


def test_sessions_of_one_account_are_bounded_and_expired_ones_go(owner, monkeypatch):
    monkeypatch.setattr(sessions, "MOST_OF_ONE", 3)
    clients = [sign_in() for _ in range(4)]
    assert [is_in(each) for each in clients] == [False, True, True, True]
    PanelSession.objects.filter(pk=key_of(clients[1])).update(expire_date=timezone.now() - timedelta(seconds=1))
    sign_in()
    assert not PanelSession.objects.filter(expire_date__lt=timezone.now()).exists()


# Ended


def test_one_session_is_ended_from_another(owner):
    here, there = sign_in(), sign_in(browser=SAFARI, ip="192.0.2.99")
    assert "Signed out there." in end(here, there).content.decode()
    assert is_in(here) and not is_in(there)
    entry = AuditEntry.objects.first()
    assert (entry.action, entry.before) == (
        "account.session_ended", {"from": "192.0.2.99", "browser": "Safari on iPhone"}
    )
    assert "over already" in end(here, there).content.decode()


def test_nobody_ends_anothers_by_its_name(owner):
    create_account(email="other@provider.test", password=PASSWORD, provider_role="operator", actor=None)
    mine, theirs = sign_in(), sign_in("other@provider.test")
    assert "over already" in end(theirs, mine).content.decode()
    assert is_in(mine)


def test_signing_out_everywhere_else_and_everywhere(owner):
    here, one, two = sign_in(), sign_in(), sign_in()
    assert "Signed out 2 other sessions" in here.post(END_ALL, {"others": "1"}, follow=True).content.decode()
    assert [is_in(each) for each in (here, one, two)] == [True, False, False]
    three = sign_in()
    assert here.post(END_ALL).headers["Location"] == "/admin/login/"
    assert [is_in(each) for each in (here, three)] == [False, False]
    assert AuditEntry.objects.first().after == {"ended": 2}


def test_an_owner_signs_another_out_everywhere_and_others_may_not(owner):
    other = create_account(email="other@provider.test", password=PASSWORD, provider_role="operator", actor=None)
    here, theirs = sign_in(), sign_in("other@provider.test")
    where = reverse("admin:tenants_user_end_sessions", args=[owner.pk])
    assert theirs.post(where, {"reason": ""}).status_code == 403
    assert is_in(here)
    where = reverse("admin:tenants_user_end_sessions", args=[other.pk])
    assert here.post(where, {"reason": "lost the laptop"}).status_code == 302
    assert is_in(here) and not is_in(theirs)


def test_an_ended_session_does_not_come_back_by_what_it_had_under_way(owner):
    client = sign_in()
    under_way = client.session
    assert under_way["where"]  # it is read
    PanelSession.objects.all().delete()
    under_way["more"] = 1
    with pytest.raises(UpdateError):
        under_way.save()
    assert not PanelSession.objects.exists()


# Ended by what makes them unsafe


def test_changing_the_own_password_ends_the_others(owner):
    here, there = sign_in(), sign_in()
    old = key_of(here)
    for data, field in (
        ({"password": "wrong", "new": OTHER_PASSWORD, "again": OTHER_PASSWORD}, "password"),
        ({"password": PASSWORD, "new": OTHER_PASSWORD, "again": "x"}, "again"),
        ({"password": PASSWORD, "new": "short", "again": "short"}, "new"),
        ({"password": PASSWORD, "new": "password1234", "again": "password1234"}, "new"),
    ):
        assert list(here.post(CHANGE, data).context["form"].errors) == [field]
    assert is_in(there)
    answer = here.post(CHANGE, {"password": PASSWORD, "new": OTHER_PASSWORD, "again": OTHER_PASSWORD})
    assert answer.headers["Location"] == OWN
    assert is_in(here) and not is_in(there)
    assert key_of(here) != old, "a key that somebody copied is void"
    entry = AuditEntry.objects.first()
    assert (entry.action, entry.actor_name) == ("account.password_set", OWNER)


def test_the_admins_own_way_to_change_it_leads_to_ours(owner):
    assert sign_in().post("/admin/password_change/", {}).headers["Location"] == CHANGE


@pytest.mark.parametrize("what", ["password", "closed", "second factor"])
def test_a_session_ends_with(owner, what):
    create_account(email="other@provider.test", password=PASSWORD, provider_role="owner", actor=None)
    client = sign_in()
    if what == "password":
        set_account_password(owner, OTHER_PASSWORD, actor=None)
    elif what == "closed":
        close_account(owner, actor=None)
        reopen_account(owner, actor=None)
    else:
        secret = second_factor.new_secret()
        second_factor.add(owner, secret, code_of(secret))
    assert not is_in(client)
    assert not PanelSession.objects.filter(user=owner).exists()
