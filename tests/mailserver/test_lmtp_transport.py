"""What the LMTP transport makes of a store's replies, on real sockets; and of a real Dovecot."""

import asyncio
import hashlib
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import uvloop

from mailserver.config import Config
from mailserver.envelope import Body, Claimed, ClaimedMessage
from mailserver.transports.lmtp import LmtpTransport
from mailserver.transports.wire import Deadlines
from panel import environment
from tests.support.lmtp import dovecot_store, lmtp_peer

pytestmark = pytest.mark.once("sqlite")

PREFIX = b"Received: by mx1.here.test\r\n"
BODY = b"From: a@here.test\r\nSubject: hello\r\n\r\n.dot\r\n..two\r\nend\r\n"
QUICK = Deadlines(*[0.3] * 8)
FOUR = ("ann@demo.test", "bob@demo.test", "cid@demo.test", "dan@demo.test")


@asynccontextmanager
async def transport(setting: str, tmp_path, **options):
    config = Config.of(environment.read({
        "POSTHOUSE_DATA": str(tmp_path), "POSTHOUSE_HOSTNAME": "mx1.here.test", "POSTHOUSE_STORE": setting,
    }))
    made = LmtpTransport(config, **options)
    try:
        yield made
    finally:
        made.close()


def message(*recipients: str, reverse_path: str = "peer@far.test", original: str = "", **fields) -> ClaimedMessage:
    now = datetime.now(UTC)
    fields = {"smtputf8": False, "body_type": "", "ret": "", "envid": ""} | fields
    return ClaimedMessage(
        id=1, reverse_path=reverse_path, direction="inbound", tenant_id=None, credential_id=None, size=len(BODY),
        recipients=tuple(
            Claimed(
                id=number, original=original or name, resolved=name, tenant_id=1, recipient_tenant_id=1,
                next_hop="lmtp", tries=0, accepted_at=now, expires_at=now + timedelta(days=5), staged=False,
                delay_reported=False, notify="", orcpt="",
            )
            for number, name in enumerate(recipients or ("ann@demo.test",), 1)
        ),
        **fields,
    )


def inline(data: bytes = BODY) -> Body:
    return Body(len(data), hashlib.sha256(data).hexdigest(), data, None)


async def send(made: LmtpTransport, sent: ClaimedMessage | None = None, body: Body | None = None, within_s=30.0):
    return await made.deliver(sent or message(), PREFIX, body or inline(), within_s=within_s)


async def once(store, tmp_path, sent=None, body=None, within_s=30.0, **options):
    async with transport(store.setting, tmp_path, **options) as made:
        return await send(made, sent, body, within_s)


def told(outcomes):
    return [(outcome.disposition.value, outcome.reply.code, outcome.reply.enhanced) for outcome in outcomes]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_message_arrives_as_it_was(tmp_path, kind):
    with lmtp_peer(tmp_path / "lmtp" if kind == "unix" else None) as store:
        (outcome,) = await once(store, tmp_path)
    assert store.stored == [("ann@demo.test", PREFIX + BODY)]
    assert store.commands[:4] == [
        "LHLO mx1.here.test", "MAIL FROM:<peer@far.test> BODY=8BITMIME", "RCPT TO:<ann@demo.test>", "DATA",
    ]
    assert str(outcome.reply) == "250 2.0.0 <ann@demo.test> Saved"
    assert (outcome.host, outcome.dsn_passed_on) == ("", False)


@pytest.mark.parametrize(
    ("original", "told"),
    [
        ("ann+Tag@demo.test", "ann+Tag@demo.test"),
        ("Ann+tag@alias.test", "ann+tag@demo.test"),  # a domain alias
        ("ann+a+b@demo.test", "ann+a+b@demo.test"),
        ("ann+@demo.test", "ann+@demo.test"),
        ("ann@demo.test", "ann@demo.test"),
        ("info+tag@demo.test", "ann@demo.test"),  # an alias: the tag is its own
        ('"ann+a b"@demo.test', "ann@demo.test"),
        ("ann+grüße@demo.test", "ann@demo.test"),
        ("no address", "ann@demo.test"),
    ],
)
async def test_the_store_is_told_the_mailboxs_own_subaddress(tmp_path, original, told):
    rcpt = {told: f"550 5.1.1 <{told}> User doesn't exist: ann@demo.test"}
    with lmtp_peer(rcpt=rcpt) as store:
        (outcome,) = await once(store, tmp_path, message(original=original))
    assert f"RCPT TO:<{told}>" in store.commands
    assert outcome.reply.text == f"<{original}> User doesn't exist: {original}"


def test_it_runs_on_uvloop_as_well(tmp_path):
    with lmtp_peer(tmp_path / "lmtp") as store:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            (outcome,) = loop.run(once(store, tmp_path))
    assert told([outcome]) == [("delivered", 250, "2.0.0")]


