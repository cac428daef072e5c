"""Sessions on real sockets: order, replies, limits, and what a message becomes."""

import asyncio
import dataclasses
import random
import re

import pytest

from mailserver import connection
from mailserver import session as module
from mailserver.envelope import Listener
from panel.rules import reply
from panel.rules.addresses import Address
from tests.support import house as houses
from tests.support.dialogue import Wire
from tests.support.house import House

pytestmark = pytest.mark.once("sqlite")

MESSAGE = b"From: shop@demo.test\r\nTo: office@demo.test\r\nSubject: hay\r\n\r\ntwo bales\r\n"


@pytest.fixture
async def house(tmp_path):
    async with houses.house(tmp_path) as made:
        yield made


async def submit(wire: Wire, message: bytes, *recipients: str, sender: str = "shop@demo.test") -> str:
    """MAIL, RCPT, DATA, the message; the last reply."""
    assert (await wire.say(f"MAIL FROM:<{sender}>")).startswith("250 ")
    for recipient in recipients or ("office@demo.test",):
        assert (await wire.say(f"RCPT TO:<{recipient}>")).startswith("250 ")
    assert (await wire.say("DATA")).startswith("354 ")
    await wire.send(message + b".\r\n")
    return (await wire.reply())[-1]


# A message


async def test_submitted_message_reaches_intake_unchanged(house: House):
    wire = await house.submission()
    answer = await submit(wire, MESSAGE)
    [taken] = house.intake.taken
    assert answer.startswith("250 2.0.0 queued as ")
    assert taken.body.data == MESSAGE
    assert taken.body.size == len(MESSAGE)
    assert taken.direction == "submission"
    assert taken.login is house.directory.logins[1]
    assert str(taken.reverse_path) == "shop@demo.test"
    assert [str(each.original) for each in taken.recipients] == ["office@demo.test"]
    assert taken.recipients[0].deliveries[0].mailbox.mailbox_id == 2
    assert (taken.subject, taken.header_from) == ("hay", "shop@demo.test")
    assert taken.client.ip == "127.0.0.1" and taken.client.tls.startswith("TLSv1.3 ")


async def test_submission_adds_received_date_and_message_id(house: House):
    await submit(await house.submission(), MESSAGE)
    [taken] = house.intake.taken
    names = [line.partition(b":")[0] for line in taken.prefix.split(b"\r\n") if line[:1] not in (b"\t", b"")]
    assert names == [b"Received", b"Date", b"Message-ID"]
    assert b"with ESMTPSA" in taken.prefix
    assert b"127.0.0.1" not in taken.prefix, "where the sender was is not the recipient's business"
    assert b"shop" not in taken.prefix
    assert taken.message_id.endswith("@demo.test>")


async def test_submission_never_changes_date_and_message_id(house: House):
    message = b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <own@demo.test>\r\n" + MESSAGE
    await submit(await house.submission(), message)
    [taken] = house.intake.taken
    assert taken.prefix.count(b"\r\n") == taken.prefix.count(b"\r\n\t") + 1
    assert taken.message_id == "<own@demo.test>"


async def test_mx_adds_only_received(house: House):
    answer = await submit(await house.mx(), b"Subject: x\r\n\r\nhello\r\n", sender="any@where.test")
    [taken] = house.intake.taken
    assert answer.startswith("250 2.0.0 ")
    assert taken.direction == "inbound" and taken.login is None
    first = b"Received: from peer.example ([127.0.0.1])\r\n\tby mx.posthouse.test with ESMTP\r\n"
    assert taken.prefix.startswith(first)
    assert b"for <office@demo.test>" in taken.prefix
    assert b"Date:" not in taken.prefix


async def test_mx_takes_a_message_without_any_header(house: House):
    await submit(await house.mx(), b" just text\r\n", sender="any@where.test")
    [taken] = house.intake.taken
    assert taken.prefix.endswith(b"\r\n\r\n")
    assert taken.body.data == b" just text\r\n"


