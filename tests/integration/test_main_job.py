"""The main job with real mail clients: shop sends, office has the message, unchanged."""

import shutil
import smtplib
import subprocess
from contextlib import suppress
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.support.installation import PASSWORD, ROOT, Installation, message, until

TEXT = (
    b"From: shop@demo.test\r\nTo: office@demo.test\r\nSubject: By a real client\r\n\r\n"
    b"Gr\xc3\xbc\xc3\x9fe,\r\n.\r\nend\r\n"
)


def needs(program: str):
    reason = f"{program} isn't installed: apt-get install {program}"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


def body_of(raw: bytes) -> bytes:
    return raw.partition(b"\r\n\r\n")[2]


def send_by_swaks(posthouse: Installation, file: Path, *tls: str, port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            "swaks", "--server", f"127.0.0.1:{port}", *tls, "--auth", "PLAIN", "--auth-user", "shop@demo.test",
            "--auth-password", PASSWORD, "--from", "shop@demo.test", "--to", "office@demo.test", "--data", f"@{file}",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )


@needs("swaks")
@pytest.mark.parametrize("how", ["starttls", "implicit"])
def test_swaks_sends_and_the_message_lies_in_the_maildir_unchanged(posthouse, tmp_path, how):
    file = tmp_path / "message"
    file.write_bytes(TEXT.replace(b"\r\n", b"\n"))
    tls, port = (["-tls"], posthouse.submission) if how == "starttls" else (["-tlsc"], posthouse.submissions)
    done = send_by_swaks(posthouse, file, *tls, port=port)
    assert done.returncode == 0, done.stdout
    (path,) = posthouse.inbox("office@demo.test").wait()
    assert body_of(path.read_bytes()).rstrip() == body_of(TEXT).rstrip()


@needs("curl")
def test_curl_sends_over_smtps_with_a_checked_certificate(posthouse, tmp_path):
    file = tmp_path / "message"
    file.write_bytes(TEXT)
    subprocess.run(
        [
            "curl", "--silent", "--show-error", "--url", f"smtps://localhost:{posthouse.submissions}", "--cacert",
            posthouse.certificate, "--user", f"shop@demo.test:{PASSWORD}", "--mail-from", "shop@demo.test",
            "--mail-rcpt", "office@demo.test", "--upload-file", file,
        ],
        check=True, timeout=60,
    )
    (path,) = posthouse.inbox("office@demo.test").wait()
    raw = path.read_bytes()
    assert raw.endswith(TEXT), "byte for byte, behind the headers that we add"
    added = message_from_bytes(raw[: -len(TEXT)] + b"\r\n")
    assert set(added.keys()) == {"Return-Path", "Delivered-To", "Received", "Date", "Message-ID"}


@needs("msmtp")
def test_msmtp_sends(posthouse, tmp_path):
    config = tmp_path / "msmtprc"
    config.write_text(
        f"account default\nhost localhost\nport {posthouse.submission}\ntls on\ntls_starttls on\n"
        f"tls_trust_file {posthouse.certificate}\nauth plain\nuser shop@demo.test\npassword {PASSWORD}\n"
        "from shop@demo.test\n"
    )
    config.chmod(0o600)
    subprocess.run(
        ["msmtp", "--file", config, "office@demo.test"], input=TEXT.replace(b"\r\n", b"\n"), check=True, timeout=60
    )
    (path,) = posthouse.inbox("office@demo.test").wait()
    assert body_of(path.read_bytes()) == body_of(TEXT)


def test_smtplib_sends_and_the_trace_is_stored(posthouse):
    posthouse.send("shop@demo.test", "office@demo.test", subject="By smtplib")
    assert posthouse.inbox("office@demo.test").subjects() == ["By smtplib"]
    stored = posthouse.run(
        "m = Message.objects.get()\nr = Recipient.objects.get()\n"
        "answer = [m.direction, m.reverse_path, m.subject, m.credential_text, m.tls[:7], r.state, r.original,"
        " r.resolved, m.tenant_id == r.tenant_id == r.recipient_tenant_id, Content.objects.count(), m.facts]"
    )
    assert stored[:10] == [
        "submission", "shop@demo.test", "By smtplib", "shop@demo.test, main password", "TLSv1.3", "delivered",
        "office@demo.test", "office@demo.test", True, 0,
    ]
    assert stored[10], "the counters that were charged"


