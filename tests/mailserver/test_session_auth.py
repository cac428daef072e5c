"""AUTH in every form that mail clients send it, and in those that attackers do. RFC 4954."""

import base64

import pytest

from tests.support import house as houses
from tests.support.house import PASSWORD, House, plain

pytestmark = pytest.mark.once("sqlite")

GREETED = """
    tls S: 220 *
    tls C: EHLO client.example
    tls S: 250-*
    """


@pytest.fixture
async def house(tmp_path):
    async with houses.house(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "script",
    [
        "tls C: AUTH PLAIN {plain shop}",
        "tls C: AUTH plain {plain shop}",
        "tls C: AUTH PLAIN\ntls S: 334 \ntls C: {plain shop}",
        "tls C: AUTH LOGIN\ntls S: 334 VXNlcm5hbWU6\ntls C: {base64 shop@demo.test}\n"
        "tls S: 334 UGFzc3dvcmQ6\ntls C: {password}",
        "tls C: AUTH LOGIN {base64 shop@demo.test}\ntls S: 334 UGFzc3dvcmQ6\ntls C: {password}",
        "tls C: AUTH PLAIN {base64 shop@demo.test\\0shop@demo.test\\0right horse battery}",
        "tls C: AUTH PLAIN {base64 SHOP@demo.test\\0shop@demo.test\\0right horse battery}",
    ],
)
async def test_right_password_logs_in(house: House, script: str, caplog):
    caplog.set_level("INFO", "posthouse")
    await house.talk(f"{GREETED}{script}\ntls S: 235 2.7.0 *\ntls C: MAIL FROM:<shop@demo.test>\ntls S: 250 2.1.0 *")
    assert house.auth.asked == [("shop@demo.test", PASSWORD)]
    assert "login login=shop@demo.test ip=127.0.0.1" in caplog.text
    assert PASSWORD not in caplog.text and plain("shop@demo.test") not in caplog.text


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("tls C: AUTH", "501 5.5.4 *"),
        ("tls C: AUTH PLAIN a b", "501 5.5.4 *"),
        ("tls C: AUTH CRAM-MD5", "504 5.5.4 *"),
        ("tls C: AUTH PLAIN !!!", "501 5.5.2 *"),
        ("tls C: AUTH PLAIN {base64 no nul}", "501 5.5.2 *"),
        ("tls C: AUTH PLAIN =", "501 5.5.2 *"),
        ("tls C: AUTH PLAIN\ntls S: 334 \ntls C: *", "501 5.7.0 *"),
        ("tls C: AUTH LOGIN\ntls S: 334 *\ntls C: *", "501 5.7.0 *"),
        ("tls C: AUTH LOGIN\ntls S: 334 *\ntls C: {base64 shop@demo.test}\ntls S: 334 *\ntls C: *", "501 5.7.0 *"),
        ("tls C: AUTH LOGIN\ntls S: 334 *\ntls C: not base64", "501 5.5.2 *"),
        ("tls C: AUTH LOGIN =\ntls S: 334 UGFzc3dvcmQ6\ntls C: {password}", "535 5.7.8 *"),
        ("tls C: AUTH PLAIN {plain shop wrong}", "535 5.7.8 *"),
        ("tls C: AUTH PLAIN {base64 office@demo.test\\0shop@demo.test\\0right horse battery}", "535 5.7.8 *"),
        ("tls C: AUTH PLAIN {base64 \\0shop@demo.test\\0}", "535 5.7.8 *"),
    ],
)
async def test_anything_else_is_refused_and_the_session_goes_on(house: House, script: str, expected: str):
    await house.talk(f"{GREETED}{script}\ntls S: {expected}\ntls C: AUTH PLAIN {{plain shop}}\ntls S: 235 2.7.0 *")


@pytest.mark.parametrize("response", [b"\0shop@demo.test\0\xff\xfe", b"\xff\0shop@demo.test\0" + PASSWORD.encode()])
async def test_octets_that_are_not_utf8_are_a_wrong_password(house: House, response: bytes):
    wire = await houses.Wire.open(house.ports[houses.Listener.SUBMISSIONS], house.client_tls)
    await wire.reply()
    await wire.say("EHLO x")
    assert (await wire.say(b"AUTH PLAIN " + base64.b64encode(response))).startswith("535 5.7.8")


