"""What the SMTP transport makes of good and bad servers, on real sockets with a real DNS."""

import asyncio
import dataclasses
import hashlib
import ipaddress
import itertools
import ssl
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
import uvloop

from mailserver.config import Config
from mailserver.envelope import Body, Claimed, ClaimedMessage, Disposition
from mailserver.resolver import Resolver
from mailserver.transports import dialogue
from mailserver.transports.smtp import SmtpTransport
from mailserver.transports.wire import Deadlines, TlsContexts, remote_reply
from panel import environment
from panel.rules.facts import Route
from tests.support.dns import dns_server
from tests.support.peer import peer

pytestmark = pytest.mark.once("sqlite")

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
PREFIX = b"Received: by mx1.here.test\r\n"
BODY = b"From: a@here.test\r\nSubject: hello\r\n\r\n.dot\r\n..two\r\nend\r\n"
QUICK = Deadlines(*[0.5] * 8)


@pytest.fixture(scope="module")
def dns():
    with dns_server(far_test="@ MX 10 mx\nmx A 127.0.0.1\ntwo MX 10 dead\ntwo MX 20 mx\ndead A 127.0.0.77\n") as server:
        yield server


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


def contexts(authority=None) -> TlsContexts:
    made = TlsContexts.default()
    if authority:
        authority.configure_trust(made.checked)
    return made


@asynccontextmanager
async def transport(dns, port, tmp_path, **options):
    config = Config.of(environment.read({
        "POSTHOUSE_DATA": str(tmp_path), "POSTHOUSE_HOSTNAME": "mx1.here.test", "POSTHOUSE_DNS": str(dns.listen),
        "POSTHOUSE_OUTWARD_PORT": str(port), "POSTHOUSE_OUTWARD_PRIVATE": "127.0.0.0/8", "POSTHOUSE_MX": "",
    }))
    made = SmtpTransport(config, Resolver.of(config), **options)
    try:
        yield made
    finally:
        made.close()


def message(*recipients: str, reverse_path: str = "shop@demo.test", **fields) -> ClaimedMessage:
    now = datetime.now(UTC)
    names = recipients or ("ann@far.test",)
    rcpt = {key: fields.pop(key, "") for key in ("notify", "orcpt")}
    fields = {"smtputf8": False, "body_type": "", "ret": "", "envid": ""} | fields
    return ClaimedMessage(
        id=1, reverse_path=reverse_path, direction="submission", tenant_id=1, credential_id=1, size=len(BODY),
        recipients=tuple(
            Claimed(
                id=number, original=name, resolved=name, tenant_id=1, recipient_tenant_id=None, next_hop="far.test",
                tries=0, accepted_at=now, expires_at=now + timedelta(days=5), staged=False, delay_reported=False,
                **rcpt,
            )
            for number, name in enumerate(names, 1)
        ),
        **fields,
    )


def inline(data: bytes = BODY) -> Body:
    return Body(len(data), hashlib.sha256(data).hexdigest(), data, None)


def filed(path: Path, data: bytes, size: int | None = None) -> Body:
    path.write_bytes(data)
    return Body(len(data) if size is None else size, "", None, path)


async def send(made: SmtpTransport, sent: ClaimedMessage | None = None, body: Body | None = None, **where):
    where = {"hop": "far.test", "route": None, "within_s": 30.0} | where
    return await made.deliver(sent or message(), PREFIX, body or inline(), **where)


async def once(dns, server, tmp_path, sent=None, body=None, hop="far.test", route=None, within_s=30.0, **options):
    async with transport(dns, server.listen.port, tmp_path, **options) as made:
        return await send(made, sent, body, hop=hop, route=route, within_s=within_s)


def dispositions(outcomes):
    return [outcome.disposition.value for outcome in outcomes]


