"""A person's second factor: set up on the mailbox's pages, asked for at the sign-in, and no way leads around it."""

from dataclasses import replace

import pytest
from django.core.management import call_command
from django.test import Client

from panel.mailboxes import links
from panel.mailboxes.models import LoginEvent, Mailbox
from panel.operations import password_reset
from panel.operations import services as operations
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, DirectoryChange, PanelSession, SecondFactor, User
from panel.tenants.sign_in import second_factor
from tests.support import world
from tests.support.authenticator import code_of
from tests.support.passkey import Authenticator

pytestmark = pytest.mark.django_db

ANN, PASSWORD = "ann@acme.test", world.PASSWORD
SET_UP, OWN = "/me/sign-ins/second-factor/", "/me/sign-ins/"
STEP = "/sign-in/code/"


@pytest.fixture
def acme():
    tenant = world.tenant("Acme")
    world.domain("acme.test", tenant)
    return tenant


@pytest.fixture
def ann(acme) -> Mailbox:
    return world.mailbox(ANN)


@pytest.fixture
def secret(ann) -> str:
    """Ann has a second factor."""
    made = second_factor.new_secret()
    second_factor.add(ann.person, made, code_of(made))
    return made


def sign_in(client: Client, **more: str):
    return client.post("/sign-in/", {"username": ANN, "password": PASSWORD, **more})


def signed_in() -> Client:
    client = Client()
    assert sign_in(client)["Location"] == "/"
    return client


def is_in(client: Client) -> bool:
    return client.get("/me/").status_code == 200


def test_a_person_sets_it_up_is_asked_for_it_and_removes_it(ann):
    main = ann.credentials.get(kind="main")
    world.login_event(ann, credential=main, protocol="imap", ip="198.51.100.7")
    world.login_event(ann, credential=world.app_password(ann)[0], ip="198.51.100.8")
    here, there = signed_in(), signed_in()
    page = here.get(SET_UP)
    text, shown = page.content.decode(), page.context["secret"].replace(" ", "")
    assert "Mail programs need an app password then" in text and "Reading, from <code>198.51.100.7</code>" in text
    assert "198.51.100.8" not in text, "what has an app password goes on"
    assert here.post(SET_UP, {"code": code_of(shown), "password": "wrong"}).context["form"].errors["password"]
    changes = DirectoryChange.objects.filter(domain="acme.test").count()
    done = here.post(SET_UP, {"code": code_of(shown), "password": PASSWORD})
    assert len(done.context["codes"]) == 10 and OWN in done.content.decode()
    assert DirectoryChange.objects.filter(domain="acme.test").count() == changes + 1
    assert is_in(here) and not is_in(there), "what was opened without it has ended"
    assert "opens no mail program while it is on" in here.get(OWN).content.decode()
    entry = AuditEntry.objects.first()
    assert (entry.action, entry.subject_name, entry.tenant) == (
        "mailbox.second_factor_added", ANN, ann.address.tenant
    ), "the tenant reads it"

    assert sign_in(there, next="/me/sent/")["Location"] == f"{STEP}?next=%2Fme%2Fsent%2F"
    step = there.get(STEP)
    assert ANN in step.content.decode() and not is_in(there)
    assert there.post(STEP, {"code": "000000"}).context["form"].errors["code"] and not is_in(there)
    assert there.post(f"{STEP}?next=/me/sent/", {"code": code_of(shown, steps=1)})["Location"] == "/me/sent/"
    assert is_in(there) and LoginEvent.objects.first().protocol == "panel"

    codes = done.context["codes"]
    remove = f"{SET_UP}remove/"
    assert there.post(remove, {"password": PASSWORD, "code": "000000"}).context["form"].errors["code"]
    assert there.post(remove, {"password": PASSWORD, "code": codes[0]})["Location"] == OWN
    assert not SecondFactor.objects.exists() and is_in(there)
    assert not is_in(here), "a session that was opened with it doesn't go on as if it were there"
    assert DirectoryChange.objects.filter(domain="acme.test").count() == changes + 2
    assert is_in(signed_in())


def test_a_sign_in_that_it_overtakes_opens_nothing(ann, monkeypatch):
    boss = User.objects.create(kind=User.Kind.PANEL, email="boss@letters.test", password=world.hash_once(PASSWORD))
    known, key = second_factor.of, second_factor.new_secret()

    def then_set_up(account):
        """The password was looked at; now it is set up elsewhere."""
        monkeypatch.setattr(second_factor, "of", known)
        found = known(account)
        second_factor.add(account, key, code_of(key))
        return found

    for account, login in ((ann.person, ANN), (boss, boss.email)):
        monkeypatch.setattr(second_factor, "of", then_set_up)
        client = Client()
        sign_in(client, username=login)
        assert not PanelSession.objects.filter(user=account).exists()
        assert client.get("/account/")["Location"].startswith("/sign-in/")
        assert sign_in(client, username=login)["Location"].startswith(STEP)


