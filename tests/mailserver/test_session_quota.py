"""Full mailboxes in a session: who is refused when, and who has the message all the same."""

import pytest

from panel.rules.addresses import Address
from panel.rules.facts import Delivery, LocalMailbox, Resolution, Verdict
from tests.support import house as houses
from tests.support.dialogue import Wire
from tests.support.house import House

pytestmark = pytest.mark.once("sqlite")

OFFICE, SHOP = 2, 1
MESSAGE = b"From: bob@elsewhere.test\r\nTo: office@demo.test\r\nSubject: hay\r\n\r\n" + b"hay\r\n" * 100 + b".\r\n"


@pytest.fixture
async def house(tmp_path):
    async with houses.house(tmp_path) as made:
        made.directory.quotas[OFFICE] = 10_000
        made.directory.aliases["all"] = (SHOP, OFFICE)
        made.directory.aliases["just-office"] = (OFFICE,)
        yield made


async def begin(wire: Wire, size: int = 0, sender: str = "bob@elsewhere.test") -> None:
    declared = f" SIZE={size}" if size else ""
    assert (await wire.say(f"MAIL FROM:<{sender}>{declared}")).startswith("250 ")


async def send(wire: Wire, message: bytes = MESSAGE) -> str:
    assert (await wire.say("DATA")).startswith("354 ")
    await wire.send(message)
    return (await wire.reply())[-1]


async def test_full_mailbox_is_refused_at_rcpt_by_every_name(house: House):
    house.usage.used[OFFICE] = 10_000
    wire = await house.mx()
    await begin(wire)
    answer = "452 4.2.2 the mailbox {} is full, try again later"
    for address in ("office@demo.test", "office+tag@demo.test", "just-office@demo.test"):
        assert await wire.say(f"RCPT TO:<{address}>") == answer.format(address)
    assert (await wire.say("RCPT TO:<shop@demo.test>")).startswith("250 ")
    submission = await house.submission()
    await begin(submission, sender="shop@demo.test")
    assert (await submission.say("RCPT TO:<office@demo.test>")).startswith("452 4.2.2 ")


async def test_declared_size_counts(house: House):
    wire = await house.mx()
    await begin(wire, size=10_001)
    assert (await wire.say("RCPT TO:<office@demo.test>")).startswith("552 5.2.3 ")
    assert (await wire.say("RSET")).startswith("250 ")
    house.usage.used[OFFICE] = 5000
    await begin(wire, size=6000)
    assert (await wire.say("RCPT TO:<office@demo.test>")).startswith("452 4.2.2 ")
    assert (await wire.say("RCPT TO:<all@demo.test>")).startswith("250 "), "shop has room"


async def test_by_setting_it_is_refused_for_good(tmp_path):
    async with houses.house(tmp_path, full_refused=True) as house:
        house.directory.quotas[OFFICE] = 10
        house.usage.used[OFFICE] = 10
        wire = await house.mx()
        await begin(wire)
        assert await wire.say("RCPT TO:<office@demo.test>") == "552 5.2.2 the mailbox office@demo.test is full"


async def test_message_that_turns_out_too_large_is_refused_at_its_end(house: House):
    house.usage.used[OFFICE] = 9900
    wire = await house.mx()
    await begin(wire)
    assert (await wire.say("RCPT TO:<office@demo.test>")).startswith("250 ")
    assert (await send(wire)).startswith("452 4.2.2 ")
    assert house.intake.taken == [] and house.usage.used[OFFICE] == 9900
    assert (await wire.say("NOOP")).startswith("250 "), "the session goes on"


async def test_one_full_mailbox_of_several_waits_and_the_others_have_the_message(house: House):
    house.usage.used[OFFICE] = 9900
    wire = await house.mx()
    await begin(wire)
    assert (await wire.say("RCPT TO:<all@demo.test>")).startswith("250 ")
    assert (await send(wire)).startswith("250 ")
    [taken] = house.intake.taken
    assert taken.full == {OFFICE}
    assert house.usage.used[SHOP] > 500 and house.usage.used[OFFICE] == 9900


async def test_room_of_a_message_that_is_not_kept_is_given_back(house: House):
    from panel.rules import reply

    house.intake.answer = reply.DISK_FULL
    wire = await house.mx()
    await begin(wire)
    assert (await wire.say("RCPT TO:<office@demo.test>")).startswith("250 ")
    assert (await send(wire)).startswith("452 4.3.1 ")
    assert house.usage.used[OFFICE] == 0


async def test_what_is_taken_is_the_size_of_the_copy_in_the_mailbox(house: House):
    wire = await house.mx()
    await begin(wire)
    await wire.say("RCPT TO:<office@demo.test>")
    await send(wire)
    [taken] = house.intake.taken
    head = b"Return-Path: <bob@elsewhere.test>\r\nDelivered-To: office@demo.test\r\n"
    assert house.usage.used[OFFICE] == len(head) + len(taken.prefix) + taken.body.size


async def test_a_message_that_comes_to_a_mailbox_twice_takes_room_twice(house: House):
    """By two of the addresses that a catch-all takes, which each have a copy."""
    usual = house.directory.resolve

    async def resolve(address: Address) -> Resolution:
        if not address.local_part.startswith("any"):
            return await usual(address)
        box = LocalMailbox(OFFICE, "opaque2", 7, address, house.directory.quotas[OFFICE])
        return Resolution(address, Verdict.HERE, 7, (Delivery(address, box),))

    house.directory.resolve = resolve
    wire = await house.mx()

    async def to_both() -> str:
        await begin(wire)
        for number in (1, 2):
            assert (await wire.say(f"RCPT TO:<any{number}@demo.test>")).startswith("250 ")
        return await send(wire)

    house.usage.used[OFFICE] = 9000
    assert (await to_both()).startswith("452 4.2.2 "), "one copy would find room"
    house.directory.quotas[OFFICE], house.usage.used[OFFICE] = 1000, 0
    assert (await to_both()).startswith("452 4.2.2 "), "nor is one of them too large"
    house.directory.quotas[OFFICE] = 10_000
    assert (await to_both()).startswith("250 ")
    [taken] = house.intake.taken
    head = b"Return-Path: <bob@elsewhere.test>\r\nDelivered-To: any1@demo.test\r\n"
    assert house.usage.used[OFFICE] == 2 * (len(head) + len(taken.prefix) + taken.body.size)