async def test_a_message_arrives_as_it_was_and_the_outcome_says_where(dns, tmp_path):
    with peer() as server:
        (outcome,) = await once(dns, server, tmp_path)
    (received,) = server.received
    assert received.content == PREFIX + BODY
    assert received.mail == f"FROM:<shop@demo.test> SIZE={len(PREFIX + BODY)} BODY=8BITMIME"
    assert server.commands[0] == "EHLO mx1.here.test"
    assert outcome.disposition is Disposition.DELIVERED
    assert (outcome.host, outcome.address, outcome.tls) == ("mx.far.test", "127.0.0.1", "")
    assert str(outcome.reply) == "250 2.0.0 taken"
    assert outcome.dsn_passed_on


@pytest.mark.parametrize("block", [1, 2, 3, 5, 64])
async def test_dots_are_stuffed_wherever_a_block_ends(dns, tmp_path, monkeypatch, block):
    monkeypatch.setattr(dialogue, "BLOCK_BYTES", block)
    body = b"A: b\r\n\r\n.\r\n..\r\n.x\r\n\r\n.\r\nlast.\r\n.\r\n"
    with peer() as server:
        await once(dns, server, tmp_path, body=filed(tmp_path / "body", body))
    assert server.received[0].content == PREFIX + body


async def test_a_body_without_a_last_line_end_gets_one(dns, tmp_path):
    with peer() as server:
        await once(dns, server, tmp_path, body=inline(b"A: b\r\n\r\nend"))
    assert server.received[0].content == PREFIX + b"A: b\r\n\r\nend\r\n"


async def test_a_large_body_streams_from_its_file(dns, tmp_path):
    body = b"A: b\r\n\r\n" + b"x" * 70 + b"\r\n.y\r\n" * 100_000
    with peer() as server:
        (outcome,) = await once(dns, server, tmp_path, body=filed(tmp_path / "body", body))
    assert outcome.disposition is Disposition.DELIVERED
    assert server.received[0].content == PREFIX + body


