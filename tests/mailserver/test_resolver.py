"""Where mail goes, asked of a real DNS server."""

import asyncio
import ipaddress
import random

import dns.resolver as dns_library
import pytest

from mailserver.resolver import NullMx, Permanent, Resolver, Temporary, is_inner, is_this_machine
from panel.environment import Listen
from panel.rules import reply
from tests.support.dns import dns_server

pytestmark = pytest.mark.once("sqlite")

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture(scope="module")
def dns():
    with dns_server(
        far_test="""
@ MX 20 second
@ MX 10 first
first A 9.9.9.10
first AAAA 2620:fe::10
second A 9.9.9.20
equal MX 10 first
equal MX 10 second
plain A 9.9.9.30
null MX 0 .
nothing TXT "no mail"
homeless MX 10 nobody
renamed MX 10 other
other CNAME first
inner MX 10 deep
deep A 10.1.2.3
half MX 10 halfway
halfway A 192.168.0.1
halfway A 9.9.9.40
backup MX 10 first
backup MX 20 mx1.here.test.
backup MX 20 second
backup MX 30 third
onlyus MX 10 MX1.here.test.
us MX 10 local
local A 127.0.0.1
unsure MX 10 broken
unsure MX 20 second
broken A 9.9.9.50
unsure2 MX 10 broken
many MX 1 lots
lots A 9.9.9.1
lots A 9.9.9.2
"""
        + "".join(f"crowd MX {n} host{n}\nhost{n} A 9.9.8.{n}\n" for n in range(1, 15)),
    ) as server:
        yield server


def resolver(dns, **options) -> Resolver:
    options.setdefault("is_own_machine", lambda address: address == "127.0.0.1")
    return Resolver(dns.listen, hostname="mx1.here.test", chance=random.Random(7), lifetime_s=2.0, **options)


async def test_hosts_come_in_order_of_preference_with_ipv4_first(dns):
    hosts = await resolver(dns).hops("far.test")
    assert [(host.name, host.addresses) for host in hosts] == [
        ("first.far.test", ("9.9.9.10", "2620:fe::10")), ("second.far.test", ("9.9.9.20",)),
    ]


async def test_equal_preferences_are_tried_in_random_order(dns):
    asked = resolver(dns)
    first = {(await asked.hops("equal.far.test"))[0].name for _ in range(30)}
    assert first == {"first.far.test", "second.far.test"}


async def test_without_mx_the_domain_itself_is_the_mail_server(dns):
    (host,) = await resolver(dns).hops("plain.far.test")
    assert (host.name, host.addresses) == ("plain.far.test", ("9.9.9.30",))


async def test_the_name_behind_a_cname_is_followed(dns):
    (host,) = await resolver(dns).hops("renamed.far.test")
    assert host.addresses == ("9.9.9.10", "2620:fe::10")


@pytest.mark.parametrize(
    ("domain", "kind", "expected"),
    [
        ("null.far.test", NullMx, reply.NULL_MX),
        ("no-such.far.test", Permanent, reply.NO_SUCH_DOMAIN),
        ("nowhere.example", Permanent, reply.NO_SUCH_DOMAIN),
        ("a..b", Permanent, reply.NO_SUCH_DOMAIN),
        ("x" * 64 + ".test", Permanent, reply.NO_SUCH_DOMAIN),
        ("nothing.far.test", Permanent, reply.NO_MAIL_SERVER),
        ("homeless.far.test", Permanent, reply.NO_MAIL_SERVER),
        ("inner.far.test", Permanent, reply.PRIVATE_ADDRESS),
        ("us.far.test", Permanent, reply.ROUTE_LOOPS),
        ("onlyus.far.test", Permanent, reply.ROUTE_LOOPS),
        ("[10.0.0.1]", Permanent, reply.PRIVATE_ADDRESS),
        ("[127.0.0.1]", Permanent, reply.PRIVATE_ADDRESS),
        ("[IPv6:::1]", Permanent, reply.PRIVATE_ADDRESS),
        ("[IPv6:::ffff:127.0.0.1]", Permanent, reply.PRIVATE_ADDRESS),
        ("[word]", Permanent, reply.NO_SUCH_DOMAIN),
    ],
)
async def test_what_can_never_work_is_permanent_and_says_why(dns, domain, kind, expected):
    with pytest.raises(kind) as refused:
        await resolver(dns).hops(domain)
    assert refused.value.reply == expected.about(domain=domain)