def test_app_password_sends_and_a_frozen_one_does_not(posthouse):
    secret = posthouse.manage("credential", "create", "shop@demo.test", "--label", "web shop").split()[-1]
    posthouse.send("shop@demo.test", "office@demo.test", password=secret)
    posthouse.inbox("office@demo.test").wait()
    posthouse.run("Credential.objects.filter(kind='app').update(frozen_at=timezone.now())\nworld.changed('demo.test')")

    def refused() -> bool:
        try:
            posthouse.send("shop@demo.test", "office@demo.test", password=secret)
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code == 535
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            # The worker may know before authd does, and in the midst of a message.
            assert error.smtp_code == 550
        return False

    until(refused, within_s=30, what="the refusal of a frozen password")


def test_refusals(posthouse):
    with posthouse.client() as client, pytest.raises(smtplib.SMTPAuthenticationError) as wrong:
        client.login("shop@demo.test", "not the password")
    assert wrong.value.smtp_code == 535
    assert wrong.value.smtp_error.startswith(b"5.7.8")
    with smtplib.SMTP("127.0.0.1", posthouse.submission) as plain:
        plain.ehlo()
        assert "auth" not in plain.esmtp_features
        assert plain.docmd("AUTH", "PLAIN AGEAYgBj")[0] == 538
        assert plain.mail("shop@demo.test")[0] == 530
    with posthouse.client("shop@demo.test") as client:
        assert client.mail("office@demo.test") == (550, b"5.7.1 shop@demo.test may not send as office@demo.test")
        assert client.mail("shop@demo.test")[0] == 250
        code, text = client.rcpt("nobody@demo.test")
        assert (code, text.split()[0]) == (550, b"5.1.1")
        assert client.rcpt("office@demo.test")[0] == 250
        code, text = client.data(message("office@demo.test", "office@demo.test"))
        assert (code, text.split()[0]) == (550, b"5.7.1")
    assert posthouse.inbox("office@demo.test").files() == []
    with smtplib.SMTP("127.0.0.1", posthouse.mx) as other:
        other.ehlo()
        for sender in ("<stranger@elsewhere.test>", "<>", "<shop@demo.test>"):
            assert other.docmd("MAIL", f"FROM:{sender}")[0] == 250
            for relay in (
                "bob@elsewhere.test", "bob%elsewhere.test@demo.test", "@demo.test:bob@elsewhere.test",
                '"bob@elsewhere.test"@demo.test', "bob@[127.0.0.1]",
            ):
                assert other.docmd("RCPT", f"TO:<{relay}>")[0] == 550, (sender, relay)
            other.rset()


def test_inbound_mail_is_delivered_with_subaddress_alias_and_domain_alias(posthouse):
    posthouse.run(
        "demo = Domain.objects.get()\nworld.domain_alias('demo.example', demo)\n"
        "world.alias('info@demo.test', 'shop@demo.test', 'office@demo.test')\n"
        "world.alias('all@demo.test', 'info@demo.test')\nworld.changed()"
    )
    with smtplib.SMTP("127.0.0.1", posthouse.mx) as other:
        for recipient in ("office+tag@demo.test", "OFFICE@demo.example", "all@demo.test"):
            until(lambda recipient=recipient: other.sendmail(
                "bob@elsewhere.test", [recipient], message("bob@elsewhere.test", recipient, recipient)
            ) == {})
    assert sorted(posthouse.inbox("office@demo.test").subjects()) == [
        "OFFICE@demo.example", "all@demo.test", "office+tag@demo.test",
    ]
    assert posthouse.inbox("shop@demo.test").subjects() == ["all@demo.test"]


def test_postmaster_and_abuse_reach_a_person(installation):
    installation.start(postmaster="office@demo.test")
    with smtplib.SMTP("127.0.0.1", installation.mx) as other:
        for recipient in ("postmaster", "postmaster@demo.test", "abuse@demo.test"):
            other.sendmail("bob@elsewhere.test", [recipient], message("bob@elsewhere.test", "x@y.test", recipient))
    assert len(installation.inbox("office@demo.test").wait(3)) == 3