@pytest.mark.parametrize("size", [len(BODY) + 1, None])
async def test_a_body_that_is_short_or_gone_is_never_taken_as_whole(dns, tmp_path, size):
    body = filed(tmp_path / "body", BODY, size)
    if size is None:
        body.path.unlink()
    with peer() as server:
        with pytest.raises(OSError):
            await once(dns, server, tmp_path, body=body)
    assert server.received == []


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one by one"])
class TestAnswers:
    """Each twice: with PIPELINING and without."""

    @pytest.fixture
    def server(self, pipelining):
        with peer(without=set() if pipelining else {"PIPELINING"}) as made:
            yield made

    async def test_each_recipient_has_its_own_outcome(self, dns, tmp_path, server):
        server.behaviour.rcpt = {"no@far.test": "550 5.1.1 no such user", "full@far.test": "452 4.2.2 full"}
        outcomes = await once(
            dns, server, tmp_path, message("no@far.test", "ann@far.test", "full@far.test", "bob@far.test")
        )
        assert dispositions(outcomes) == ["failed", "delivered", "deferred", "delivered"]
        assert str(outcomes[0].reply) == "550 5.1.1 no such user"
        assert server.received[0].rcpts == ["TO:<ann@far.test>", "TO:<bob@far.test>"]

    async def test_when_all_recipients_are_refused_nothing_is_sent_and_the_connection_goes_on(
        self, dns, tmp_path, server, pipelining
    ):
        server.behaviour.rcpt = {"no@far.test": "550 5.1.1 no such user"}
        async with transport(dns, server.listen.port, tmp_path) as made:
            outcomes = await send(made, message("no@far.test"))
            await send(made)
        assert dispositions(outcomes) == ["failed"]
        assert ("DATA" in server.commands[: server.commands.index("RSET")]) is pipelining
        assert len(server.received) == server.connections == 1

    @pytest.mark.parametrize("verb", ["MAIL", "DATA", "DOT"])
    @pytest.mark.parametrize(("answer", "expected"), [("451 4.3.0 later", "deferred"), ("554 5.7.1 spam", "failed")])
    async def test_a_refusal_of_the_message_decides_all(self, dns, tmp_path, server, verb, answer, expected):
        server.behaviour.answers = {verb: answer}
        outcomes = await once(dns, server, tmp_path, message("ann@far.test", "bob@far.test"))
        assert dispositions(outcomes) == [expected, expected]
        assert {str(outcome.reply) for outcome in outcomes} == {answer}
        assert server.received == []

    @pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
    async def test_421_defers_the_rest(self, dns, tmp_path, server, verb):
        server.behaviour.answers = {verb: "421 4.3.2 going down"}
        outcomes = await once(dns, server, tmp_path, message("ann@far.test", "bob@far.test"))
        assert dispositions(outcomes) == ["deferred", "deferred"]
        assert outcomes[0].reply.code == 421

    @pytest.mark.parametrize(("verb", "answer"), [
        *itertools.product(
            ["MAIL", "RCPT", "DATA", "DOT"], ["HTTP/1.1 400 Bad Request", "999 what", "250-more\r\n550 5.1.1 no"]
        ),
        ("DATA", "250"),
    ])
    async def test_what_is_not_smtp_is_temporary(self, dns, tmp_path, server, verb, answer):
        server.behaviour.answers = {verb: answer}
        outcomes = await once(dns, server, tmp_path, deadlines=QUICK)
        if answer.startswith("250-"):  # the code of the last line is what counts
            assert dispositions(outcomes) == ["failed"]
        else:
            assert dispositions(outcomes) == ["deferred"]

    @pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
    async def test_a_dropped_connection_is_temporary(self, dns, tmp_path, server, verb):
        server.behaviour.drops = {verb}
        (outcome,) = await once(dns, server, tmp_path)
        assert (dispositions([outcome]), outcome.reply.enhanced) == (["deferred"], "4.4.2")

    @pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "DOT"])
    async def test_a_server_that_hangs_costs_its_deadline(self, dns, tmp_path, server, verb):
        server.behaviour.hangs = {verb}
        quick = dataclasses.replace(QUICK, **dict.fromkeys(("greeting", "mail", "rcpt", "data", "dot"), 0.1))
        (outcome,) = await once(dns, server, tmp_path, deadlines=quick)
        assert (dispositions([outcome]), outcome.reply.enhanced) == (["deferred"], "4.4.2")


async def test_after_a_drop_at_the_dot_no_other_try_is_made_at_once(dns, tmp_path):
    with peer(drops={"DOT"}) as server:
        await once(dns, server, tmp_path, hop="two.far.test")
        assert server.connections == 1


async def test_a_dead_host_leads_to_the_next(dns, tmp_path):
    with peer() as server:
        (outcome,) = await once(dns, server, tmp_path, hop="two.far.test")
    assert (outcome.disposition, outcome.host) == (Disposition.DELIVERED, "mx.far.test")


async def test_no_host_at_all_is_temporary(dns, tmp_path):
    async with transport(dns, 1, tmp_path) as made:
        (outcome,) = await send(made)
    assert (dispositions([outcome]), outcome.reply.enhanced) == (["deferred"], "4.4.1")


async def test_a_domain_without_mail_server_fails_at_once(dns, tmp_path):
    async with transport(dns, 1, tmp_path) as made:
        outcomes = await send(made, message("ann@far.test", "bob@far.test"), hop="none.far.test")
    assert dispositions(outcomes) == ["failed", "failed"]


@pytest.mark.parametrize("answer", ["554 5.7.1 no mail from you", "421 4.3.2 busy"])
@pytest.mark.parametrize("verb", ["CONNECT", "EHLO"])
async def test_a_refusal_before_mail_is_temporary_and_keeps_the_remotes_words(dns, tmp_path, answer, verb):
    with peer(answers={verb: answer, "HELO": answer}) as server:
        (outcome,) = await once(dns, server, tmp_path)
    assert dispositions([outcome]) == ["deferred"]
    assert answer[4:].split(" ", 1)[1] in outcome.reply.text