def test_a_passkey_alone_opens_the_mailbox_while_it_may_log_in(ann, settings):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, url="https://panel.provider.test")
    key, here = Authenticator("https://panel.provider.test"), signed_in()
    asked = {"name": "Phone", "password": PASSWORD}
    made = key.make(here.post(f"{OWN}passkeys/offer/", asked).json())
    assert len(here.post(f"{OWN}passkeys/add/", {**asked, "passkey": made}).context["codes"]) == 10
    assert ">Phone<" in here.get(OWN).content.decode()

    def alone() -> Client:
        client = Client()
        answer = key.use(client.post("/sign-in/passkey/").json())
        client.post("/sign-in/", {"passkey": answer})
        return client

    came = alone()
    assert is_in(came) and LoginEvent.objects.first().credential_text == 'passkey "Phone"'
    assert came.get(OWN).content.decode().count("Phone") == 4, "among the sign-ins, and with what is done to it"
    operations.suspend(ann, reason="spam", actor=None)
    assert not is_in(alone()) and not is_in(came)
    operations.resume(ann, actor=None)
    client = Client()
    sign_in(client)
    answer = key.use(client.post(f"{STEP}passkey/").json())
    assert client.post(STEP, {"passkey": answer})["Location"] == "/" and is_in(client)


def test_neither_a_reset_nor_another_password_nor_a_tie_leads_around_it(ann, acme, secret, monkeypatch):
    client = Client()
    sign_in(client)
    Mailbox.objects.update(recovery="ann@letters.test")
    tokens: list[str] = []
    password_reset.ask(ANN, ip=None, link=lambda token: f"/{tokens.append(token) or ''}")  # type: ignore[func-returns-value]
    password_reset.set_password(tokens[0], "another unusual one", ip=None)
    assert SecondFactor.objects.exists()
    later = client.post(STEP, {"code": code_of(secret, steps=1)})
    assert later["Location"].startswith("/sign-in/?"), "the password of the first step is no longer the one"
    assert client.post("/sign-in/", {"username": ANN, "password": "another unusual one"})["Location"].startswith(STEP)

    boss = User.objects.create(kind=User.Kind.PANEL, email="boss@letters.test", password=world.hash_once(PASSWORD))
    tenants.create_membership(user=boss, tenant=acme, role="owner", actor=None)
    tying = {"address": ANN, "mailbox_password": "another unusual one", "password": PASSWORD}
    account = Client()
    account.force_login(boss)
    assert account.post("/account/mailboxes/add/", tying).context["form"].errors["mailbox_code"]
    tying["mailbox_code"] = code_of(secret, steps=1)
    assert "set one up for the account first" in account.post("/account/mailboxes/add/", tying).content.decode()
    second_factor.remove(ann.person, actor=None)
    tie = links.link(ann.credentials.get(kind="main"), boss, actor=boss)
    assert "You came with boss@letters.test, which has no second factor" in account.get(SET_UP).content.decode()
    second_factor.add(ann.person, secret, code_of(secret))
    assert account.get("/me/").status_code == 404
    links.unlink(tie, actor=boss)
    own = second_factor.new_secret()
    codes = second_factor.add(boss, own, code_of(own))
    links.link(ann.credentials.get(kind="main"), boss, actor=boss)
    account.force_login(boss)
    assert is_in(account)
    second_factor.remove(boss, actor=boss)
    assert codes and account.get("/me/").status_code != 200, "the account's own one is what the tie leads in by"


def test_an_admin_removes_it_for_who_lost_all_of_it(ann, acme, secret):
    here = Client()
    sign_in(here)
    here.post(STEP, {"code": code_of(secret, steps=1)})
    admin = User.objects.create(kind=User.Kind.PANEL, email="admin@letters.test", password="!")
    tenants.create_membership(user=admin, tenant=acme, role="admin", actor=None)
    client = Client()
    client.force_login(admin)
    page = f"/t/{acme.pk}/mailboxes/{ann.pk}/"
    where = f"{page}second-factor/remove/"
    assert where in (text := client.get(page).content.decode()) and '<span class="may">send</span>' not in text
    changes = DirectoryChange.objects.filter(domain="acme.test").count()
    assert is_in(here) and client.post(where, {"reason": "lost the phone"})["Location"] == page
    assert not SecondFactor.objects.exists() and not is_in(here)
    assert DirectoryChange.objects.filter(domain="acme.test").count() == changes + 1
    entry = AuditEntry.objects.first()
    assert (entry.action, entry.actor, entry.tenant, entry.reason) == (
        "mailbox.second_factor_removed", admin, acme, "lost the phone"
    )
    assert where not in (text := client.get(page).content.decode()) and '<span class="may">send</span>' in text
    assert is_in(signed_in())
    call_command("mailbox", "second-factor", ANN)


def test_a_tenant_asks_it_of_people_with_mailboxes(ann, acme):
    here = signed_in()
    assert is_in(here)
    tenants.change_tenant(acme, people_second_factor_required=True, actor=None)
    for path in ("/me/", "/me/mail/", OWN, "/me/passwords/add/"):
        assert here.get(path)["Location"] == SET_UP, path
    page = here.get(SET_UP)
    assert "Your organisation asks for a second factor" in page.content.decode()
    shown = page.context["secret"].replace(" ", "")
    here.post(SET_UP, {"code": code_of(shown), "password": PASSWORD})
    assert is_in(here)
    assert here.get(f"{SET_UP}remove/")["Location"] == OWN, "the last one stays"
    with pytest.raises(ServiceError, match="must have"):
        person = User.objects.get(pk=ann.person.pk)
        second_factor.remove(person, actor=person)
    bare = Client()
    bare.force_login(ann.person)  # a session that began without it
    assert PanelSession.objects.filter(user=ann.person).count() == 2 and not is_in(bare)
    assert PanelSession.objects.filter(user=ann.person).count() == 1, "without the code it is signed out"