async def test_each_recipient_has_its_own_reply_after_the_dot(tmp_path):
    stored = {"bob@demo.test": "450 4.2.0 locked", "cid@demo.test": "550 5.7.1 rejected by a rule",
              "dan@demo.test": "452 4.2.2 full"}
    with lmtp_peer(stored=stored) as store:
        outcomes = await once(store, tmp_path, message(*FOUR))
    assert told(outcomes) == [
        ("delivered", 250, "2.0.0"), ("deferred", 450, "4.2.0"), ("failed", 550, "5.7.1"), ("deferred", 452, "4.2.2"),
    ]
    assert [address for address, _ in store.stored] == ["ann@demo.test"]


async def test_a_recipient_refused_at_rcpt_has_no_reply_after_the_dot(tmp_path):
    rcpt = {"ann@demo.test": "550 5.1.1 no such user", "cid@demo.test": "451 4.3.0 userdb is gone"}
    with lmtp_peer(rcpt=rcpt, stored={"dan@demo.test": "452 4.2.2 full"}) as store:
        outcomes = await once(store, tmp_path, message(*FOUR))
    assert [code for _, code, _ in told(outcomes)] == [550, 250, 451, 452]
    assert [outcome.recipient_id for outcome in outcomes] == [1, 2, 3, 4]


async def test_with_nobody_accepted_nothing_is_sent_and_the_connection_serves_on(tmp_path):
    with lmtp_peer(rcpt={"ann@demo.test": "550 5.1.1 no"}) as store:
        async with transport(store.setting, tmp_path) as made:
            assert told(await send(made)) == [("failed", 550, "5.1.1")]
            assert told(await send(made, message("bob@demo.test"))) == [("delivered", 250, "2.0.0")]
    assert store.connections == 1


async def test_when_the_connection_drops_only_those_without_a_reply_wait(tmp_path):
    with lmtp_peer(drops_after=2, stored={"bob@demo.test": "550 5.2.2 full"}) as store:
        outcomes = await once(store, tmp_path, message(*FOUR))
    assert told(outcomes) == [
        ("delivered", 250, "2.0.0"), ("failed", 550, "5.2.2"), ("deferred", 451, "4.4.2"), ("deferred", 451, "4.4.2"),
    ]
    assert store.connections == 1, "another try at once could double what was taken"


async def test_a_connection_is_used_again_and_a_closed_one_is_replaced(tmp_path):
    with lmtp_peer() as store:
        async with transport(store.setting, tmp_path) as made:
            for _ in range(3):
                assert told(await send(made, message(*FOUR)))[3] == ("delivered", 250, "2.0.0")
            assert store.connections == 1
            store.script.drops_after = 0
            await send(made)
            store.script.drops_after = None
            assert told(await send(made)) == [("delivered", 250, "2.0.0")]
    assert store.connections == 2


async def test_more_than_a_hundred_recipients_go_in_several_transactions(tmp_path):
    names = [f"u{number}@demo.test" for number in range(230)]
    with lmtp_peer() as store:
        outcomes = await once(store, tmp_path, message(*names))
    assert {outcome.disposition.value for outcome in outcomes} == {"delivered"}
    assert [address for address, _ in store.stored] == names
    assert sum(command == "DATA" for command in store.commands) == 3


async def test_without_pipelining_commands_go_one_by_one(tmp_path):
    with lmtp_peer(extensions=()) as store:
        assert told(await once(store, tmp_path)) == [("delivered", 250, "2.0.0")]
    assert "MAIL FROM:<peer@far.test>" in store.commands


async def test_a_connection_whose_replies_are_out_of_step_is_not_used_again(tmp_path):
    with lmtp_peer(answers={"MAIL": "250 2.1.0 OK\r\n250 2.1.0 once more"}) as store:
        async with transport(store.setting, tmp_path) as made:
            assert told(await send(made)) == [("deferred", 451, "4.5.0")]
            store.script.answers.clear()
            assert told(await send(made, within_s=5.0)) == [("delivered", 250, "2.0.0")]
    assert store.connections == 2


@pytest.mark.parametrize("verb", ["CONNECT", "LHLO", "MAIL", "RCPT", "DATA", "DOT"])
async def test_a_silent_store_is_given_up_at_the_deadline(tmp_path, verb):
    began_s = time.monotonic()
    with lmtp_peer(hangs_at=verb) as store:
        outcomes = await once(store, tmp_path, deadlines=QUICK)
    assert told(outcomes) == [("deferred", 451, "4.4.2")]
    assert time.monotonic() - began_s < 3


async def test_the_whole_has_a_deadline_and_can_be_hurried(tmp_path):
    with lmtp_peer(hangs_at="DOT") as store:
        assert told(await once(store, tmp_path, within_s=0.2)) == [("deferred", 451, "4.4.2")]
        store.commands.clear()
        async with transport(store.setting, tmp_path) as made:
            task = asyncio.create_task(send(made))
            while "DATA" not in store.commands[-1:]:
                await asyncio.sleep(0.01)
            made.hurry()
            assert told(await task) == [("deferred", 451, "4.4.2")]