async def test_several_recipients_are_not_named_in_received(house: House):
    await submit(await house.submission(), MESSAGE, "office@demo.test", "far@else.test")
    [taken] = house.intake.taken
    assert b"for <" not in taken.prefix
    assert taken.recipients[1].deliveries[0].mailbox is None


async def test_dsn_parameters_are_kept_as_they_came(house: House):
    await house.talk("""
        tls S: 220 *
        tls C: ehlo Client.example
        tls S: 250-*
        tls C: auth plain {plain shop}
        tls S: 235 *
        tls C: mail from:<shop@demo.test> size=100 body=8bitmime smtputf8 ret=hdrs envid=QQ+2B314 AUTH=<>
        tls S: 250 2.1.0 *
        tls C: rcpt to:<Far@else.test> notify=success,Delay orcpt=rfc822;Far@else.test
        tls S: 250 2.1.5 *
        tls C: data
        tls S: 354 *
        tls C: From: shop@demo.test\\r\\n\\r\\nx\\r\\n.
        tls S: 250 2.0.0 *
        """)
    [taken] = house.intake.taken
    assert (taken.envid, taken.ret, taken.body_type, taken.smtputf8) == ("QQ+2B314", "HDRS", "8BITMIME", True)
    [recipient] = taken.recipients
    assert (recipient.notify, recipient.orcpt) == ("SUCCESS,DELAY", "rfc822;Far@else.test")
    assert recipient.original == Address("Far", "else.test")
    assert b"with UTF8SMTPSA" in taken.prefix


async def test_a_recipient_given_twice_is_accepted_once(house: House):
    await submit(await house.submission(), MESSAGE, "office@demo.test", "OFFICE@demo.test")
    assert len(house.intake.taken[0].recipients) == 1


async def test_upper_and_lower_case_elsewhere_are_two_recipients(house: House):
    await submit(await house.submission(), MESSAGE, "Far@else.test", "far@ELSE.test", "Far@else.test")
    assert [str(each.original) for each in house.intake.taken[0].recipients] == ["Far@else.test", "far@else.test"]


async def test_two_messages_on_one_connection(house: House):
    wire = await house.submission()
    await submit(wire, MESSAGE)
    assert (await submit(wire, MESSAGE)).startswith("250 ")
    assert len({taken.id for taken in house.intake.taken}) == 2


async def test_large_body_goes_to_a_file(house: House):
    body = MESSAGE + b"x" * 70 + b"\r\n" + (b"y" * 998 + b"\r\n") * 200
    await submit(await house.submission(), body)
    [taken] = house.intake.taken
    assert taken.body.data is None
    assert taken.body.path.read_bytes() == body
    assert house.content.files == [taken.body.path]


async def test_refusal_by_intake_is_the_reply(house: House):
    house.intake.answer = reply.DISK_FULL
    wire = await house.submission()
    assert (await submit(wire, MESSAGE)).startswith("452 4.3.1 ")
    house.intake.answer = None
    assert (await submit(wire, MESSAGE)).startswith("250 ")


async def test_message_is_taken_though_its_sender_vanished(house: House):
    house.intake.gate.clear()
    wire = await house.submission()
    for line in ("MAIL FROM:<shop@demo.test>", "RCPT TO:<office@demo.test>", "DATA"):
        await wire.say(line)
    await wire.send(MESSAGE + b".\r\n")
    await house.until(lambda: house.intake.waiting)
    wire.writer.transport.abort()
    house.intake.gate.set()
    await house.until(lambda: house.intake.taken)
    await house.until(lambda: not house.services.sessions)


async def test_connection_lost_in_data_leaves_nothing(house: House):
    wire = await house.submission()
    for line in ("MAIL FROM:<shop@demo.test>", "RCPT TO:<office@demo.test>", "DATA"):
        await wire.say(line)
    await wire.send(MESSAGE + b"x" * 100 + b"\r\n" + (b"y" * 998 + b"\r\n") * 200)
    await house.until(lambda: house.content.files)
    wire.writer.transport.abort()
    await house.until(lambda: not house.services.sessions)
    assert not house.intake.taken and not house.content.files


# Order


