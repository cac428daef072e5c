"""Who may log in, send and receive, and who pays."""

import ipaddress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from panel.rules import policy, reply
from panel.rules.addresses import Address
from panel.rules.facts import (
    Delivery,
    LocalMailbox,
    Login,
    Proof,
    Recipients,
    Resolution,
    SenderRights,
    Verdict,
)
from panel.rules.limits import Kind, OverLimit, Subject, Window
from panel.rules.status import Status

NOW = datetime(2026, 11, 24, 14, 0, tzinfo=UTC)
SHOP = Address("shop", "demo.test")
OFFICE = Address("office", "demo.test")
ELSEWHERE = Address("jane", "elsewhere.test")

SHOP_SUBJECT = Subject(Kind.MAILBOX, 11, "shop@demo.test", ((Window.HOUR, 200),), tenant_id=1)
DEMO_SUBJECT = Subject(Kind.TENANT, 1, "Demo", ((Window.HOUR, 2000),), tenant_id=1)
SHARED_SUBJECT = Subject(Kind.DOMAIN, 7, "isp.test", ((Window.HOUR, 9),), tenant_id=None)
OTHER_SUBJECT = Subject(Kind.TENANT, 2, "Other", ((Window.HOUR, 5),), tenant_id=2)

LOGIN = Login(
    credential_id=21,
    credential='app password "web shop"',
    mailbox_id=11,
    address=SHOP,
    tenant_id=1,
    domain="demo.test",
    status=Status.ACTIVE,
    suspended="",
    proof=Proof.PROVED,
    usable=True,
    scopes=frozenset({"submission"}),
    networks=(),
    may_send_as=SenderRights(
        "shop", frozenset({"demo.test", "demo.example"}), frozenset({Address("sales", "b.test")})
    ),
    limits=(SHOP_SUBJECT, DEMO_SUBJECT),
)


def login(**changes):
    return replace(LOGIN, **changes)


# Logging in


def refused_login(who, scope="submission", ip="192.0.2.1"):
    return policy.login_refused(who, scope=scope, ip=ip, now=NOW)


def test_an_active_login_may_log_in():
    assert refused_login(LOGIN) is None


def test_no_sending_may_still_log_in():
    assert refused_login(login(status=Status.NO_SENDING, suspended="demo.test")) is None


@pytest.mark.parametrize("status", [Status.SUSPENDED, Status.CLOSED])
def test_a_suspended_login_is_told_so(status):
    assert refused_login(login(status=status, suspended="demo.test")) == reply.AUTH_SUSPENDED.about(
        login="shop@demo.test"
    )


@pytest.mark.parametrize("status", Status)
def test_a_frozen_credential_reads_like_a_wrong_password(status):
    assert refused_login(login(usable=False, status=status)) is reply.AUTH_FAILED


def test_a_credential_expires_at_its_moment():
    assert refused_login(login(expires_at=NOW + timedelta(seconds=1))) is None
    assert refused_login(login(expires_at=NOW)) is reply.AUTH_FAILED


def test_a_password_for_reading_is_not_for_sending():
    assert refused_login(login(scopes=frozenset({"imap"}))) is reply.AUTH_NOT_FOR_SENDING
    assert refused_login(login(scopes=frozenset({"imap"})), scope="imap") is None


