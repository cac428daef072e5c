"""Who receives, who may send as whom, and how soon a change is known. On both databases."""

import asyncio
import contextlib
import ipaddress
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone

from mailserver import directory as module
from mailserver.clock import Clock
from mailserver.directory import Directory, DirectoryUnavailable, Use, resolution
from panel.domains.models import Domain
from panel.mailboxes import passwords
from panel.mailboxes.models import Alias, Credential, Mailbox
from panel.rules.addresses import Address, parse_address
from panel.rules.facts import Proof, Resolution, Verdict
from panel.rules.limits import Kind, Window
from panel.rules.status import Status
from panel.sending.models import OutboundRoute
from panel.tenants.models import DirectoryChange, Plan, Tenant
from tests.support import world
from tests.support.database import database_gone
from tests.support.house import house
from tests.support.postgres import Postgres
from tests.support.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

POSTMASTER = "office@demo.test"
HOSTNAME = "mx.posthouse.test"
THREADS = 2


@pytest.fixture(autouse=True)
def _world(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The world is built on the test's own thread; the directory's look-ups have theirs.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    Plan.objects.get_or_create(
        name="Standard",
        defaults={"mailbox_hour": 200, "mailbox_day": 1000, "tenant_hour": 2000, "tenant_day": 10000},
    )
    yield
    connection.close()  # a test may have killed the server


@pytest.fixture(autouse=True)
async def _task_connection() -> AsyncIterator[None]:
    """A test that is a task has a connection of its own, made here and closed at its end."""
    own = connections["default"]
    yield
    own.close()


@pytest.fixture
def demo() -> Tenant:
    """Tenant Demo with demo.test: shop and office, and the domain alias demo.alias."""
    made = world.tenant("Demo")
    domain = world.domain("demo.test", made)
    world.domain_alias("demo.alias", domain)
    world.mailbox("shop@demo.test")
    world.mailbox("office@demo.test")
    return made


@pytest.fixture
def other() -> Tenant:
    made = world.tenant("Other")
    world.domain("other.test", made)
    world.mailbox("anna@other.test")
    return made


def close_connections(executor: ThreadPoolExecutor) -> None:
    barrier = threading.Barrier(THREADS)

    def close() -> None:
        barrier.wait(5)
        connections.close_all()

    for future in [executor.submit(close) for _ in range(THREADS)]:
        future.result()


def make(executor: ThreadPoolExecutor, postmaster: str = POSTMASTER) -> Directory:
    return Directory("+", postmaster, HOSTNAME, executor)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as made:
        yield made
        close_connections(made)


@pytest.fixture
def directory(executor: ThreadPoolExecutor) -> Directory:
    """Asks the database each time: nothing is kept until it follows the changes."""
    return make(executor)


@contextlib.asynccontextmanager
async def following(directory: Directory) -> AsyncIterator[None]:
    task = asyncio.create_task(directory.follow())
    try:
        await until(lambda: directory._is_fresh())
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def followed(directory: Directory) -> AsyncIterator[Directory]:
    async with following(directory):
        yield directory


class Gate:
    """Holds a look-up on its thread, after its queries, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def around(self, look_up: Callable[..., Any]) -> Callable[..., Any]:
        def held(*args: Any, **kwargs: Any) -> Any:
            found = look_up(*args, **kwargs)
            self.reached.set()
            assert self.opened.wait(10)
            return found

        return held


async def resolve(directory: Directory, text: str) -> Resolution:
    return await directory.resolve(parse_address(text))


def places(found: Resolution) -> list[str]:
    return [f"{'' if delivery.mailbox else 'out:'}{delivery.resolved}" for delivery in found.deliveries]


async def login_of(directory: Directory, text: str) -> Any:
    local_part, _, domain = text.partition("@")
    credential = Credential.objects.get(
        kind="main", mailbox__address__local_part=local_part, mailbox__address__domain__name=domain
    )
    return await directory.login(credential.pk)


# Where an address leads


@pytest.mark.parametrize(
    ("asked", "verdict", "where"),
    [
        ("shop@demo.test", Verdict.HERE, ["shop@demo.test"]),
        ("SHOP@Demo.Test", Verdict.HERE, ["shop@demo.test"]),
        ("shop+tag@demo.test", Verdict.HERE, ["shop@demo.test"]),
        ("shop@demo.alias", Verdict.HERE, ["shop@demo.test"]),
        ("shop+tag@demo.alias", Verdict.HERE, ["shop@demo.test"]),
        ("nobody@demo.test", Verdict.UNKNOWN, []),
        ("nobody@demo.alias", Verdict.UNKNOWN, []),
        ("someone@elsewhere.test", Verdict.ELSEWHERE, []),
        ("postmaster@demo.test", Verdict.HERE, ["office@demo.test"]),
        ("abuse@demo.alias", Verdict.HERE, ["office@demo.test"]),
        (f"postmaster@{HOSTNAME}", Verdict.HERE, ["office@demo.test"]),
        (f"shop@{HOSTNAME}", Verdict.ELSEWHERE, []),
    ],
)
async def test_address_leads_to(
    directory: Directory, demo: Tenant, asked: str, verdict: Verdict, where: list[str]
):
    found = await resolve(directory, asked)
    assert (found.verdict, places(found)) == (verdict, where)


async def test_mailbox_tells_what_delivery_needs(directory: Directory, demo: Tenant):
    box = Mailbox.objects.get(address__local_part="shop")
    found = await resolve(directory, "shop+tag@demo.alias")
    assert found.tenant_id == demo.pk
    assert found.domains == {"demo.alias", "demo.test"}
    [delivery] = found.deliveries
    assert delivery.mailbox is not None
    assert (delivery.mailbox.mailbox_id, delivery.mailbox.opaque_id) == (box.pk, box.opaque_id)
    assert delivery.charged == ()


async def test_a_domain_is_stored_as_it_says_else_as_the_installation(executor: ThreadPoolExecutor, demo: Tenant):
    directory = Directory("+", POSTMASTER, HOSTNAME, executor, store="lmtp")
    async with following(directory):
        for store, expected in (("", "lmtp"), ("maildir", "maildir"), ("lmtp", "lmtp")):
            await asyncio.to_thread(set_store, store)
            await until(stored_by(directory, expected))


def set_store(store: str) -> None:
    Domain.objects.filter(name="demo.test").update(store=store)
    world.changed("demo.test")
    connections.close_all()


def stored_by(directory: Directory, expected: str) -> Callable[[], Any]:
    async def asked() -> bool:
        (delivery,) = (await directory.resolve(parse_address("shop@demo.alias"))).deliveries
        assert delivery.mailbox is not None
        return delivery.mailbox.store == expected

    return asked


async def test_exact_address_goes_before_the_subaddress(directory: Directory, demo: Tenant):
    world.mailbox("shop+orders@demo.test")
    assert places(await resolve(directory, "shop+orders@demo.test")) == ["shop+orders@demo.test"]


async def test_bare_postmaster_goes_to_the_setting(directory: Directory, demo: Tenant):
    assert places(await directory.resolve(Address("postmaster", ""))) == ["office@demo.test"]


async def test_bare_postmaster_without_the_setting_is_unknown(executor: ThreadPoolExecutor, demo: Tenant):
    found = await make(executor, postmaster="").resolve(Address("postmaster", ""))
    assert found.verdict is Verdict.UNKNOWN


async def test_postmaster_with_an_address_of_its_own_goes_there(directory: Directory, demo: Tenant):
    world.alias("postmaster@demo.test", "shop@demo.test")
    assert places(await resolve(directory, "postmaster@demo.test")) == ["shop@demo.test"]


async def test_postmaster_goes_before_the_catch_all(directory: Directory, demo: Tenant):
    world.alias("@demo.test", "shop@demo.test")
    assert places(await resolve(directory, "postmaster@demo.test")) == ["office@demo.test"]


async def test_catch_all_takes_what_has_no_address(directory: Directory, demo: Tenant):
    world.alias("@demo.test", "shop@demo.test")
    assert places(await resolve(directory, "nobody@demo.test")) == ["shop@demo.test"]
    assert places(await resolve(directory, "office@demo.test")) == ["office@demo.test"]


async def test_shared_domain_has_no_catch_all(directory: Directory, demo: Tenant):
    world.domain("shared.test")
    world.alias("@shared.test", "shop@demo.test", owner=demo)
    assert (await resolve(directory, "nobody@shared.test")).verdict is Verdict.UNKNOWN


async def test_address_in_a_shared_domain_belongs_to_its_tenant(
    directory: Directory, demo: Tenant, other: Tenant
):
    world.domain("shared.test")
    world.mailbox("one@shared.test", owner=demo)
    world.mailbox("two@shared.test", owner=other)
    assert (await resolve(directory, "one@shared.test")).tenant_id == demo.pk
    assert (await resolve(directory, "two@shared.test")).tenant_id == other.pk


async def test_pending_domain_does_not_exist(directory: Directory, demo: Tenant):
    world.domain("pending.test", demo, proof="pending")
    world.mailbox("shop@pending.test")
    assert (await resolve(directory, "shop@pending.test")).verdict is Verdict.ELSEWHERE
    assert await directory.domain("pending.test") is None


async def test_pending_domain_alias_does_not_exist(directory: Directory, demo: Tenant):
    world.domain_alias("pending.alias", demo.domains.get(), proof="pending")
    assert (await resolve(directory, "shop@pending.alias")).verdict is Verdict.ELSEWHERE


async def test_lapsed_domain_still_receives(directory: Directory, demo: Tenant):
    demo.domains.update(proof="lapsed")
    assert (await resolve(directory, "shop@demo.test")).verdict is Verdict.HERE
    hosted = await directory.domain("demo.alias")
    assert hosted is not None
    assert (hosted.name, hosted.proof) == ("demo.test", Proof.LAPSED)


@pytest.mark.parametrize("closed", ["mailbox", "domain", "tenant", "parent"])
async def test_closed_is_unknown_and_suspended_still_receives(
    directory: Directory, demo: Tenant, closed: str
):
    parent = world.tenant("Reseller")
    Tenant.objects.filter(pk=demo.pk).update(parent=parent)
    rows_of = {
        "mailbox": Mailbox.objects.filter(address__local_part="shop"),
        "domain": demo.domains,
        "tenant": Tenant.objects.filter(pk=demo.pk),
        "parent": Tenant.objects.filter(pk=parent.pk),
    }[closed]
    rows_of.update(status=Status.SUSPENDED)
    assert (await resolve(directory, "shop@demo.test")).verdict is Verdict.HERE
    rows_of.update(status=Status.CLOSED)
    assert (await resolve(directory, "shop@demo.test")).verdict is Verdict.UNKNOWN


# Aliases


async def test_an_expired_alias_is_as_an_address_that_is_not_there_by_the_clock_alone(
    followed: Directory, demo: Tenant, tmp_path: Path
):
    """Nothing tells the directory: what it keeps ends with the alias, nested ones and catch-alls too."""
    world.domain("second.test", demo)
    ends = timezone.now() + timedelta(hours=1)
    aliases = {
        "fair@demo.test": "shop@demo.test", "all@demo.test": "fair@demo.test", "@second.test": "shop@demo.test",
        "abuse@demo.test": "shop@demo.test", "loop@second.test": "pool@second.test",
        "pool@second.test": "loop@second.test",
    }
    made = {name: world.alias(name, target) for name, target in aliases.items()}
    Alias.objects.exclude(pk=made["all@demo.test"].pk).update(expires_at=ends)
    world.alias("@demo.test", "office@demo.test")
    followed._clock = Clock(followed._clock.offset_s)

    async def are(wanted: dict[str, list[str]]) -> None:
        for name, where in wanted.items():
            found = await resolve(followed, name)
            assert places(found) == where and (found.verdict is Verdict.HERE) is bool(where), name

    names = ("fair@demo.test", "fair+x@demo.alias", "all@demo.test", "new@second.test")
    before = {name: ["shop@demo.test"] for name in names}
    async with house(tmp_path) as open_house:
        object.__setattr__(open_house.services, "directory", followed)
        wire = await open_house.mx()
        await wire.say("MAIL FROM:<any@where.test>")
        followed._clock.offset_s += 3590
        await are({**before, "abuse@demo.test": ["shop@demo.test"]})
        assert (await resolve(followed, "loop@second.test")).verdict is Verdict.LOOPS
        assert parse_address("fair@demo.test") in (await login_of(followed, "shop@demo.test")).may_send_as
        assert (await wire.say("RCPT TO:<fair@demo.test>")).startswith("250 2.1.5")
        await wire.say("RSET")
        followed._clock.offset_s += 15
        await are({**{name: [] for name in names}, "loop@second.test": [], "abuse@demo.test": ["office@demo.test"]})
        assert parse_address("fair@demo.test") not in (await login_of(followed, "shop@demo.test")).may_send_as
        assert parse_address("shop@demo.test") in (await login_of(followed, "shop@demo.test")).may_send_as
        await wire.say("MAIL FROM:<any@where.test>")
        world.domain("bare.test", demo)
        said = [await wire.say(f"RCPT TO:<{name}>") for name in ("fair@demo.test", "nobody@bare.test")]
        assert said[0].startswith("550 5.1.1") and said[0].replace("fair@demo", "nobody@bare") == said[1]
    assert Alias.objects.count() == 7, "nothing is deleted"
    Alias.objects.filter(pk=made["fair@demo.test"].pk).update(expires_at=None)
    DirectoryChange.objects.create(domain="demo.test")
    await until(lambda: ("resolve", parse_address("fair@demo.test")) not in followed._cache._entries)
    await are({"fair@demo.test": ["shop@demo.test"], "all@demo.test": ["shop@demo.test"]})


async def test_alias_leads_to_all_its_targets_once(directory: Directory, demo: Tenant, other: Tenant):
    world.alias("team@demo.test", "shop@demo.test", "office@demo.test", "inner@demo.test", "x@elsewhere.test")
    world.alias("inner@demo.test", "office+tag@demo.test", "anna@other.test")
    found = await resolve(directory, "team@demo.test")
    assert found.verdict is Verdict.HERE
    assert sorted(places(found)) == [
        "anna@other.test",
        "office@demo.test",
        "out:x@elsewhere.test",
        "shop@demo.test",
    ]
    assert found.domains == {"demo.test", "other.test", "elsewhere.test"}


async def test_target_outside_is_charged_to_the_alias_s_tenant_and_limited_domain(
    directory: Directory, demo: Tenant
):
    world.limit(demo, hour=7, day=None)
    world.limit(demo.domains.get(), day=5)
    world.alias("away@demo.test", "x@elsewhere.test")
    [delivery] = (await resolve(directory, "away@demo.test")).deliveries
    assert [(subject.kind, subject.name, subject.limits) for subject in delivery.charged] == [
        (Kind.DOMAIN, "demo.test", ((Window.DAY, 5),)),
        (Kind.TENANT, "Demo", ((Window.HOUR, 7),)),
    ]


async def test_nested_alias_of_another_tenant_pays_for_its_own_targets(
    directory: Directory, demo: Tenant, other: Tenant
):
    world.alias("away@demo.test", "away@other.test")
    world.alias("away@other.test", "x@elsewhere.test")
    [delivery] = (await resolve(directory, "away@demo.test")).deliveries
    assert [subject.id for subject in delivery.charged] == [other.pk]


async def test_target_that_does_not_exist_is_left_out(directory: Directory, demo: Tenant):
    world.alias("team@demo.test", "nobody@demo.test", "shop@demo.test")
    assert places(await resolve(directory, "team@demo.test")) == ["shop@demo.test"]


async def test_alias_that_leads_nowhere_is_unknown(directory: Directory, demo: Tenant):
    world.alias("team@demo.test", "nobody@demo.test")
    assert (await resolve(directory, "team@demo.test")).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("target", ["a@demo.test", "b@demo.test", "a+tag@demo.alias"])
async def test_cycle_loops(directory: Directory, demo: Tenant, target: str):
    world.alias("a@demo.test", "b@demo.test", "shop@demo.test")
    world.alias("b@demo.test", target)
    assert (await resolve(directory, "a@demo.test")).verdict is Verdict.LOOPS


async def test_two_ways_to_one_mailbox_are_no_loop(directory: Directory, demo: Tenant):
    world.alias("a@demo.test", "b@demo.test", "c@demo.test")
    world.alias("b@demo.test", "d@demo.test")
    world.alias("c@demo.test", "d@demo.test")
    world.alias("d@demo.test", "shop@demo.test")
    assert places(await resolve(directory, "a@demo.test")) == ["shop@demo.test"]


async def test_nesting_and_width_are_bounded(directory: Directory, demo: Tenant):
    world.alias("a1@demo.test", "shop@demo.test")
    for depth in range(2, resolution.MOST_NESTING + 2):
        world.alias(f"a{depth}@demo.test", f"a{depth - 1}@demo.test")
    assert (await resolve(directory, f"a{resolution.MOST_NESTING}@demo.test")).verdict is Verdict.HERE
    assert (await resolve(directory, f"a{resolution.MOST_NESTING + 1}@demo.test")).verdict is Verdict.LOOPS

    world.alias("all@demo.test", *(f"x{n}@elsewhere.test" for n in range(resolution.MOST_DELIVERIES)))
    world.alias("more@demo.test", *(f"x{n}@elsewhere.test" for n in range(resolution.MOST_DELIVERIES + 1)))
    assert len((await resolve(directory, "all@demo.test")).deliveries) == resolution.MOST_DELIVERIES
    assert (await resolve(directory, "more@demo.test")).verdict is Verdict.LOOPS


def test_look_up_of_an_alias_needs_few_queries(demo: Tenant, django_assert_max_num_queries: Any):
    world.alias(
        "team@demo.test", *(f"x{n}@elsewhere.test" for n in range(50)), "shop@demo.test", "office@demo.test"
    )
    with django_assert_max_num_queries(9):
        resolution.resolve(
            Address("team", "demo.test"), separator="+", postmaster=None, hostname=HOSTNAME, now=timezone.now()
        )


# Logins


async def test_login_carries_rights_and_limits(directory: Directory, demo: Tenant):
    box = Mailbox.objects.get(address__local_part="shop")
    world.limit(box, hour=10, day=None)
    found = await login_of(directory, "shop@demo.test")
    assert (found.name, found.tenant_id) == ("shop@demo.test", demo.pk)
    assert (found.status, found.suspended) == (Status.ACTIVE, "")
    assert found.scopes == {"submission", "imap", "pop3", "sieve"}
    assert found.usable
    assert [(subject.kind, subject.limits) for subject in found.limits] == [
        (Kind.MAILBOX, ((Window.HOUR, 10),)),
        (Kind.TENANT, ((Window.HOUR, 2000), (Window.DAY, 10000))),
    ]


async def test_unlimited_subjects_are_counted_all_the_same(directory: Directory, demo: Tenant):
    Plan.objects.update(mailbox_hour=None, mailbox_day=None, tenant_hour=None, tenant_day=None)
    found = await login_of(directory, "shop@demo.test")
    assert [(subject.kind, subject.limits) for subject in found.limits] == [
        (Kind.MAILBOX, ()),
        (Kind.TENANT, ()),
    ]


async def test_app_password_carries_its_own(directory: Directory, demo: Tenant):
    box = Mailbox.objects.get(address__local_part="shop")
    credential, _ = world.app_password(box, scopes=("imap",), networks=["192.0.2.0/24"])
    world.limit(credential, day=3)
    found = await directory.login(credential.pk)
    assert found is not None
    assert found.credential == 'app password "web shop"'
    assert found.scopes == {"imap"}
    assert found.networks == (ipaddress.ip_network("192.0.2.0/24"),)
    assert found.limits[0].kind is Kind.CREDENTIAL


@pytest.mark.parametrize(
    ("sender", "may"),
    [
        ("shop@demo.test", True),
        ("shop+tag@demo.test", True),
        ("Shop@demo.alias", True),
        ("shop@pending.alias", False),
        ("shop@lapsed.alias", False),
        ("sales@demo.test", True),
        ("sales@second.test", True),
        ("nested@demo.test", False),
        ("sales@lapsed.test", False),
        ("sales@suspended.test", False),
        ("sales@other.test", False),
        ("sales@other.alias", False),
        ("shop@other.alias", False),
        ("shop@nowhere.test", False),
        ("shop@demo.tes", False),
        ("shop@xdemo.test", False),
        ("shop@x.demo.test", False),
        ("anybody@second.test", False),
        ("office@demo.test", False),
    ],
)
async def test_mailbox_may_send_as(directory: Directory, demo: Tenant, other: Tenant, sender: str, may: bool):
    domain = demo.domains.get()
    world.domain_alias("pending.alias", domain, proof="pending")
    world.domain_alias("lapsed.alias", domain, proof="lapsed")
    world.domain_alias("other.alias", other.domains.get())
    world.domain("second.test", demo)
    world.domain("lapsed.test", demo, proof="lapsed")
    world.domain("suspended.test", demo, status=Status.NO_SENDING)
    for name in ("demo.test", "second.test", "lapsed.test", "suspended.test", "other.test"):
        world.alias(f"sales@{name}", "shop@demo.test")
    world.alias("@second.test", "shop@demo.test")
    world.alias("nested@demo.test", "sales@demo.test")
    found = await login_of(directory, "shop@demo.test")
    assert (parse_address(sender) in found.may_send_as) is may


async def test_neighbour_in_a_shared_domain_gives_no_right(directory: Directory, demo: Tenant, other: Tenant):
    world.domain("shared.test")
    world.alias("mine@shared.test", "shop@demo.test", owner=demo)
    world.alias("theirs@shared.test", "shop@demo.test", owner=other)
    rights = (await login_of(directory, "shop@demo.test")).may_send_as
    assert rights.aliases == {Address("mine", "shared.test")}


@pytest.mark.parametrize(
    ("what", "words"), [("mailbox", "shop@demo.test"), ("domain", "demo.test"), ("tenant", "the tenant Demo")]
)
async def test_login_names_what_is_suspended(directory: Directory, demo: Tenant, what: str, words: str):
    Mailbox.objects.filter(address__local_part="shop").update(status=Status.NO_SENDING)
    {
        "mailbox": Mailbox.objects.filter(address__local_part="shop"),
        "domain": demo.domains,
        "tenant": Tenant.objects.filter(pk=demo.pk),
    }[what].update(status=Status.SUSPENDED)
    found = await login_of(directory, "shop@demo.test")
    assert (found.status, found.suspended) == (Status.SUSPENDED, words)


async def test_credential_that_is_gone_is_none(directory: Directory, demo: Tenant):
    assert await directory.login(10**9) is None


async def test_kept_login_of_another_password_is_asked_again(followed: Directory, demo: Tenant):
    credential = Credential.objects.get(mailbox__address__local_part="shop")
    old = passwords.fingerprint(credential.secret)
    assert (await followed.login(credential.pk)).fingerprint == old
    Credential.objects.filter(pk=credential.pk).update(secret="changed")  # and not yet told
    assert (await followed.login(credential.pk, old)).fingerprint == old
    new = passwords.fingerprint("changed")
    assert (await followed.login(credential.pk, new)).fingerprint == new


async def test_login_that_expires_while_kept_is_asked_again(followed: Directory, demo: Tenant):
    box = Mailbox.objects.get(address__local_part="shop")
    credential, _ = world.app_password(box, expires_at=timezone.now() + timedelta(hours=1))
    assert (await followed.login(credential.pk)).usable
    followed._clock.offset_s += 3601
    assert not (await followed.login(credential.pk)).usable


async def test_frozen_credential_is_not_usable(directory: Directory, demo: Tenant):
    Credential.objects.update(frozen_at=timezone.now())
    assert not (await login_of(directory, "shop@demo.test")).usable


async def test_candidates_by_address_and_by_domain_alias(directory: Directory, demo: Tenant):
    box = Mailbox.objects.get(address__local_part="shop")
    app, _ = world.app_password(box)
    found = await directory.candidates("Shop@demo.alias")
    assert found is not None
    assert str(found.address) == "shop@demo.test"
    assert found.main == (box.credentials.get(kind="main").pk, box.credentials.get(kind="main").secret)
    assert found.apps == ((app.pk, app.secret),)
    assert "argon2" not in repr(found)
    for unknown in ("nobody@demo.test", "shop@elsewhere.test", "no address", ""):
        assert await directory.candidates(unknown) is None


async def test_last_use_is_written_and_changes_nothing_that_is_kept(followed: Directory, demo: Tenant):
    credential = Credential.objects.first()
    at = timezone.now()
    await followed.record_use([Use(credential.pk, at, "192.0.2.1")])
    credential.refresh_from_db()
    assert (credential.last_used_at, credential.last_used_ip) == (at, "192.0.2.1")
    assert not DirectoryChange.objects.exists()


# Routes and the queue


async def test_route_of_the_domain_goes_before_the_default(directory: Directory):
    assert await directory.route("elsewhere.test") is None
    OutboundRoute.objects.create(domain="", host="192.0.2.1", port=25)
    OutboundRoute.objects.create(domain="elsewhere.test", host="192.0.2.2", port=26)
    assert (await directory.route("elsewhere.test")).port == 26
    assert (await directory.route("third.test")).port == 25


@pytest.mark.parametrize("what", ["mailbox", "domain", "tenant"])
async def test_queue_waits_while_its_sender_may_not_send(
    directory: Directory, demo: Tenant, other: Tenant, what: str
):
    sender = parse_address("shop+tag@demo.test")
    credential = Credential.objects.get(mailbox__address__local_part="shop")
    assert await directory.may_go(demo.pk, sender)
    {
        "mailbox": Mailbox.objects.filter(address__local_part="shop"),
        "domain": demo.domains,
        "tenant": Tenant.objects.filter(pk=demo.pk),
    }[what].update(status=Status.NO_SENDING)
    assert not await directory.may_go(demo.pk, sender)
    assert not await directory.may_go(demo.pk, parse_address("x@elsewhere.test"), credential.pk)
    assert await directory.may_go(demo.pk, None) is (what != "tenant")
    # Another tenant's alias forwards what came from there: not its suspension.
    assert await directory.may_go(other.pk, sender)
    assert await directory.may_go(None, sender)


async def test_queue_waits_while_the_proof_of_its_senders_domain_has_lapsed(directory: Directory, demo: Tenant):
    sender = parse_address("shop@demo.test")
    demo.domains.update(proof="lapsed")
    assert not await directory.may_go(demo.pk, sender)
    credential = Credential.objects.get(mailbox__address__local_part="shop")
    assert not await directory.may_go(demo.pk, parse_address("x@elsewhere.test"), credential.pk)
    assert await directory.may_go(demo.pk, None), "what is forwarded has no sender here"


# Following the changes


async def test_suspension_is_known_within_a_second(followed: Directory, demo: Tenant):
    credential = Credential.objects.get(mailbox__address__local_part="shop")
    assert (await followed.login(credential.pk)).status is Status.ACTIVE
    version = followed.version
    Mailbox.objects.filter(address__local_part="shop").update(status=Status.SUSPENDED)
    world.changed("demo.test")

    async def known() -> bool:
        return (await followed.login(credential.pk)).status is Status.SUSPENDED

    print(f"known after {await until(known, within_s=5.0):.3f} s (promise: 1 s)")
    assert followed.version > version


async def test_kept_answer_needs_no_database(
    followed: Directory, demo: Tenant, cluster: Postgres | None, monkeypatch: pytest.MonkeyPatch
):
    address = parse_address("shop@demo.test")
    found = await followed.resolve(address)
    await resolve(followed, "first@elsewhere.test")
    monkeypatch.setattr(followed, "_executor", None)
    assert await followed.resolve(address) is found
    assert (await resolve(followed, "second@elsewhere.test")).verdict is Verdict.ELSEWHERE


async def test_change_of_one_domain_leaves_the_others_kept(followed: Directory, demo: Tenant, other: Tenant):
    kept = await resolve(followed, "anna@other.test")
    dropped = await resolve(followed, "shop@demo.test")
    version = followed.version
    world.changed("demo.test")
    await until(lambda: followed.version > version)
    assert await resolve(followed, "anna@other.test") is kept
    assert await resolve(followed, "shop@demo.test") is not dropped
    assert followed.is_current(version, ["other.test"])
    assert not followed.is_current(version, ["other.test", "demo.test"])


async def test_change_of_everything_drops_everything(followed: Directory, demo: Tenant, other: Tenant):
    kept = [await resolve(followed, "anna@other.test"), await followed.domain("elsewhere.test")]
    version = followed.version
    world.changed("")
    await until(lambda: followed.version > version)
    assert await resolve(followed, "anna@other.test") is not kept[0]
    assert not followed.is_current(version, ["third.test"])


async def test_domain_that_comes_later_is_found(followed: Directory, demo: Tenant):
    assert (await resolve(followed, "anna@new.test")).verdict is Verdict.ELSEWHERE
    world.domain("new.test", demo)
    world.mailbox("anna@new.test")
    world.changed("new.test")

    async def found() -> bool:
        return (await resolve(followed, "anna@new.test")).verdict is Verdict.HERE

    await until(found)


async def test_new_alias_in_another_domain_gives_the_right_to_a_kept_login(followed: Directory, demo: Tenant):
    world.domain("second.test", demo)
    assert parse_address("sales@second.test") not in (await login_of(followed, "shop@demo.test")).may_send_as
    world.alias("sales@second.test", "shop@demo.test")
    world.changed("second.test")

    async def may() -> bool:
        return parse_address("sales@second.test") in (await login_of(followed, "shop@demo.test")).may_send_as

    await until(may)


async def test_look_up_begun_before_a_drop_is_not_kept(
    followed: Directory, demo: Tenant, cluster: Postgres | None, monkeypatch: pytest.MonkeyPatch
):
    gate = Gate()
    with monkeypatch.context() as patched:
        patched.setattr(resolution, "resolve", gate.around(resolution.resolve))
        early = asyncio.create_task(resolve(followed, "shop@demo.test"))
        await until(gate.reached.is_set)
    version = followed.version
    Mailbox.objects.filter(address__local_part="shop").update(status=Status.CLOSED)
    world.changed("demo.test")
    await until(lambda: followed.version > version)
    # Who asks after the drop doesn't get the answer of the one before.
    assert (await resolve(followed, "shop@demo.test")).verdict is Verdict.UNKNOWN
    gate.opened.set()
    assert (await early).verdict is Verdict.HERE
    assert (await resolve(followed, "shop@demo.test")).verdict is Verdict.UNKNOWN


async def test_burst_makes_one_look_up(followed: Directory, demo: Tenant, monkeypatch: pytest.MonkeyPatch):
    calls = []
    look_up = resolution.resolve
    monkeypatch.setattr(
        resolution, "resolve", lambda *args, **kwargs: (calls.append(args), look_up(*args, **kwargs))[1]
    )
    found = await asyncio.gather(*(resolve(followed, "shop@demo.test") for _ in range(20)))
    assert len(calls) == 1
    assert {one.verdict for one in found} == {Verdict.HERE}


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one writer: ids appear in order")
async def test_changes_that_become_visible_out_of_order_are_all_noticed(
    followed: Directory, demo: Tenant, other: Tenant
):
    version = followed.version
    slow = connection.copy()
    try:
        with slow.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO tenants_directorychange (at, domain) VALUES (now(), 'demo.test')")
        world.changed("other.test")  # a later id, visible first
        await until(lambda: not followed.is_current(version, ["other.test"]))
        assert followed.is_current(version, ["demo.test"])
        with slow.cursor() as cursor:
            cursor.execute("COMMIT")
        await until(lambda: not followed.is_current(version, ["demo.test"]))
        noticed = followed.version
        polled_at = followed._heard_at_s
        await until(lambda: followed._heard_at_s != polled_at)
        assert followed.version == noticed, "a change was noticed twice"
    finally:
        slow.close()


# The database gone


async def test_lost_database_is_told_and_comes_back(
    followed: Directory, demo: Tenant, cluster: Postgres | None, monkeypatch: pytest.MonkeyPatch
):
    kept = await resolve(followed, "shop@demo.test")
    with database_gone(cluster, monkeypatch):
        with pytest.raises(DirectoryUnavailable):
            await resolve(followed, "office@demo.test")
        with pytest.raises(DirectoryUnavailable):
            await followed.candidates("shop@demo.test")
        with pytest.raises(DirectoryUnavailable):
            await followed.record_use([Use(1, timezone.now(), "192.0.2.1")])
        assert await resolve(followed, "shop@demo.test") is kept
        # Kept answers serve only as long as a change could hardly have been made.
        with monkeypatch.context() as patched:
            patched.setattr(module, "FRESH_S", 0.0)
            with pytest.raises(DirectoryUnavailable):
                await resolve(followed, "shop@demo.test")
    connection.close()
    assert (await resolve(followed, "office@demo.test")).verdict is Verdict.HERE
    Alias.objects.all().delete()
    version = followed.version
    world.changed("demo.test")
    await until(lambda: followed.version > version)