async def test_verbs_out_of_order(house: House):
    await house.talk("""
        mx S: 220 mx.posthouse.test ESMTP *
        mx C: MAIL FROM:<a@b.test>
        mx S: 503 5.5.1 *
        mx C: RCPT TO:<office@demo.test>
        mx S: 503 5.5.1 *
        mx C: DATA
        mx S: 503 5.5.1 *
        mx C: HELO peer
        mx S: 250 mx.posthouse.test
        mx C: MAIL FROM:<>
        mx S: 250 2.1.0 *
        mx C: MAIL FROM:<a@b.test>
        mx S: 503 5.5.1 *
        mx C: DATA
        mx S: 554 5.5.1 *
        mx C: RSET
        mx S: 250 2.0.0 *
        mx C: RCPT TO:<office@demo.test>
        mx S: 503 5.5.1 *
        mx C: MAIL FROM:<a@b.test>
        mx S: 250 *
        mx C: EHLO peer
        mx S: 250-*
        mx C: RCPT TO:<office@demo.test>
        mx S: 503 5.5.1 *
        mx C: QUIT
        mx S: 221 2.0.0 *
        mx closed
        """)


async def test_submission_needs_tls_then_login(house: House):
    await house.talk("""
        shop S: 220 *
        shop C: EHLO x
        shop S: 250-*
        shop C: MAIL FROM:<shop@demo.test>
        shop S: 530 5.7.0 *STARTTLS*
        shop C: AUTH PLAIN {plain shop}
        shop S: 538 5.7.11 *
        shop C: STARTTLS
        shop S: 220 2.0.0 *
        shop TLS
        shop C: MAIL FROM:<shop@demo.test>
        shop S: 503 5.5.1 *
        shop C: EHLO x
        shop S: 250-*
        shop C: MAIL FROM:<shop@demo.test>
        shop S: 530 5.7.0 *log in*
        shop C: AUTH PLAIN {plain shop}
        shop S: 235 2.7.0 *
        shop C: MAIL FROM:<shop@demo.test>
        shop S: 250 2.1.0 *
        """)
    assert len(house.auth.asked) == 1


async def test_ehlo_offers_what_is_complete(house: House):
    always = ["PIPELINING", "SIZE 1048576", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "LIMITS RCPTMAX=1000"]
    for kind, more in (
        (Listener.MX, ["STARTTLS"]), (Listener.SUBMISSION, ["STARTTLS"]), (Listener.SUBMISSIONS, ["AUTH PLAIN LOGIN"])
    ):
        wire = await Wire.open(house.ports[kind], house.client_tls if kind is Listener.SUBMISSIONS else None)
        await wire.reply()
        await wire.send(b"EHLO x\r\n")
        assert [line[4:] for line in (await wire.reply())[1:]] == always + more
        wire.close()


