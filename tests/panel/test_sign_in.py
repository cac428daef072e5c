"""The sign-in to the panel: who comes in, what is written, and the lockout that holds without authd."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from panel.operations.services import create_account
from panel.rules.lockout import MOST_GUESSES, WINDOW_S, Lock
from panel.tenants import audit
from panel.tenants.models import AuditEntry, User, WrongSignIn
from panel.tenants.services import close_account, create_membership
from panel.tenants.sign_in import lockout

pytestmark = pytest.mark.django_db

PASSWORD = "an unusual password"
OWNER = "owner@provider.test"
ATTACKER, OFFICE = "203.0.113.66", "192.0.2.10"
EACH = MOST_GUESSES[Lock.ACCOUNT_FROM_NETWORK]
ALL = MOST_GUESSES[Lock.ACCOUNT]


@pytest.fixture
def owner() -> User:
    return create_account(email=OWNER, password=PASSWORD, provider_role="owner", actor=None)


@pytest.fixture
def quick(settings) -> None:
    """A hasher that costs nothing: thirty wrong passwords would take a second."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def sign_in(email: str = OWNER, password: str = PASSWORD, ip: str = OFFICE, client: Client | None = None):
    data = {"username": email, "password": password, "next": ""}
    return (client or Client()).post(reverse("admin:login"), data, REMOTE_ADDR=ip)


def guess(times: int, email: str = OWNER, ip: str = ATTACKER) -> list[int]:
    return [sign_in(email, f"wrong {ip} {number}", ip).status_code for number in range(times)]


def error(answer) -> str:
    return " ".join(answer.context["form"].non_field_errors())


# Coming in


def test_who_signs_in_comes_to_the_page_that_was_asked_for_and_leaves_an_audit_entry(owner):
    client = Client()
    asked = client.get(reverse("admin:tenants_tenant_changelist"))
    page = client.get(asked.headers["Location"])
    assert page.context["next"] == reverse("admin:tenants_tenant_changelist")
    data = {"username": " Owner@Provider.test ", "password": PASSWORD, "next": page.context["next"]}
    answer = client.post(asked.headers["Location"], data, REMOTE_ADDR=OFFICE)
    assert answer.headers["Location"] == reverse("admin:tenants_tenant_changelist")
    assert client.get(answer.headers["Location"]).status_code == 200
    entry = AuditEntry.objects.first()
    assert (entry.action, entry.actor, entry.subject_name, entry.ip) == ("account.signed_in", owner, OWNER, OFFICE)
    assert PASSWORD not in str(vars(entry))


def test_a_page_elsewhere_is_never_where_a_sign_in_leads(owner):
    data = {"username": OWNER, "password": PASSWORD, "next": "https://evil.example/"}
    assert Client().post(reverse("admin:login"), data).headers["Location"] == reverse("admin:index")


def test_who_is_in_already_is_not_asked_again(owner):
    client = Client()
    client.force_login(owner)
    assert client.get(reverse("admin:login")).headers["Location"] == reverse("admin:index")


def test_wrong_unknown_closed_and_a_tenants_account_are_answered_alike(owner, tenant):
    closed = create_account(email="closed@provider.test", password=PASSWORD, provider_role="support", actor=None)
    close_account(closed, actor=None)
    member = create_account(email="member@elsewhere.test", password=PASSWORD, actor=None)
    create_membership(user=member, tenant=tenant, role="owner", actor=None)
    tries = [(OWNER, "wrong"), ("nobody@provider.test", PASSWORD), (closed.email, PASSWORD), (member.email, PASSWORD)]
    answers = [sign_in(*each) for each in tries]
    assert {answer.status_code for answer in answers} == {200}
    assert len({error(answer) for answer in answers}) == 1
    assert not AuditEntry.objects.filter(action="account.signed_in").exists()


@pytest.mark.parametrize("text", ["a\x00b", "x" * 20_000, "<script>alert(1)</script>", "a\r\nb"])
def test_a_hostile_name_or_password_is_a_wrong_one(owner, text):
    for answer in (sign_in(email=text), sign_in(password=text)):
        assert answer.status_code == 200
        assert "<script>alert(1)" not in answer.content.decode()


