"""The rules of mailboxes in a session: who is refused where, and what intake is handed."""

from collections.abc import AsyncIterator, Sequence

import pytest

from mailserver import trace
from panel.rules.addresses import Address
from panel.rules.facts import Delivery, LocalMailbox, MailRules, Resolution, Step, Vacation, Verdict
from tests.support.house import House, house

pytestmark = pytest.mark.once("sqlite")

OFFICE, SHOP = Address("office", "demo.test"), Address("shop", "demo.test")
FAR = Delivery(Address("far", "elsewhere.test"), None)
TO_OFFICE = (
    "From: {author}\r\nTo: office@demo.test\r\nSubject: Hello\r\nMessage-ID: <1@a.test>\r\n{more}\r\nHello.\r\n.\r\n"
)


@pytest.fixture
async def here(tmp_path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        yield made


def rule(here: House, *outside: Delivery, **rules) -> None:
    """Office has these rules; shop none."""
    usual = here.directory.resolve
    box = LocalMailbox(2, "opaque2", 7, OFFICE, None, rules=MailRules(**rules))
    own = (Delivery(OFFICE, box),) if box.rules.keeps else ()

    async def resolve(address: Address) -> Resolution:
        if address.canonical.without_subaddress("+") == OFFICE:
            return Resolution(address, Verdict.HERE, 7, (*own, *outside), steps=(Step(OFFICE, box, outside),))
        return await usual(address)

    here.directory.resolve = resolve


async def send(
    here: House, *recipients: Address, sender: str = "bob@elsewhere.test", author: str = "bob@elsewhere.test",
    more: str = "",
) -> str:
    """The reply to the message by the MX port, or to the first recipient that is refused."""
    wire = await here.mx()
    await wire.say(f"MAIL FROM:<{sender}>")
    for recipient in recipients or (OFFICE,):
        answer = await wire.say(f"RCPT TO:<{recipient}>")
        if not answer.startswith("250"):
            return answer
    await wire.say("DATA")
    await wire.send(TO_OFFICE.format(author=author, more=more).encode())
    return (await wire.reply())[0]


def handed(here: House) -> Sequence[tuple[str, list[str], str]]:
    """Of the one message that intake took: each recipient, where it goes, and why not."""
    (message,) = here.intake.taken
    return [
        (str(each.original), [f"{to.resolved}{'/Junk' if to.junk else ''}" for to in each.deliveries],
         each.refusal.enhanced if each.refusal else "")
        for each in message.recipients
    ]


async def test_a_blocked_envelope_sender_is_refused_at_rcpt(here):
    rule(here, blocked=frozenset({"elsewhere.test"}))
    assert await send(here) == "550 5.7.1 office@demo.test takes no mail from this sender"
    assert here.intake.taken == []


async def test_a_blocked_author_is_refused_at_the_end_for_one_recipient(here):
    rule(here, blocked=frozenset({"spam.test"}))
    assert (await send(here, author="x@spam.test")).startswith("550 5.7.1 office@demo.test")
    assert here.intake.taken == []


async def test_a_blocked_author_is_dropped_for_one_of_several_and_the_others_are_not_told(here):
    rule(here, blocked=frozenset({"spam.test"}), vacation=Vacation("Away."))
    assert (await send(here, OFFICE, SHOP, author="x@spam.test")).startswith("250 ")
    assert handed(here) == [("office@demo.test", [], "5.7.1"), ("shop@demo.test", ["shop@demo.test"], "")]
    assert here.intake.taken[0].answers == ()


async def test_who_logged_in_is_blocked_as_well(here):
    rule(here, blocked=frozenset({"shop@demo.test"}))
    wire = await here.submission("shop@demo.test")
    await wire.say("MAIL FROM:<shop@demo.test>")
    assert (await wire.say("RCPT TO:<office@demo.test>")).startswith("550 5.7.1")


async def test_junk_is_handed_over_for_junk(here):
    rule(here, FAR, junk=True, forwards=True)
    await send(here, more="X-Spam-Flag: YES\r\n")
    assert handed(here) == [("office@demo.test", ["office@demo.test/Junk"], "")]


async def test_a_forward_is_marked_so_that_it_does_not_go_round(here):
    rule(here, FAR, forwards=True, keeps=False)
    await send(here)
    assert handed(here) == [("office@demo.test", ["far@elsewhere.test"], "")]
    (first,) = here.intake.taken
    (mark,) = [line for line in first.prefix.decode().split("\r\n") if line.startswith(trace.FORWARDED)]
    assert "opaque2" not in mark
    here.intake.taken.clear()
    await send(here, more=f"{mark}\r\n")
    assert handed(here) == [("office@demo.test", ["office@demo.test"], "")]
    here.intake.taken.clear()
    await send(here, more=f"{mark[:-1]}?\r\n")
    assert handed(here) == [("office@demo.test", ["far@elsewhere.test"], "")], "a forged mark says nothing"


@pytest.mark.parametrize("author", ["bob at elsewhere", '"x <a@b.test>" <bob@elsewhere.test>', "Bob <>"])
async def test_a_from_that_nobody_understands_hides_nothing_else_of_the_header(here, author):
    rule(here, FAR, forwards=True, keeps=False, junk=True)
    await send(here, author=author)
    (first,) = here.intake.taken
    assert (first.subject, first.message_id, first.header_from) == ("Hello", "<1@a.test>", "")
    (mark,) = [line for line in first.prefix.decode().split("\r\n") if line.startswith(trace.FORWARDED)]
    here.intake.taken.clear()
    await send(here, author=author, more=f"{mark}\r\n")
    assert handed(here) == [("office@demo.test", ["office@demo.test"], "")], "its own forward brought it back"
    here.intake.taken.clear()
    await send(here, author=author, more="X-Spam-Flag: YES\r\n")
    assert handed(here) == [("office@demo.test", ["office@demo.test/Junk"], "")]


async def test_a_line_that_is_no_field_hides_no_mark_above_it(here):
    rule(here, FAR, forwards=True, keeps=False, junk=True)
    await send(here, more="this is no field\r\n")
    (first,) = here.intake.taken
    (mark,) = [line for line in first.prefix.decode().split("\r\n") if line.startswith(trace.FORWARDED)]
    here.intake.taken.clear()
    await send(here, more=f"{mark}\r\nthis is no field\r\n")
    assert handed(here) == [("office@demo.test", ["office@demo.test"], "")]


async def test_mail_without_a_forward_that_leaves_is_not_marked(here):
    rule(here, junk=True)
    await send(here, OFFICE, SHOP)
    assert trace.FORWARDED.encode() not in here.intake.taken[0].prefix


async def test_an_answer_goes_with_the_message(here):
    rule(here, vacation=Vacation("Away.", days=3))
    await send(here, OFFICE, Address("office+x", "demo.test"))
    (message,) = here.intake.taken
    (answer,) = message.answers
    assert (answer.mailbox_id, answer.sender) == (2, "bob@elsewhere.test")
    assert (answer.until - message.received_at).days == 3
    letter = answer.letter
    assert [str(each.original) for each in letter.recipients] == ["bob@elsewhere.test"]
    assert b"In-Reply-To: <1@a.test>\r\n" in letter.body.data


@pytest.mark.parametrize(("sender", "more"), [
    ("", ""), ("bob@elsewhere.test", "Precedence: list\r\n"), ("nobody@demo.test", ""), ("office@demo.test", ""),
])
async def test_who_is_not_to_be_answered_is_not(here, sender, more):
    rule(here, vacation=Vacation("Away."))
    assert (await send(here, sender=sender, more=more)).startswith("250 ")
    assert here.intake.taken[0].answers == ()


async def test_a_database_that_goes_away_costs_the_answer_and_not_the_mail(here):
    rule(here, vacation=Vacation("Away."))
    resolve = here.directory.resolve

    async def only_here(address: Address) -> Resolution:
        here.directory.gone = address.domain != "demo.test"
        return await resolve(address)

    here.directory.resolve = only_here
    assert (await send(here)).startswith("250 ")
    assert here.intake.taken[0].answers == ()