async def test_small_verbs(house: House):
    await house.talk("""
        mx S: 220 *
        mx C: NOOP anything
        mx S: 250 2.0.0 *
        mx C: HELP
        mx S: 214 2.0.0 *
        mx C: VRFY office
        mx S: 252 2.1.5 *
        mx C: EXPN list
        mx S: 502 5.5.1 *
        mx C: BDAT 3 LAST
        mx S: 500 5.5.1 *
        mx C: AUTH PLAIN AAAA
        mx S: 502 5.7.0 *
        mx C:
        mx S: 500 5.5.1 *
        mx C: EHLO
        mx S: 501 5.5.4 *
        mx C: EHLO two names
        mx S: 501 5.5.4 *
        mx C: RSET now
        mx S: 501 5.5.4 *
        mx C: QUIT now
        mx S: 501 5.5.4 *
        mx C: quit
        mx S: 221 2.0.0 *
        """)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("MAIL", "501 5.5.4"), ("MAIL FROM", "501 5.5.4"), ("MAIL FROM:a@b.test", "501 5.1.7"),
        ("MAIL FROM:<a b@c.test>", "501 5.1.7"), ("MAIL FROM:<a@b", "501 5.1.7"), ("MAIL FROM:<a@-b>", "501 5.1.7"),
        ("MAIL FROM:<é@b.test>", "553 5.6.7"), ("MAIL FROM:<a@b.test>SIZE=1", "501 5.1.7"),
        ("MAIL FROM:<a@b.test> SIZE=1048577", "552 5.3.4"), ("MAIL FROM:<a@b.test> SIZE=x", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> SIZE=-1", "501 5.5.4"), ("MAIL FROM:<a@b.test> SIZE=1 SIZE=1", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> BODY=BINARYMIME", "501 5.5.4"), ("MAIL FROM:<a@b.test> X-Y=1", "555 5.5.4"),
        ("MAIL FROM:<a@b.test> RET=ALL", "501 5.5.4"), ("MAIL FROM:<a@b.test> ENVID=+2", "501 5.5.4"),
        ("MAIL FROM:<a@b.test> NOTIFY=NEVER", "555 5.5.4"), ("MAIL FROM:<a@b.test> SMTPUTF8=1", "501 5.5.4"),
    ],
)  # fmt: skip
async def test_bad_mail_is_refused_and_the_session_goes_on(house: House, command: str, expected: str):
    wire = await house.mx()
    assert (await wire.say(command)).startswith(expected)
    assert (await wire.say("MAIL FROM:<é@b.test> SMTPUTF8")).startswith("250 2.1.0")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("RCPT", "501 5.5.4"), ("RCPT TO:<>", "501 5.1.3"), ("RCPT TO:office@demo.test", "501 5.1.3"),
        ("RCPT TO:<é@demo.test>", "553 5.6.7"), ("RCPT TO:<nobody@demo.test>", "550 5.1.1"),
        ("RCPT TO:<far@else.test>", "550 5.7.1"), ("RCPT TO:<office@demo.test> SIZE=1", "555 5.5.4"),
        ("RCPT TO:<office@demo.test> NOTIFY=NEVER,DELAY", "501 5.5.4"),
        ("RCPT TO:<office@demo.test> NOTIFY=", "501 5.5.4"), ("RCPT TO:<office@demo.test> ORCPT=a@b", "501 5.5.4"),
        ("RCPT TO:<far%else.test@demo.test>", "550 5.1.1"), ("RCPT TO:<@demo.test:far@else.test>", "550 5.7.1"),
    ],
)  # fmt: skip
async def test_bad_recipient_is_refused_and_the_session_goes_on(house: House, command: str, expected: str):
    wire = await house.mx()
    await wire.say("MAIL FROM:<>")
    assert (await wire.say(command)).startswith(expected)
    assert (await wire.say("RCPT TO:<postmaster>")).startswith("250 2.1.5")


async def test_recipients_are_bounded(tmp_path):
    async with houses.house(tmp_path, recipients=2) as house:
        wire = await house.submission()
        await wire.say("MAIL FROM:<>")
        for name in "ab":
            assert (await wire.say(f"RCPT TO:<{name}@else.test>")).startswith("250 ")
        for name in range(30):
            assert (await wire.say(f"RCPT TO:<{name}@else.test>")).startswith("452 4.5.3")
        assert (await wire.say("DATA")).startswith("354 ")


# Pipelining


async def test_pipelined_replies_come_in_order_and_together(house: House):
    wire = await house.mx()
    await wire.send(
        b"MAIL FROM:<a@b.test>\r\nRCPT TO:<nobody@demo.test>\r\nRCPT TO:<office@demo.test>\r\nNOOP\r\nDATA\r\n"
    )
    codes = [(await wire.reply())[0][:3] for _ in range(5)]
    assert codes == ["250", "550", "250", "250", "354"]
    await wire.send(b"\r\nhello\r\n.\r\nMAIL FROM:<c@b.test>\r\nQUIT\r\n")
    assert [(await wire.reply())[0][:3] for _ in range(3)] == ["250", "250", "221"]
    assert await wire.is_closed()
    assert house.intake.taken[0].body.data == b"\r\nhello\r\n"


