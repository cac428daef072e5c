"""The admin's first page: what needs somebody, the last day's mail, the queue, limits and machines."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from panel.database import ids
from panel.domains.models import Domain
from panel.mailboxes.models import Mailbox
from panel.operations import certificate, needs, overview, room, traffic
from panel.operations.models import Node, Traffic
from panel.rules.limits import Kind, Rings
from panel.rules.status import Status
from panel.sending.models import Counter, Hold, Message, Recipient
from panel.tenants.models import Tenant, User
from tests.support import queue, world

pytestmark = pytest.mark.django_db

MOST_QUESTIONS = 15
SOON = timedelta(days=2)


@pytest.fixture(autouse=True)
def fresh():
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def owner(db) -> User:
    return User.objects.create(email="boss@provider.test", provider_role="owner", password="!")


@pytest.fixture
def panel(owner: User) -> Client:
    client = Client()
    client.force_login(owner)
    return client


def look(panel: Client):
    answer = panel.get(reverse("admin:index"))
    assert answer.status_code == 200
    return answer


def told(panel: Client) -> dict[str, str]:
    """What needs somebody, name and sentence without markup."""
    return {need.name: re.sub("<[^>]*>", "", str(need.sentence)) for need in look(panel).context["needs"]}


def node(name: str = "mx1", **fields) -> Node:
    now = timezone.now()
    return Node.objects.create(
        **{"number": 1, "name": name, "version": "1", "started_at": now, "last_seen_at": now, **fields}
    )


def id_at(at: datetime, number: int = 0) -> int:
    return ids.first_of_ms(int(at.timestamp() * 1000)) + number


def mail(at: datetime, direction: str = "inbound", after_s: float | None = 1.0, **fields) -> Message:
    """A message of that moment with one recipient, delivered so many seconds later; None: it waits."""
    made = id_at(at, Message.objects.count())
    message = Message.objects.create(id=made, accepted_at=at, direction=direction, size=1)
    state = {"state": "waiting"} if after_s is None else {
        "state": "delivered", "settled_at": at + timedelta(seconds=after_s),
    }
    Recipient.objects.create(
        id=made, message=message, original="a@b.test", resolved="a@b.test", next_hop="b.test", due_at=at,
        expires_at=at, **{**state, **fields},
    )
    return message


# Nothing, and how one begins


def test_an_empty_installation_says_what_comes_first(panel):
    page = look(panel).content.decode()
    assert "Nothing needs you." in page
    assert "No message was accepted yet." in page
    assert "First make a tenant" in page


def test_the_first_steps_follow_each_other(panel, tenant):
    assert "Now give a tenant its domain." in look(panel).content.decode()
    cache.clear()
    world.domain("demo.test", tenant)
    assert "Now make the first mailbox." in look(panel).content.decode()
    world.mailbox("shop@demo.test")
    assert look(panel).context["first_step"] is None


def test_silence_is_told_from_failure_by_the_last_message(panel):
    mail(timezone.now() - timedelta(days=3))
    page = look(panel).content.decode()
    assert "Nothing needs you." in page
    assert "The last message was accepted" in page
    assert "3 days ago" in page


# What needs somebody


def test_held_recipients_are_told(panel, tenant):
    queue.waiting(tenant, "a@b.test", holds=Hold.POISON)
    queue.waiting(tenant, "c@b.test", holds=Hold.POISON | Hold.UNDELIVERABLE)
    assert told(panel) == {
        "2 recipients": "crashed a worker again and again",
        "1 recipient": "can neither be delivered nor returned",
    }


def test_a_next_hop_that_defers_much_is_told_with_since_when_and_its_reply(panel, tenant, monkeypatch):
    monkeypatch.setattr(needs, "MANY_DEFERRED", 2)
    queue.waiting(tenant, "a@gmail.test", tries=3, last_reply="421 4.7.28 Slow <down>")
    queue.waiting(tenant, "b@quiet.test", tries=1, last_reply="421 4.7.0 Wait")
    assert told(panel) == {}
    queue.waiting(tenant, "c@gmail.test", tries=1, last_reply="421 4.7.28 Slow <down>")
    found = told(panel)
    assert list(found) == ["gmail.test"]
    assert found["gmail.test"].startswith("puts off 2 recipients, the oldest from just now")
    assert "421 4.7.28 Slow &lt;down&gt;" in found["gmail.test"]


def test_domains_that_are_not_proved_are_told_by_name_but_not_all(panel, tenant, monkeypatch):
    for at in range(5):
        world.domain(f"pending{at}.test", tenant, proof="pending")
    lapsed = world.domain("lapsed.test", tenant, proof="lapsed")
    world.domain_alias("also.test", lapsed, proof="lapsed")
    world.domain("closed.test", tenant, proof="pending", status=Status.CLOSED)
    named = ["also.test", "lapsed.test", "pending0.test", "pending1.test", "pending2.test"]
    assert list(told(panel)) == [*named, "2"]
    for most, rest in ((4, "at least 1"), (6, "at least 2"), (7, "2")):
        monkeypatch.setattr(needs, "LOOKED_AT", most)
        assert list(told(panel)) == [*named, rest]


def test_a_password_frozen_lately_is_told_with_its_reason(panel, mailbox):
    world.app_password(mailbox, frozen_at=timezone.now(), frozen_reason="sent spam")
    world.app_password(mailbox, "old", frozen_at=timezone.now() - timedelta(days=20))
    assert told(panel) == {"shop@demo.test": 'had its app password “web shop” frozen just now: sent spam'}


def test_a_lockout_is_told_once_an_account(panel, mailbox):
    for ip in ("203.0.113.9", "203.0.113.10"):
        world.login_event(mailbox, outcome="locked", ip=ip)
    long_ago = timezone.now() - timedelta(days=2)
    world.login_event(mailbox, outcome="locked", login="gone@demo.test", at=long_ago, last_at=long_ago)
    assert told(panel) == {"shop@demo.test": "was locked after wrong passwords just now, from 203.0.113.10"}


def test_a_machine_that_is_silent_is_told_and_a_draining_one_shown(panel):
    node("mx1", last_seen_at=timezone.now() - timedelta(hours=3))
    node("mx2", number=2, draining=True)
    assert told(panel) == {"mx1": "was last seen 3 h ago"}
    assert [machine["word"] for machine in look(panel).context["machines"]] == ["last seen 3 h ago", "draining"]


def test_a_machine_that_was_taken_away_is_no_need_while_another_goes_on(panel):
    now = timezone.now()
    drained = node("mx1", last_seen_at=now - timedelta(hours=3), draining=True)
    node("mx2", number=2, last_seen_at=now - timedelta(days=8))
    assert set(told(panel)) == {"mx1", "mx2"}
    node("mx3", number=3)
    assert told(panel) == {}
    assert drained.name in look(panel).content.decode()


def test_what_is_removed_for_good_soon_is_told(panel, tenant, mailbox):
    closed = {"status": Status.CLOSED, "grace_ends_at": timezone.now() + SOON}
    Mailbox.objects.filter(pk=mailbox.pk).update(**closed)
    Domain.objects.filter(pk=mailbox.address.domain_id).update(**closed)
    far = world.tenant("Far", status=Status.CLOSED, grace_ends_at=timezone.now() + timedelta(days=20))
    found = told(panel)
    assert set(found) == {"shop@demo.test", "demo.test"}
    assert found["demo.test"] == "is closed, and removed for good in 47 h"
    assert far.name not in look(panel).content.decode()


def test_a_plan_that_is_nearly_full_is_told(panel, tenant, mailbox):
    tenant.plan.mailboxes, tenant.plan.domains = 1, 2
    tenant.plan.save()
    assert told(panel) == {"Demo": "has 1 of the 1 mailboxes of its plan"}


@pytest.mark.parametrize(("days", "sentence"), [
    (400, None), (10, "the certificate expires in"), (-1, "the certificate expired"),
])
def test_a_certificate_is_told_before_it_ends(panel, monkeypatch, days, sentence):
    monkeypatch.setattr(certificate, "ends_at", lambda path: timezone.now() + timedelta(days=days, minutes=1))
    found = told(panel)
    assert len(found) == (sentence is not None)
    if sentence:
        assert next(iter(found.values())).startswith(sentence)


def test_a_certificate_is_read_and_one_that_does_not_load_is_told(panel, settings, tmp_path):
    cert = settings.ENVIRONMENT.tls_cert
    assert told(panel) == {}  # none, and no mailserver here
    made = tmp_path / "cert.pem"
    certificate.ensure(made, tmp_path / "key.pem", "mx.posthouse.test")
    assert (certificate.ends_at(made) - timezone.now()).days == certificate.VALID_DAYS - 1
    node(settings.ENVIRONMENT.node)
    assert told(panel)[str(cert)] == "the certificate can't be loaded: No such file or directory"
    (tmp_path / "broken.pem").write_text("no certificate")
    with pytest.raises(ValueError):
        certificate.ends_at(Path(tmp_path / "broken.pem"))


# The last day's mail


def test_the_day_counts_in_out_and_what_arrived_within_a_minute(panel):
    now = timezone.now()
    mail(now - timedelta(hours=2), after_s=59)
    mail(now - timedelta(hours=2), after_s=61)
    mail(now - timedelta(minutes=1), "submission", after_s=None)
    mail(now - timedelta(seconds=5), "submission")
    mail(now - timedelta(hours=30))
    context = look(panel).context
    assert (context["inbound"], context["outbound"], context["prompt"]) == ("2", "2", "50.0")
    bars = context["chart"]["bars"]
    assert len(bars) == 24
    assert bars[-1]["words"].endswith("0 in, 2 out")
    assert sum(bool(bar["in_height"]) for bar in bars) == 1


def test_minutes_that_are_over_are_counted_once(panel):
    now = timezone.now()
    mail(now - timedelta(hours=2))
    first = traffic.last_day(now)
    kept = Traffic.objects.count()
    assert 285 <= kept <= 288  # a day of five minutes, but the last ones
    Message.objects.all().delete()
    Recipient.objects.all().delete()
    again = traffic.last_day(now)
    for day in (first, again):
        assert (day.inbound, day.recipients, day.prompt) == (1, 1, 1)
    assert Traffic.objects.count() == kept
    traffic.last_day(now + timedelta(days=40))
    assert not Traffic.objects.filter(inbound=1).exists()


def test_a_delivery_of_the_last_seconds_of_five_minutes_still_counts(panel):
    """They are kept only when whatever arrives within a minute has arrived."""
    edge = datetime(2026, 5, 1, 12, 5, tzinfo=UTC)
    mail(edge - timedelta(milliseconds=1), after_s=None)
    assert traffic.last_day(edge + timedelta(seconds=50)).prompt == 0
    Recipient.objects.update(state="delivered", settled_at=edge + timedelta(seconds=55))
    assert traffic.last_day(edge + timedelta(seconds=60)).prompt == 1
    assert traffic.last_day(edge + timedelta(seconds=600)).prompt == 1


# Queue and limits


def test_a_long_queue_is_counted_once_in_some_seconds_and_says_when(panel, tenant, monkeypatch):
    monkeypatch.setattr(overview, "LONG_QUEUE", 1)
    for at in range(3):
        assert look(panel).context["waiting"] == str(min(at, 2))
        assert ("Counted" in look(panel).content.decode()) == (at == 2)
        queue.waiting(tenant, f"x{at}@slow.test")
    monkeypatch.setattr(overview, "FRESH", timedelta(0))
    shown = look(panel)
    assert shown.context["waiting"] == "3"
    assert "Counted" not in shown.content.decode()


def test_the_queue_names_the_fullest_next_hops(panel, tenant):
    for hop, count in (("a.test", 1), ("b.test", 3), ("c.test", 2)):
        for _ in range(count):
            queue.waiting(tenant, f"x@{hop}")
    context = look(panel).context
    assert context["waiting"] == "6"
    assert {hop["name"]: hop["count"] for hop in context["hops"]} == {"b.test": "3", "c.test": "2", "a.test": "1"}
    assert context["hops"][0]["name"] == "b.test"


def charge(tenant: Tenant, recipients: int) -> None:
    rings = Rings()
    rings.charge(recipients, timezone.now().timestamp())
    Counter.objects.create(kind=Kind.TENANT, subject=tenant.pk, rings=rings.pack())


def test_tenants_near_a_limit_are_told_by_the_limit_that_holds(panel, tenant, other_tenant):
    quiet, unlimited = world.tenant("Quiet"), world.tenant("Unlimited")
    world.limit(tenant, hour=100)
    world.limit(unlimited, hour=None, day=None)
    charge(tenant, 92)
    charge(other_tenant, 2000)  # the plan's hour
    charge(quiet, 10)
    charge(unlimited, 50_000)
    near = look(panel).context["near"]
    assert [(each["name"], each["share"], each["words"]) for each in near] == [
        ("Other", "100 % of 1 hour", "2,000 of 2,000 recipients"), ("Demo", "92 % of 1 hour", "92 of 100 recipients"),
    ]


def test_it_says_when_not_all_tenants_were_looked_at(panel, tenant, other_tenant, monkeypatch):
    monkeypatch.setattr(room, "MOST_TENANTS", 1)
    assert "Of the 1 tenants that were made first" in look(panel).content.decode()


# All of it


def test_hostile_names_are_shown_harmless(panel, tenant, monkeypatch):
    monkeypatch.setattr(needs, "MANY_DEFERRED", 1)
    bad = "<script>alert(1)</script>"
    queue.waiting(tenant, "a@b.test", next_hop=bad, tries=1, last_reply=bad)
    mailbox = world.mailbox("x@" + world.domain("demo.test", tenant).name)
    world.app_password(mailbox, bad, frozen_at=timezone.now(), frozen_reason=bad)
    world.login_event(mailbox, outcome="locked", login=bad)
    charge(world.tenant(bad), 1999)
    assert bad not in look(panel).content.decode()


def test_it_asks_few_questions_also_for_the_first_time_and_with_everything(panel, tenant, monkeypatch):
    monkeypatch.setattr(needs, "MANY_DEFERRED", 1)
    domain = world.domain("demo.test", tenant, proof="lapsed")
    box = world.mailbox("shop@demo.test")
    for at in range(5):
        queue.waiting(tenant, f"x@hop{at}.test", tries=1)
        world.app_password(box, str(at), frozen_at=timezone.now())
        world.login_event(box, outcome="locked", login=f"{at}@demo.test")
    node()
    charge(tenant, 1999)
    Mailbox.objects.filter(pk=box.pk).update(status=Status.CLOSED, grace_ends_at=timezone.now() + SOON)
    for _ in range(2):
        with CaptureQueriesContext(connection) as asked:
            look(panel)
        said = [each["sql"] for each in asked if not each["sql"].startswith(("SAVEPOINT", "RELEASE"))]
        questions = [sql for sql in said if sql.lstrip("(").startswith("SELECT")]
        assert len(questions) <= MOST_QUESTIONS, [sql[:150] for sql in questions]
        assert len(said) - len(questions) <= 3, "the counts of a time that is over are kept once"
    assert domain.name in told(panel)


def test_what_waits_has_its_minute_before_it_counts_as_late(tenant):
    row = queue.waiting(tenant, "a@slow.test")
    accepted = datetime.fromtimestamp(ids.made_at_ms(row.pk) / 1000, UTC)
    for seconds, counted in ((5, (0, 0)), (59, (0, 0)), (62, (1, 0))):
        day = traffic.last_day(accepted + timedelta(seconds=seconds))
        assert (day.recipients, day.prompt) == counted
    Recipient.objects.update(state="delivered", settled_at=accepted + timedelta(seconds=3))
    day = traffic.last_day(accepted + timedelta(seconds=5))
    assert (day.recipients, day.prompt) == (1, 1)


@pytest.mark.parametrize(("name", "is_told"), [("vm", True), ("mail.office.local", True), ("mx1.example.com", False)])
def test_a_host_name_that_nobody_else_can_look_up_is_told(panel, settings, name, is_told):
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, hostname=name)
    found = told(panel)
    assert (name in found) == is_told and ("POSTHOUSE_HOSTNAME" in found.get(name, "")) == is_told
