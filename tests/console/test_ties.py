"""An account tied to a mailbox: proved from both sides, reached from one, and ended by what ends the mailbox."""

import pytest
from django.test import Client

from panel.console.persons import OPENED_BY
from panel.mailboxes import links, passwords
from panel.mailboxes import services as mailboxes
from panel.mailboxes.models import LoginEvent, MailboxLink
from panel.operations import services as operations
from panel.operations.recovery import ask_recovery
from panel.rules.sign_in import PROTOCOL
from panel.tenants import services as tenants
from panel.tenants.models import AuditEntry, User, WrongSignIn
from panel.tenants.sign_in import second_factor
from tests.support import world
from tests.support.authenticator import code_of

pytestmark = pytest.mark.django_db

PASSWORD = "an unusual password"
ANN, BOSS = "ann@acme.test", "boss@letters.test"


@pytest.fixture
def acme():
    tenant = world.tenant("Acme")
    world.domain("acme.test", tenant)
    return tenant


@pytest.fixture
def mailbox(acme):
    return world.mailbox(ANN)


@pytest.fixture
def boss(acme) -> User:
    account = User.objects.create(kind=User.Kind.PANEL, email=BOSS, password=world.hash_once(PASSWORD))
    tenants.create_membership(user=account, tenant=acme, role="owner", actor=None)
    return account


def browser(account: User) -> Client:
    client = Client()
    client.force_login(account)
    return client


def person(mailbox) -> Client:
    client = browser(mailbox.person)
    session = client.session
    session[OPENED_BY] = passwords.fingerprint(mailbox.credentials.get(kind="main").secret)
    session.save()
    return client


def tie(mailbox, account: User) -> MailboxLink:
    return links.link(mailbox.credentials.get(kind="main"), account, actor=account)


def test_an_account_is_tied_by_both_passwords_and_reaches_the_mailbox(mailbox, boss, acme):
    client = browser(boss)
    assert client.get("/me/").status_code == 404
    right = {"address": " Ann@Acme.test", "mailbox_password": world.PASSWORD, "password": PASSWORD}
    for wrong in ({"password": "x"}, {"mailbox_password": "x"}, {"address": "nobody@acme.test"}):
        answer = client.post("/account/mailboxes/add/", {**right, **wrong})
        assert answer.status_code == 200 and answer.context["form"].errors, wrong
    assert WrongSignIn.objects.count() == 3 and not MailboxLink.objects.exists()
    assert client.post("/account/mailboxes/add/", right)["Location"] == "/account/"
    entry = AuditEntry.objects.get(action="mailbox.linked")
    assert (entry.actor, entry.tenant, entry.after) == (boss, acme, {"account": BOSS})
    page = client.get("/me/").content.decode()
    assert "ann@<wbr>acme" in page and f'href="/t/{acme.pk}/"' in page, "with the way back in the switcher"
    assert f"/account/mailboxes/{mailbox.pk}/open/" in page
    assert 'href="/me/"' in client.get(f"/t/{acme.pk}/").content.decode(), "and there"
    # What is done there is done as the person: so the person undoes it.
    app, _secret = world.app_password(mailbox)
    client.post(f"/me/passwords/{app.pk}/freeze/", {"x": "1"})
    assert AuditEntry.objects.get(action="credential.frozen").actor == mailbox.person
    person(mailbox).post(f"/me/passwords/{app.pk}/unfreeze/")
    app.refresh_from_db()
    assert app.frozen_at is None


def test_a_mailbox_is_tied_from_its_own_side_with_the_accounts_second_factor(mailbox, boss, acme):
    secret = second_factor.new_secret()
    second_factor.add(boss, secret, code_of(secret))
    client = person(mailbox)
    right = {"password": world.PASSWORD, "email": BOSS, "account_password": PASSWORD, "code": code_of(secret, steps=1)}
    for wrong in ({"password": "x"}, {"account_password": "x"}, {"email": "x@letters.test"}, {"code": ""},
                  {"code": "000000"}):
        assert client.post("/me/sign-ins/account/", {**right, **wrong}).context["form"].errors, wrong
    assert not MailboxLink.objects.exists()
    assert client.post("/me/sign-ins/account/", right)["Location"] == "/me/sign-ins/"
    assert BOSS in client.get("/me/sign-ins/").content.decode()
    # The weaker secret opens no more than before.
    assert client.get(f"/t/{acme.pk}/").status_code == client.get("/account/").status_code == 404
    assert browser(boss).get("/account/mailboxes/add/").context["form"].fields.keys() >= {"code", "password"}


def test_the_providers_accounts_are_not_tied(mailbox, boss):
    User.objects.filter(pk=boss.pk).update(provider_role="support")
    answer = person(mailbox).post(
        "/me/sign-ins/account/", {"password": world.PASSWORD, "email": BOSS, "account_password": PASSWORD}
    )
    assert "not tied to a mailbox" in answer.content.decode() and not MailboxLink.objects.exists()


@pytest.mark.parametrize("what", ["another password", "suspended", "tenant closed", "frozen", "ended", "removed"])
def test_what_ends_the_mailboxs_logins_ends_the_reach(mailbox, boss, acme, what):
    made, client = tie(mailbox, boss), browser(boss)
    assert client.get("/me/").status_code == 200
    main = mailbox.credentials.get(kind="main")
    match what:
        case "another password":
            mailboxes.set_password(mailbox, "another unusual one", actor=boss)
        case "suspended":
            operations.suspend(mailbox, reason="spam", actor=None)
        case "tenant closed":
            operations.close(acme, actor=None)
        case "frozen":
            mailboxes.freeze_credential(main, reason="stolen", actor=None)
        case "ended":
            assert person(mailbox).post(f"/me/sign-ins/accounts/{made.pk}/end/")["Location"] == "/me/sign-ins/"
            assert AuditEntry.objects.filter(action="mailbox.unlinked").count() == 1
        case "removed":
            MailboxLink.objects.all().delete()
    assert client.get("/me/").status_code == client.post("/me/rules/", {}).status_code == 404
    assert client.post(f"/account/mailboxes/{mailbox.pk}/open/").status_code == 404
    assert client.get("/account/").status_code == 200