async def test_commands_may_come_byte_by_byte(house: House):
    wire = await house.mx()
    for byte in b"MAIL FROM:<a@b.test>\r\nRCPT TO:<office@demo.test>\r\nDATA\r\nx: y\r\n\r\nz\r\n.\r\nNOOP\r\n":
        await wire.send(bytes([byte]))
        await asyncio.sleep(0)
    assert [(await wire.reply())[0][:3] for _ in range(5)] == ["250", "250", "354", "250", "250"]


async def test_half_closed_peer_still_gets_its_replies(house: House):
    wire = await house.mx()
    await wire.send(b"NOOP\r\nMAIL FROM:<a@b.test>\r\n")
    wire.writer.write_eof()
    assert (await wire.reply())[0].startswith("250 2.0.0")
    assert (await wire.reply())[0].startswith("250 2.1.0")
    assert await wire.is_closed()


# Lines


async def test_over_long_command_is_swallowed_whole(house: House):
    wire = await house.mx()
    await wire.send(b"NOOP " + b"x" * 300_000)
    await wire.send(b"\r\nNOOP\r\n")
    assert (await wire.reply())[0].startswith("500 5.5.2")
    assert (await wire.reply())[0].startswith("250 2.0.0")
    assert (await wire.say("NOOP " + "x" * 2043)).startswith("250 ")
    assert (await wire.say("NOOP " + "x" * 2044)).startswith("500 5.5.2")
    assert (await wire.say("NOOP")).startswith("250 ")


@pytest.mark.parametrize("odd", [b"NOOP\nQUIT", b"NOOP\rQUIT", b"NOOP\n", b"\nQUIT", b"NOOP\n\rQUIT", b"NO\0OP"])
async def test_bare_line_end_never_ends_a_command(house: House, odd: bytes):
    wire = await house.mx()
    assert (await wire.say(odd)).startswith("500 5.5.2")
    assert (await wire.say("NOOP")).startswith("250 ")


# Senders and their rights


async def test_foreign_sender_and_author_are_refused(house: House):
    wire = await house.submission()
    assert (await wire.say("MAIL FROM:<office@demo.test>")).startswith("550 5.7.1")
    for header in (b"From: office@demo.test\r\n", b"From: shop@demo.test\r\nSender: office@demo.test\r\n"):
        assert (await submit(wire, header + b"\r\nx\r\n")).startswith("550 5.7.1")
    assert (await submit(wire, b"Subject: no author\r\n\r\nx\r\n")).startswith("550 5.7.1")
    assert (await submit(wire, b"From: shop@demo.test\r\n" * 2 + b"\r\nx\r\n")).startswith("550 5.7.1")
    assert (await submit(wire, b"From: shop@demo.test\r\nSubject : x\r\n\r\nx\r\n")).startswith("554 5.6.0")
    answer = await submit(wire, b"From: <shop@demo.test\r\n\r\nx\r\n")
    assert answer.startswith("550 5.7.1 the addresses in From are not understood: the bracket < is not closed")
    assert not house.intake.taken
    assert (await submit(wire, MESSAGE, sender="")).startswith("250 ")
    assert house.intake.taken[0].reverse_path is None


async def test_suspended_mailbox_is_refused_at_mail_on_an_open_connection(house: House):
    await house.talk("""
        tls S: 220 *
        tls C: EHLO client.example
        tls S: 250-*
        tls C: AUTH PLAIN {plain shop}
        tls S: 235 2.7.0 *
        tls C: MAIL FROM:<shop@demo.test>
        tls S: 250 2.1.0 *
        tls C: RSET
        tls S: 250 *
            ! suspend shop@demo.test
        tls C: MAIL FROM:<shop@demo.test>
        tls S: 550 5.7.1 *suspended*shop@demo.test*
            ! resume shop@demo.test
        tls C: MAIL FROM:<shop@demo.test>
        tls S: 250 2.1.0 *
        """)


async def test_a_password_revoked_on_an_open_connection_is_named_and_not_the_mailbox(house: House):
    wire = await house.submission()
    del house.directory.logins[1]
    answer = await wire.say("MAIL FROM:<shop@demo.test>")
    assert answer == "550 5.7.1 the main password may not send any more; log in with another"


