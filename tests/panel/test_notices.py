"""Letters that nobody asked for: when each is written and when not, to whom, and what it says."""

from datetime import timedelta

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from panel.domains.models import Domain
from panel.mailboxes import services as mailboxes
from panel.mailboxes.models import Mailbox
from panel.operations import services as operations
from panel.operations.models import Look
from panel.operations.notices import Notices, domains, security, sign_ins
from panel.operations.password_reset import BY_LINK
from panel.sending import letters
from panel.sending.models import Message
from panel.tenants import audit
from panel.tenants import services as tenants
from panel.tenants.models import AuditEntry, Tenant, Untold, User
from panel.tenants.sign_in import second_factor
from panel.tenants.sign_in.lockout import SIGNED_IN
from tests.support import queue, world
from tests.support.authenticator import code_of
from tests.support.post import posted

pytestmark = pytest.mark.django_db


def member(of: Tenant, name: str, role: str, **fields) -> User:
    user = User.objects.create(kind=User.Kind.PANEL, email=f"{name}@elsewhere.test", password="!", **fields)
    tenants.create_membership(user=user, tenant=of, role=role, actor=None)
    return user


@pytest.fixture
def acme() -> Tenant:
    made = world.tenant("Acme")
    for role in ("owner", "admin", "viewer"):
        member(made, role, role)
    member(made, "closed", "owner", is_active=False)
    member(made, "ops", "owner", provider_role="support")
    world.domain("acme.test", made)
    return made


def told(notices: Notices | None = None) -> list[tuple[str, str]]:
    """To whom the letters of one look went, and their subjects."""
    before = len(posted())
    found = (notices or Notices()).tell(timezone.now())
    assert not found.failed
    new = posted()[before:]
    assert len(new) == len(found.letters)
    return [(each.to, each.subject) for each in new]


# Domains


def happened(domain, action: str, actor: User | None = None, **facts) -> AuditEntry:
    return audit.record(actor, action, domain, tenant=domain.tenant, **facts)


@pytest.mark.parametrize(("action", "facts", "subject"), [
    ("domain.proof_missing", {}, "Sending from acme.test will stop"),
    ("domain.lapsed", {}, "Sending from acme.test has stopped"),
    ("domain.proof_found", {}, "acme.test is all right again"),
    ("domain.proved", {}, "acme.test is proved to be yours"),
    ("domain.records_changed", {"before": {"mx": "same"}, "after": {"mx": "nothing"}},
     "The DNS records of acme.test changed"),
])
def test_what_became_of_a_domain_is_told_once_to_those_who_can_mend_it(acme, action, facts, subject):
    domain = acme.domains.get()
    happened(domain, action, **facts)
    notices = Notices()
    assert told(notices) == [("owner@elsewhere.test", subject), ("admin@elsewhere.test", subject)]
    assert told(notices) == told() == [], "nor by another node"
    letter = posted()[0]
    assert letter.path() == reverse("console:domain", args=[acme.pk, domain.pk])
    if action == "domain.records_changed":
        assert "    MX: right, now missing\n" in letter.text


@pytest.mark.once("postgresql")
def test_what_became_of_a_domain_alias_is_told_as_of_a_domain(acme):
    alias = world.domain_alias("acme.example.test", acme.domains.get())
    for action in ("proved", "proof_missing", "lapsed", "proof_found"):
        audit.record(None, f"domainalias.{action}", alias, tenant=acme)
    assert [subject for to, subject in told() if to.startswith("owner")] == [
        "acme.example.test is proved to be yours", "Sending from acme.example.test will stop",
        "Sending from acme.example.test has stopped", "acme.example.test is all right again",
    ]
    assert posted()[-1].path() == reverse("console:domain-names", args=[acme.pk, alias.domain_id])


def test_a_domain_is_told_of_to_nobody_who_did_it_or_can_do_nothing(acme):
    domain, owner = acme.domains.get(), User.objects.get(email="owner@elsewhere.test")
    happened(domain, "domain.proved", actor=owner)
    happened(domain, "domain.changed")
    assert told() == []
    happened(domain, "domain.lapsed")
    operations.suspend(acme, reason="unpaid", actor=None)
    assert told() == []
    below = world.tenant("Below", parent=world.tenant("Above"))
    member(below.parent, "reseller", "owner")
    happened(world.domain("below.test", below), "domain.lapsed")
    assert told() == [("reseller@elsewhere.test", "Sending from below.test has stopped")], "where there is no own one"