def test_another_password_set_over_the_tie_keeps_it_and_ends_the_others(mailbox, boss):
    other = User.objects.create(kind=User.Kind.PANEL, email="other@letters.test", password="!")
    tie(mailbox, boss)
    tie(mailbox, other)
    client = browser(boss)
    new = {"password": world.PASSWORD, "new": "another unusual one", "again": "another unusual one"}
    assert client.post("/me/sign-ins/password/", new)["Location"] == "/me/sign-ins/"
    assert client.get("/me/sign-ins/").status_code == 200
    assert browser(other).get("/me/").status_code == 404


def test_a_password_that_somebody_sets_in_the_same_moment_ends_the_tie(mailbox, boss, monkeypatch):
    tie(mailbox, boss)
    client, set_password = browser(boss), mailboxes.set_password

    def and_another(*arguments, **named):
        set_password(*arguments, **named)
        set_password(mailbox, "what the admin chose", actor=None)

    monkeypatch.setattr(mailboxes, "set_password", and_another)
    new = {"password": world.PASSWORD, "new": "another unusual one", "again": "another unusual one"}
    assert client.post("/me/sign-ins/password/", new).status_code == 302
    assert client.get("/me/").status_code == 404


def test_the_mailbox_is_told_who_came_by_a_tie_once_a_session(mailbox, boss):
    tie(mailbox, boss)
    client = browser(boss)
    client.get("/me/")
    client.get("/me/mail/")
    event = LoginEvent.objects.get(mailbox=mailbox)
    assert (event.login, event.protocol, event.outcome, event.ip) == (BOSS, PROTOCOL, "ok", "127.0.0.1")
    assert "127.0.0.1" in person(mailbox).get("/me/sign-ins/").content.decode()
    browser(boss).get("/me/")
    assert LoginEvent.objects.filter(mailbox=mailbox).count() == 2


def test_what_is_sent_from_the_page_of_a_mailbox_whose_tie_ended_reaches_no_other(mailbox, boss):
    second = world.mailbox("shop@acme.test")
    tie(mailbox, boss)
    tie(second, boss)
    client = browser(boss)
    assert client.get("/me/rules/").context["place"].mailbox == mailbox
    mailboxes.set_password(mailbox, "what the admin chose", actor=None)
    assert client.post("/me/rules/", {}).status_code == 404
    assert client.get("/me/rules/").context["place"].mailbox == second
    assert client.post("/me/rules/", {}).status_code != 404


def test_an_account_chooses_among_its_mailboxes_and_finds_no_other(mailbox, boss):
    second, foreign = world.mailbox("shop@acme.test"), world.mailbox("carl@acme.test")
    mine, theirs = tie(mailbox, boss), tie(foreign, User.objects.create(email="c@letters.test", password="!"))
    tie(second, boss)
    client = browser(boss)
    assert client.get("/me/").context["place"].mailbox == mailbox
    assert client.post(f"/account/mailboxes/{second.pk}/open/")["Location"] == "/me/"
    assert client.get("/me/").context["place"].mailbox == second
    assert client.post(f"/account/mailboxes/{foreign.pk}/open/").status_code == 404
    client.post(f"/account/mailboxes/{theirs.pk}/end/")
    client.post(f"/me/sign-ins/accounts/{mine.pk}/end/")
    assert MailboxLink.objects.count() == 3, "the one of another account, and of another mailbox than where one is"
    client.post(f"/account/mailboxes/{mine.pk}/end/")
    assert set(MailboxLink.objects.values_list("mailbox", flat=True)) == {second.pk, foreign.pk}


def test_who_is_in_no_organisation_comes_to_the_mailbox(mailbox, boss):
    boss.memberships.all().delete()
    assert browser(boss).get("/")["Location"] == "/tenants/"
    tie(mailbox, boss)
    assert browser(boss).get("/")["Location"] == "/me/"


def test_what_an_account_does_by_its_tie_is_told_by_its_name_and_so_is_the_end_with_the_account(mailbox, boss, acme):
    tie(mailbox, boss)
    for client, name in ((browser(boss), f"{BOSS} as the mailbox's person"), (person(mailbox), ANN)):
        ask_recovery(mailbox, "ann@private.test", link="/{}/".format, actor=mailbox.person)
        client.post("/me/sign-ins/recovery/cancel/")
        entry = AuditEntry.objects.filter(action="mailbox.recovery_address_cancelled").latest("pk")
        assert (entry.actor, entry.actor_name) == (mailbox.person, name)
    said = browser(boss).get(f"/t/{acme.pk}/audit/").content.decode().replace("<wbr>", "")
    assert f"{BOSS} as the mailbox&#x27;s person" in said
    other = User.objects.create(kind=User.Kind.PANEL, email="root@provider.test", password="!", provider_role="owner")
    tenants.create_membership(
        user=User.objects.create(kind=User.Kind.PANEL, email="b@x.test", password="!"), tenant=acme, role="owner",
        actor=None,
    )
    operations.delete_account(boss, actor=other)
    assert not MailboxLink.objects.exists()
    ended = AuditEntry.objects.get(action="mailbox.unlinked")
    assert (ended.subject_id, ended.tenant, ended.actor, ended.before) == (mailbox.pk, acme, other, {"account": BOSS})