async def test_a_changed_password_ends_what_began_with_the_old_one(house: House):
    wire = await house.submission()
    assert (await wire.say("MAIL FROM:<shop@demo.test>")).startswith("250 ")
    assert (await wire.say("RCPT TO:<office@demo.test>")).startswith("250 ")
    house.directory.logins[1] = dataclasses.replace(house.directory.logins[1], fingerprint="another")
    house.directory.version += 1
    assert (await wire.say("DATA")).startswith("354 ")
    await wire.send(MESSAGE + b".\r\n")
    assert (await wire.reply())[-1].startswith("550 5.7.1 the main password may not send any more")
    assert (await wire.say("MAIL FROM:<shop@demo.test>")).startswith("550 5.7.1 the main password")
    assert not house.intake.taken


async def test_suspension_between_mail_and_the_final_dot_is_noticed(house: House):
    await house.talk("""
        tls S: 220 *
        tls C: EHLO client.example
        tls S: 250-*
        tls C: AUTH PLAIN {plain shop}
        tls S: 235 2.7.0 *
        tls C: MAIL FROM:<shop@demo.test>
        tls S: 250 *
        tls C: RCPT TO:<office@demo.test>
        tls S: 250 *
        tls C: DATA
        tls S: 354 *
        tls C: From: shop@demo.test
            ! suspend shop@demo.test
        tls C: \\r\\n.
        tls S: 550 5.7.1 *suspended*
        tls C: NOOP
        tls S: 250 *
        """)
    assert not house.intake.taken


async def test_recipient_closed_between_rcpt_and_the_final_dot_is_noticed(house: House):
    script = """
        mx S: 220 *
        mx C: EHLO x
        mx S: 250-*
        mx C: MAIL FROM:<a@b.test>
        mx S: 250 *
        mx C: RCPT TO:<office@demo.test>
        mx S: 250 *
        {more}
        mx C: DATA
        mx S: 354 *
            ! close office@demo.test
        mx C: .
        mx S: {answer}
            ! resume office@demo.test
        """
    await house.talk(script.format(more="", answer="550 5.1.1 *"))
    more = "mx C: RCPT TO:<shop@demo.test>\n        mx S: 250 *"
    await house.talk(script.format(more=more, answer="451 4.3.0 *"))
    assert not house.intake.taken


async def test_message_that_goes_in_circles_is_refused(house: House):
    wire = await house.mx()
    hop = b"Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    assert (await submit(wire, hop * 51 + b"\r\n", sender="a@b.test")).startswith("554 5.4.6")
    assert (await submit(wire, hop * 50 + b"\r\n", sender="a@b.test")).startswith("250 ")


# Failures


async def test_exception_in_a_verb_is_451_and_the_session_goes_on(house: House, caplog):
    await house.talk("""
        mx S: 220 *
        mx C: EHLO x
        mx S: 250-*
        mx C: MAIL FROM:<a@b.test>
        mx S: 250 *
            ! directory broken
        mx C: RCPT TO:<office@demo.test>
        mx S: 451 4.3.0 internal error, try again later
            ! directory mended
        mx C: RCPT TO:<office@demo.test>
        mx S: 250 2.1.5 *
        mx C: DATA
        mx S: 354 *
        mx C: .
        mx S: 250 2.0.0 *
        """)
    assert "a secret of the inside" in caplog.text


async def test_whatever_comes_gets_a_well_formed_reply(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "IDLE_VERBS", 10**9)
    chance = random.Random(4711)
    words = (
        rb"MAIL^FROM: RCPT^TO: < > a@b.test office@demo.test ^ SIZE= 9 @ \" \\ \xc3\xa9 \xff = + SMTPUTF8 NOTIFY= "
        rb"NEVER , ORCPT= rfc822; RSET EHLO^ x VRFY AUTH^PLAIN [1.2.3.4] { } %s \r \n \0 \t postmaster"
    ).replace(b"^", b"\\x20").split()
    words = [word.decode("unicode_escape").encode("latin-1") for word in words]
    openings = [b"", b"MAIL FROM:<", b"RCPT TO:<", b"MAIL FROM:<a@b.test> ", b"RCPT TO:<office@demo.test> "]
    async with houses.house(tmp_path, errors=10**9) as house:
        wire = await house.mx()
        for _ in range(1500):
            line = chance.choice(openings) + b"".join(chance.choices(words, k=chance.randrange(8)))
            await wire.send(line.replace(b"\r\n", b"\n\r") + b"\r\n")
            answer = (await wire.reply())[-1]
            if not line.startswith(b"EHLO"):
                assert re.match(r"([245])\d\d \1\.\d\.\d{1,2} \S", answer), (line, answer)
    assert "fault" not in caplog.text