async def test_auth_stands_before_transactions_and_once(house: House):
    await house.talk("""
        tls S: 220 *
        tls C: AUTH PLAIN {plain shop}
        tls S: 503 5.5.1 *
        tls C: EHLO x
        tls S: 250-*
        tls C: AUTH PLAIN {plain shop}
        tls S: 235 *
        tls C: MAIL FROM:<shop@demo.test>
        tls S: 250 *
        tls C: AUTH PLAIN {plain shop}
        tls S: 503 5.5.1 *
        tls C: RSET
        tls S: 250 *
        tls C: AUTH PLAIN {plain office}
        tls S: 503 5.5.1 *
        tls C: EHLO again
        tls S: 250-*
        tls C: MAIL FROM:<shop@demo.test>
        tls S: 250 *
        """)
    assert len(house.auth.asked) == 1


async def test_over_long_response_is_swallowed_whole(house: House):
    wire = await houses.Wire.open(house.ports[houses.Listener.SUBMISSIONS], house.client_tls)
    await wire.reply()
    await wire.say("EHLO x")
    assert (await wire.say("AUTH PLAIN")).startswith("334")
    await wire.send(b"A" * 12289)
    await wire.send(b"A" * 100_000 + b"\r\nNOOP\r\n")
    assert (await wire.reply())[0].startswith("500 5.5.6")
    assert (await wire.reply())[0].startswith("250 2.0.0")
    assert (await wire.say("AUTH PLAIN " + "A" * 12289)).startswith("500 5.5.6")
    # A long one that is within the limit is taken for what it is.
    password = "x" * 9000
    assert (await wire.say(f"AUTH PLAIN {plain('shop@demo.test', password)}")).startswith("535 5.7.8")
    assert house.auth.asked == [("shop@demo.test", password)]


async def test_second_mechanism_with_the_same_password_counts_once(tmp_path):
    async with houses.house(tmp_path, failed_logins=2) as house:
        await house.talk("""
            tls S: 220 *
            tls C: EHLO x
            tls S: 250-*
            tls C: AUTH PLAIN {plain shop wrong}
            tls S: 535 5.7.8 *
            tls C: *
            tls S: 500 5.5.1 *
            tls C: AUTH LOGIN {base64 shop@demo.test}
            tls S: 334 *
            tls C: {base64 wrong}
            tls S: 535 5.7.8 *
            tls C: AUTH PLAIN {plain shop}
            tls S: 235 *
            """)
        assert house.auth.asked == [("shop@demo.test", "wrong"), ("shop@demo.test", PASSWORD)]


async def test_failed_logins_end_the_session(house: House):
    await house.talk(GREETED + """
        tls C: AUTH PLAIN {plain shop one}
        tls S: 535 5.7.8 *
        tls C: AUTH PLAIN {plain shop two}
        tls S: 535 5.7.8 *
        tls C: AUTH PLAIN {plain shop three}
        tls S: 535 5.7.8 *
        tls S: 421 4.7.0 *
        tls closed
        """)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("suspended", "535 5.7.13 *shop@demo.test*"),
        ("scope", "535 5.7.8 *"),
        ("locked", "454 4.7.0 too many failed logins*"),
        ("unavailable", "454 4.7.0 *"),
    ],
)
async def test_each_verdict_has_its_reply(house: House, verdict: str, expected: str):
    house.auth.verdict = verdict
    await house.talk(f"{GREETED}tls C: AUTH PLAIN {{plain shop}}\ntls S: {expected}")


async def test_no_authd_or_database_is_never_a_wrong_password(tmp_path):
    async with houses.house(tmp_path, failed_logins=1) as house:
        await house.talk(GREETED + """
            ! authd gone
            tls C: AUTH PLAIN {plain shop}
            tls S: 454 4.7.0 *
            ! authd back
            ! database gone
            tls C: AUTH PLAIN {plain shop}
            tls S: 454 4.7.0 *
            ! database back
            tls C: AUTH PLAIN {plain shop}
            tls S: 235 2.7.0 *
            """)
