"""A person's pages: only the own mailbox, the own passwords, the own mail."""

import plistlib
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from panel.console.persons import OPENED_BY
from panel.domains.models import Domain
from panel.mailboxes import passwords
from panel.mailboxes import services as mailboxes
from panel.mailboxes.models import Credential, LoginEvent, Mailbox, MailboxUsage
from panel.mailboxes.rule_services import rules_of
from panel.operations import services as operations
from panel.sending.models import Recipient
from panel.tenants.models import AuditEntry, PanelSession
from tests.support import queue, world

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script>\"'{{7*7}}"
NEW = "seven unlikely ferrets"


@pytest.fixture
def acme():
    tenant = world.tenant("Acme")
    world.domain("acme.test", tenant)
    return tenant


@pytest.fixture
def ann(acme) -> Mailbox:
    return world.mailbox("ann@acme.test", quota_bytes=1000)


@pytest.fixture
def client(ann) -> Client:
    return browser(ann)


def browser(of: Mailbox) -> Client:
    client = Client()
    client.force_login(of.person, backend="django.contrib.auth.backends.ModelBackend")
    session = client.session
    session[OPENED_BY] = passwords.fingerprint(main(of).secret)
    session.save()
    return client


def main(of: Mailbox) -> Credential:
    return of.credentials.get(kind="main")