def test_whoever_has_many_domains_hears_of_each_in_few_letters(acme, monkeypatch):
    monkeypatch.setattr(domains, "MOST", 10)
    monkeypatch.setattr(domains, "MOST_NAMED", 20)
    many = [world.domain(f"d{number}.test", acme) for number in range(24)]
    notices, now = Notices(), timezone.now()
    happened(many[0], "domain.lapsed")
    assert told(notices)[0] == ("owner@elsewhere.test", "Sending from d0.test has stopped")
    for domain in many:
        happened(domain, "domain.lapsed")
    happened(many[1], "domain.records_changed", before={"mx": "same"}, after={"mx": "nothing"})
    happened(many[2], "domain.records_changed", before={"spf": "same"}, after={"spf": "different"})
    found = [told(notices) for _ in range(3)]
    assert [[subject for _to, subject in look] for look in found] == [
        [], ["The DNS records of 2 domains changed"] * 2, [],
    ], "the others wait, and hide nothing else"
    assert "    d1.test: MX: right, now missing\n" in posted()[-1].text
    later = [letter for hours in (1.1, 1.2, 9) for letter in notices.tell(now + timedelta(hours=hours)).letters]
    assert [each.subject for each in later] == ["Sending from 24 domains has stopped"] * 2
    assert "    d19.test: " in posted()[-1].text and "    …: and 4 more\n" in posted()[-1].text
    assert posted()[-1].path() == reverse("console:domains", args=[acme.pk]) and not Untold.objects.exists()


def test_a_letter_that_fails_stops_no_other_and_is_tried_again(acme, monkeypatch):
    compose = domains._COMPOSED["lapsed"]
    monkeypatch.setitem(domains._COMPOSED, "lapsed", lambda *about: 1 / 0)
    happened(acme.domains.get(), "domain.lapsed")
    happened(acme.domains.get(), "domain.proved")
    notices, now = Notices(), timezone.now()
    found = notices.tell(now)
    assert [each.subject for each in found.letters] == ["acme.test is proved to be yours"] * 2
    assert [what for what, _because in found.failed] == ["domains"]
    monkeypatch.setitem(domains._COMPOSED, "lapsed", compose)
    assert notices.tell(now).letters == [] and notices.tell(now, lambda: True).letters == []
    assert len(notices.tell(now + timedelta(minutes=11)).letters) == 2


def test_what_happened_while_no_mailserver_ran_is_told_by_the_next_one(acme):
    box, owner = world.mailbox("ann@acme.test"), User.objects.get(email="owner@elsewhere.test")
    world.login_event(box, ip="192.0.2.1")
    signed_in(owner, "192.0.2.1")
    now, goes_on = timezone.now(), Notices()
    goes_on.tell(now - timedelta(days=2))
    goes_on.tell(now + timedelta(days=1000))  # a clock that was wrong for a while
    goes_on.tell(now - timedelta(days=1))
    assert max(Look.objects.values_list("since", flat=True)) < now
    world.login_event(box, ip="198.51.100.1")
    signed_in(owner, "198.51.100.1")
    happened(acme.domains.get(), "domain.lapsed")
    later = Notices().tell(now + timedelta(days=1))
    assert sorted(each.to for each in posted()) == [
        "admin@elsewhere.test", "ann@acme.test", "owner@elsewhere.test", "owner@elsewhere.test"
    ] and not later.failed


# What opens an account


def test_a_change_of_what_opens_an_account_is_told_to_it(acme):
    owner = User.objects.get(email="owner@elsewhere.test")
    tenants.set_account_password(owner, "another unusual one", actor=owner, ip="192.0.2.1")
    audit.record(owner, "account.passkey_added", owner, tenant=None, after={"passkey": "Key"})
    audit.record(owner, "account.passkey_removed", owner, tenant=None, before={"passkey": "Key"})
    closed = User.objects.get(email="closed@elsewhere.test")
    audit.record(None, "account.password_set", closed, tenant=None)
    notices = Notices()
    assert [to for to, _subject in told(notices)] == ["owner@elsewhere.test"] * 3
    assert told(notices) == told() == []
    password, added, _removed = posted()
    assert password.subject == "owner@elsewhere.test: how one signs in was changed"
    assert "    From where: 192.0.2.1\n" in password.text and password.path() == reverse("console:account-own")
    assert "A passkey was added, “Key”" in added.text
    audit.record(owner, "account.password_set", owner, tenant=None, reason=BY_LINK)
    assert told(notices) and "Changed by: whoever opened a link that was sent here\n" in posted()[-1].text
    box = world.mailbox("ann@acme.test")
    Mailbox.objects.update(recovery="ann@elsewhere.test")
    box.refresh_from_db()
    mailboxes.set_password(box, "another unusual one", actor=owner)
    assert [to for to, _subject in told(notices)] == ["ann@elsewhere.test", "ann@acme.test"]
    assert "The password of ann@acme.test was changed." in posted()[-1].text and "organisation" in posted()[-1].text
    assert set(security._SAID) == audit.TOLD and set(domains._ACTIONS) == audit.TOLD_OF_NOBODY


