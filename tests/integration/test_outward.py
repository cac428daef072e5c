"""Mail to a domain elsewhere, found by MX in a DNS server, with a real Postfix on the other side."""

import email
import smtplib

import pytest

from tests.support.installation import Installation, message, until

pytestmark = pytest.mark.postfix


@pytest.fixture
def outward(installation, dns, postfix) -> Installation:
    """Running, with elsewhere.test's MX leading to the Postfix; that isn't started yet."""
    dns.zone("elsewhere.test", "@ MX 10 mx\nmx A 127.0.0.1\n")
    installation.start(dns=dns.listen, outward_port=postfix.port)
    return installation


def waiting(installation: Installation) -> list[list[object]]:
    return installation.run(
        "answer = [[r.original, r.state, r.tries, r.last_reply] for r in Recipient.objects.order_by('id')]"
    )


def make_due(installation: Installation) -> None:
    installation.manage("queue", "retry", "--all")


def test_a_message_reaches_a_postfix_found_by_mx(outward, postfix):
    postfix.start()
    outward.send("shop@demo.test", "bob@elsewhere.test", "office@demo.test", subject="Far and near")
    (path,) = until(lambda: postfix.inbox("bob"), what="bob's message")
    raw = path.read_bytes()
    assert b"Subject: Far and near" in raw
    assert b"Return-Path: <shop@demo.test>" in raw or b"shop@demo.test" in raw
    assert outward.inbox("office@demo.test").subjects() == ["Far and near"]
    until(lambda: [state for _, state, *_ in waiting(outward)] == ["delivered", "delivered"], what="both settled")
    stored = outward.run(
        "a = Attempt.objects.get()\nanswer = [a.outcome, a.host, a.address, a.reply[:3], Content.objects.count()]"
    )
    assert stored == ["delivered", "mx.elsewhere.test", "127.0.0.1", "250", 0]


def test_a_server_that_is_down_is_waited_for(outward, postfix):
    outward.send("shop@demo.test", "bob@elsewhere.test", subject="Patience")
    until(lambda: waiting(outward)[0][2] >= 1 and waiting(outward)[0][3], what="a first try")
    assert waiting(outward)[0][1] == "waiting"
    postfix.start()
    make_due(outward)
    (path,) = until(lambda: postfix.inbox("bob"), what="bob's message")
    assert b"Patience" in path.read_bytes()


@pytest.mark.once("postgresql")
def test_a_final_refusal_brings_a_delivery_report(outward, postfix):
    postfix.start()
    outward.send("shop@demo.test", "nobody@elsewhere.test", subject="Lost")
    (path,) = outward.inbox("shop@demo.test").wait()
    report = email.message_from_bytes(path.read_bytes())
    assert report.get_content_type() == "multipart/report"
    assert report["Return-Path"] == "<>"
    assert report["Auto-Submitted"] == "auto-replied"
    text, status, original = report.get_payload()
    assert "nobody@elsewhere.test" in text.get_payload(decode=True).decode()
    fields = status.get_payload()[1]
    assert fields["Action"] == "failed"
    assert fields["Status"].startswith("5.1.1")
    assert "nobody@elsewhere.test" in fields["Final-Recipient"]
    assert "Lost" in original.as_string()
    until(lambda: waiting(outward)[0][1] == "failed", what="the recipient's state")
    assert outward.run("answer = Content.objects.count()") == 0


@pytest.mark.once("sqlite")
def test_a_route_leads_past_the_mx(outward, postfix):
    postfix.start()
    outward.manage("route", "set", "elsewhere.test", f"smtp://127.0.0.1:{postfix.port}")
    outward.run("world.changed()")
    outward.send("shop@demo.test", "bob@elsewhere.test", subject="By route")
    until(lambda: postfix.inbox("bob"), what="bob's message")
    assert outward.run("answer = Attempt.objects.get().host") == "127.0.0.1"


@pytest.mark.once("postgresql")
def test_an_inner_network_is_not_reached(installation, dns, postfix):
    dns.zone("inner.test", "@ MX 10 mx\nmx A 127.0.0.1\n")
    postfix.start()
    installation.start(dns=dns.listen, outward_port=postfix.port, outward_private="")
    installation.send("shop@demo.test", "bob@inner.test", subject="Inward")
    installation.inbox("shop@demo.test").wait()
    assert "5.4.6" in installation.run("answer = Recipient.objects.order_by('id').first().last_reply")


def test_what_an_alias_forwards_keeps_its_reverse_path_and_is_held_when_it_fails(outward, postfix):
    postfix.start()
    outward.run("world.alias('out@demo.test', 'bob@elsewhere.test', 'nobody@elsewhere.test')\nworld.changed()")
    with smtplib.SMTP("127.0.0.1", outward.mx) as other:
        until(lambda: other.sendmail(
            "carol@third.test", ["out@demo.test"], message("carol@third.test", "out@demo.test", "Forwarded")
        ) == {})
    (path,) = until(lambda: postfix.inbox("bob"), what="bob's message")
    assert b"carol@third.test" in path.read_bytes()
    held = until(lambda: outward.run(
        "failed = Recipient.objects.filter(resolved='nobody@elsewhere.test', holds__gt=0)\n"
        "answer = [[r.original, r.state, r.holds] for r in failed]"
    ), what="the hold")
    assert held == [["out@demo.test", "waiting", 2]]
    assert outward.inbox("shop@demo.test").files() == outward.inbox("office@demo.test").files() == []


def test_a_suspended_tenants_queue_waits_and_goes_on_when_resumed(outward, postfix):
    outward.send("shop@demo.test", "bob@elsewhere.test", subject="Held")
    until(lambda: waiting(outward)[0][2] >= 1 and waiting(outward)[0][3], what="a first try")
    outward.manage("tenant", "suspend", "Demo", "--reason", "unpaid")
    postfix.start()
    outward.run("Recipient.objects.update(due_at=timezone.now())")
    until(lambda: outward.run("answer = Recipient.objects.get().holds") == 1, what="the hold")
    assert postfix.inbox("bob") == []
    outward.manage("tenant", "resume", "Demo")
    until(lambda: postfix.inbox("bob"), what="bob's message")
