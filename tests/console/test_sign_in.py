"""The console's sign-in: who comes in as whom, where it leads, and what is answered to the others."""

import re
from urllib.parse import urljoin

import bcrypt
import pytest
from django.test import Client
from django.utils import timezone
from django.utils.translation import override

from panel.mailboxes import foreign, passwords
from panel.mailboxes.models import Credential, LoginEvent
from panel.operations import services as operations
from panel.rules.lockout import MOST_GUESSES, Lock
from panel.tenants import services as tenants
from panel.tenants.models import AuditEntry, PanelSession, User, WrongSignIn
from panel.tenants.sign_in import second_factor
from tests.support import world
from tests.support.authenticator import code_of

pytestmark = pytest.mark.django_db

PASSWORD = "an unusual password"
ANN, SHOP = "ann@letters.test", "shop@demo.test"


@pytest.fixture
def tenant():
    return world.tenant("Demo")


@pytest.fixture
def ann(tenant) -> User:
    account = operations.create_account(email=ANN, password=PASSWORD, actor=None)
    tenants.create_membership(user=account, tenant=tenant, role="owner", actor=None)
    return account


@pytest.fixture
def mailbox(tenant):
    world.domain("demo.test", tenant)
    return world.mailbox(SHOP)


def sign_in(login: str, password: str, client: Client | None = None, ip: str = "192.0.2.10", **more: str):
    data = {"username": login, "password": password, **more}
    return (client or Client()).post("/sign-in/", data, REMOTE_ADDR=ip)


def leads_to(answer) -> str:
    assert answer.status_code == 302, answer.context["form"].errors
    return str(answer["Location"])


def test_a_panel_account_comes_to_its_tenant_and_to_the_page_that_it_asked_for(ann, tenant):
    client = Client()
    asked = client.get(f"/t/{tenant.pk}/people/?q=1")
    assert asked["Location"] == f"/sign-in/?next=%2Ft%2F{tenant.pk}%2Fpeople%2F%3Fq%3D1"
    assert leads_to(sign_in(f" {ANN.upper()} ", PASSWORD, client)) == "/"
    assert client.get("/")["Location"] == f"/t/{tenant.pk}/"
    assert leads_to(sign_in(ANN, PASSWORD, next=f"/t/{tenant.pk}/audit/")) == f"/t/{tenant.pk}/audit/"
    assert leads_to(sign_in(ANN, PASSWORD, next="https://evil.example/")) == "/"
    assert AuditEntry.objects.filter(action="account.signed_in").count() == 3
    other = world.tenant("Second")
    tenants.create_membership(user=ann, tenant=other, role="viewer", actor=None)
    assert client.get("/")["Location"] == "/tenants/"
    assert client.post("/sign-out/")["Location"] == "/sign-in/"
    assert client.get(f"/t/{tenant.pk}/").status_code == 302


def test_nothing_that_is_asked_for_leads_elsewhere(ann):
    """However a browser reads it: it takes a backslash for a slash, and lets tabs and line ends out."""
    client = Client()
    client.force_login(ann)
    for asked in (
        "//evil.test", "///evil.test", "/\\evil.test", "\\\\evil.test", "https:evil.test", "https:///evil.test",
        "HTTP://evil.test", "http:\\\\evil.test", "javascript:alert(1)", "data:text/html,x", " //evil.test",
        "\t//evil.test", "/\t/evil.test", "/\n/evil.test", "\x01//evil.test", "//testserver@evil.test",
        "//evil.test\\@testserver", "http://testserver.evil.test", "/a\r\nLocation: //evil.test", "/%2f/evil.test",
        "evil.test",
    ):
        for answer in (
            client.get("/sign-in/", {"next": asked}), client.get("/language/", {"next": asked}),
            client.post("/language/", {"language": "en", "next": asked}),
            client.post("/language/", {"language": "en"}, headers={"referer": asked.replace("\r\n", "")}),
        ):
            read = re.sub(r"[\t\r\n]", "", leads_to(answer)).replace("\\", "/").strip()
            assert urljoin("http://testserver/sign-in/", read).startswith("http://testserver/"), asked


def test_staff_are_led_to_the_admin_and_a_tenants_account_stays_outside_of_it(ann):
    operations.create_account(email="op@provider.test", password=PASSWORD, provider_role="operator", actor=None)
    client = Client()
    assert leads_to(sign_in("op@provider.test", PASSWORD, client)) == "/"
    assert client.get("/")["Location"] == "/admin/"
    assert client.get("/admin/").status_code == 200
    refused = Client().post("/admin/login/", {"username": ANN, "password": PASSWORD})
    assert refused.status_code == 200 and not PanelSession.objects.filter(user=ann).exists()