async def test_database_gone_is_only_temporary(house: House):
    await house.talk("""
        tls S: 220 *
        tls C: EHLO x
        tls S: 250-*
        tls C: AUTH PLAIN {plain shop}
        tls S: 235 *
            ! database gone
        tls C: MAIL FROM:<shop@demo.test>
        tls S: 451 4.3.0 *
            ! database back
        tls C: MAIL FROM:<shop@demo.test>
        tls S: 250 *
            ! database gone
        tls C: RCPT TO:<office@demo.test>
        tls S: 451 4.3.0 *
        """)


async def test_too_many_errors_end_the_session(tmp_path):
    async with houses.house(tmp_path, errors=3) as house:
        await house.talk("""
            mx S: 220 *
            mx C: EHLO x
            mx S: 250-*
            mx C: MAIL FROM:<a@b.test>
            mx S: 250 *
            mx C: RCPT TO:<one@demo.test>\\r\\nRCPT TO:<two@demo.test>\\r\\nRCPT TO:<three@demo.test>\\r\\nNOOP
            mx S: 550 5.1.1 *
            mx S: 550 5.1.1 *
            mx S: 550 5.1.1 *
            mx S: 421 4.7.0 too many errors*
            mx closed
            """)


async def test_endless_noops_end_the_session(house: House):
    wire = await house.mx()
    await wire.send(b"NOOP\r\n" * 200)
    codes = []
    while answer := await wire.reply():
        codes.append(answer[0][:3])
    assert codes == ["250"] * 100 + ["421"]


async def test_silent_peer_is_told_and_closed(tmp_path):
    async with houses.house(tmp_path, idle_timeout_s=0.05) as house:
        await house.talk("""
            mx S: 220 *
            mx S: 421 4.4.2 *
            mx closed
            """)


async def test_bytes_that_trickle_in_do_not_put_the_deadline_off(tmp_path):
    async with houses.house(tmp_path, idle_timeout_s=0.2) as house:
        wire = await Wire.open(house.ports[Listener.MX])
        await wire.reply()

        async def trickle():
            while True:
                await wire.send(b"x")
                await asyncio.sleep(0.02)

        task = asyncio.create_task(trickle())
        assert (await wire.reply())[0].startswith("421 4.4.2")
        task.cancel()


async def test_silence_in_data_is_told_and_closed(tmp_path):
    async with houses.house(tmp_path, data_timeout_s=0.05) as house:
        await house.talk("""
            mx S: 220 *
            mx C: EHLO x\\r\\nMAIL FROM:<>\\r\\nRCPT TO:<office@demo.test>\\r\\nDATA
            mx S: 250-*
            mx S: 250 *
            mx S: 250 *
            mx S: 354 *
            mx C: x: y
            mx S: 421 4.4.2 *
            mx closed
            """)
        assert not house.intake.taken


async def test_message_that_comes_too_slowly_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RATE_WINDOW_S", 0.3)
    async with houses.house(tmp_path, data_rate_bytes_s=1000) as house:
        wire = await house.mx()
        await wire.send(b"MAIL FROM:<>\r\nRCPT TO:<office@demo.test>\r\nDATA\r\n")
        for _ in range(3):
            await wire.reply()

        async def trickle(data: bytes):
            while True:
                await wire.send(data)
                await asyncio.sleep(0.02)

        fast = asyncio.create_task(trickle(b"x" * 600 + b"\r\n"))  # some 30,000 bytes a second
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await wire.reader.readline()
        fast.cancel()
        slow = asyncio.create_task(trickle(b"\r\n"))
        assert (await wire.reply())[0].startswith("421 4.4.2")
        slow.cancel()