def test_a_message_above_64_kib_is_stored_and_delivered_whole(posthouse):
    text = "".join(f"{number:06} " + "x" * 70 + "\r\n" for number in range(40_000))
    posthouse.send("shop@demo.test", "office@demo.test", subject="Large", text=text)
    (path,) = posthouse.inbox("office@demo.test").wait()
    assert body_of(path.read_bytes()) == text.encode()
    assert list((posthouse.data / "spool").iterdir()) == []


def test_a_pending_domain_takes_no_mail_and_nobody_sends_as_it(posthouse):
    posthouse.run(
        "world.domain('pend.test', Tenant.objects.get(), proof='pending')\nworld.mailbox('ann@pend.test')\n"
        "world.changed()"
    )
    with smtplib.SMTP("127.0.0.1", posthouse.mx) as other:
        other.ehlo()
        other.mail("bob@elsewhere.test")
        assert other.rcpt("ann@pend.test")[0] == 550
    with posthouse.client("ann@pend.test") as client:
        code, text = client.mail("ann@pend.test")
        assert code == 550
        assert b"not proved" in text
    with posthouse.client("shop@demo.test") as client:
        assert client.mail("ann@pend.test")[0] == 550


def test_suspension_reaches_an_open_connection_within_a_second(posthouse):
    with posthouse.client("shop@demo.test") as client:
        assert client.mail("shop@demo.test")[0] == 250
        client.rset()
        posthouse.manage("mailbox", "suspend", "shop@demo.test", "--reason", "found in a leak")

        def refused() -> bool:
            code, text = client.mail("shop@demo.test")
            client.rset()
            return code == 550 and text.startswith(b"5.7.1") and b"suspended" in text

        until(refused, within_s=30, what="the refusal of a suspended mailbox")
        posthouse.manage("mailbox", "resume", "shop@demo.test")
        until(lambda: client.mail("shop@demo.test")[0] == 250 or (client.rset() and False), within_s=30)


def test_a_changed_password_ends_open_connections(posthouse):
    with posthouse.client("shop@demo.test") as thief:
        posthouse.run(
            "from panel.mailboxes import services\n"
            "shop = services.find_mailbox('shop@demo.test')\n"
            "services.set_password(shop, 'another horse battery', actor=None)"
        )
        with posthouse.client("shop@demo.test", "another horse battery") as owner:
            assert owner.mail("shop@demo.test")[0] == 250, "at once, whatever the caches know"

        def refused() -> bool:
            code, text = thief.mail("shop@demo.test")
            thief.rset()
            return code == 550 and text.startswith(b"5.7.1 the main password may not send")

        until(refused, within_s=30, what="the refusal of a password that was changed")


def test_a_stop_finishes_the_message_under_way(posthouse):
    with suppress(smtplib.SMTPResponseException), posthouse.client("shop@demo.test") as client:
        client.mail("shop@demo.test")
        client.rcpt("office@demo.test")
        assert client.docmd("DATA")[0] == 354
        posthouse.server.terminate()
        client.send(message("shop@demo.test", "office@demo.test", "At the last moment") + b".\r\n")
        assert client.getreply()[0] == 250
        assert client.getreply()[0] == 421, "then the session ends, before QUIT"
    posthouse.stop()
    assert posthouse.inbox("office@demo.test").subjects() == ["At the last moment"]


def test_a_worker_that_is_killed_is_started_again(posthouse):
    children = Path(f"/proc/{posthouse.server.pid}/task/{posthouse.server.pid}/children")
    before = set(children.read_text().split())
    assert len(before) == 3, "authd and two workers"
    for pid in before:
        subprocess.run(["kill", "-9", pid], check=True)
    until(lambda: len(after := set(children.read_text().split())) == 3 and not after & before, what="new processes")

    def works() -> bool:
        try:
            posthouse.send("shop@demo.test", "office@demo.test")
        except (OSError, smtplib.SMTPException):
            return False
        return True

    until(works, what="a message through the new processes")


def test_a_second_mailserver_says_who_has_the_folder(posthouse):
    second = subprocess.run(
        posthouse.server.args, env=posthouse.environment, capture_output=True, text=True, timeout=60, check=False,
        cwd=ROOT,
    )
    assert second.returncode == 1
    assert f"already running on {posthouse.data}, pid {posthouse.server.pid}" in second.stderr