async def test_a_server_failure_is_temporary(dns):
    dns.fail("far.test")
    try:
        with pytest.raises(Temporary) as unsure:
            await resolver(dns).hops("far.test")
    finally:
        dns.recover()
    assert unsure.value.reply.enhanced == "4.4.3"


async def test_a_silent_server_is_temporary_within_the_bound(dns):
    dns.be_silent("far.test")
    try:
        asked = Resolver(dns.listen, hostname="mx1.here.test", lifetime_s=0.2)
        async with asyncio.timeout(15):
            with pytest.raises(Temporary):
                await asked.hops("far.test")
    finally:
        dns.recover()


async def test_a_failing_exchange_leaves_the_others_and_alone_is_temporary(dns):
    dns.fail("broken.far.test")
    try:
        asked = resolver(dns)
        assert [host.name for host in await asked.hops("unsure.far.test")] == ["second.far.test"]
        with pytest.raises(Temporary):
            await asked.hops("unsure2.far.test")
    finally:
        dns.recover()


async def test_only_mail_servers_better_than_ourselves_are_tried(dns):
    assert [host.name for host in await resolver(dns).hops("backup.far.test")] == ["first.far.test"]


async def test_an_inner_address_is_left_out_and_the_outer_one_stays(dns):
    (host,) = await resolver(dns).hops("half.far.test")
    assert host.addresses == ("9.9.9.40",)


async def test_an_allowed_network_may_be_reached_but_never_our_own_port(dns):
    allowed = resolver(dns, private_allowed=LOOPBACK, own_listeners=(Listen("127.0.0.1", 2525),), port=2526)
    (host,) = await allowed.hops("us.far.test")
    assert host.addresses == ("127.0.0.1",)
    ours = resolver(dns, private_allowed=LOOPBACK, own_listeners=(Listen("127.0.0.1", 2525),), port=2525)
    for domain in ("us.far.test", "[127.0.0.1]"):
        with pytest.raises(Permanent) as refused:
            await ours.hops(domain)
        assert refused.value.reply.text.endswith("lead back here")


async def test_a_literal_is_its_own_host(dns):
    (host,) = await resolver(dns).hops("[IPv6:2620:fe::fe]")
    assert host.addresses == ("2620:fe::fe",)


async def test_at_most_ten_hosts_are_tried(dns):
    assert len(await resolver(dns).hops("crowd.far.test")) == 10


async def test_the_providers_route_may_lead_to_an_inner_network(dns):
    asked = resolver(dns)
    assert (await asked.route_host("deep.far.test")).addresses == ("10.1.2.3",)
    assert (await asked.route_host("[::1]")).addresses == ("::1",)
    assert "127.0.0.1" in (await asked.route_host("localhost")).addresses


async def test_a_route_that_leads_nowhere_is_temporary(dns):
    with pytest.raises(Temporary):
        await resolver(dns).route_host("no-such.invalid")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "240.0.0.1", "::", "::1", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1",
     "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::1", "::127.0.0.1"],
)
def test_inner_addresses_are_known_in_every_guise(address):
    assert is_inner(address)


@pytest.mark.parametrize("address", ["9.9.9.9", "2620:fe::fe", "64:ff9b::909:909"])
def test_the_internet_is_not_inner(address):
    assert not is_inner(address)


def test_this_machine_knows_itself():
    assert is_this_machine("127.0.0.1")
    assert not is_this_machine("9.9.9.9")


async def test_machine_without_a_resolver_starts_and_its_mail_waits(monkeypatch):
    def missing(*_):
        raise dns_library.NoResolverConfiguration("cannot open /etc/resolv.conf")

    monkeypatch.setattr(dns_library.BaseResolver, "read_resolv_conf", missing)
    made = Resolver(None, hostname="mx1.here.test", lifetime_s=0.2)
    made._dns.port = 1  # whatever answers on this machine's own port 53 is not asked
    with pytest.raises(Temporary):
        await made.hops("far.test")