async def test_a_store_that_is_away_or_turns_us_away_is_waited_for(tmp_path):
    async with transport(f"lmtp:{tmp_path}/nothing", tmp_path) as made:
        (outcome,) = await send(made)
    assert told([outcome]) == [("deferred", 451, "4.4.1")]
    assert str(tmp_path) not in str(outcome.reply)
    with lmtp_peer(answers={"LHLO": "554 5.7.1 not from you"}) as store:
        assert told(await once(store, tmp_path)) == [("deferred", 451, "4.3.2")]
    with lmtp_peer(answers={"CONNECT": "hello"}) as store:
        assert told(await once(store, tmp_path)) == [("deferred", 451, "4.5.0")]
    async with transport("maildir", tmp_path) as made:
        assert told(await send(made, message(*FOUR[:2]))) == [("deferred", 451, "4.3.5")] * 2


async def test_the_log_says_why_the_store_is_away_and_says_it_once(tmp_path, caplog):
    async with transport(f"lmtp:{tmp_path}/nothing", tmp_path) as made:
        for _ in range(3):
            await send(made)
    (line,) = caplog.messages
    assert "the mail store can't be reached" in line
    assert f"{tmp_path}/nothing" in line
    assert "No such file" in line


async def test_a_reply_without_end_is_cut(tmp_path):
    with lmtp_peer(answers={"MAIL": "\r\n".join(["250-more"] * 200)}) as store:
        assert told(await once(store, tmp_path, deadlines=QUICK)) == [("deferred", 451, "4.5.0")]


async def test_a_reply_names_the_address_that_was_asked_for(tmp_path):
    with lmtp_peer(stored={"ann@demo.test": "550 5.1.1 <ann@demo.test> User doesn't exist: ann@demo.test"}) as store:
        (outcome,) = await once(store, tmp_path, message("ann@demo.test", original="sales@demo.test"))
    assert str(outcome.reply) == "550 5.1.1 <sales@demo.test> User doesn't exist: sales@demo.test"


async def test_what_is_outside_ascii(tmp_path):
    utf8 = inline("Subject: Grüße\r\n\r\nJa.\r\n".encode())
    names = ("ann@demo.test", "jürgen@demo.test")
    with lmtp_peer() as store:
        outcomes = await once(store, tmp_path, message(*names, smtputf8=True), utf8)
        assert told(outcomes) == [("delivered", 250, "2.0.0"), ("failed", 550, "5.6.7")]
        store.script.extensions = ("PIPELINING", "8BITMIME", "SMTPUTF8")
        outcomes = await once(store, tmp_path, message(*names, smtputf8=True), utf8)
        assert told(outcomes) == [("delivered", 250, "2.0.0")] * 2
    assert "MAIL FROM:<peer@far.test> BODY=8BITMIME SMTPUTF8" in store.commands


@pytest.mark.dovecot
class TestDovecot:
    async def test_mail_arrives_byte_for_byte_and_each_has_its_reply(self, tmp_path):
        large = b"Subject: large\r\n\r\n" + b"".join(b".%d \xc3\xa4 line\r\n" % number for number in range(20_000))
        file = tmp_path / "body"
        file.write_bytes(large)
        with dovecot_store("ann@demo.test", "bob@demo.test") as store:
            async with transport(store.setting, tmp_path) as made:
                sent = message("ann@demo.test", "nobody@demo.test", "bob@demo.test")
                outcomes = await send(made, sent)
                assert told(outcomes) == [
                    ("delivered", 250, "2.0.0"), ("failed", 550, "5.1.1"), ("delivered", 250, "2.0.0"),
                ]
                (one,) = await send(made, message("bob@demo.test"), Body(len(large), "", None, file))
                assert told([one]) == [("delivered", 250, "2.0.0")]
            (mail,) = store.mail("ann@demo.test")
            assert mail.endswith(b"\r\n" + PREFIX + BODY)
            assert mail.startswith(b"Return-Path: <peer@far.test>\r\n")
            assert any(mail.endswith(b"\r\n" + PREFIX + large) for mail in store.mail("bob@demo.test"))

    @pytest.mark.parametrize(("tempfail", "expected"), [
        (True, ("deferred", 452, "4.2.2")), (False, ("failed", 552, "5.2.2")),
    ])
    async def test_a_full_mailbox_waits_or_fails_as_dovecot_is_told(self, tmp_path, tempfail, expected):
        quota = {"bob@demo.test": 100}
        with dovecot_store("ann@demo.test", "bob@demo.test", quota_bytes=quota, tempfail=tempfail) as store:
            outcomes = await once(store, tmp_path, message("bob@demo.test", "ann@demo.test"))
        assert told(outcomes) == [expected, ("delivered", 250, "2.0.0")]