async def test_helo_where_ehlo_is_unknown(dns, tmp_path):
    with peer(answers={"EHLO": "502 5.5.1 unknown"}) as server:
        (outcome,) = await once(dns, server, tmp_path)
    assert outcome.disposition is Disposition.DELIVERED
    assert server.received[0].mail == "FROM:<shop@demo.test>"


async def test_an_endless_reply_is_cut(dns, tmp_path):
    with peer(answers={"DOT": "\r\n".join(["250-more"] * 1000) + "\r\n250 end"}) as server:
        (outcome,) = await once(dns, server, tmp_path)
    assert (dispositions([outcome]), outcome.reply.enhanced) == (["deferred"], "4.5.0")
    with peer(answers={"RCPT": "550 " + "x" * 100_000}) as server:
        (outcome,) = await once(dns, server, tmp_path)
    assert (dispositions([outcome]), outcome.reply.enhanced) == (["deferred"], "4.5.0")


async def test_many_recipients_go_in_several_transactions(dns, tmp_path):
    names = [f"u{number}@far.test" for number in range(230)]
    with peer() as server:
        outcomes = await once(dns, server, tmp_path, message(*names))
    assert {outcome.disposition for outcome in outcomes} == {Disposition.DELIVERED}
    assert [len(received.rcpts) for received in server.received] == [100, 100, 30]
    assert server.connections == 1


async def test_a_declared_rcptmax_is_kept(dns, tmp_path):
    with peer(offers=("PIPELINING", "LIMITS MAILMAX=5 RCPTMAX=2")) as server:
        await once(dns, server, tmp_path, message("a@far.test", "b@far.test", "c@far.test"))
    assert [len(received.rcpts) for received in server.received] == [2, 1]


async def test_552_at_rcpt_without_more_means_too_many(dns, tmp_path):
    with peer(rcpt={"a@far.test": "552 too many", "b@far.test": "552 5.2.2 full"}) as server:
        outcomes = await once(dns, server, tmp_path, message("a@far.test", "b@far.test"))
    assert dispositions(outcomes) == ["deferred", "failed"]


async def test_larger_than_the_offered_size_fails_before_mail(dns, tmp_path):
    with peer(without={"SIZE"}, offers=("SIZE 50",)) as server:
        (outcome,) = await once(dns, server, tmp_path)
        assert not any(command.startswith("MAIL") for command in server.commands)
    assert (outcome.disposition, outcome.reply.enhanced) == (Disposition.FAILED, "5.3.4")


async def test_smtputf8_is_passed_on_where_it_is_offered(dns, tmp_path):
    with peer() as server:
        (outcome,) = await once(
            dns, server, tmp_path, message("日本@far.test", reverse_path="ü@demo.test", smtputf8=True)
        )
    assert outcome.disposition is Disposition.DELIVERED
    assert server.received[0].mail.endswith(" SMTPUTF8")
    assert server.received[0].rcpts == ["TO:<日本@far.test>"]


async def test_without_smtputf8_only_what_is_ascii_goes(dns, tmp_path):
    with peer(without={"SMTPUTF8"}) as server:
        outcomes = await once(dns, server, tmp_path, message("日本@far.test", "ann@far.test", smtputf8=True))
        headers = "Subject: ü\r\n\r\n".encode() + b"x\r\n"
        for body in (inline(headers), filed(tmp_path / "body", headers)):
            refused = await once(dns, server, tmp_path, message(smtputf8=True), body)
            assert (dispositions(refused), refused[0].reply.enhanced) == (["failed"], "5.6.7")
        from_umlaut = await once(dns, server, tmp_path, message(reverse_path="ü@demo.test", smtputf8=True))
        eight_bit_body = await once(dns, server, tmp_path, message(smtputf8=True), inline("A: b\r\n\r\nü\r\n".encode()))
    assert dispositions(outcomes) == ["failed", "delivered"]
    assert dispositions(from_umlaut) == ["failed"]
    assert dispositions(eight_bit_body) == ["delivered"]
    assert len(server.received) == 2