async def test_peer_that_does_not_read_is_not_read_from(house: House, monkeypatch):
    monkeypatch.setattr(module, "IDLE_VERBS", 10**9)
    monkeypatch.setattr(connection, "WRITE_S", 0.3)
    wire = await house.mx()
    wire.writer.transport.pause_reading()
    [session] = house.services.sessions
    block = b"NOOP\r\n" * 10_000

    async def flood():
        while True:
            wire.writer.write(block)
            await wire.writer.drain()

    task = asyncio.create_task(flood())
    await house.until(lambda: not house.services.sessions)
    assert len(session._buffer) == 0 and session._replies_bytes <= module.OUTPUT_BYTES + 1000
    task.cancel()


async def test_input_past_a_message_that_waits_is_bounded(house: House):
    house.intake.gate.clear()
    wire = await house.mx()
    [session] = house.services.sessions
    await wire.send(b"MAIL FROM:<>\r\nRCPT TO:<office@demo.test>\r\nDATA\r\n.\r\n")
    await house.until(lambda: house.intake.waiting)
    wire.writer.write(b"NOOP " + b"x" * 20 * 1024 * 1024)
    await house.until(lambda: session._reading_paused)
    assert len(session._buffer) <= connection.INPUT_BYTES + 256 * 1024
    house.intake.gate.set()
    await wire.writer.drain()
    await wire.send(b"\r\nNOOP\r\n")
    assert [(await wire.reply())[0][:9] for _ in range(6)] == [
        "250 2.1.0", "250 2.1.5", "354 end w", "250 2.0.0", "500 5.5.2", "250 2.0.0",
    ]  # fmt: skip
    assert len(session._buffer) == 0 and not session._reading_paused


async def test_reply_quotes_utf8_only_to_who_takes_it(house: House):
    wire = await house.mx()
    await wire.say("MAIL FROM:<é@b.test> SMTPUTF8")
    assert await wire.say("RCPT TO:<é@demo.test>") == "550 5.1.1 no mailbox é@demo.test here"
    await wire.say("RSET")
    odd = "é" * 20
    encoded = connection.encoded(reply.Reply(550, "5.1.1", f"{odd}\x00\x1b[2J" + "y" * 900), utf8=False)
    assert encoded.startswith(b"550 5.1.1 " + b"?" * 22 + b"[2Jyyy") and len(encoded) <= 512
    encoded = connection.encoded(reply.Reply(550, "5.1.1", "é" * 400), utf8=True)
    assert len(encoded) <= 512 and encoded.decode().endswith("é\r\n")


# Stopping


async def test_stop_ends_idle_sessions_and_lets_a_transaction_finish(house: House):
    idle, busy = await house.mx(), await house.mx()
    await busy.say("MAIL FROM:<a@b.test>")
    for session in tuple(house.services.sessions):
        session.drain()
    assert (await idle.reply())[0].startswith("421 4.3.2")
    assert await idle.is_closed()
    assert (await busy.say("RCPT TO:<office@demo.test>")).startswith("250 ")
    assert (await busy.say("DATA")).startswith("354 ")
    assert (await busy.say("x: y\r\n.")).startswith("250 2.0.0")
    assert (await busy.reply())[0].startswith("421 4.3.2")
    assert await busy.is_closed()
    await house.until(lambda: not house.services.sessions)
    assert len(house.intake.taken) == 1


async def test_a_cancelled_session_says_so_before_it_closes(house: House):
    wire = await house.mx()
    [session] = house.services.sessions
    assert session._handler_coroutine is not None
    session._handler_coroutine.cancel()
    assert (await wire.reply())[0].startswith("421 4.3.2")
    assert await wire.is_closed()


async def test_abort_ends_a_session_that_waits(house: House):
    wire = await house.mx()
    for session in tuple(house.services.sessions):
        session.abort()
    assert await wire.is_closed()
    await house.until(lambda: not house.services.sessions)
