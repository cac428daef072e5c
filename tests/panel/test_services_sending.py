"""Limits, routes, the queue, and what a tenant may see of messages."""

from datetime import timedelta

import pytest
from django.utils import timezone

from panel.sending import services
from panel.sending.log import NEUTRAL, recipients_seen_by
from panel.sending.models import Attempt, Content, Hold, OutboundRoute, Recipient, SendingLimit
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry
from tests.support import queue, world

# Limits


def test_limit_stands_on_tenant_domain_mailbox_and_credential(mailbox, tenant, domain, traces):
    credential, _ = world.app_password(mailbox)
    for subject in (tenant, domain, mailbox, credential):
        seen = traces()
        limit = services.set_limit(subject, window="hour", recipients=10, actor=None)
        assert (limit.owner, limit.recipients, services.limit_subject(limit)) == (tenant, 10, subject)
        assert (seen.entry.action, seen.entry.tenant, seen.domains) == ("limit.set", tenant, {"demo.test"})
        assert (seen.entry.before, seen.entry.after) == ({"hour": "inherit"}, {"hour": 10})
    assert SendingLimit.objects.count() == 4


def test_unlimited_and_inherited_are_told_apart(mailbox, traces):
    assert services.set_limit(mailbox, window="day", recipients=None, actor=None).recipients is None
    assert services.set_limit(mailbox, window="day", recipients=0, actor=None).recipients == 0
    assert SendingLimit.objects.count() == 1
    seen = traces()
    services.inherit_limit(mailbox, window="day", actor=None)
    assert not SendingLimit.objects.exists()
    assert (seen.entry.before, seen.entry.after) == ({"day": 0}, {"day": "inherit"})
    with pytest.raises(ServiceError, match="no limit of its own"):
        services.inherit_limit(mailbox, window="day", actor=None)


@pytest.mark.parametrize("number", [-1, 2**31, True, "5", 1.5])
def test_limit_is_a_whole_number(mailbox, number):
    with pytest.raises(ValueError, match="whole number") as refused:
        services.set_limit(mailbox, window="hour", recipients=number, actor=None)
    assert refused.value.field == "recipients"
    with pytest.raises(ServiceError, match="Window"):
        services.set_limit(mailbox, window="week", recipients=1, actor=None)


def test_limit_of_a_shared_domain_is_refused(shared):
    with pytest.raises(ServiceError, match="shared domain"):
        services.set_limit(shared, window="hour", recipients=1, actor=None)


def test_limits_are_read_as_people_write_them():
    assert [services.read_limit(text) for text in ("10", " Unlimited", "inherit")] == [10, None, services.INHERIT]
    for text in ("-1", "", "many", "1.5", "٣", "99999999999"):
        with pytest.raises(ServiceError):
            services.read_limit(text)


@pytest.mark.django_db(transaction=True)
def test_limit_set_at_once_by_many_is_one_row(standard_plan, in_threads):
    tenant = world.tenant("Demo")
    results = in_threads(lambda n: services.set_limit(tenant, window="hour", recipients=n, actor=None), *range(5))
    assert all(isinstance(one, SendingLimit) for one in results), results
    entries = list(AuditEntry.objects.order_by("pk"))
    assert SendingLimit.objects.get().recipients == entries[-1].after["hour"]
    assert [entry.before["hour"] for entry in entries] == ["inherit", *(entry.after["hour"] for entry in entries[:-1])]


# Routes


def test_route_is_set_changed_and_removed(db, traces):
    seen = traces()
    host, port = services.parse_route("smtp://Relay.Partner.test:2525")
    route = services.set_route(domain="Partner.test", host=host, port=port, actor=None)
    assert (route.domain, route.host, route.port) == ("partner.test", "relay.partner.test", 2525)
    services.set_route(domain="partner.test", host="192.0.2.1", tls="required", actor=None)
    assert (OutboundRoute.objects.get().host, OutboundRoute.objects.get().port) == ("192.0.2.1", 25)
    services.remove_route(route, actor=None)
    assert seen.actions == ["route.set", "route.set", "route.removed"] and seen.domains == {"partner.test"}


