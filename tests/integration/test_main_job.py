"""The main job with real mail clients: shop sends, office has the message, unchanged.

One installation serves the tests: each has a tenant of its own, with a shop and an office.
"""

import shutil
import smtplib
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.support.installation import PASSWORD, ROOT, Installation, People, Template, message, until


@pytest.fixture(scope="module")
def shared(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(template, tmp_path_factory.mktemp("main-job") / "data")
    yield made
    made.kill()


@pytest.fixture
def posthouse(shared: Installation) -> Installation:
    """Running, also after a test that stopped it."""
    if shared.server is None or shared.server.poll() is not None:
        shared.start()
    return shared


@pytest.fixture
def people(posthouse: Installation) -> People:
    return posthouse.people()


def text_of(people: People) -> bytes:
    return (
        f"From: {people.shop}\r\nTo: {people.office}\r\nSubject: By a real client\r\n\r\nGrüße,\r\n.\r\nend\r\n"
    ).encode()


def needs(program: str):
    reason = f"{program} isn't installed: apt-get install {program}"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


def body_of(raw: bytes) -> bytes:
    return raw.partition(b"\r\n\r\n")[2]


def send_by_swaks(people: People, file: Path, *tls: str, port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            "swaks", "--server", f"127.0.0.1:{port}", *tls, "--auth", "PLAIN", "--auth-user", people.shop,
            "--auth-password", PASSWORD, "--from", people.shop, "--to", people.office, "--data", f"@{file}",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )


@needs("swaks")
@pytest.mark.parametrize("how", ["starttls", "implicit"])
def test_swaks_sends_and_the_message_lies_in_the_maildir_unchanged(posthouse, people, tmp_path, how):
    file = tmp_path / "message"
    text = text_of(people)
    file.write_bytes(text.replace(b"\r\n", b"\n"))
    tls, port = (["-tls"], posthouse.submission) if how == "starttls" else (["-tlsc"], posthouse.submissions)
    done = send_by_swaks(people, file, *tls, port=port)
    assert done.returncode == 0, done.stdout
    (path,) = posthouse.inbox(people.office).wait()
    assert body_of(path.read_bytes()).rstrip() == body_of(text).rstrip()


@needs("curl")
def test_curl_sends_over_smtps_with_a_checked_certificate(posthouse, people, tmp_path):
    file = tmp_path / "message"
    text = text_of(people)
    file.write_bytes(text)
    subprocess.run(
        [
            "curl", "--silent", "--show-error", "--url", f"smtps://localhost:{posthouse.submissions}", "--cacert",
            posthouse.certificate, "--user", f"{people.shop}:{PASSWORD}", "--mail-from", people.shop,
            "--mail-rcpt", people.office, "--upload-file", file,
        ],
        check=True, timeout=60,
    )
    (path,) = posthouse.inbox(people.office).wait()
    raw = path.read_bytes()
    assert raw.endswith(text), "byte for byte, behind the headers that we add"
    added = message_from_bytes(raw[: -len(text)] + b"\r\n")
    assert set(added.keys()) == {"Return-Path", "Delivered-To", "Received", "Date", "Message-ID"}


@needs("msmtp")
def test_msmtp_sends(posthouse, people, tmp_path):
    text = text_of(people)
    config = tmp_path / "msmtprc"
    config.write_text(
        f"account default\nhost localhost\nport {posthouse.submission}\ntls on\ntls_starttls on\n"
        f"tls_trust_file {posthouse.certificate}\nauth plain\nuser {people.shop}\npassword {PASSWORD}\n"
        f"from {people.shop}\n"
    )
    config.chmod(0o600)
    subprocess.run(
        ["msmtp", "--file", config, people.office], input=text.replace(b"\r\n", b"\n"), check=True, timeout=60
    )
    (path,) = posthouse.inbox(people.office).wait()
    assert body_of(path.read_bytes()) == body_of(text)


def test_smtplib_sends_and_the_trace_is_stored(posthouse, people):
    posthouse.send(people.shop, people.office, subject="By smtplib")
    assert posthouse.inbox(people.office).subjects() == ["By smtplib"]
    stored = posthouse.run(
        f"m = Message.objects.get(tenant__name={people.tenant!r})\nr = Recipient.objects.get(message=m)\n"
        "answer = [m.direction, m.reverse_path, m.subject, m.credential_text, m.tls[:7], r.state, r.original,"
        " r.resolved, m.tenant_id == r.tenant_id == r.recipient_tenant_id, Content.objects.count(), m.facts]"
    )
    assert stored[:10] == [
        "submission", people.shop, "By smtplib", f"{people.shop}, main password", "TLSv1.3", "delivered",
        people.office, people.office, True, 0,
    ]
    assert stored[10], "the counters that were charged"


def test_app_password_sends_and_a_frozen_one_does_not(posthouse, people):
    secret = posthouse.manage("credential", "create", people.shop, "--label", "web shop").split()[-1]
    posthouse.send(people.shop, people.office, password=secret)
    posthouse.inbox(people.office).wait()
    posthouse.run(
        f"of_ours = Credential.objects.filter(kind='app', mailbox__address__domain__name={people.domain!r})\n"
        f"of_ours.update(frozen_at=timezone.now())\nworld.changed({people.domain!r})"
    )

    def refused() -> bool:
        try:
            posthouse.send(people.shop, people.office, password=secret)
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code == 535
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            # The worker may know before authd does, and in the midst of a message.
            assert error.smtp_code == 550
        return False

    until(refused, within_s=30, what="the refusal of a frozen password")


def test_refusals(posthouse, people):
    with posthouse.client() as client, pytest.raises(smtplib.SMTPAuthenticationError) as wrong:
        client.login(people.shop, "not the password")
    assert wrong.value.smtp_code == 535
    assert wrong.value.smtp_error.startswith(b"5.7.8")
    with smtplib.SMTP("127.0.0.1", posthouse.submission) as plain:
        plain.ehlo()
        assert "auth" not in plain.esmtp_features
        assert plain.docmd("AUTH", "PLAIN AGEAYgBj")[0] == 538
        assert plain.mail(people.shop)[0] == 530
    with posthouse.client(people.shop) as client:
        assert client.mail(people.office) == (
            550, f"5.7.1 {people.shop} may not send as {people.office}".encode()
        )
        assert client.mail(people.shop)[0] == 250
        code, text = client.rcpt(f"nobody@{people.domain}")
        assert (code, text.split()[0]) == (550, b"5.1.1")
        assert client.rcpt(people.office)[0] == 250
        code, text = client.data(message(people.office, people.office))
        assert (code, text.split()[0]) == (550, b"5.7.1")
    assert posthouse.inbox(people.office).files() == []
    with smtplib.SMTP("127.0.0.1", posthouse.mx) as other:
        other.ehlo()
        for sender in ("<stranger@elsewhere.test>", "<>", f"<{people.shop}>"):
            assert other.docmd("MAIL", f"FROM:{sender}")[0] == 250
            for relay in (
                "bob@elsewhere.test", f"bob%elsewhere.test@{people.domain}", f"@{people.domain}:bob@elsewhere.test",
                f'"bob@elsewhere.test"@{people.domain}', "bob@[127.0.0.1]",
            ):
                assert other.docmd("RCPT", f"TO:<{relay}>")[0] == 550, (sender, relay)
            other.rset()


def test_inbound_mail_is_delivered_with_subaddress_alias_and_domain_alias(posthouse, people):
    info, everybody = f"info@{people.domain}", f"all@{people.domain}"
    posthouse.run(
        f"ours = Domain.objects.get(name={people.domain!r})\nworld.domain_alias('demo.example', ours)\n"
        f"world.alias({info!r}, {people.shop!r}, {people.office!r})\nworld.alias({everybody!r}, {info!r})\n"
        "world.changed()"
    )
    tagged = f"office+tag@{people.domain}"
    with smtplib.SMTP("127.0.0.1", posthouse.mx) as other:
        for recipient in (tagged, "OFFICE@demo.example", everybody):
            until(lambda recipient=recipient: other.sendmail(
                "bob@elsewhere.test", [recipient], message("bob@elsewhere.test", recipient, recipient)
            ) == {})
    assert sorted(posthouse.inbox(people.office).subjects()) == ["OFFICE@demo.example", everybody, tagged]
    assert posthouse.inbox(people.shop).subjects() == [everybody]


@pytest.mark.once("sqlite")
def test_postmaster_and_abuse_reach_a_person(installation):
    installation.start(postmaster="office@demo.test")
    with smtplib.SMTP("127.0.0.1", installation.mx) as other:
        for recipient in ("postmaster", "postmaster@demo.test", "abuse@demo.test"):
            other.sendmail("bob@elsewhere.test", [recipient], message("bob@elsewhere.test", "x@y.test", recipient))
    assert len(installation.inbox("office@demo.test").wait(3)) == 3


def test_a_message_above_64_kib_is_stored_and_delivered_whole(posthouse, people):
    text = "".join(f"{number:06} " + "x" * 70 + "\r\n" for number in range(40_000))
    posthouse.send(people.shop, people.office, subject="Large", text=text)
    (path,) = posthouse.inbox(people.office).wait()
    assert body_of(path.read_bytes()) == text.encode()
    assert list((posthouse.data / "spool").iterdir()) == []


def test_a_pending_domain_takes_no_mail_and_nobody_sends_as_it(posthouse, people):
    posthouse.run(
        f"world.domain('pend.test', Tenant.objects.get(name={people.tenant!r}), proof='pending')\n"
        "world.mailbox('ann@pend.test')\nworld.changed()"
    )
    with smtplib.SMTP("127.0.0.1", posthouse.mx) as other:
        other.ehlo()
        other.mail("bob@elsewhere.test")
        assert other.rcpt("ann@pend.test")[0] == 550
    with posthouse.client("ann@pend.test") as client:
        code, text = client.mail("ann@pend.test")
        assert code == 550
        assert b"not proved" in text
    with posthouse.client(people.shop) as client:
        assert client.mail("ann@pend.test")[0] == 550


def test_suspension_reaches_an_open_connection_within_a_second(posthouse, people):
    with posthouse.client(people.shop) as client:
        assert client.mail(people.shop)[0] == 250
        client.rset()
        posthouse.manage("mailbox", "suspend", people.shop, "--reason", "found in a leak")

        def refused() -> bool:
            code, text = client.mail(people.shop)
            client.rset()
            return code == 550 and text.startswith(b"5.7.1") and b"suspended" in text

        until(refused, within_s=30, what="the refusal of a suspended mailbox")
        posthouse.manage("mailbox", "resume", people.shop)
        until(lambda: client.mail(people.shop)[0] == 250 or (client.rset() and False), within_s=30)


def test_a_changed_password_ends_open_connections(posthouse, people):
    with posthouse.client(people.shop) as thief:
        posthouse.run(
            "from panel.mailboxes import services\n"
            f"shop = services.find_mailbox({people.shop!r})\n"
            "services.set_password(shop, 'another horse battery', actor=None)"
        )
        with posthouse.client(people.shop, "another horse battery") as owner:
            assert owner.mail(people.shop)[0] == 250, "at once, whatever the caches know"

        def refused() -> bool:
            code, text = thief.mail(people.shop)
            thief.rset()
            return code == 550 and text.startswith(b"5.7.1 the main password may not send")

        until(refused, within_s=30, what="the refusal of a password that was changed")


def test_a_stop_finishes_the_message_under_way(posthouse, people):
    with suppress(smtplib.SMTPResponseException), posthouse.client(people.shop) as client:
        client.mail(people.shop)
        client.rcpt(people.office)
        assert client.docmd("DATA")[0] == 354
        posthouse.server.terminate()
        client.send(message(people.shop, people.office, "At the last moment") + b".\r\n")
        assert client.getreply()[0] == 250
        assert client.getreply()[0] == 421, "then the session ends, before QUIT"
    posthouse.stop()
    assert posthouse.inbox(people.office).subjects() == ["At the last moment"]


@pytest.mark.once("sqlite")
def test_a_worker_that_is_killed_is_started_again(posthouse, people):
    children = Path(f"/proc/{posthouse.server.pid}/task/{posthouse.server.pid}/children")
    before = set(children.read_text().split())
    assert len(before) == 3, "authd and two workers"
    for pid in before:
        subprocess.run(["kill", "-9", pid], check=True)
    until(lambda: len(after := set(children.read_text().split())) == 3 and not after & before, what="new processes")

    def works() -> bool:
        try:
            posthouse.send(people.shop, people.office)
        except (OSError, smtplib.SMTPException):
            return False
        return True

    until(works, what="a message through the new processes")


@pytest.mark.once("postgresql")
def test_a_second_mailserver_says_who_has_the_folder(posthouse):
    second = subprocess.run(
        posthouse.server.args, env=posthouse.environment, capture_output=True, text=True, timeout=60, check=False,
        cwd=ROOT,
    )
    assert second.returncode == 1
    assert f"already running on {posthouse.data}, pid {posthouse.server.pid}" in second.stderr
