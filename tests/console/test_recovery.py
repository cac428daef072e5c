"""A mailbox's recovery address: who sets it, who hears of it, and the password that is chosen by a link to it."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.test import Client

from panel.console import password_reset as pages
from panel.console.persons import OPENED_BY
from panel.mailboxes import links, passwords
from panel.mailboxes import services as mailboxes
from panel.mailboxes.models import Credential, Mailbox, MailboxLink, RecoveryAsked
from panel.operations import password_reset, recovery
from panel.operations.recovery import Became, ask_recovery, set_recovery
from panel.operations.services import close, suspend
from panel.sending.models import Message
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, DirectoryChange, PanelSession, PasswordReset, User
from tests.support import world
from tests.support.post import posted

pytestmark = pytest.mark.django_db

ANN, PRIVATE, NEW = "ann@acme.test", "ann@private.test", "another unusual one"


@pytest.fixture(autouse=True)
def quick(settings, monkeypatch) -> None:
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, url="https://mail.provider.test")
    monkeypatch.setattr(pages, "EVEN_S", 0.0)


@pytest.fixture
def acme():
    tenant = world.tenant("Acme")
    world.domain("acme.test", tenant)
    return tenant


@pytest.fixture
def mailbox(acme) -> Mailbox:
    return world.mailbox(ANN)


def member(tenant, role: str = "admin") -> User:
    account = User.objects.create(kind=User.Kind.PANEL, email=f"{role}@letters.test", password="!")
    tenants.create_membership(user=account, tenant=tenant, role=role, actor=None)
    return account


def browser(account: User, opened_by: Mailbox | None = None) -> Client:
    client = Client()
    client.force_login(account)
    if opened_by:
        session = client.session
        session[OPENED_BY] = passwords.fingerprint(opened_by.credentials.get(kind="main").secret)
        session.save()
    return client


def ask(address: str = ANN):
    return Client().post("/admin/login/forgot/", {"email": address})


def link() -> str:
    """The path of the newest link by which a password is chosen."""
    return next(each.path() for each in reversed(posted()) if "/reset/" in each.text)


def told() -> list[tuple[str, str]]:
    return [(each.to, each.subject) for each in posted()]


def choose(path: str, password: str = NEW):
    return Client().post(path, {"new": password, "again": password})


def opens_with(mailbox: Mailbox, password: str) -> bool:
    return passwords.verify_main(password, Credential.objects.get(mailbox=mailbox, kind="main").secret)


def confirming() -> str:
    """The path of the newest link by which an address is confirmed."""
    return next(each.path() for each in reversed(posted()) if "/recovery/confirm/" in each.text)


def test_its_person_asks_with_the_main_password_and_confirms_by_the_link_of_which_those_concerned_hear(mailbox, acme):
    client = browser(mailbox.person, mailbox)
    page = client.post("/me/sign-ins/recovery/", {"recovery": PRIVATE, "password": "x"})
    assert list(page.context["form"].errors) == ["password"] and not Message.objects.exists()
    page = client.post("/me/sign-ins/recovery/", {"recovery": "Ann+x@ACME.test", "password": world.PASSWORD})
    assert list(page.context["form"].errors) == ["recovery"]
    client.post("/me/sign-ins/recovery/", {"recovery": "Ann@Private.test", "password": world.PASSWORD})
    assert told() == [(PRIVATE, f"Confirm the recovery address of {ANN}")]
    assert "Waiting for you to open the link" in client.get("/me/sign-ins/").content.decode()
    path = confirming()
    assert Client().post(path)["Location"].startswith("/sign-in/"), "by nobody but its person"
    other = world.mailbox("bob@acme.test")
    said = browser(other.person, other).post(path, follow=True).content.decode()
    assert "belongs to another mailbox than bob@acme.test" in said
    assert PRIVATE in client.get(path).content.decode().replace("<wbr>", "")
    mailbox.refresh_from_db()
    assert mailbox.recovery == "", "what looks at mail opens links as well"
    seen = DirectoryChange.objects.count()
    assert "is your recovery address now" in client.post(path, follow=True).content.decode()
    mailbox.refresh_from_db()
    assert (mailbox.recovery, mailbox.recovery_is_own) == (PRIVATE, True)
    assert DirectoryChange.objects.count() == seen + 1
    assert told()[1:] == [(ANN, f"The recovery address of {ANN} was changed")] and PRIVATE not in posted()[1].text
    entry = AuditEntry.objects.get(action="mailbox.recovery_address_set")
    assert (entry.actor, entry.tenant, entry.before, entry.after) == (mailbox.person, acme, {}, {})
    assert "was used already" in client.post(path, follow=True).content.decode()
    client.post("/me/sign-ins/recovery/", {"recovery": "ann@new.test", "password": world.PASSWORD})
    client.post(confirming())
    assert [each[0] for each in told()[2:]] == ["ann@new.test", ANN, PRIVATE]
    assert "ann@<wbr>new" in client.get("/me/sign-ins/").content.decode()


def test_until_it_is_confirmed_the_one_before_goes_on_and_it_may_be_sent_again_or_taken_back(mailbox, monkeypatch):
    set_recovery(mailbox, PRIVATE, actor=mailbox.person)
    client = browser(mailbox.person, mailbox)
    client.post("/me/sign-ins/recovery/", {"recovery": "ann@new.test", "password": world.PASSWORD})
    ask()
    assert posted()[-1].to == PRIVATE and ANN in Client().get(link()).content.decode()
    first = confirming()
    assert "The link before is void" in client.post("/me/sign-ins/recovery/again/", follow=True).content.decode()
    second = confirming()
    assert first != second and "was taken back" in client.get(first, follow=True).content.decode()
    monkeypatch.setattr(recovery, "LIFE", timedelta(0))
    assert "older than a day" in client.post(second, follow=True).content.decode()
    assert "Nobody opened the link" in client.get("/me/sign-ins/").content.decode()
    monkeypatch.undo()
    client.post("/me/sign-ins/recovery/cancel/")
    assert "was taken back" in client.post(second, follow=True).content.decode()
    assert "was taken back" in client.post("/me/sign-ins/recovery/again/", follow=True).content.decode()
    mailbox.refresh_from_db()
    assert mailbox.recovery == PRIVATE and not RecoveryAsked.objects.exists()
    assert list(AuditEntry.objects.filter(action__startswith="mailbox.recovery").values_list("action", flat=True)) == [
        f"mailbox.recovery_address_{act}" for act in ("cancelled", "asked", "asked", "set")
    ]


def test_who_looks_after_the_mailbox_sees_how_it_begins_and_may_replace_or_remove_it(mailbox, acme):
    set_recovery(mailbox, PRIVATE, actor=mailbox.person)
    admin, path = browser(member(acme)), f"/t/{acme.pk}/mailboxes/{mailbox.pk}/"
    staff = browser(User.objects.create(kind=User.Kind.PANEL, email="o@p.test", password="!", provider_role="owner"))
    of_provider = f"/admin/mailboxes/mailbox/{mailbox.pk}/change/"
    person = browser(mailbox.person, mailbox)
    person.post("/me/sign-ins/recovery/", {"recovery": "ann@new.test", "password": world.PASSWORD})
    for page in (path, f"{path}recovery/", f"/t/{acme.pk}/audit/"):
        said = admin.get(page).content.decode().replace("<wbr>", "")
        assert PRIVATE not in said and "ann@new.test" not in said
    for page in (admin.get(path), staff.get(of_provider)):
        assert "a…@private.test" in page.content.decode().replace("<wbr>", "")
    assert "a…@new.test" in admin.get(path).content.decode().replace("<wbr>", "")
    admin.post(f"{path}recovery/", {"recovery": "boss@private.test"})
    mailbox.refresh_from_db()
    assert mailbox.recovery == PRIVATE and "boss@private.test" in admin.get(path).content.decode().replace("<wbr>", "")
    person.post(confirming())
    mailbox.refresh_from_db()
    assert (mailbox.recovery, mailbox.recovery_is_own) == ("boss@private.test", False)
    assert "boss@private.test" in admin.get(path).content.decode().replace("<wbr>", "")
    assert [each[0] for each in told()[2:]] == ["boss@private.test", ANN, PRIVATE]
    assert "your organisation" in posted()[-1].text
    admin.post(f"{path}recovery/", {"recovery": ""})
    assert told()[-2:] == [(to, f"The recovery address of {ANN} was removed") for to in (ANN, "boss@private.test")]
    assert AuditEntry.objects.filter(action="mailbox.recovery_address_removed").count() == 1
    viewer = browser(member(acme, "viewer"))
    assert viewer.post(f"{path}recovery/", {"recovery": PRIVATE}).status_code == 403


@pytest.mark.parametrize(("address", "taken"), [
    (ANN, False), ("ann+private@acme.test", False), ("ann@old-acme.test", False), ("only@acme.test", False),
    ("round@acme.test", False), ("catch@caught.test", False), ("no address", False), ("a\u202eb@x.test", False),
    ("both@acme.test", True), ("bob@acme.test", True), ("keeps@acme.test", True),
])
def test_it_is_none_that_leads_to_the_mailbox_alone(mailbox, acme, address, taken):
    world.mailbox("bob@acme.test")
    world.rules(world.mailbox("keeps@acme.test"), forward_to=[ANN], forward_keep=True)
    world.domain_alias("old-acme.test", mailbox.address.domain)
    world.domain("caught.test", acme)
    for alias, targets in (
        ("only@acme.test", [ANN]), ("round@acme.test", ["only@acme.test", "ann+x@acme.test"]),
        ("@caught.test", [ANN]), ("both@acme.test", [ANN, "bob@acme.test"]),
    ):
        world.alias(alias, *targets)
    if taken:
        assert set_recovery(mailbox, address, actor=None)
        assert not set_recovery(mailbox, address.upper(), actor=None)
    else:
        with pytest.raises(ServiceError) as refused:
            set_recovery(mailbox, address, actor=None)
        assert refused.value.field == "recovery" and not Mailbox.objects.exclude(recovery="").exists()


def test_no_more_than_so_many_letters_go_out_but_a_strangers_address_always_goes(mailbox, acme, monkeypatch):
    monkeypatch.setattr(recovery, "MOST_LETTERS_A_DAY", 3)
    monkeypatch.setattr(recovery, "MOST_TO_ONE", 1)

    def asked(address: str, of: Mailbox = mailbox):
        return ask_recovery(of, address, link="/{}/".format, actor=of.person)

    set_recovery(mailbox, PRIVATE, actor=mailbox.person)  # the mailbox hears of it
    assert asked("a@private.test") is Became.ASKED
    with pytest.raises(ServiceError, match="This address was made"):
        asked("a@private.test")
    assert asked("a@private.test", world.mailbox("bob@acme.test")) is Became.ASKED, "of another mailbox"
    assert asked("b@private.test") is Became.ASKED
    with pytest.raises(ServiceError, match="was changed too often today"):
        asked("c@private.test")
    assert RecoveryAsked.objects.get(mailbox=mailbox).address == "b@private.test"
    assert asked("") is Became.REMOVED and asked("") is Became.NOTHING
    mailbox.refresh_from_db()
    assert mailbox.recovery == "" and not RecoveryAsked.objects.filter(mailbox=mailbox).exists()


def test_a_forgotten_password_is_chosen_by_the_link_once_and_ends_what_was_open(mailbox, acme):
    set_recovery(mailbox, PRIVATE, actor=mailbox.person)
    client = browser(mailbox.person, mailbox)
    links.link(mailbox.credentials.get(kind="main"), member(acme, "owner"), actor=None)
    assert b"Check your mail" in ask(" Ann@Acme.test ").content
    assert posted()[-1].to == PRIVATE and ANN in posted()[-1].text
    path = link()
    assert ANN in Client().get(path).content.decode()
    assert list(choose(path, "password12").context["form"].errors) == ["new"]
    seen = DirectoryChange.objects.count()
    assert choose(path)["Location"] == "/sign-in/"
    assert opens_with(mailbox, NEW) and DirectoryChange.objects.count() > seen
    assert client.get("/me/").status_code == 302 and not PanelSession.objects.filter(user=mailbox.person).exists()
    tie = MailboxLink.objects.get()
    assert tie.began_as != links.began_as(mailbox.credentials.get(kind="main"))
    entry = AuditEntry.objects.get(action="mailbox.password_set")
    assert (entry.actor, entry.tenant, entry.reason) == (
        mailbox.person, acme, "by a link sent to its recovery address"
    )
    assert b"older than an hour" in choose(path, "a third unusual one").content and opens_with(mailbox, NEW)


@pytest.mark.parametrize("what", [
    "suspended", "closed", "frozen", "its tenant", "another password", "another recovery address",
])
def test_what_opens_nothing_is_sent_no_link_and_the_one_that_was_opens_nothing(mailbox, acme, what):
    set_recovery(mailbox, PRIVATE, actor=mailbox.person)
    ask()
    path, answer = link(), ask("nobody@elsewhere.test").content
    if what == "suspended":
        suspend(mailbox, reason="spam", actor=None)
    elif what == "closed":
        close(mailbox, actor=None)
    elif what == "frozen":
        mailboxes.freeze_credential(mailbox.credentials.get(kind="main"), reason="stolen", actor=None)
    elif what == "its tenant":
        suspend(acme, reason="spam", actor=None)
    elif what == "another password":
        mailboxes.set_password(mailbox, "a third unusual one", actor=None)
    else:
        set_recovery(mailbox, "", actor=None)
    assert b"older than an hour" in Client().get(path).content
    assert b"older than an hour" in choose(path).content and not opens_with(mailbox, NEW)
    count = Message.objects.count()
    same = ask().content.replace(ANN.encode(), b"nobody@elsewhere.test")
    assert _plain(same) == _plain(answer)
    assert Message.objects.count() == count + (what == "another password")


def _plain(page: bytes) -> str:
    return "\n".join(line for line in page.decode().splitlines() if "csrfmiddlewaretoken" not in line)


def test_a_mailbox_in_a_domain_that_nobody_proved_sends_no_link(mailbox, acme):
    """It may bear the address of anybody."""
    world.domain("bank.test", acme, proof="pending")
    set_recovery(world.mailbox("boss@bank.test"), PRIVATE, actor=None)
    ask("boss@bank.test")
    assert not any("/reset/" in each.text for each in posted()) and told() == [], "nor is anybody told of the change"


def test_however_its_address_is_written_a_mailbox_gets_few_links(mailbox):
    set_recovery(mailbox, PRIVATE, actor=mailbox.person)
    for address in (ANN, "ANN@acme.test", "Ann@ACME.TEST", '"ann"@acme.test', "aNN@acme.test"):
        assert ask(address).status_code == 200
    assert sum("/reset/" in each.text for each in posted()) == password_reset.MOST_OF_ACCOUNT
    assert PasswordReset.objects.exclude(token="").count() == password_reset.MOST_OF_ACCOUNT