def test_a_person_comes_in_with_the_mailboxs_main_password(mailbox):
    client = Client()
    assert leads_to(sign_in(" Shop@Demo.test ", world.PASSWORD, client)) == "/"
    assert client.get("/")["Location"] == "/me/"
    page = client.get("/me/")
    assert page.status_code == 200 and b"shop@" in page.content
    event = LoginEvent.objects.get()
    assert (event.mailbox_id, event.outcome, event.protocol, event.ip) == (mailbox.pk, "ok", "panel", "192.0.2.10")
    assert PanelSession.objects.get().user == mailbox.person
    assert client.get("/admin/").status_code == 302, "no person enters the admin"


@override("en")  # the last request's language stays that of the thread
def test_who_signs_in_elsewhere_sees_the_language_that_was_chosen_once(ann, mailbox, tenant):
    for login, password, home in ((ANN, PASSWORD, f"/t/{tenant.pk}/"), (SHOP, world.PASSWORD, "/me/")):
        first = Client()
        assert "django_language" not in sign_in(login, password, first).cookies, "the browser's, until one is chosen"
        assert b'<html lang="en"' in first.get(home).content
        first.post("/language/", {"language": "ja"})
        elsewhere = Client(headers={"accept-language": "en"})
        cookie = sign_in(login, password, elsewhere).cookies["django_language"]
        assert (cookie.value, cookie["samesite"], bool(cookie["httponly"])) == ("ja", "Lax", True)
        assert b'<html lang="ja"' in elsewhere.get(home).content
        elsewhere.post("/language/", {"language": "en"})
        japanese = Client(headers={"accept-language": "ja"})
        assert sign_in(login, password, japanese).cookies["django_language"].value == "en"
        # What is chosen on the way in is what they want now: it is kept, and counts once.
        here = Client()
        here.post("/language/", {"language": "ja"})
        assert sign_in(login, password, here).cookies["django_language"].value == "ja"
        assert b'<html lang="ja"' in here.get(home).content
        assert "django_language_choice" not in {name for name, kept in here.cookies.items() if kept.value}
        assert sign_in(login, password, Client()).cookies["django_language"].value == "ja"


def test_an_imported_password_opens_the_page_as_it_opens_the_mailbox(mailbox):
    stored = foreign.read(bcrypt.hashpw(b"secretpassword", bcrypt.gensalt(4)).decode())
    Credential.objects.filter(mailbox=mailbox).update(secret=stored)
    client = Client()
    assert leads_to(sign_in(SHOP, "secretpassword", client)) == "/"
    # authd hashes it anew at the first login: the session goes on.
    anew = {"secret": passwords.hash_main("secretpassword"), "began_as": passwords.fingerprint(stored)}
    Credential.objects.filter(mailbox=mailbox).update(**anew)
    assert client.get("/me/").status_code == 200


@pytest.mark.parametrize(
    "what", ["another password", "frozen", "suspended", "suspended tenant", "elsewhere", "expired"]
)
def test_what_ends_a_mailboxs_logins_ends_the_persons_page(mailbox, tenant, what):
    client = Client()
    leads_to(sign_in(SHOP, world.PASSWORD, client))
    main = Credential.objects.filter(mailbox=mailbox)
    match what:
        case "another password":
            main.update(secret=passwords.hash_main("another unusual one"))
        case "frozen":
            main.update(frozen_at=timezone.now())
        case "suspended":
            operations.suspend(mailbox, reason="spam", actor=None)
        case "suspended tenant":
            operations.suspend(tenant, reason="unpaid", actor=None)
        case "elsewhere":
            main.update(networks=["198.51.100.0/24"])
        case "expired":
            main.update(expires_at=timezone.now())
    assert client.get("/me/")["Location"] == "/sign-in/?next=%2Fme%2F"
    assert not PanelSession.objects.filter(user=mailbox.person).exists()
    if what != "another password":
        assert sign_in(SHOP, world.PASSWORD).status_code == 200


def test_wrong_unknown_closed_and_app_passwords_are_answered_alike_and_counted(ann, mailbox):
    _, secret = world.app_password(mailbox)
    closed = operations.create_account(email="closed@letters.test", password=PASSWORD, actor=None)
    tenants.close_account(closed, actor=None)
    tries = [
        (ANN, "wrong"), (SHOP, "wrong"), (SHOP, secret), (SHOP, PASSWORD), (ANN, world.PASSWORD),
        ("nobody@demo.test", "wrong"), ("no address", "wrong"), ("closed@letters.test", PASSWORD), ("a\x00b", "x\x00"),
    ]
    answers = [sign_in(*each, ip=f"192.0.2.{number}") for number, each in enumerate(tries)]
    assert {answer.status_code for answer in answers} == {200}
    assert len({str(answer.context["form"].non_field_errors()) for answer in answers[:-1]}) == 1
    assert WrongSignIn.objects.count() >= len(tries) - 1
    assert not LoginEvent.objects.exists() and not AuditEntry.objects.filter(action="account.signed_in").exists()


