"""Acts on many waiting recipients: what they name, their steps, and what goes on beside them."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from panel.sending import bulk, services
from panel.sending.models import BulkAct, Content, Hold, Message, Recipient
from panel.sending.selection import Selection, read_span, span
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry
from tests.support import queue, world

LATER = timedelta(hours=5)


@pytest.fixture(autouse=True)
def short_steps(monkeypatch):
    monkeypatch.setattr(bulk, "STEP", 3)


def to_the_end(act: BulkAct) -> BulkAct:
    for _ in range(100):
        act = bulk.step(act)
        if act.finished_at:
            return act
    raise AssertionError("no end")


def waiting(tenant, number: int, hop: str = "slow.test", **fields) -> list[Recipient]:
    due_at = timezone.now() + LATER
    return [queue.waiting(tenant, f"r{n}@{hop}", **{"due_at": due_at, **fields}) for n in range(number)]


def states() -> list[str]:
    return list(Recipient.objects.order_by("pk").values_list("state", flat=True))


def with_content(message: Message) -> Content:
    return Content.objects.create(message=message, prefix=b"", where="inline", body=b"x", size=1, sha256="0" * 64)


# What a selection names


def test_each_part_of_a_selection_narrows(tenant, other_tenant):
    now = timezone.now()
    ours, theirs = queue.message(tenant), queue.message(other_tenant, reverse_path="news@other.test")
    bounce = queue.message(tenant, reverse_path="")
    a = queue.recipient(ours, "a@one.test", state="waiting")
    b = queue.recipient(theirs, "b@two.test", state="waiting", next_hop="relay.test:25", holds=Hold.POISON)
    c = queue.recipient(bounce, "c@sub.one.test", state="waiting", holds=Hold.SUSPENDED | Hold.UNDELIVERABLE)
    d = queue.recipient(ours, "A@two.test", resolved="d@one.test")
    everything = {"a": a, "b": b, "c": c, "d": d}
    for chosen, names in (
        (Selection(), "abcd"), (Selection(state="delivered"), "d"), (Selection(hop="relay.test:25"), "b"),
        (Selection(domain="two.test"), "bd"),
        (Selection(tenant=tenant.pk), "acd"), (Selection(recipient="A@ONE.test"), "a"),
        (Selection(recipient="one.test"), "ad"), (Selection(recipient="@two.test"), "bd"),
        (Selection(recipient="a@two.test"), "d"), (Selection(sender="<>"), "c"),
        (Selection(sender="other.test"), "b"), (Selection(sender="Shop@demo.test"), "ad"),
        (Selection(hold="any"), "bc"), (Selection(hold="none"), "ad"), (Selection(hold="suspended"), "c"),
        (Selection(message=ours.pk), "ad"), (Selection(hop="one.test", tenant=other_tenant.pk), ""),
    ):
        found = {name for name, row in everything.items() if row in chosen.rows(now)}
        assert found == set(names), chosen
    assert not Selection(older_s=3600).rows(now).exists()
    assert Selection(older_s=60).rows(now + timedelta(seconds=120)).count() == 4


def test_selection_reads_as_a_sentence_and_comes_back_from_its_parameters(tenant):
    chosen = Selection(state="waiting", hop="gmail.com", older_s=600)
    assert chosen.sentence(1204) == "1,204 waiting recipients to gmail.com older than 10 min"
    assert chosen.sentence(1) == "1 waiting recipient to gmail.com older than 10 min"
    assert Selection(state="waiting", hold="suspended", tenant=tenant.pk).sentence() == (
        "held recipients (because its sender is suspended) of the tenant Demo"
    )
    assert Selection(hop="local", recipient="one.test", sender="<>").sentence(2) == (
        "2 recipients to mailboxes here addressed to @one.test from <>"
    )
    full = Selection(
        state="waiting", hold="any", hop="a.test", domain="b.test", tenant=7, recipient="x@y.test", sender="<>",
        older_s=86400, message=12345,
    )
    assert Selection.read(full.params()) == full == Selection.stored(full.as_json())


@pytest.mark.parametrize(("name", "value"), [
    ("state__exact", "x"), ("holds", "x"), ("tenant__id__exact", "x"), ("tenant__id__exact", "9" * 30),
    ("older", "soon"), ("older", "10"), ("older", "9999999min"), ("message", "x"), ("message", "\u00b2" * 13),
    ("hop", "a\nb"), ("recipient", "x" * 321),
])
def test_odd_parameters_are_refused_in_a_sentence(db, name, value):
    with pytest.raises(ServiceError):
        Selection.read({name: value})


def test_lengths_of_time_are_read_as_they_are_written():
    assert [read_span(text) for text in ("10min", "10 m", "6H", "2d", "30s")] == [600, 600, 21600, 172800, 30]
    assert [span(seconds) for seconds in (600, 21600, 172800, 30, 0)] == ["10 min", "6 h", "2 d", "30 s", "0 s"]


def test_a_next_hop_that_is_an_address_is_found_however_it_is_written(tenant):
    row = queue.waiting(tenant, "a@[IPv6:2001:db8::1]")
    for name in ("hop", "domain"):
        for written in ("[IPv6:2001:db8::1]", "[ipv6:2001:DB8::1]"):
            assert list(Selection.read({name: written}).rows(timezone.now())) == [row]


def test_nothing_is_older_than_the_calendar(tenant):
    queue.waiting(tenant, "a@slow.test")
    assert not Selection(older_s=read_span("999999d")).rows(timezone.now()).exists()
    with pytest.raises(ServiceError, match="Nothing of it waits"):
        bulk.ask("retry", Selection(older_s=60), now=datetime.min.replace(tzinfo=UTC), actor=None)


# The steps


def test_retry_in_bulk_goes_by_steps_to_its_report(tenant, other_tenant, traces):
    free = waiting(tenant, 5)
    stuck = waiting(tenant, 1, holds=Hold.UNDELIVERABLE)
    suspended = waiting(other_tenant, 1, holds=Hold.SUSPENDED)
    going = waiting(other_tenant, 1, lease_until=timezone.now() + timedelta(minutes=5), lease_by="mx-1")
    elsewhere = waiting(tenant, 1, hop="fast.test")
    seen = traces()
    act = bulk.ask("retry", Selection(hop="slow.test"), actor=None)
    assert (act.asked, act.done, act.finished_at) == (8, 0, None)
    entries = AuditEntry.objects.order_by("pk").values_list("action", "tenant", "after")
    which = "waiting recipients"
    assert act.which == "waiting recipients to slow.test"
    assert list(entries) == [
        ("queue.retry_asked", tenant.pk, {"recipients": 6, "which": which}),
        ("queue.retry_asked", other_tenant.pk, {"recipients": 2, "which": which}),
    ]
    act = bulk.step(act)
    assert (act.looked_at, act.finished_at) == (3, None), "a step is bounded"
    later = waiting(tenant, 1)
    act = to_the_end(act)
    assert (act.done, act.held, act.on_the_way, act.settled) == (5, 2, 1, 0)
    now = timezone.now()
    due = set(Recipient.objects.filter(due_at__lte=now).values_list("pk", flat=True))
    assert due == {row.pk for row in free}
    for row in (*stuck, *suspended, *going, *elsewhere, *later):
        assert Recipient.objects.get(pk=row.pk).due_at > now
    assert len(seen.actions) == 2, "a step writes no entry"
    assert bulk.step(act).done == 5, "at its end nothing more is done"


def test_a_tenants_entry_tells_nothing_of_where_another_tenants_address_leads(tenant, other_tenant):
    queue.waiting(tenant, "list@other.test", resolved="secret@hidden.test", next_hop="hidden.test")
    for chosen in ({"recipient": "secret@hidden.test"}, {"hop": "hidden.test"}, {"domain": "hidden.test"}):
        bulk.ask("retry", Selection(**chosen), actor=None)
    entries = list(AuditEntry.objects.filter(tenant=tenant))
    assert len(entries) == 3
    assert not any("hidden" in f"{each.subject_name}{each.after}" for each in entries)


def test_release_frees_what_is_stuck_and_never_what_is_held_for_a_suspended_sender(tenant):
    waiting(tenant, 1, holds=Hold.UNDELIVERABLE, expires_at=timezone.now() - timedelta(hours=1))
    waiting(tenant, 1, holds=Hold.SUSPENDED)
    waiting(tenant, 1, holds=Hold.SUSPENDED | Hold.POISON)
    act = to_the_end(bulk.ask("retry", Selection(), release=True, actor=None))
    assert (act.done, act.held) == (1, 2)
    rows = Recipient.objects.order_by("pk")
    assert [row.holds for row in rows] == [0, Hold.SUSPENDED, Hold.SUSPENDED | Hold.POISON]
    assert rows[0].expires_at > timezone.now()


def test_discard_in_bulk_takes_content_with_the_last_recipient_and_leaves_what_is_on_the_way(tenant):
    whole, part = queue.message(tenant), queue.message(tenant)
    for message in (whole, part):
        with_content(message)
        for name in "ab":
            queue.recipient(message, f"{name}@slow.test", state="waiting")
    on_the_way = Recipient.objects.filter(message=part).first()
    lease = timezone.now() + timedelta(minutes=5)
    Recipient.objects.filter(pk=on_the_way.pk).update(lease_until=lease, lease_by="mx-1")
    act = to_the_end(bulk.ask("discard", Selection(hop="slow.test"), reason="the domain is gone", actor=None))
    assert (act.done, act.on_the_way) == (3, 1)
    assert sorted(states()) == ["discarded"] * 3 + ["waiting"]
    assert list(Content.objects.values_list("pk", flat=True)) == [part.pk]
    given_up = Recipient.objects.filter(state="discarded").first()
    assert given_up.settled_at and given_up.last_reply.startswith("550 5.7.0") and given_up.lease_by == ""


def test_what_needs_a_reason_or_finds_nothing_is_refused(tenant):
    waiting(tenant, 1)
    for kind, chosen, fields, field in (
        ("discard", Selection(), {}, "reason"), ("retry", Selection(hop="other.test"), {}, ""),
        ("retry", Selection(), {"upto": 1}, ""), ("retry", Selection(state="delivered"), {}, ""),
    ):
        with pytest.raises(ServiceError) as refused:
            bulk.ask(kind, chosen, actor=None, **fields)
        assert refused.value.field == field
    assert not BulkAct.objects.exists() and not AuditEntry.objects.exists()


def test_act_is_about_those_alone_whose_count_was_confirmed(tenant):
    confirmed = waiting(tenant, 2)
    count, upto = bulk.count(Selection(hop="slow.test"), timezone.now())
    waiting(tenant, 2)
    act = bulk.ask("discard", Selection(hop="slow.test"), reason="x", upto=upto, actor=None)
    assert count == act.asked == 2
    to_the_end(act)
    assert set(Recipient.objects.filter(state="discarded")) == set(confirmed)


def test_an_interrupted_step_is_done_again_as_a_whole(tenant, monkeypatch):
    waiting(tenant, 5)
    act = bulk.step(bulk.ask("discard", Selection(), reason="x", actor=None))
    give_up = services.give_up

    def breaks(*arguments):
        give_up(*arguments)
        raise OSError("the machine went away")

    monkeypatch.setattr(services, "give_up", breaks)
    with pytest.raises(OSError, match="went away"):
        bulk.step(act)
    assert states().count("discarded") == 3
    act.refresh_from_db()
    assert act.done == 3
    monkeypatch.undo()
    assert to_the_end(act).done == 5
    assert states() == ["discarded"] * 5


def test_what_was_settled_meanwhile_is_told_and_not_done(tenant):
    rows = waiting(tenant, 4)
    act = bulk.ask("retry", Selection(), actor=None)
    services.discard(rows[2], reason="x", actor=None)
    act = to_the_end(act)
    assert (act.done, act.settled) == (3, 1)


def test_a_stopped_act_stays_where_it_is(tenant, traces):
    waiting(tenant, 5)
    act = bulk.step(bulk.ask("discard", Selection(), reason="x", actor=None))
    seen = traces()
    act = bulk.stop(act, actor=None)
    assert (seen.entry.action, seen.entry.after) == ("queue.act_stopped", {"done": 3, "of": 5})
    assert bulk.step(act).done == 3 and states().count("waiting") == 2
    with pytest.raises(ServiceError, match="at its end"):
        bulk.stop(act, actor=None)


def test_a_step_asks_as_much_of_many_as_of_few(tenant, other_tenant, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(bulk, "STEP", 100)
    for number in (2, 20):
        for owner in (tenant, other_tenant):
            for row in waiting(owner, number, hop=f"hop{number}.test"):
                with_content(row.message)
        act = bulk.ask("discard", Selection(hop=f"hop{number}.test"), reason="x", actor=None)
        with django_assert_num_queries(10):
            assert bulk.step(act).done == 2 * number


# Beside others


@pytest.mark.django_db(transaction=True)
def test_two_who_carry_the_same_act_on_do_nothing_twice(standard_plan, in_threads):
    waiting(world.tenant("Demo"), 20)
    act = bulk.ask("discard", Selection(), reason="x", actor=None)
    ended = in_threads(to_the_end, *[BulkAct.objects.get(pk=act.pk) for _ in range(3)])
    assert [one.done for one in ended] == [20, 20, 20], ended
    assert states() == ["discarded"] * 20


@pytest.mark.django_db(transaction=True)
def test_two_acts_on_the_same_recipients_share_them(standard_plan, in_threads):
    message = queue.message(world.tenant("Demo"))
    with_content(message)
    for n in range(20):
        queue.recipient(message, f"r{n}@slow.test", state="waiting")
    acts = [bulk.ask("discard", Selection(), reason="x", actor=None) for _ in range(2)]
    ended = in_threads(to_the_end, *acts)
    assert sum(one.done for one in ended) == 20, ended
    assert sum(one.settled for one in ended) == 20
    assert not Content.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["retry", "discard"])
def test_a_claim_and_an_act_at_once_take_nothing_from_each_other(kind, standard_plan, in_threads):
    from mailserver import spool

    tenant = world.tenant("Demo")
    rows = waiting(tenant, 12, due_at=timezone.now() - timedelta(minutes=1))
    for row in rows:
        with_content(row.message)
    act = bulk.ask(kind, Selection(), reason="x", actor=None)
    claimed: list[int] = []

    def claims(_):
        for _ in range(6):
            found = spool.claim(now=timezone.now(), lease_by="mx-1-a", lease_s=300, limit=2)
            claimed.extend(one.id for message in found for one in message.recipients)

    both = in_threads(lambda do: do(act) if do is to_the_end else claims(None), to_the_end, claims)
    assert not [one for one in both if isinstance(one, Exception)], both
    act.refresh_from_db()
    leased = set(Recipient.objects.filter(lease_by="mx-1-a").values_list("pk", flat=True))
    assert leased == set(claimed), "what was claimed stays with who claimed it"
    if kind == "discard":
        assert states().count("discarded") == act.done == 12 - len(leased)
    assert Content.objects.count() == states().count("waiting")