@pytest.mark.parametrize("name", ["", "*"])
def test_default_route_changes_everything(db, traces, name):
    seen = traces()
    assert services.set_route(domain=name, host="[::1]", port=25, actor=None).domain == ""
    assert seen.domains == {""}


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("smtps://relay.test", "come later"), ("smtp://user:secret@relay.test", "login come later"),
        ("smtp://re\nlay.test", "line break"), ("relay.test", "smtp://HOST:PORT"), ("smtp://", "smtp://HOST:PORT"),
        ("smtp://relay.test:99999", "smtp://HOST:PORT"), ("smtp://relay.test/path", "smtp://HOST:PORT"),
        ("http://relay.test", "smtp://HOST:PORT"), ("smtp://[::1", "smtp://HOST:PORT"),
    ],
)
def test_bad_routes_are_refused(url, sentence):
    with pytest.raises(ServiceError, match=sentence):
        services.parse_route(url)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"host": "a b"}, "host"), ({"port": 0}, "port"), ({"port": 65536}, "port"), ({"tls": "maybe"}, "tls"),
        ({"domain": "a..b"}, "domain"),
    ],
)
def test_bad_route_fields_are_refused_beside_the_field(db, fields, field):
    with pytest.raises(ServiceError) as refused:
        services.set_route(**{"domain": "partner.test", "host": "relay.test", "actor": None, **fields})
    assert refused.value.field == field and not OutboundRoute.objects.exists()


# The queue


def test_retry_makes_due_and_lifts_holds_only_when_asked(tenant, other_tenant, traces):
    later = timezone.now() + timedelta(hours=5)
    free = queue.waiting(tenant, "a@elsewhere.test", due_at=later)
    held = queue.waiting(tenant, "b@elsewhere.test", due_at=later, holds=Hold.UNDELIVERABLE)
    suspended = queue.waiting(other_tenant, "c@elsewhere.test", due_at=later, holds=Hold.SUSPENDED | Hold.POISON)
    sent = queue.recipient(queue.message(tenant), "d@elsewhere.test", due_at=later)
    seen = traces()
    assert services.retry(Recipient.objects.all(), actor=None) == 1
    assert (seen.entry.action, seen.entry.tenant, seen.entry.after) == (
        "queue.retried", tenant, {"recipients": 1, "released": False}
    )
    assert services.retry([free.pk, held.pk, suspended.pk, sent.pk], release=True, actor=None) == 3
    for row in (free, held, suspended, sent):
        row.refresh_from_db()
    assert [row.holds for row in (free, held, suspended)] == [0, 0, Hold.SUSPENDED]
    assert held.due_at <= timezone.now() and sent.due_at == later


def test_discarded_content_goes_with_the_last_recipient(tenant, traces):
    message = queue.message(tenant)
    Content.objects.create(message=message, prefix=b"", where="inline", body=b"x", size=1, sha256="0" * 64)
    first = queue.recipient(message, "a@elsewhere.test", state="waiting")
    last = queue.recipient(message, "b@elsewhere.test", state="waiting")
    seen = traces()
    services.discard(first, reason="unwanted", actor=None)
    assert Content.objects.exists()
    assert (seen.entry.action, seen.entry.tenant, seen.entry.reason) == ("queue.discarded", tenant, "unwanted")
    services.discard(last, actor=None)
    assert not Content.objects.exists()
    first.refresh_from_db()
    assert first.state == "discarded" and first.settled_at and first.last_reply.startswith("550 5.7.0")
    with pytest.raises(ServiceError, match="no longer waits"):
        services.discard(first, actor=None)


def test_recipient_under_delivery_is_not_discarded(tenant):
    soon = timezone.now() + timedelta(minutes=5)
    leased = queue.waiting(tenant, "a@elsewhere.test", lease_until=soon, lease_by="mx worker 1")
    with pytest.raises(ServiceError, match="being delivered just now"):
        services.discard(leased, actor=None)
    Recipient.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    services.discard(leased, actor=None)


@pytest.mark.django_db(transaction=True)
def test_two_who_discard_the_last_two_leave_no_content(standard_plan, in_threads):
    message = queue.message(world.tenant("Demo"))
    Content.objects.create(message=message, prefix=b"", where="inline", body=b"x", size=1, sha256="0" * 64)
    rows = [queue.recipient(message, f"{name}@elsewhere.test", state="waiting") for name in "ab"]
    assert in_threads(lambda row: services.discard(row, actor=None), *rows) == [None, None]
    assert not Content.objects.exists()


