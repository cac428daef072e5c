"""STARTTLS, on both event loops, and the certificate that is renewed under way. RFC 3207."""

import asyncio
import ssl

import pytest

from mailserver import tls
from mailserver.envelope import Listener
from tests.support import house as houses
from tests.support.dialogue import Wire
from tests.support.house import House

pytestmark = [pytest.mark.both_loops, pytest.mark.once("sqlite")]


@pytest.fixture
async def house(tmp_path):
    async with houses.house(tmp_path) as made:
        yield made


async def test_nothing_before_starttls_survives_it(house: House):
    await house.talk("""
        shop S: 220 *
        shop C: EHLO x
        shop S: 250-*
        # Pipelined past STARTTLS: gone, not answered in TLS (CVE-2024-34083).
        shop C: STARTTLS\\r\\nNOOP\\r\\nEHLO attacker\\r\\nMAIL FROM:<a@b.test>
        shop S: 220 2.0.0 *
        shop TLS
        shop C: MAIL FROM:<shop@demo.test>
        shop S: 503 5.5.1 *
        shop C: EHLO x
        shop S: 250-*
        shop C: STARTTLS
        shop S: 503 5.5.1 *
        shop C: AUTH PLAIN {plain shop}
        shop S: 235 2.7.0 *
        shop C: QUIT
        shop S: 221 2.0.0 *
        shop closed
        """)


async def test_half_a_command_before_starttls_is_no_part_of_one_after_it(house: House):
    await house.talk("""
        mx S: 220 *
        mx C| STARTTLS\\r\\nEHLO attack
        mx S: 220 2.0.0 *
        mx TLS
        mx C: er
        mx S: 500 5.5.1 *
        """)


async def test_transaction_before_starttls_is_gone(house: House):
    await house.talk("""
        mx S: 220 *
        mx C: EHLO x
        mx S: 250-*
        mx C: MAIL FROM:<a@b.test>
        mx S: 250 *
        mx C: STARTTLS now
        mx S: 501 5.5.4 *
        mx C: STARTTLS
        mx S: 220 *
        mx TLS
        mx C: RCPT TO:<office@demo.test>
        mx S: 503 5.5.1 *
        """)


async def test_message_after_starttls_says_so(house: House):
    await house.talk("""
        mx S: 220 *
        mx C: STARTTLS
        mx S: 220 *
        mx TLS
        mx C: EHLO x
        mx S: 250-*
        mx C: MAIL FROM:<a@b.test>\\r\\nRCPT TO:<office@demo.test>\\r\\nDATA
        mx S: 250 *
        mx S: 250 *
        mx S: 354 *
        mx C: .
        mx S: 250 2.0.0 *
        """)
    [taken] = house.intake.taken
    assert b"with ESMTPS\r\n\t(TLSv1.3 TLS_" in taken.prefix


async def test_handshake_that_fails_ends_only_its_session(house: House, caplog):
    wire = await house.mx()
    assert (await wire.say("STARTTLS")).startswith("220 ")
    await wire.send(b"GET / HTTP/1.0\r\n\r\n" * 20)
    try:
        async with asyncio.timeout(30):
            await wire.reader.read()  # an alert, or nothing
    except ConnectionError:
        pass
    await house.until(lambda: not house.services.sessions)
    assert "fault" not in caplog.text
    (await house.mx()).close()


async def test_vanishing_in_the_handshake_is_harmless(house: House, caplog):
    wire = await house.mx()
    assert (await wire.say("STARTTLS")).startswith("220 ")
    wire.writer.transport.abort()
    await house.until(lambda: not house.services.sessions)
    assert "fault" not in caplog.text


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_tls_before_1_2_is_refused(house: House):
    old = houses.trusting()
    old.set_ciphers("ALL:@SECLEVEL=0")  # so that it is the server who refuses
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await Wire.open(house.ports[Listener.SUBMISSIONS], old)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    (await Wire.open(house.ports[Listener.SUBMISSIONS], old)).close()


async def test_large_message_through_tls_with_small_buffers(house: House):
    wire = await house.submission()
    for line in ("MAIL FROM:<shop@demo.test>", "RCPT TO:<office@demo.test>", "DATA"):
        await wire.say(line)
    body = b"From: shop@demo.test\r\n\r\n" + (b"z" * 998 + b"\r\n") * 900
    await wire.send(body + b".\r\n")
    assert (await wire.reply())[0].startswith("250 ")
    assert house.intake.taken[0].body.path.read_bytes() == body


# The certificate


def _served(context: ssl.SSLContext) -> bytes:
    """The certificate that a new connection is shown."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = houses.trusting().wrap_bio(back, there, server_hostname="localhost")
    server = context.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    shown = client.getpeercert(binary_form=True)
    assert shown
    return shown


def test_renewed_certificate_is_taken_over_in_place(tmp_path):
    files = houses.certificate(tmp_path)
    context = tls.server_context(*files)
    before = _served(context)
    assert not tls.reload_if_changed(context, *files)
    houses.certificate(tmp_path)
    assert tls.reload_if_changed(context, *files)
    assert _served(context) != before
    assert not tls.reload_if_changed(context, *files)


@pytest.mark.parametrize("what", ["garbage", "empty", "gone", "foreign key"])
def test_broken_certificate_is_logged_once_and_the_old_one_stays(tmp_path, caplog, what):
    chain, key = houses.certificate(tmp_path)
    context = tls.server_context(chain, key)
    before = _served(context)
    match what:
        case "garbage":
            chain.write_text("-----BEGIN CERTIFICATE-----\nhay\n")
        case "empty":
            chain.write_text("")
        case "gone":
            chain.unlink()
        case "foreign key":
            (tmp_path / "other").mkdir()
            houses.certificate(tmp_path / "other")[1].rename(key)
    assert not tls.reload_if_changed(context, chain, key)
    assert not tls.reload_if_changed(context, chain, key)
    assert caplog.text.count("the old one stays") == 1
    assert _served(context) == before
    houses.certificate(tmp_path)
    assert tls.reload_if_changed(context, chain, key)
    assert _served(context) != before