def test_the_lockout_is_the_one_of_every_other_door(mailbox, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher", *settings.PASSWORD_HASHERS]
    for number in range(MOST_GUESSES[Lock.ACCOUNT_FROM_NETWORK]):
        sign_in(SHOP, f"wrong {number}")
    locked = sign_in(SHOP, world.PASSWORD)
    assert locked.status_code == 429 and int(locked["Retry-After"]) > 0
    assert leads_to(sign_in(SHOP, world.PASSWORD, ip="198.51.100.1")) == "/"


def test_no_spelling_of_an_address_has_guesses_of_its_own(mailbox, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher", *settings.PASSWORD_HASHERS]
    spellings = [SHOP, f" {SHOP.upper()}", '"shop"@demo.test', r'"s\hop"@demo.test', "shop@ＤＥＭＯ.test"]
    for number in range(MOST_GUESSES[Lock.ACCOUNT_FROM_NETWORK]):
        assert sign_in(spellings[number % 5], f"wrong {number}").status_code == 200
    assert {sign_in(each, world.PASSWORD).status_code for each in spellings} == {429}


def test_the_time_of_a_wrong_password_does_not_tell_which_addresses_are_here(ann, mailbox, monkeypatch):
    hashes: list[str] = []
    encode, verify = passwords.Argon2Hasher.encode, passwords.Argon2Hasher.verify
    monkeypatch.setattr(passwords.Argon2Hasher, "encode", lambda *of: (hashes.append("made"), encode(*of))[1])
    monkeypatch.setattr(passwords.Argon2Hasher, "verify", lambda *of: (hashes.append("compared"), verify(*of))[1])
    # Composed and with a plain space it would be another text: then mailboxes compare both.
    for password, number in (("wrong", 1), ("wrong\u00a0one", 2), ("e\u0301", 2)):
        taken = []
        for login in (ANN, SHOP, "nobody@demo.test", "no address"):
            hashes.clear()
            assert sign_in(login, password, ip=f"198.51.100.{len(taken)}").status_code == 200
            taken.append(len(hashes))
        assert taken == [number] * 4, password


def test_a_second_factor_is_asked_for_on_a_page_of_the_console(ann, tenant):
    secret = second_factor.new_secret()
    second_factor.add(ann, secret, code_of(secret))
    client = Client()
    there = leads_to(sign_in(ANN, PASSWORD, client, next=f"/t/{tenant.pk}/people/"))
    assert there.startswith("/sign-in/code/?next=")
    assert client.get(f"/t/{tenant.pk}/").status_code == 302, "the password alone opens nothing"
    assert client.get(there).status_code == 200
    assert client.post(there, {"code": "000000"}).status_code == 200
    assert client.get("/admin/login/code/").status_code == 302, "not the admin's step"
    later = code_of(secret, steps=1)
    assert leads_to(client.post(there, {"code": later})) == f"/t/{tenant.pk}/people/"
    assert client.get(f"/t/{tenant.pk}/people/").status_code == 200


def test_who_must_have_a_second_factor_sees_only_its_set_up(ann, tenant):
    operations.change_account(ann, second_factor_required=True, actor=None)
    client = Client()
    leads_to(sign_in(ANN, PASSWORD, client))
    assert client.get(f"/t/{tenant.pk}/")["Location"] == "/account/second-factor/"
    part = client.get(f"/t/{tenant.pk}/", headers={"HX-Request": "true"})
    assert (part.status_code, part["HX-Redirect"], part.content) == (200, "/account/second-factor/", b"")
    assert client.post("/language/", {"language": "en"}).cookies, "and may choose in which language"
    secret = client.get("/account/second-factor/").context["secret"].replace(" ", "")
    done = client.post("/account/second-factor/", {"code": code_of(secret), "password": PASSWORD})
    assert len(done.context["codes"]) == 10 and done.templates[0].name == "console/account_codes.html"
    assert client.get(f"/t/{tenant.pk}/").status_code == 200
    assert client.get("/account/").status_code == client.get("/account/recovery-codes/").status_code == 200
    elsewhere = Client()
    elsewhere.force_login(ann)
    assert elsewhere.get(f"/t/{tenant.pk}/")["Location"] == "/sign-in/", "without the code it is signed out"


def test_the_own_password_is_changed_and_other_sessions_end(ann):
    here, there = Client(), Client()
    for each in (here, there):
        leads_to(sign_in(ANN, PASSWORD, each))
    new = {"password": PASSWORD, "new": "another unusual one", "again": "another unusual one"}
    assert here.post("/account/password/", new)["Location"] == "/account/"
    assert here.get("/account/").status_code == 200 and there.get("/account/").status_code == 302
    assert here.post("/account/sessions/end/")["Location"] == "/sign-in/"