# What a tenant may see of messages (one message to two tenants; two tenants in one shared domain)


@pytest.fixture
def mail(mailbox, tenant, other_tenant):
    """Demo's shop writes to itself, to elsewhere, and to Other's alias, which leads to three secret addresses."""
    world.domain("other.test", other_tenant)
    world.mailbox("hidden@other.test")
    world.alias("team@other.test", "hidden@other.test", "carl@secret.test", "dora@secret.test")
    message = queue.message(tenant)
    queue.recipient(message, "shop@demo.test", recipient_tenant=tenant, next_hop="local")
    remote = queue.recipient(message, "bob@elsewhere.test", state="waiting", last_reply="451 4.7.1 Greylisted")
    queue.attempt(remote)
    foreign = {"recipient_tenant": other_tenant}
    inside = queue.recipient(message, "team@other.test", resolved="hidden@other.test", next_hop="local", **foreign)
    outside = [
        queue.recipient(
            message, "team@other.test", resolved=f"{name}@secret.test", last_reply=f"550 no {name}", state=state,
            **foreign,
        )
        for name, state in (("carl", "waiting"), ("dora", "failed"))
    ]
    for row in (inside, *outside):
        queue.attempt(row, host="mx.secret.test", reply="550 no carl@secret.test")
    return message


def test_submitter_sees_the_original_and_one_outcome_of_a_foreign_address(mail, tenant):
    seen = {one.original: one for one in recipients_seen_by([tenant.pk])}
    assert set(seen) == {"shop@demo.test", "bob@elsewhere.test", "team@other.test"}
    assert len(list(recipients_seen_by([tenant.pk]))) == 3
    foreign = seen["team@other.test"]
    assert (foreign.state, foreign.reply, foreign.resolved, foreign.attempts) == (
        "waiting", NEUTRAL["waiting"], "", ()
    )
    assert (foreign.due_at, foreign.tries) == (None, 0)
    assert "secret" not in repr(seen) and "hidden" not in repr(seen)
    remote = seen["bob@elsewhere.test"]
    assert remote.reply == "451 4.7.1 Greylisted" and remote.attempts[0].host == "mx.elsewhere.test"
    assert remote.due_at and remote.submitted
    assert (remote.credential, remote.client_ip, remote.subject) == (
        'app password "web shop"', "203.0.113.9", "Invoice 4711"
    )
    assert remote.facts == {"mailbox 1 hour": "12 of 200"}


def test_receiver_sees_its_own_rows_and_nothing_of_the_submitter(mail, other_tenant):
    seen = list(recipients_seen_by([other_tenant.pk]))
    assert {one.resolved for one in seen} == {"hidden@other.test", "carl@secret.test", "dora@secret.test"}
    assert {one.original for one in seen} == {"team@other.test"}
    assert {one.reverse_path for one in seen} == {"shop@demo.test"}
    assert all(one.attempts for one in seen)
    for one in seen:
        assert (one.submitted, one.credential, one.client_ip, one.subject, one.header_from, one.facts) == (
            False, "", "", "", "", None
        )
    for secret in ("203.0.113.9", "web shop", "bob@elsewhere.test", "Invoice", "12 of 200"):
        assert secret not in repr(seen)


def test_outcome_of_a_foreign_address_is_told_once_in_every_page_and_filter(mail, tenant):
    everything = [one.id for one in recipients_seen_by([tenant.pk])]
    pages: list[int] = []
    while page := [one.id for one in recipients_seen_by([tenant.pk], limit=1, before=pages[-1] if pages else None)]:
        pages += page
    assert pages == everything
    assert [one.original for one in recipients_seen_by([tenant.pk], states=["failed"])] == []
    waiting = recipients_seen_by([tenant.pk], states=["waiting"])
    assert sorted(one.original for one in waiting) == ["bob@elsewhere.test", "team@other.test"]