@pytest.mark.parametrize(
    ("ip", "allowed"),
    [
        ("192.0.2.77", True),
        ("::ffff:192.0.2.77", True),
        ("2001:db8::5", True),
        ("198.51.100.1", False),
        ("::ffff:198.51.100.1", False),
        ("2001:db9::5", False),
        ("", False),
        ("unix", False),
    ],
)
def test_a_login_bound_to_networks_is_taken_from_there_only(ip, allowed):
    networks = (ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32"))
    assert refused_login(login(networks=networks), ip=ip) == (None if allowed else reply.AUTH_FAILED)


def test_a_login_ends_when_its_password_is_changed_or_bound_to_other_networks():
    ended = partial(policy.login_ended, LOGIN, ip="192.0.2.1")
    assert not ended(LOGIN)
    assert not ended(login(networks=(ipaddress.ip_network("192.0.2.0/24"),)))
    assert ended(login(networks=(ipaddress.ip_network("198.51.100.0/24"),)))
    assert ended(login(fingerprint="another"))


def test_a_thief_elsewhere_is_not_told_that_the_mailbox_is_suspended():
    who = login(networks=(ipaddress.ip_network("192.0.2.0/24"),), status=Status.SUSPENDED, suspended="x")
    assert refused_login(who, ip="198.51.100.1") is reply.AUTH_FAILED


# Senders


@pytest.mark.parametrize(
    "sender",
    [SHOP, Address("Shop", "demo.test"), Address("shop+spring", "demo.test"), Address("shop", "demo.example"),
     Address("sales", "b.test")],
    ids=str,
)  # fmt: skip
def test_a_mailbox_sends_as_its_own_addresses(sender):
    assert policy.sender_refused(LOGIN, sender, []) is None
    assert policy.sender_refused(LOGIN, SHOP, [sender]) is None


@pytest.mark.parametrize(
    "sender",
    [OFFICE, ELSEWHERE, Address("shop", "other.test"), Address("shopping", "demo.test"),
     Address("sales+x", "b.test"), Address("+shop", "demo.test")],
    ids=str,
)  # fmt: skip
def test_a_mailbox_sends_as_nobody_else(sender):
    expected = reply.SENDER_NOT_YOURS.about(login="shop@demo.test", sender=sender)
    assert policy.sender_refused(LOGIN, sender, []) == expected
    assert policy.sender_refused(LOGIN, SHOP, [SHOP, sender]) == expected


def test_under_the_null_path_the_authors_are_still_checked():
    assert policy.sender_refused(LOGIN, None, [SHOP]) is None
    assert policy.sender_refused(LOGIN, None, [OFFICE]).enhanced == "5.7.1"


@pytest.mark.parametrize("status", [Status.NO_SENDING, Status.SUSPENDED])
@pytest.mark.parametrize("reverse_path", [SHOP, None])
def test_suspended_mailbox_is_refused_at_mail(status, reverse_path):
    refused = policy.sender_refused(login(status=status, suspended="the tenant Demo"), reverse_path, [])
    assert str(refused) == "550 5.7.1 sending is suspended for the tenant Demo"


def test_closed_mailbox_is_refused_at_mail():
    refused = policy.sender_refused(login(status=Status.CLOSED, suspended="demo.test"), SHOP, [])
    assert str(refused) == "550 5.7.1 demo.test is closed"


@pytest.mark.parametrize("change", [{"usable": False}, {"scopes": frozenset({"imap"})}], ids=str)
def test_a_credential_frozen_in_the_session_sends_no_more(change):
    refused = policy.sender_refused(login(**change), SHOP, [])
    assert refused == reply.CREDENTIAL_STOPPED.about(credential='app password "web shop"')


@pytest.mark.parametrize(
    ("proof", "refused"),
    [(Proof.PENDING, reply.SENDER_DOMAIN_PENDING), (Proof.LAPSED, reply.SENDER_DOMAIN_LAPSED)],
)
def test_nobody_sends_as_a_domain_that_is_not_proved(proof, refused):
    assert policy.sender_refused(login(proof=proof), SHOP, []) == refused.about(domain="demo.test")
    assert policy.sender_refused(login(proof=proof), None, []) == refused.about(domain="demo.test")


# Recipients


def here(address=OFFICE, tenant_id=1, deliveries=()):
    return Resolution(address, Verdict.HERE, tenant_id, deliveries or (inside(address, tenant_id),))


def inside(address=OFFICE, tenant_id=1):
    return Delivery(address, LocalMailbox(12, "ab" * 16, tenant_id, address, None))


def outside(*charged, local_part="jane"):
    return Delivery(Address(local_part, "elsewhere.test"), None, charged)


def elsewhere():
    return Resolution(ELSEWHERE, Verdict.ELSEWHERE, None, (Delivery(ELSEWHERE, None),))


def refused_recipient(resolution, who=None, so_far=(), most=100):
    recipients = Recipients()
    for earlier in so_far:
        recipients = recipients.plus(earlier)
    return policy.recipient_refused(resolution, login=who, so_far=recipients, most=most)


@pytest.mark.parametrize("who", [None, LOGIN], ids=["mx", "submission"])
def test_a_mailbox_here_is_taken(who):
    assert refused_recipient(here(), who) is None


@pytest.mark.parametrize("who", [None, LOGIN], ids=["mx", "submission"])
def test_an_unknown_recipient_here_is_refused_in_the_session(who):
    assert refused_recipient(Resolution(OFFICE, Verdict.UNKNOWN, 1), who) == reply.NO_SUCH_MAILBOX.about(
        address="office@demo.test"
    )


@pytest.mark.parametrize("who", [None, LOGIN], ids=["mx", "submission"])
def test_an_alias_that_leads_back_to_itself_is_refused(who):
    assert refused_recipient(Resolution(OFFICE, Verdict.LOOPS, 1), who).enhanced == "5.4.6"


def test_only_a_login_sends_elsewhere():
    assert refused_recipient(elsewhere(), LOGIN) is None
    assert refused_recipient(elsewhere()) == reply.NO_RELAY.about(address="jane@elsewhere.test")


def test_too_many_recipients_are_for_another_message():
    assert refused_recipient(here(), LOGIN, [here(), here()], most=3) is None
    assert refused_recipient(here(), LOGIN, [here(), here(), here()], most=3) is reply.TOO_MANY_RECIPIENTS


def test_what_can_never_be_taken_is_said_also_of_one_too_many():
    assert refused_recipient(elsewhere(), None, [here()], most=1).code == 550


FORWARD = here(Address("fwd", "demo.test"), 1, (outside(DEMO_SUBJECT),))


def test_on_mx_a_forward_shares_a_transaction_with_its_own_tenant_only():
    others = here(Address("x", "other.test"), 2)
    alone = reply.ALONE_PLEASE.about(address="fwd@demo.test")
    assert refused_recipient(FORWARD, None, [here(), here(SHOP)]) is None
    assert refused_recipient(FORWARD, None, [FORWARD]) is None
    assert refused_recipient(here(), None, [FORWARD]) is None
    assert refused_recipient(FORWARD, None, [others]) == alone
    assert refused_recipient(FORWARD, None, [here(), others]) == alone
    assert refused_recipient(others, None, [FORWARD]) == reply.ALONE_PLEASE.about(address="x@other.test")


def test_a_forward_that_costs_nobody_shares_with_all():
    postmaster = here(Address("postmaster", "demo.test"), None, (outside(),))
    assert refused_recipient(postmaster, None, [here(Address("x", "other.test"), 2)]) is None


def test_tenants_without_forwards_share_a_transaction():
    assert refused_recipient(here(), None, [here(Address("x", "other.test"), 2)]) is None


def test_a_submitter_reaches_any_recipients_at_once():
    assert refused_recipient(FORWARD, LOGIN, [here(Address("x", "other.test"), 2), elsewhere()]) is None


# Headers


def test_a_submitter_writes_exactly_one_from():
    def refused(count, who):
        return policy.message_refused(from_count=count, received_count=1, most_hops=50, login=who)

    assert refused(1, LOGIN) is None
    assert refused(0, LOGIN) == reply.FROM_MISSING.about(count=0)
    assert refused(2, LOGIN) == reply.FROM_MISSING.about(count=2)
    assert refused(0, None) is refused(2, None) is None


@pytest.mark.parametrize("who", [None, LOGIN], ids=["mx", "submission"])
def test_a_message_that_goes_round_is_stopped(who):
    assert policy.message_refused(from_count=1, received_count=50, most_hops=50, login=who) is None
    refused = policy.message_refused(from_count=1, received_count=51, most_hops=50, login=who)
    assert refused == reply.TOO_MANY_HOPS.about(count=51)


# Who pays


def test_each_accepted_recipient_is_charged_to_the_submitters_subjects():
    assert policy.charges(LOGIN, [here(), elsewhere(), here(SHOP)]) == ((SHOP_SUBJECT, 3), (DEMO_SUBJECT, 3))


def test_an_alias_to_mailboxes_here_costs_one():
    alias = here(deliveries=(inside(), inside(SHOP)))
    assert policy.charges(LOGIN, [alias]) == ((SHOP_SUBJECT, 1), (DEMO_SUBJECT, 1))


def test_the_submitter_pays_for_what_an_alias_of_its_own_tenant_leads_to():
    alias = here(deliveries=(inside(), outside(DEMO_SUBJECT), outside(DEMO_SUBJECT, local_part="john")))
    assert policy.charges(LOGIN, [alias]) == ((SHOP_SUBJECT, 3), (DEMO_SUBJECT, 3))


def test_another_tenant_pays_for_what_its_alias_leads_to():
    alias = here(Address("x", "isp.test"), 2, (outside(SHARED_SUBJECT, OTHER_SUBJECT),) * 2)
    assert policy.charges(LOGIN, [alias]) == (
        (SHOP_SUBJECT, 1), (SHARED_SUBJECT, 2), (DEMO_SUBJECT, 1), (OTHER_SUBJECT, 2),
    )  # fmt: skip


def test_own_alias_through_another_tenants_alias_is_paid_by_the_one_that_leads_outside():
    alias = here(Address("both", "demo.test"), 1, (outside(OTHER_SUBJECT),))
    assert policy.charges(LOGIN, [alias]) == ((SHOP_SUBJECT, 1), (DEMO_SUBJECT, 1), (OTHER_SUBJECT, 1))


def test_mail_from_outside_is_charged_only_where_it_leaves_again():
    assert policy.charges(None, [here(), here(SHOP)]) == ()
    assert policy.charges(None, [FORWARD, here(), FORWARD]) == ((DEMO_SUBJECT, 2),)


# Over the limit


def over(subject=SHOP_SUBJECT, asked=1, allowed=200, free_in=timedelta(minutes=35), window=Window.HOUR):
    at_s = int(NOW.timestamp())
    return OverLimit(subject, window, allowed, asked, at_s + int(free_in.total_seconds()), at_s)


def test_the_submitter_is_told_which_limit_and_when_it_is_free():
    assert str(policy.over_limit(over(), LOGIN)) == (
        "450 4.7.1 mailbox shop@demo.test: limit of 200 recipients in 1 hour reached, "
        "enough is free again at 14:35 UTC"
    )


def test_a_time_that_is_not_today_has_its_date():
    refused = policy.over_limit(over(DEMO_SUBJECT, window=Window.DAY, free_in=timedelta(hours=13)), LOGIN)
    assert refused.text == (
        "tenant Demo: limit of 200 recipients in 24 hours reached, "
        "enough is free again at 2026-11-25 03:00 UTC"
    )


def test_a_credential_s_limit_is_named_by_its_words():
    subject = Subject(Kind.CREDENTIAL, 21, 'app password "web shop"', ((Window.HOUR, 3),), tenant_id=1)
    refused = policy.over_limit(over(subject, allowed=3), login(limits=(subject, *LOGIN.limits)))
    assert refused.text.startswith('app password "web shop": limit of 3 recipients in 1 hour reached')


def test_a_message_larger_than_its_limit_is_refused_for_good():
    refused = policy.over_limit(over(asked=201), LOGIN)
    assert str(refused) == (
        "550 5.7.1 mailbox shop@demo.test: this message counts 201, the limit is 200 recipients in 1 hour; "
        "send to fewer at once"
    )


def test_a_limit_of_none_says_that_nothing_can_be_sent():
    refused = policy.over_limit(over(allowed=0), LOGIN)
    assert str(refused) == (
        "550 5.7.1 mailbox shop@demo.test: the limit is 0 recipients in 1 hour, nothing can be sent"
    )


@pytest.mark.parametrize("asked", [1, 500])
@pytest.mark.parametrize("who", [None, LOGIN], ids=["mx", "submission"])
def test_of_another_tenants_limit_nothing_is_told(who, asked):
    refused = policy.over_limit(over(OTHER_SUBJECT, asked=asked, allowed=37), who)
    assert str(refused) == "450 4.2.1 a recipient can't take more mail just now, try again later"


def test_of_a_shared_domains_limit_no_number_is_told():
    who = login(limits=(*LOGIN.limits, SHARED_SUBJECT))
    refused = policy.over_limit(over(SHARED_SUBJECT, allowed=9), who)
    assert refused is reply.SENDING_BUSY


# The queue


@pytest.mark.parametrize("status", Status)
def test_the_queue_goes_for_active_senders_only(status):
    assert policy.may_go(status, Proof.PROVED) is (status is Status.ACTIVE)
    assert policy.may_go(status, None) is (status is Status.ACTIVE)


@pytest.mark.parametrize("proof", [Proof.PENDING, Proof.LAPSED])
def test_the_queue_waits_for_a_proof(proof):
    assert not policy.may_go(Status.ACTIVE, proof)