async def test_dsn_parameters_are_passed_on_only_where_dsn_is_offered(dns, tmp_path):
    asked = message(ret="HDRS", envid="QQ+2B1", notify="SUCCESS,DELAY", orcpt="rfc822;ann@far.test")
    with peer() as server:
        await once(dns, server, tmp_path, asked)
        server.behaviour.without = {"DSN"}
        (outcome,) = await once(dns, server, tmp_path, asked)
    first, second = server.received
    assert first.mail.endswith(" RET=HDRS ENVID=QQ+2B1")
    assert first.rcpts == ["TO:<ann@far.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;ann@far.test"]
    assert "RET" not in second.mail and second.rcpts == ["TO:<ann@far.test>"]
    assert not outcome.dsn_passed_on


@pytest.mark.parametrize("bad", ["a\r\nRCPT TO:<x@y>", "a\n@b", "a\0@b", "a\u2028@b", "a\x7f@b"])
async def test_a_control_character_never_reaches_the_wire(dns, tmp_path, bad):
    with peer() as server:
        with pytest.raises(ValueError):
            await once(dns, server, tmp_path, message(bad))
        with pytest.raises(ValueError):
            await once(dns, server, tmp_path, message(reverse_path=bad))
    assert server.received == []
    assert not any("x@y" in command for command in server.commands)


class TestReuse:
    async def test_one_connection_carries_many_messages(self, dns, tmp_path):
        with peer() as server:
            async with transport(dns, server.listen.port, tmp_path) as made:
                for _ in range(3):
                    assert dispositions(await send(made)) == ["delivered"]
            assert (server.connections, len(server.received)) == (1, 3)
            assert "RSET" not in server.commands

    async def test_a_connection_that_died_idle_is_no_try(self, dns, tmp_path):
        with peer(hang_up_after=1) as server:
            async with transport(dns, server.listen.port, tmp_path) as made:
                for _ in range(3):
                    assert dispositions(await send(made)) == ["delivered"]
            assert (server.connections, len(server.received)) == (3, 3)

    @pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
    @pytest.mark.parametrize("how", ["drops", "421"])
    async def test_a_reused_connection_that_fails_before_the_dot_is_replaced_at_once(self, dns, tmp_path, verb, how):
        with peer() as server:
            async with transport(dns, server.listen.port, tmp_path) as made:
                await send(made)
                fault = {"drops": {verb}} if how == "drops" else {"answers": {verb: "421 4.4.2 idle too long"}}
                before = server.behaviour
                server.behaviour = dataclasses.replace(before, **fault)
                again = asyncio.create_task(send(made))
                deadline = time.monotonic() + 10
                while server.connections < 2 and not again.done() and time.monotonic() < deadline:
                    if sum(command.startswith(verb) for command in server.commands) > 1:
                        server.behaviour = before
                    await asyncio.sleep(0)
                server.behaviour = before
                assert dispositions(await again) == ["delivered"]
            assert (server.connections, len(server.received)) == (2, 2)

    async def test_an_idle_connection_is_closed(self, dns, tmp_path):
        with peer() as server:
            async with transport(dns, server.listen.port, tmp_path, idle_s=0.01) as made:
                await send(made)
                async with asyncio.timeout(10):
                    while made._idle:
                        await asyncio.sleep(0.005)
                await send(made)
            assert server.connections == 2

    async def test_a_connection_carries_only_so_many(self, dns, tmp_path, monkeypatch):
        monkeypatch.setattr(dialogue, "MESSAGES", 2)
        with peer() as server:
            async with transport(dns, server.listen.port, tmp_path) as made:
                for _ in range(4):
                    await send(made)
            assert server.connections == 2