# Limits


def charged(acme: Tenant, recipients: int = 1, **used: tuple[int, int]) -> Message:
    """charged(acme, mailbox=(200, 200)): a message after which so many of so many were used in an hour."""
    ids = {"mailbox": acme.addresses.get().mailbox.pk, "tenant": acme.pk}
    made = queue.message(acme, facts={"charged": [
        {"kind": kind, "id": ids[kind], "name": "x", "window": "hour", "used": taken, "allowed": allowed}
        for kind, (taken, allowed) in used.items()
    ]})
    for number in range(recipients):
        queue.recipient(made, f"r{number}@elsewhere.test")
    return made


def test_a_limit_is_told_when_the_next_message_would_not_fit_and_once_in_its_window(acme):
    box = world.mailbox("ann@acme.test")
    charged(acme, mailbox=(199, 200), tenant=(1000, 2000))
    charged(acme, 3, tenant=(1990, 2000))
    notices = Notices()
    assert told(notices) == []
    charged(acme, mailbox=(200, 200), tenant=(1991, 2000))
    assert told(notices) == [("ann@acme.test", "The sending limit of ann@acme.test is reached")]
    assert posted()[-1].path() == "/me/" and "200 recipients in 1 hour" in posted()[-1].text
    charged(acme, 10, mailbox=(200, 200), tenant=(1995, 2000))
    assert told(notices) == [("owner@elsewhere.test", "The sending limit of Acme is reached")]
    assert posted()[-1].path() == reverse("console:usage", args=[acme.pk])
    for _ in range(3):
        charged(acme, mailbox=(200, 200), tenant=(2000, 2000))
    assert told(notices) == told() == []
    later = timezone.now() + timedelta(hours=1, minutes=1)
    assert len(Notices().tell(later).letters) == 0, "what is over is not looked at"
    operations.suspend(box, reason="spam", actor=None)
    assert told() == []


# Sign-ins


def signed_in(account: User, ip: str) -> AuditEntry:
    return audit.record(account, SIGNED_IN, account, tenant=None, ip=ip)


def test_a_sign_in_from_a_new_network_is_told_to_the_account_once(acme):
    owner = User.objects.get(email="owner@elsewhere.test")
    subject = "owner@elsewhere.test: a sign-in from a new network"
    signed_in(owner, "192.0.2.1")
    signed_in(owner, "127.0.0.1")
    notices = Notices()
    assert told(notices) == [], "the first one is nothing new"
    for ip in ("192.0.2.1", "198.51.100.1", "198.51.100.1"):
        signed_in(owner, ip)
    assert told(notices) == [("owner@elsewhere.test", subject)]
    assert told(notices) == told() == []
    letter = posted()[-1]
    assert letter.path() == reverse("console:account-own") and "    Network: 198.51.100.1\n" in letter.text
    for number in range(5):
        signed_in(owner, f"203.0.113.{number}")
    assert len(told(notices)) == letters.MOST_A_DAY[letters.Purpose.SIGN_IN] - 1
    staff = User.objects.get(email="ops@elsewhere.test")
    for ip in ("192.0.2.1", "198.51.100.1"):
        signed_in(staff, ip)
    told(notices)
    assert posted()[-1].path() == reverse("account:own"), "of staff, in the admin"


def test_a_mailboxs_sign_in_from_a_new_network_is_told_to_its_person(acme):
    box = world.mailbox("ann@acme.test")
    phone, _secret = world.app_password(box, "Phone")
    world.login_event(box, ip="2001:db8::1", outcome="wrong")
    world.login_event(box, ip="192.0.2.1")
    notices = Notices()
    assert told(notices) == []
    world.login_event(box, ip="192.0.2.1", protocol="imap")
    world.login_event(box, ip="2001:db8::2", outcome="wrong")
    assert told(notices) == []
    world.login_event(box, ip="2001:db8::3", protocol="imap", credential=phone, credential_text=str(phone))
    assert told(notices) == [("ann@acme.test", "ann@acme.test: a sign-in from a new network")]
    letter = posted()[-1]
    assert letter.path() == reverse("console:me-sign-ins")
    assert '    Password: app password “Phone”\n' in letter.text and "    Network: 2001:db8::/64\n" in letter.text
    assert "    Program: a mail program, reading\n" in letter.text
    world.login_event(box, ip="2001:db8::4")
    assert told(notices) == told() == [], "the same network"
    Domain.objects.update(proof="pending")
    world.login_event(box, ip="198.51.100.1")
    assert told(notices) == [], "the address may be somebody else's"


