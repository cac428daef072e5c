"""The fields that we write above a message."""

from datetime import UTC, datetime

import pytest

from mailserver import trace
from mailserver.envelope import Client
from panel.database import ids
from panel.rules.addresses import Address

AT = datetime(2026, 11, 4, 9, 5, 7, tzinfo=UTC)
PLAIN = Client(ip="203.0.113.9", port=4711, name="client.example", tls="", esmtp=True)
SECURE = Client(ip="2001:db8::9", port=4711, name="[127.0.0.1]", tls="TLSv1.3 TLS_AES_256_GCM_SHA384", esmtp=True)


def received(client: Client, *, authenticated: bool = False, smtputf8: bool = False, recipient=None) -> str:
    return trace.received(
        client, by="mx.posthouse.test", message_id=5, at=AT, authenticated=authenticated, smtputf8=smtputf8,
        recipient=recipient,
    ).decode()


def test_received_from_a_mail_server():
    assert received(PLAIN, recipient=Address("office", "demo.test")) == (
        "Received: from client.example ([203.0.113.9])\r\n"
        "\tby mx.posthouse.test with ESMTP\r\n"
        f"\tid {ids.to_text(5)}\r\n"
        "\tfor <office@demo.test>;\r\n"
        "\tWed, 4 Nov 2026 09:05:07 +0000\r\n"
    )


def test_received_from_a_mail_client_shows_neither_login_nor_machine_nor_address():
    assert received(SECURE, authenticated=True) == (
        "Received: by mx.posthouse.test with ESMTPSA\r\n"
        "\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        f"\tid {ids.to_text(5)};\r\n"
        "\tWed, 4 Nov 2026 09:05:07 +0000\r\n"
    )


@pytest.mark.parametrize("name", ["a(b", "a)\\", 'x"y', "a;b", "<a>", "(((((", "é"])
def test_hostile_name_stays_a_word(name: str):
    first = received(Client("192.0.2.1", 1, name, "", True)).splitlines()[0]
    word = first.removeprefix("Received: from ").removesuffix(" ([192.0.2.1])")
    assert len(word) == len(name) and not set(word) & set('()<>;\\" é')


@pytest.mark.parametrize(
    ("client", "authenticated", "smtputf8", "name"),
    [
        (PLAIN, False, False, "ESMTP"), (PLAIN, False, True, "UTF8SMTP"), (SECURE, False, False, "ESMTPS"),
        (SECURE, True, False, "ESMTPSA"), (SECURE, True, True, "UTF8SMTPSA"),
        (Client("192.0.2.1", 1, "x", "", False), False, False, "SMTP"),
    ],
)  # fmt: skip
def test_protocol_has_its_registered_name(client: Client, authenticated: bool, smtputf8: bool, name: str):
    assert trace.protocol(client, authenticated, smtputf8) == name


def test_received_fields_are_counted_in_any_header():
    assert trace.received_count(b"Received: a\r\nRECEIVED : b\r\nX-Received: c\r\n\tReceived: d\r\nreceived:e\r\n") == 3
    assert trace.received_count(b"") == 0


def test_date_and_message_id():
    assert trace.date_header(AT) == b"Date: Wed, 4 Nov 2026 09:05:07 +0000\r\n"
    assert trace.message_id(5, "demo.test") == f"<{ids.to_text(5)}@demo.test>"