class TestTls:
    async def test_tls_is_used_where_it_is_offered_whatever_the_certificate(self, dns, tmp_path, tls):
        with peer(tls) as server:
            async with transport(dns, server.listen.port, tmp_path) as made:
                (outcome,) = await send(made)
                await send(made)
        assert outcome.tls.startswith("TLSv1.3 TLS_")
        assert [received.tls for received in server.received] == [True, True]
        assert server.connections == 1

    @pytest.mark.parametrize("fault", ["refused", "dropped", "not TLS"])
    async def test_a_failed_handshake_is_followed_by_plain(self, dns, tmp_path, tls, fault):
        with peer(tls) as server:
            if fault == "dropped":
                server.behaviour.drops = {"STARTTLS"}
            else:
                answer = "454 4.7.0 no TLS now" if fault == "refused" else "220 2.0.0 go\r\nthis is no handshake"
                server.behaviour.answers = {"STARTTLS": answer}
            (outcome,) = await once(dns, server, tmp_path, deadlines=dataclasses.replace(Deadlines(), handshake=1.0))
        assert (outcome.disposition, outcome.tls) == (Disposition.DELIVERED, "")
        assert server.connections == 2

    async def test_a_route_may_require_a_checked_certificate(self, dns, tmp_path, tls, authority):
        with peer(tls) as server:
            route = Route("127.0.0.1", server.listen.port, "required")
            (good,) = await once(dns, server, tmp_path, route=route, contexts=contexts(authority))
            (bad,) = await once(dns, server, tmp_path, route=route)
            server.behaviour.without = {"STARTTLS"}
            (plain,) = await once(dns, server, tmp_path, route=route, contexts=contexts(authority))
        assert good.disposition is Disposition.DELIVERED
        assert good.tls
        assert [outcome.reply.enhanced for outcome in (bad, plain)] == ["4.7.5", "4.7.5"]
        assert dispositions([bad, plain]) == ["deferred", "deferred"]
        assert len(server.received) == 1

    async def test_a_route_may_forbid_tls(self, dns, tmp_path, tls):
        with peer(tls) as server:
            (outcome,) = await once(dns, server, tmp_path, route=Route("localhost", server.listen.port, "none"))
        assert (outcome.disposition, outcome.tls) == (Disposition.DELIVERED, "")
        assert "STARTTLS" not in server.commands


async def test_a_delivery_takes_no_longer_than_it_may(dns, tmp_path):
    with peer(hangs={"DOT"}) as server:
        async with asyncio.timeout(10):
            (outcome,) = await once(dns, server, tmp_path, within_s=0.2)
    assert (dispositions([outcome]), outcome.reply.enhanced) == (["deferred"], "4.4.2")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_it_works_on_the_workers_own_event_loop(dns, tmp_path, tls, secure):
    async def twice_and_a_drop(server):
        async with transport(dns, server.listen.port, tmp_path) as made:
            outcomes = [*await send(made), *await send(made)]
            server.behaviour.rcpt = {"ann@far.test": "550 5.1.1 no"}
            outcomes += await send(made)
            server.behaviour.drops = {"DOT"}
            return [*outcomes, *await send(made, message("bob@far.test"))]

    with peer(tls if secure else None) as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        outcomes = loop.run(twice_and_a_drop(server))
    assert dispositions(outcomes) == ["delivered", "delivered", "failed", "deferred"]
    assert server.connections == 1
    assert bool(outcomes[0].tls) is secure


def test_a_remote_reply_is_cleaned_and_clamped():
    cleaned = remote_reply(550, [b"5.1.1 no\x00 such\x1b[31m \xe4user", b"5.1.1 <b>sorry</b>"])
    assert str(cleaned) == "550 5.1.1 no? such?[31m ?user <b>sorry</b>"
    assert remote_reply(451, [b"5.1.1 odd"]).enhanced == "4.0.0"
    assert len(str(remote_reply(550, [b"x" * 4000] * 3))) <= 600