def text(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, path
    return answer.content.decode()


@pytest.mark.once("postgresql")
def test_the_first_page_says_whether_the_mailbox_works_and_what_helps(client, ann, acme):
    page = text(client, "/me/")
    assert "Your mailbox works" in page and "No message came yet" in page and "not counted yet, 1,000" in page
    assert "for=thunderbird" in page and 'data-copy="ann@acme.test"' in page
    Recipient.objects.filter(pk=queue.recipient(queue.message(), "ann@acme.test").pk).update(recipient_tenant=acme)
    MailboxUsage.objects.create(mailbox=ann, used_bytes=1000, known_at=timezone.now())
    page = text(client, "/me/")
    assert "Your mailbox is full" in page and "The newest message came" in page
    operations.suspend(ann, sending_only=True, reason=HOSTILE, actor=None)
    page = text(client, "/me/")
    assert "You can read, but not send" in page and "&lt;script&gt;alert(1)" in page and "<script>alert" not in page
    Domain.objects.update(proof="pending")
    assert "waits for its domain" in text(client, "/me/")
    Mailbox.objects.update(created_at=timezone.now() + timedelta(days=1))
    assert "No message came yet" in text(client, "/me/"), "what came for whoever had the address before"


@pytest.mark.once("postgresql")
def test_the_profile_is_of_the_own_address_and_holds_no_password(client):
    answer = client.get("/me/apple.mobileconfig?email=bob@acme.test")
    mail = plistlib.loads(answer.content)["PayloadContent"][0]
    assert mail["EmailAddress"] == "ann@acme.test" and "IncomingPassword" not in mail
    assert answer["Content-Disposition"].startswith("attachment") and "no-store" in answer["Cache-Control"]


def test_an_app_password_is_made_shown_once_frozen_and_revoked(client, ann):
    refused = client.post("/me/passwords/add/", {"label": "My phone", "networks": "nonsense"}).content.decode()
    assert "<title>Error:" in refused and 'value="My phone"' in refused
    refused = client.post("/me/passwords/add/", {
        "label": "My phone", "imap": "on", "networks": "nonsense", "last_day": "2000-01-01",
    }).content.decode()
    assert "is not a network" in refused and "<details class=\"folded\" open>" in refused and "nonsense" in refused
    page = client.post("/me/passwords/add/?for=apple", {
        "label": HOSTILE, "submission": "on", "imap": "on", "networks": "192.0.2.0/24\n", "last_day": "2099-12-31",
    }).content.decode()
    made = ann.credentials.get(kind="app")
    secret = page.split('data-copy="ph-app-')[1].split('"')[0]
    assert made.secret == passwords.hash_app(f"ph-app-{secret}") and "download the profile" in page
    assert (made.scopes, made.networks) == (["submission", "imap"], ["192.0.2.0/24"])
    assert f"{made.expires_at:%Y-%m-%d %H:%M}" == "2100-01-01 00:00" and "<script>alert" not in page
    assert secret not in text(client, "/me/passwords/") and "<script>alert" not in text(client, "/me/passwords/")
    there = f"/me/passwords/{made.pk}"
    assert client.get(f"{there}/freeze/").status_code == 200
    for act, frozen in (("freeze", True), ("freeze", True), ("unfreeze", False), ("freeze", True)):
        assert client.post(f"{there}/{act}/")["Location"] == "/me/passwords/"
        made.refresh_from_db()
        assert (made.frozen_at is not None) is frozen
    told = AuditEntry.objects.filter(action="credential.frozen", actor=ann.person, tenant=ann.address.tenant)
    assert told.count() == 2
    client.post(f"{there}/revoke/")
    assert not ann.credentials.filter(kind="app").exists()


def test_what_somebody_else_froze_stays_so_and_what_is_anothers_is_not_there(client, ann):
    stopped, _ = world.app_password(ann, frozen_at=timezone.now(), frozen_reason="sent spam")
    client.post(f"/me/passwords/{stopped.pk}/unfreeze/")
    stopped.refresh_from_db()
    assert stopped.frozen_at is not None and "sent spam" in text(client, "/me/passwords/")
    bob = world.mailbox("bob@acme.test")
    theirs, _ = world.app_password(bob)
    event = world.login_event(bob, credential=theirs)
    # Also the main password is no app password.
    for pk in (theirs.pk, main(bob).pk, main(ann).pk):
        for act in ("freeze", "unfreeze", "revoke"):
            assert client.post(f"/me/passwords/{pk}/{act}/").status_code == 404
    assert client.post(f"/me/sign-ins/{event.pk}/freeze/").status_code == 404
    # An event of one's own that names another's password.
    forged = world.login_event(ann, credential=theirs)
    client.post(f"/me/sign-ins/{forged.pk}/freeze/")
    assert not Credential.objects.filter(mailbox=bob, frozen_at__isnull=False).exists()


@pytest.mark.once("postgresql")
def test_when_the_plan_allows_no_more_its_numbers_are_not_told(client, ann):
    plan = ann.address.tenant.plan
    type(plan).objects.filter(pk=plan.pk).update(credentials=0)
    page = client.post("/me/passwords/add/", {"label": "x", "imap": "on"}).content.decode()
    assert "No more app passwords can be made" in page and "plan" not in page.split("<main")[1]


def test_another_main_password_takes_the_old_one_and_ends_other_sessions_not_this_one(client, ann):
    elsewhere = browser(ann)
    app, _ = world.app_password(ann)
    before = main(ann).secret
    for given, said in (
        ({"password": "wrong one", "new": NEW, "again": NEW}, "This isn&#x27;t your password."),
        ({"password": world.PASSWORD, "new": NEW, "again": "other"}, "differs"),
        ({"password": world.PASSWORD, "new": "ann@acme.test", "again": "ann@acme.test"}, "<title>Error:"),
        ({"password": world.PASSWORD, "new": "ph-app-" + NEW, "again": "ph-app-" + NEW}, "app passwords do"),
    ):
        page = client.post("/me/sign-ins/password/", given).content.decode()
        assert said in page and NEW not in page
    assert main(ann).secret == before
    key = client.session.session_key
    done = client.post("/me/sign-ins/password/", {"password": world.PASSWORD, "new": NEW, "again": NEW}, follow=True)
    assert "Your password is changed" in done.content.decode()
    assert passwords.verify_main(NEW, main(ann).secret) and client.session.session_key != key
    assert client.get("/me/").status_code == 200
    assert elsewhere.get("/me/").status_code == 302
    assert PanelSession.objects.filter(user=ann.person).count() == 1
    app.refresh_from_db()
    assert app.frozen_at is None


def test_sign_ins_are_the_own_paged_and_freeze_what_was_used(client, ann):
    phone, _ = world.app_password(ann, HOSTILE)
    for _each in range(11):
        world.login_event(ann, credential=phone)
    new = world.login_event(ann, credential=phone, ip="198.51.100.24")
    world.login_event(ann, credential=None, credential_text="", ip="198.51.100.77", outcome="wrong", protocol="x<b>")
    world.login_event(world.mailbox("bob@acme.test"), ip="203.0.113.200")
    first = client.get("/me/sign-ins/")
    page = first.content.decode()
    assert "Wrong password" in page and page.count("a new network") == 1 and "203.0.113.200" not in page
    assert "<script>alert" not in page and "X<B>" not in page
    older = text(client, f"/me/sign-ins/?before={first.context['last']}")
    assert older.count("Freeze it") == 3 and 'rel="next"' not in older and 'rel="prev"' in older
    assert "a new network" in text(client, "/me/")
    assert "198.51.100.24" in text(client, f"/me/sign-ins/{new.pk}/freeze/")
    client.post(f"/me/sign-ins/{new.pk}/freeze/")
    phone.refresh_from_db()
    assert phone.frozen_at is not None and client.get("/me/").status_code == 200
    by_main = world.login_event(ann, credential=main(ann))
    assert "Change it instead" in text(client, f"/me/sign-ins/{by_main.pk}/freeze/")
    assert client.post(f"/me/sign-ins/{by_main.pk}/freeze/")["Location"] == "/sign-in/"
    assert main(ann).frozen_at is not None and client.get("/me/").status_code == 302


def test_rules_are_saved_and_what_is_wrong_stands_beside_its_field(client, ann):
    given = {"forward_to": "ann@private.test", "vacation": "on", "vacation_days": "7", "blocked": "spam.test"}
    refused = client.post("/me/rules/", given | {"forward_to": "nobody"})
    assert refused.context["form"].errors.keys() == {"forward_to"} and "spam.test" in refused.content.decode()
    assert '<details class="folded" open>' in refused.content.decode(), "a closed one would say that nobody is blocked"
    refused = client.post("/me/rules/", given)
    assert refused.context["form"].errors.keys() == {"vacation_text"}
    refused = client.post("/me/rules/", given | {"forward_to": "ann@acme.test", "vacation_text": "x"})
    assert refused.context["form"].errors.keys() == {"forward_to"}
    assert not rules_of(ann).forward_to
    client.post("/me/rules/", given | {"vacation_text": HOSTILE})
    rules = rules_of(ann)
    assert (rules.forward_to, rules.forward_keep, rules.blocked) == (("ann@private.test",), False, ("spam.test",))
    page = text(client, "/me/rules/")
    assert '<details class="folded">' in page and "1 blocked" in page
    assert "<script>alert" not in page and "without keeping a copy" in page
    assert "nothing stays here" in text(client, "/me/")
    assert AuditEntry.objects.get(action="mailbox.rules_changed").actor == ann.person


def test_sent_mail_is_what_the_own_passwords_sent_and_nothing_of_others(client, ann, acme):
    phone, _ = world.app_password(ann)
    world.login_event(ann, credential=phone)
    # What an alias leads to is told to its tenant, not to each of its people.
    world.alias("board@acme.test", "secret@elsewhere.test")
    letter = queue.message(acme, credential=phone, subject=HOSTILE, reverse_path="ann@acme.test")
    row = queue.recipient(letter, "board@acme.test", resolved="secret@elsewhere.test", last_reply="250 secret")
    queue.attempt(row, outcome="delivered", reply="250 secret", host="secret.test")
    lost = queue.recipient(letter, "gone@elsewhere.test", state="failed", last_reply="550 5.1.1 <b>who?")
    queue.attempt(lost, outcome="failed", reply="550 5.1.1 <b>who?")
    bob = world.mailbox("bob@acme.test")
    # In Ann's name, and by Bob's password: it is Bob's.
    theirs = queue.message(acme, credential=main(bob), subject="Of Bob", reverse_path="ann@acme.test")
    nobodys = queue.message(acme, subject="Of nobody", reverse_path="ann@acme.test")
    for other in (theirs, nobodys):
        queue.recipient(other, "x@elsewhere.test")
        text(client, f"/me/sent/{other.queue_id}/", 404)
        assert not client.get("/me/sent/", {"q": other.queue_id}).context["sent"]
    page = text(client, "/me/sent/")
    assert "&lt;script&gt;alert(1)" in page and "Of Bob" not in page and "Of nobody" not in page
    assert "Bounced: 1 of 2" in page and "secret" not in page
    page = text(client, f"/me/sent/{letter.queue_id}/")
    assert "550 5.1.1 &lt;b&gt;who?" in page and "secret" not in page and "Delivered to 1 of 2" in page
    for typed, hits in (("ALERT(", 1), ("gone@ELSE", 1), (letter.queue_id, 1), ("secret", 0), ("%", 0), ("Of Bob", 0)):
        assert len(client.get("/me/sent/", {"q": typed}).context["sent"]) == hits, typed
    mailboxes.revoke_credential(phone, actor=None)
    assert "alert(1)" in text(client, "/me/sent/"), "sent by a password that is revoked since"
    for path in ("nothing", "0" * 13, "Z" * 60):
        text(client, f"/me/sent/{path}/", 404)


def test_sent_mail_is_paged_by_queue_id_and_says_where_each_is(client, ann, acme):
    made = [queue.message(acme, credential=main(ann), subject=f"Letter {number:02}") for number in range(27)]
    due = timezone.now() + timedelta(minutes=4, seconds=30)
    queue.recipient(made[26], "slow@elsewhere.test", state="waiting", tries=2, due_at=due, last_reply="451 later")
    queue.recipient(made[25], "gone@elsewhere.test", state="failed", last_reply="550 5.1.1 No such user")
    for name in ("a", "b"):
        queue.recipient(made[24], f"{name}@elsewhere.test")
    first = client.get("/me/sent/")
    page = first.content.decode()
    assert "Tried again in 4 min" in page and "No such address there" in page and "Delivered to all 2" in page
    assert "Letter 02" in page and "Letter 01" not in page
    older = text(client, f"/me/sent/?before={first.context['last']}")
    assert "Letter 01" in older and "Letter 02" not in older and 'rel="next"' not in older
    assert "slow@elsewhere.test</code> is tried" in text(client, f"/me/sent/{made[26].queue_id}/")
    assert "Nothing has" in text(client, "/me/sent/?q=zebra")


@pytest.mark.once("postgresql")
def test_a_session_of_the_console_is_ended_by_name_and_only_ones_own(client, ann):
    bob = browser(world.mailbox("bob@acme.test"))
    browser(ann)
    assert text(client, "/me/sign-ins/").count("Sign out everywhere else") == 1
    client.post("/me/sign-ins/sessions/end/")
    assert PanelSession.objects.filter(user=ann.person).count() == 1 and bob.get("/me/").status_code == 200
    answer = client.post("/me/sign-ins/sessions/unknown/end/", follow=True)
    assert "over already" in answer.content.decode()
    assert LoginEvent.objects.count() == 0