def test_nobodys_many_sign_ins_keep_anothers_from_being_told(acme, monkeypatch):
    monkeypatch.setattr(sign_ins, "MOST", 2)
    ann, bob = world.mailbox("ann@acme.test"), world.mailbox("bob@acme.test")
    owner, admin = (User.objects.get(email=f"{name}@elsewhere.test") for name in ("owner", "admin"))
    notices = Notices()
    for who in (ann, bob):
        world.login_event(who, ip="192.0.2.1")
    signed_in(admin, "192.0.2.1")
    assert told(notices) == []
    for _ in range(5):
        world.login_event(ann, ip="192.0.2.1")
        signed_in(owner, "192.0.2.1")
    world.login_event(bob, ip="198.51.100.1")
    signed_in(admin, "198.51.100.1")
    assert {to for to, _subject in told(notices)} == {"bob@acme.test", "admin@elsewhere.test"}


def test_a_second_factor_that_comes_or_goes_is_told_to_whose_it_is(acme):
    ann, owner = world.mailbox("ann@acme.test"), User.objects.get(email="owner@elsewhere.test")
    Mailbox.objects.update(recovery="ann@elsewhere.test")
    for account, by in ((ann.person, owner), (owner, None)):
        secret = second_factor.new_secret()
        second_factor.add(account, secret, code_of(secret), ip="192.0.2.1")
        second_factor.remove(account, actor=by)
    audit.record(owner, "account.passkey_removed", owner, tenant=None, before={"passkey": "Key"})
    second_factor.SecondFactor.objects.create(user=owner)
    second_factor.remove(owner, actor=owner)
    notices = Notices()
    subjects = [f"{name}: how one signs in was changed" for name in (ann, owner)]
    assert told(notices) == [
        *[(to, subjects[0]) for _ in range(2) for to in ("ann@elsewhere.test", "ann@acme.test")],
        *[(str(owner), subjects[1])] * 3,
    ], "the passkey that took the rest with it isn't told of apart"
    assert told(notices) == told() == []
    added, removed = (" ".join(each.text.split()) for each in (posted()[0], posted()[2]))
    assert "somebody who signed in" in added and "192.0.2.1" in added and "needs an app password" in added
    assert "your organisation" in removed and "in mail programs too" in removed
    Domain.objects.update(proof="pending")
    audit.record(None, "mailbox.second_factor_added", ann, tenant=acme)
    assert [to for to, _subject in told(notices)] == ["ann@elsewhere.test"], "anybody's address, until it is proved"
    Domain.objects.update(proof="proved")
    operations.close(acme, reason="left", actor=None)
    audit.record(None, "mailbox.second_factor_removed", ann, tenant=acme)
    assert [to for to, _subject in told(notices)] == ["ann@elsewhere.test"], "there no mail is taken"
    assert [posted()[at].path() for at in (0, 4)] == ["/me/sign-ins/", "/account/"]
    assert "your provider" in posted()[5].text


@pytest.mark.once("postgresql")
def test_a_clients_known_network_costs_no_query_of_its_own(acme, django_assert_max_num_queries):
    box = world.mailbox("ann@acme.test")
    world.login_event(box, ip="192.0.2.1")
    notices = Notices()
    told(notices)
    for _ in range(5):
        world.login_event(box, ip="192.0.2.1")
    with django_assert_max_num_queries(8):
        assert notices.tell(timezone.now()).letters == []


@pytest.mark.skipif(
    connection.vendor != "sqlite",
    reason="about SQLite's choice of an index, by its own plans; PostgreSQL chooses by figures that it keeps",
)
def test_a_look_reads_what_was_recorded_meanwhile_by_its_time_alone(acme):
    """Of sign-ins, in the audit log and among the logins, there are millions."""
    plans = []

    def explained(execute, sql, params, many, context):
        if '"at" >' in sql:
            execute("EXPLAIN QUERY PLAN " + sql, params, many, context)
            plans.append([str(step[-1]) for step in context["cursor"].fetchall()])
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explained):
        Notices().tell(timezone.now())
    assert len(plans) == 2 and all(len(plan) == 1 and plan[0].endswith("(at>?)") for plan in plans), plans
