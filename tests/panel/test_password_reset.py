"""A forgotten password: who gets a link, what it does, and what nobody learns."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from panel import environment
from panel.console import password_reset as pages
from panel.operations import password_reset
from panel.operations.recovery import set_recovery
from panel.operations.services import change_account, create_account
from panel.sending.models import Message, Recipient
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, PanelSession, PasswordReset, User
from panel.tenants.services import close_account, set_account_password
from panel.tenants.sign_in import second_factor
from tests.support import world
from tests.support.authenticator import code_of
from tests.support.post import posted

pytestmark = pytest.mark.django_db

PASSWORD, NEW = "an unusual password", "another unusual one"
OWNER = "owner@provider.test"
FORGOT, LOGIN = "/admin/login/forgot/", "/admin/login/"


@pytest.fixture(autouse=True)
def quick(settings, monkeypatch) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, url="https://mail.provider.test")
    monkeypatch.setattr(pages, "EVEN_S", 0.0)


@pytest.fixture
def owner() -> User:
    return create_account(email=OWNER, password=PASSWORD, provider_role="owner", actor=None)


def ask(email: str = OWNER, ip: str = "192.0.2.10", **headers: str):
    return Client().post(FORGOT, {"email": email}, REMOTE_ADDR=ip, headers=headers)


def links() -> list[str]:
    """The paths of the links that were sent, the newest last."""
    found = [each.path() for each in posted()]
    assert all(path.startswith("/admin/login/reset/") for path in found)
    return found


def choose(link: str, password: str = NEW, again: str = ""):
    return Client().post(link, {"new": password, "again": again or password})


def holds(password: str) -> bool:
    return User.objects.get(email=OWNER).check_password(password)


# Asking


def test_a_link_goes_to_the_accounts_address_and_sets_a_password_once(owner):
    page = ask(" Owner@Provider.test ")
    assert page.status_code == 200
    recipient = Recipient.objects.get()
    assert (recipient.resolved, recipient.state, recipient.next_hop) == (OWNER, "waiting", "provider.test")
    assert recipient.expires_at - recipient.due_at == password_reset.LIFE
    assert (recipient.message.direction, recipient.message.reverse_path) == ("internal", "")
    (link,) = links()
    for _ in range(2):
        opened = Client().get(link)
        assert opened.status_code == 200 and OWNER in opened.content.decode(), "opening it uses nothing up"
        assert opened.headers["Referrer-Policy"] == "same-origin"
    assert choose(link).headers["Location"] == LOGIN
    assert holds(NEW)
    assert choose(link, "a third unusual one").status_code == 200
    assert holds(NEW), "a link works once"
    assert list(AuditEntry.objects.values_list("action", "reason", "actor_name")[:2]) == [
        ("account.password_set", "by a link sent to its address", OWNER),
        ("account.password_reset_asked", "", OWNER),
    ]
    stored = str(PasswordReset.objects.values()) + str(AuditEntry.objects.values())
    assert link.split("/")[-2] not in stored


@pytest.mark.parametrize("hosted", ["domain", "domain alias"])
def test_no_link_goes_where_others_decide_who_reads_it(owner, hosted):
    """Whoever makes addresses in a domain hosted here would read it: in an alias, or a catch-all."""
    tenant = world.tenant()
    if hosted == "domain":
        world.domain("provider.test", tenant)
        world.alias("@provider.test", "thief@elsewhere.test")
    else:
        world.domain_alias("provider.test", world.domain("demo.test", tenant))
    assert b"Check your mail" in ask().content
    assert not Message.objects.exists() and not PasswordReset.objects.exclude(token="").exists()
    assert AuditEntry.objects.get(action="account.password_reset_refused").subject_name == OWNER


def test_a_domain_that_anybody_may_have_typed_keeps_no_link_back(owner):
    world.domain("provider.test", world.tenant(), proof="pending")
    ask()
    assert len(links()) == 1


def test_every_address_is_answered_alike_and_a_letter_goes_only_where_there_is_one(owner):
    closed = create_account(email="closed@provider.test", password=PASSWORD, provider_role="support", actor=None)
    close_account(closed, actor=None)
    world.domain("acme.test", world.tenant("Acme"))
    world.mailbox("ann@acme.test")
    set_recovery(world.mailbox("rita@acme.test"), "rita@private.test", actor=None)
    queued = set(Recipient.objects.values_list("pk", flat=True))
    pages = []
    for address in (OWNER, "closed@provider.test", "ann@acme.test", "rita@acme.test", "nobody@elsewhere.test"):
        answer = ask(address)
        pages.append((answer.status_code, re.sub(r'name="csrf\w+" value="\w+"', "", answer.content.decode()).replace(
            address, "ADDRESS"
        )))
    assert len(set(pages)) == 1
    assert [each.resolved for each in Recipient.objects.exclude(pk__in=queued).order_by("pk")] == [
        OWNER, "rita@private.test",
    ]


def test_known_and_unknown_take_the_same_time_at_least(owner, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(pages, "EVEN_S", 5.0)
    monkeypatch.setattr(pages.time, "sleep", slept.append)
    ask()
    ask("nobody@elsewhere.test")
    assert len(slept) == 2 and all(4.0 < each <= 5.0 for each in slept)


def test_the_link_is_never_built_of_what_the_browser_says(owner):
    ask(host="localhost", **{"x-forwarded-host": "evil.example"})
    assert ask(host="evil.example").status_code == 400
    (letter,) = posted()
    assert b"evil" not in letter.raw and "https://mail.provider.test/admin/login/reset/" in letter.text


@pytest.mark.parametrize("address", ["", "x", "a@b@c", "x" * 300 + "@a.test", "a\r\nBcc: b@c.test", "a\x00@b.test"])
def test_what_is_no_address_is_refused_beside_its_field(address):
    page = ask(address)
    assert list(page.context["form"].errors) == ["email"]
    assert not Message.objects.exists() and not PasswordReset.objects.exists()


def test_one_account_gets_few_letters_and_the_answer_stays_the_same(owner):
    answers = {ask(ip=f"198.51.100.{number}").status_code for number in range(6)}
    assert answers == {200}
    assert Message.objects.count() == password_reset.MOST_OF_ACCOUNT
    PasswordReset.objects.update(at=timezone.now() - timedelta(hours=2))
    ask()
    assert Message.objects.count() == password_reset.MOST_OF_ACCOUNT + 1
    assert PasswordReset.objects.count() == 1, "what is over is deleted"


def test_one_network_asks_a_bounded_number_of_times(owner, monkeypatch):
    monkeypatch.setattr(password_reset, "MOST_OF_NETWORK", 3)
    codes = [ask(f"n{number}@elsewhere.test").status_code for number in range(5)]
    assert codes == [200, 200, 200, 429, 429]
    refused = ask()
    assert "Try again in 60 minutes" in refused.content.decode()
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    assert not Message.objects.exists()
    assert ask(ip="192.0.2.99").status_code == 200
    monkeypatch.setattr(password_reset, "MOST_ROWS", 2)
    ask(ip="192.0.2.98")
    assert PasswordReset.objects.count() == 2


# Using


def test_a_bad_new_password_is_refused_beside_its_field_and_the_link_still_works(owner):
    ask()
    (link,) = links()
    for password, again, field in (("short", "", "new"), ("Password123", "", "new"), (NEW, "x", "again")):
        assert list(choose(link, password, again).context["form"].errors) == [field]
    assert choose(link).status_code == 302
    assert holds(NEW)


@pytest.mark.parametrize("what", ["late", "another password", "another address", "closed", "made up", "odd"])
def test_a_link_that_is_over_sets_nothing(owner, what):
    create_account(email="other@provider.test", password=PASSWORD, provider_role="owner", actor=None)
    ask()
    (link,) = links()
    if what == "late":
        PasswordReset.objects.update(at=timezone.now() - password_reset.LIFE)
    elif what == "another password":
        set_account_password(owner, "a third unusual one", actor=None)
    elif what == "another address":
        change_account(owner, email="moved@provider.test", actor=None)
        change_account(owner, email=OWNER, actor=None)
    elif what == "closed":
        close_account(owner, actor=None)
    elif what == "made up":
        link = "/admin/login/reset/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/"
    else:
        link = "/admin/login/reset/%00%ED%A0%80/"
    for answer in (Client().get(link), choose(link)):
        assert answer.status_code == 200
        assert "older than an hour" in answer.content.decode()
    assert not holds(NEW)


@pytest.mark.usefixtures("standard_plan")
def test_of_two_that_use_one_link_at_once_one_sets_the_password(owner, in_threads):
    ask()
    token = links()[0].split("/")[-2]
    set_by = in_threads(
        lambda number: password_reset.set_password(token, f"unusual password number {number}", ip=None), *range(4)
    )
    assert sum(isinstance(each, User) for each in set_by) == 1
    assert sum(isinstance(each, ServiceError) for each in set_by) == 3, set_by


def test_open_sessions_end_and_the_second_factor_stays(owner):
    secret = second_factor.new_secret()
    second_factor.add(owner, secret, code_of(secret))
    client = Client()
    client.force_login(owner)
    ask()
    choose(links()[0])
    assert not PanelSession.objects.filter(user=owner).exists()
    answer = Client().post(LOGIN, {"username": OWNER, "password": NEW, "next": ""})
    assert answer.headers["Location"].startswith("/admin/login/code/")


# The address


@pytest.mark.parametrize(("variables", "url"), [
    ({}, "http://127.0.0.1:8000"), ({"POSTHOUSE_HTTPS_PROXY": "yes"}, "https://mx.example.com"),
    ({"POSTHOUSE_URL": "https://Mail.Example.com/"}, "https://mail.example.com"),
    ({"POSTHOUSE_URL": "http://[::1]:8080"}, "http://[::1]:8080"),
])
def test_links_begin_with_the_address_in_the_settings(variables, url):
    assert environment.read({"POSTHOUSE_HOSTNAME": "mx.example.com", **variables}).url == url


@pytest.mark.parametrize("text", [
    "mail.example.com", "ftp://mail.example.com", "https://", "https://a b", "https://u:p@mail.example.com",
    "https://mail.example.com/panel", "https://mail.example.com?x", "https://mail.example.com:99999", "https://[::1",
    "https://*",
])
def test_an_address_that_can_t_begin_a_link_stops_the_start(text):
    with pytest.raises(environment.BadSetting, match="POSTHOUSE_URL"):
        environment.read({"POSTHOUSE_HOSTNAME": "mx.example.com", "POSTHOUSE_URL": text})