# Locked, without authd


@pytest.mark.usefixtures("quick", "owner")
def test_an_account_is_locked_for_the_network_that_guesses_and_the_page_says_until_when():
    assert guess(EACH) == [200] * EACH
    locked = sign_in(ip=ATTACKER)
    assert locked.status_code == 429, "the right password is locked too"
    assert 0 < int(locked.headers["Retry-After"]) <= WINDOW_S
    assert re.search(r"Try again in 15 minutes, at \d\d:\d\d UTC", error(locked))
    assert sign_in(ip=OFFICE).status_code == 302


@pytest.mark.usefixtures("quick", "owner")
def test_an_unknown_account_is_locked_like_a_known_one():
    known, unknown = guess(EACH + 1), guess(EACH + 1, email="nobody@provider.test", ip="203.0.113.67")
    assert known == unknown == [200] * EACH + [429]
    pages = [sign_in(ip=ATTACKER), sign_in("nobody@provider.test", ip="203.0.113.67")]
    assert error(pages[0]) == error(pages[1])


@pytest.mark.usefixtures("quick", "owner")
def test_the_same_wrong_password_counts_once():
    assert {sign_in(password="the old one", ip=ATTACKER).status_code for _ in range(EACH + 2)} == {200}
    assert sign_in(ip=ATTACKER).status_code == 302


@pytest.mark.usefixtures("quick", "owner")
def test_a_network_is_locked_for_all_accounts_but_those_that_know_it():
    sign_in(ip=ATTACKER)
    for number in range(ALL):
        lockout.wrong(f"n{number}@provider.test", ATTACKER, "wrong")
    assert sign_in("other@provider.test", ip=ATTACKER).status_code == 429
    assert sign_in(ip=ATTACKER).status_code == 302, "the owner signed in from there before"


@pytest.mark.usefixtures("quick")
def test_guessing_from_everywhere_leaves_the_owner_the_networks_that_the_account_knows(owner):
    audit.record(owner, lockout.SIGNED_IN, owner, tenant=None, ip=OFFICE)
    for number in range(ALL):
        lockout.wrong(OWNER, f"198.51.100.{number}", f"wrong {number}")
    assert sign_in(ip="192.0.2.99").status_code == 429
    assert sign_in(ip=OFFICE).status_code == 302
    AuditEntry.objects.update(at=timezone.now() - timedelta(days=31))
    assert sign_in(ip=OFFICE).status_code == 429


@pytest.mark.usefixtures("quick", "owner")
def test_a_lock_ends_by_itself_and_what_is_locked_is_not_counted():
    guess(EACH)
    assert guess(3) == [429] * 3
    assert WrongSignIn.objects.count() == EACH
    WrongSignIn.objects.update(at=timezone.now() - timedelta(seconds=WINDOW_S + 1))
    assert sign_in(ip=ATTACKER).status_code == 302


@pytest.mark.usefixtures("quick", "owner")
def test_what_is_kept_of_wrong_ones_is_bounded_and_names_nobody(monkeypatch):
    monkeypatch.setattr(lockout, "MOST_ROWS", 5)
    for number in range(8):
        lockout.wrong(f"n{number}@provider.test", f"198.51.100.{number}", "wrong secret")
    assert WrongSignIn.objects.count() == 5
    WrongSignIn.objects.update(at=timezone.now() - timedelta(seconds=WINDOW_S + 1))
    sign_in("n9@provider.test", "wrong secret")
    kept = str(WrongSignIn.objects.values())
    assert WrongSignIn.objects.count() == 1
    assert "n9@" not in kept and "secret" not in kept


@pytest.mark.usefixtures("standard_plan")
def test_sign_ins_at_once_are_counted_together(owner, quick, in_threads):
    codes = in_threads(lambda number: sign_in(password=f"wrong {number}", ip=ATTACKER).status_code, *range(EACH))
    assert codes == [200] * EACH
    assert sign_in(ip=ATTACKER).status_code == 429