@pytest.mark.parametrize(
    ("states", "told"),
    [(("delivered", "delivered"), "delivered"), (("delivered", "failed"), "failed"), (("failed", "waiting"), "waiting"),
     (("delivered", "discarded"), "discarded")],
)
def test_several_rows_behind_a_foreign_address_are_told_as_one(tenant, other_tenant, states, told):
    message = queue.message(tenant)
    for state in states:
        queue.recipient(
            message, "x@other.test", resolved=f"{state}@other.test", state=state, recipient_tenant=other_tenant
        )
    (seen,) = recipients_seen_by([tenant.pk])
    assert (seen.state, seen.reply) == (told, NEUTRAL[told])


def test_own_alias_through_another_tenants_alias_hides_where_that_leads(tenant, other_tenant, domain):
    world.domain("other.test", other_tenant)
    world.alias("in@demo.test", "team@other.test", "known@elsewhere.test")
    world.alias("team@other.test", "carl@secret.test")
    message = queue.message()
    fields = {"tenant": tenant, "recipient_tenant": tenant}
    queue.recipient(message, "in@demo.test", resolved="carl@secret.test", last_reply="550 no carl", **fields)
    queue.recipient(message, "in@demo.test", resolved="known@elsewhere.test", last_reply="250 known", **fields)
    queue.recipient(message, "in@demo.test", resolved="dora@secret.test", last_reply="250 dora", **fields)
    # Neither writing to an address nor naming it elsewhere tells who else leads there.
    world.alias("guess@demo.test", "carl@secret.test")
    seen = [one for one in recipients_seen_by([tenant.pk]) if one.original == "in@demo.test"]
    assert "carl" not in repr(seen) and "dora" not in repr(seen) and len(seen) == 2
    assert {(one.resolved, one.reply) for one in seen} == {
        ("", "delivered"), ("known@elsewhere.test", "250 known"),
    }


def test_where_an_own_mailbox_forwards_to_is_seen_and_where_anothers_does_is_not(tenant, other_tenant, mailbox):
    world.domain("other.test", other_tenant)
    theirs = world.mailbox("anna@other.test")
    world.rules(mailbox, forward_to=["known@elsewhere.test", "anna@other.test"])
    world.rules(theirs, forward_to=["carl@secret.test"], forward_keep=False)
    message = queue.message()
    for target in ("known@elsewhere.test", "carl@secret.test"):
        queue.recipient(message, "shop@demo.test", resolved=target, tenant=tenant, recipient_tenant=tenant)
    seen = list(recipients_seen_by([tenant.pk]))
    assert {one.resolved for one in seen} == {"known@elsewhere.test", ""}
    assert "carl" not in repr(seen)


def test_two_tenants_in_one_shared_domain_see_nothing_of_each_other(shared, tenant, other_tenant):
    world.mailbox("ann@isp.test", tenant)
    world.mailbox("bob@isp.test", other_tenant)
    inbound = queue.message(reverse_path="list@elsewhere.test")
    for address, owner in (("ann@isp.test", tenant), ("bob@isp.test", other_tenant)):
        queue.recipient(inbound, address, tenant=owner, recipient_tenant=owner, next_hop="local")
    for owner, mine, foreign in ((tenant, "ann@isp.test", "bob"), (other_tenant, "bob@isp.test", "ann")):
        (seen,) = recipients_seen_by([owner.pk])
        assert (seen.original, seen.resolved, seen.client_ip, seen.subject) == (mine, mine, "", "")
        assert foreign not in repr(seen)


def test_stranger_sees_nothing(mail):
    assert list(recipients_seen_by([world.tenant("Third").pk])) == []
    assert list(recipients_seen_by([])) == []


def test_log_asks_a_constant_number_of_questions(mail, tenant, django_assert_max_num_queries):
    for at in range(20):
        queue.attempt(queue.waiting(tenant, f"u{at}@elsewhere.test"))
    with django_assert_max_num_queries(12):
        assert len(list(recipients_seen_by([tenant.pk]))) == 23
    assert Attempt.objects.count() == 24


def test_submitter_sees_what_was_charged_to_its_own_alone(mail, tenant, other_tenant):
    charged = [
        {"kind": "tenant", "id": one.pk, "name": one.name, "window": "day", "used": 1, "allowed": 10}
        for one in (tenant, other_tenant)
    ]
    mail.facts = {"charged": charged}
    mail.save(update_fields=["facts"])
    told = [one.facts for one in recipients_seen_by([tenant.pk]) if one.submitted]
    assert told and all(facts == {"charged": charged[:1]} for facts in told)
