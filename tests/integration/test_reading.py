"""Reading with real clients: what shop sent, office reads in Dovecot; and who may log in.

One installation serves all tests: each has a tenant of its own, with an office and a shop.
"""

import imaplib
import poplib
import re
import shutil
import smtplib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.dovecot import Dovecot
from tests.support.fixtures import folder_for_all, read_by_dovecot
from tests.support.installation import PASSWORD, People, Template, message, until
from tests.support.managesieve import Sieve

pytestmark = pytest.mark.dovecot

WRONG = "[AUTHENTICATIONFAILED]"
FOLDERS = {"Drafts", "Sent", "Junk", "Trash", "Archive"}


@pytest.fixture(scope="module")
def reading(template: Template) -> Iterator[Dovecot]:
    with folder_for_all() as folder, read_by_dovecot(template, folder) as made:
        yield made


@pytest.fixture
def people(reading: Dovecot) -> People:
    return reading.installation.people()


def app_password(reading: Dovecot, login: str, *scopes: str, label: str = "phone") -> str:
    options = [word for scope in scopes for word in ("--scope", scope)]
    return reading.installation.manage("credential", "create", login, "--label", label, *options).split()[-1]


def send(reading: Dovecot, people: People, count: int, start: int = 0) -> list[bytes]:
    """Send so many messages from shop to office; each as it was sent."""
    sent = [
        message(people.shop, people.office, f"Message {number}", f"Line {number}\r\n..dotted\r\n\xe4\r\n")
        for number in range(start, start + count)
    ]
    with reading.installation.client(people.shop) as client:
        for each in sent:
            client.sendmail(people.shop, [people.office], each)
    return sent


def fetch_all(client: imaplib.IMAP4_SSL) -> list[bytes]:
    _, parts = client.fetch("1:*", "(BODY.PEEK[])")
    return [part[1] for part in parts if isinstance(part, tuple)]


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} isn't installed")


# Who may log in


def test_right_and_wrong_passwords(reading, people):
    assert reading.refusal(people.office) == ""
    assert reading.refusal(people.office.title()) == ""
    nobody = f"nobody@{people.domain}"
    for login, password in ((people.office, "wrong"), (people.office, "a/b"), (nobody, PASSWORD), ("a'+/b", "x")):
        assert WRONG in reading.refusal(login, password)
    # mutt and others name the user twice (RFC 4616).
    assert authenticate(reading, people.office, people.office, PASSWORD) == ""
    assert WRONG in authenticate(reading, "", f"jürgen o'neill@{people.domain}", "pass/wörd\t")
    assert PASSWORD not in reading.log.read_text()


def authenticate(reading: Dovecot, *plain: str) -> str:
    """AUTHENTICATE PLAIN ; the refusal, or nothing."""
    client = reading.connect()
    try:
        client.authenticate("PLAIN", lambda _: "\0".join(plain).encode())
    except imaplib.IMAP4.error as error:
        return str(error)
    finally:
        client.shutdown()
    return ""


@pytest.mark.once("postgresql")
def test_logins_are_answered_while_another_mailserver_takes_over(reading, people):
    """Dovecot's auth processes keep their connections to the authd before, until that ends.

    Whom that one let in, the next one can end.
    """
    stop, failures, answered = threading.Event(), [], []

    def log_in() -> None:
        while not stop.is_set():
            refusal = reading.refusal(people.office)
            (failures if refusal else answered).append(refusal)

    let_in = reading.connect()
    let_in.login(people.shop, PASSWORD)
    let_in.select()
    reader = threading.Thread(target=log_in)
    reader.start()
    try:
        for _ in range(2):
            reading.installation.take_over()
            old = reading.installation.finishing[-1]
            until(lambda old=old: old.poll() is not None, what="the end of the one before")
            so_far = len(answered)
            until(lambda so_far=so_far: failures or len(answered) > so_far + 3, what="logins after it")
    finally:
        stop.set()
        reader.join(60)
    assert failures == []
    idle(let_in)
    reading.installation.manage("mailbox", "suspend", people.shop, "--reason", "found in a leak")
    ends(let_in, "a suspension by the third authd")
    let_in.shutdown()


def opens(reading: Dovecot, protocol: str, secret: str, login: str) -> bool:
    """Whether a real client of this protocol gets in. Neither "temporary" nor any other failure is a no."""
    if protocol == "imap":
        refusal = reading.refusal(login, secret)
        assert not refusal or WRONG in refusal, refusal
        return not refusal
    if protocol == "pop3":
        pop3 = poplib.POP3_SSL("localhost", reading.installation.pop3s, context=reading.context, timeout=60)
        try:
            pop3.user(login)
            pop3.pass_(secret)
        except poplib.error_proto as error:
            assert b"[AUTH]" in error.args[0], error
            return False
        finally:
            pop3.close()
        return True
    if protocol == "sieve":
        sieve = Sieve(reading)
        try:
            sieve.answer()
            sieve.secure()
            sieve.answer()
            answer = sieve.login(login, secret)
        finally:
            sieve.socket.close()
        assert answer.startswith("OK") or ("failed" in answer.lower() and "UNAVAILABLE" not in answer), answer
        return answer.startswith("OK")
    try:
        with reading.installation.client(login, secret):
            return True
    except smtplib.SMTPAuthenticationError as error:
        assert error.smtp_code == 535, error
        return False


PROTOCOLS = ("submission", "imap", "pop3", "sieve")
IS_OFFICE = "address__local_part='office', address__domain__name='{}'"
APP = "answer = Credential.objects.get(kind='app', mailbox__address__domain__name='{}').pk"


def test_app_password_opens_its_scopes_only(reading, people):
    for scope in PROTOCOLS:
        secret = app_password(reading, people.office, scope, label=f"for {scope}")
        assert [protocol for protocol in PROTOCOLS if opens(reading, protocol, secret, people.office)] == [scope]


def test_frozen_and_suspended_are_refused_within_a_second(reading, people):
    secret = app_password(reading, people.office, *PROTOCOLS)
    assert [protocol for protocol in PROTOCOLS if opens(reading, protocol, secret, people.office)] == [*PROTOCOLS]
    assert reading.refusal(people.office) == ""
    number = reading.installation.run(APP.format(people.domain))
    reading.installation.manage("credential", "freeze", str(number), "--reason", "lost phone")
    for protocol in PROTOCOLS:
        took(
            lambda protocol=protocol: not opens(reading, protocol, secret, people.office),
            f"a frozen app password by {protocol}",
        )
    assert reading.refusal(people.office) == "", "the main password is another one"
    beside = app_password(reading, people.office, *PROTOCOLS, label="beside a second factor")
    reading.installation.run(
        "from panel.tenants.sign_in import second_factor as factor\nfrom tests.support.authenticator import code_of\n"
        "secret = factor.new_secret()\n"
        f"factor.add(Mailbox.objects.get({IS_OFFICE.format(people.domain)}).person, secret, code_of(secret))"
    )
    for protocol in PROTOCOLS:
        took(
            lambda protocol=protocol: not opens(reading, protocol, PASSWORD, people.office),
            f"a main password by {protocol}",
        )
    assert [protocol for protocol in PROTOCOLS if opens(reading, protocol, beside, people.office)] == [*PROTOCOLS]
    reading.installation.manage("mailbox", "second-factor", people.office, "--reset")
    until(lambda: reading.refusal(people.office) == "", within_s=30, what="the main password after the factor is gone")
    reading.installation.manage("mailbox", "suspend", people.office, "--reason", "found in a leak")
    took(lambda: WRONG in reading.refusal(people.office), "a suspended mailbox")
    reading.installation.manage("mailbox", "resume", people.office)
    until(lambda: reading.refusal(people.office) == "", within_s=30, what="the login of a resumed mailbox")


# No control characters: Dovecot itself refuses them, whoever decides.
STRANGE = "pä ss/wörd\\ 'and\" $%{user}%w "


def test_open_sessions_end_with_a_new_password_a_freeze_and_a_suspension(reading, people):
    with reading.imap(people.shop) as other:
        with reading.imap(people.office) as client:
            idle(client)
            change = "from panel.mailboxes import passwords\nmain = Credential.objects.filter(kind='main')\n"
            office = f"main.filter(mailbox__in=Mailbox.objects.filter({IS_OFFICE.format(people.domain)}))"
            reading.installation.run(
                f"{change}{office}.update(secret=passwords.hash_main({STRANGE!r}))\nworld.changed({people.domain!r})"
            )
            ends(client, "a new password")
        assert authenticate(reading, "", people.office, STRANGE) == ""
        secret = app_password(reading, people.office, "imap", "pop3")
        pop3 = poplib.POP3_SSL("localhost", reading.installation.pop3s, context=reading.context, timeout=60)
        pop3.user(people.office)
        pop3.pass_(secret)
        with reading.imap(people.office, secret) as client:
            idle(client)
            number = reading.installation.run(APP.format(people.domain))
            reading.installation.manage("credential", "freeze", str(number), "--reason", "lost phone")
            ends(client, "a freeze")
        with pytest.raises(poplib.error_proto):
            pop3.noop()
        assert other.noop()[0] == "OK", "another mailbox's goes on"
        idle(other)
        reading.installation.manage("tenant", "suspend", people.tenant, "--reason", "unpaid")
        ends(other, "a tenant's suspension")
    for word in (PASSWORD, STRANGE, STRANGE.encode().hex()):
        assert word not in reading.log.read_text() + reading.installation.log.read_text()


def idle(client: imaplib.IMAP4_SSL) -> None:
    client.send(b"i1 IDLE\r\n")
    while not client.readline().startswith(b"+ idling"):
        pass


def ends(client: imaplib.IMAP4_SSL, what: str) -> None:
    """Whether the session has ended, by Dovecot's word."""
    began = time.monotonic()
    client.sock.settimeout(10)
    assert client.readline().startswith(b"* BYE")
    assert client.readline() == b""
    print(f"an open session ends {time.monotonic() - began:.1f} s after {what} (promise: 2 s)")


def took(refused: Callable[[], bool], what: str) -> None:
    began = time.monotonic()
    until(refused, within_s=30, what=f"the refusal of {what}")
    # Dovecot itself adds two seconds to a refusal.
    print(f"{what} is refused {time.monotonic() - began:.1f} s after the command, Dovecot's own delay included")


def test_a_lost_database_is_a_temporary_failure_and_never_a_wrong_password(reading, people):
    rename = "from django.db import connection\nconnection.cursor().execute('ALTER TABLE {} RENAME TO {}')"
    reading.installation.run(rename.format("mailboxes_credential", "away"))
    for password in (PASSWORD, "wrong"):
        assert "[UNAVAILABLE]" in reading.refusal(people.office, password)
    reading.installation.run(rename.format("away", "mailboxes_credential"))
    until(lambda: reading.refusal(people.office) == "", within_s=30, what="the login when the database is back")
    assert PASSWORD not in reading.log.read_text(), "Dovecot writes the key of a failed look-up into its log"


@pytest.mark.slow
def test_good_logins_are_answered_among_many_wrong_ones(reading, people):
    logins = [f"person{number}@{people.domain}" for number in range(10)]
    reading.installation.run(
        f"for login in {logins}:\n    world.mailbox(login)\nworld.changed({people.domain!r})"
    )
    for login in logins:
        until(lambda login=login: reading.refusal(login) == "", within_s=20, what=f"the first login of {login}")

    def attempt(number: int) -> tuple[bool, str, float]:
        good = number % 2 == 0
        # Wrong ones for people who are there, and for people who aren't.
        login = logins[number // 2 % 10] if good or number % 4 == 1 else f"nobody{number}@{people.domain}"
        client = reading.connect()
        began = time.monotonic()
        try:
            client.login(login, PASSWORD if good else f"wrong {number}")
            answer = ""
        except imaplib.IMAP4.error as error:
            answer = str(error)
        finally:
            taken = time.monotonic() - began
            client.shutdown()
        return good, answer, taken

    with ThreadPoolExecutor(200) as pool:
        results = list(pool.map(attempt, range(200)))
    slowest = max(taken for good, _, taken in results if good)
    print(f"slowest of 100 good logins among 100 wrong ones: {slowest:.2f} s (promise: 1 s)")
    assert [answer for good, answer, _ in results if good] == [""] * 100
    for good, answer, _ in results:
        assert good or WRONG in answer or "[UNAVAILABLE]" in answer


# Reading


def test_office_reads_byte_for_byte_what_shop_sent(reading, people):
    with reading.imap(people.office) as client:
        assert client.search(None, "ALL")[1] == [b""], "Dovecot made the folder before there was mail"
    sent = send(reading, people, 3)
    with reading.imap(people.office) as client:
        read = fetch_all(client)
        # Sent one after the other, by two workers: their order in one second is nobody's promise.
        read.sort(key=lambda each: each[-len(sent[0]) :])
        assert [each[-len(original) :] for each, original in zip(read, sent, strict=True)] == sent
        assert all(each.startswith(f"Return-Path: <{people.shop}>\r\n".encode()) for each in read)
        _, sizes = client.fetch("1:*", "(RFC822.SIZE)")
        assert [int(re.search(rb"SIZE (\d+)", size)[1]) for size in sizes] == [len(each) for each in read]
    files = reading.installation.inbox(people.office).files()
    assert sorted(path.read_bytes() for path in files) == sorted(read)
    send(reading, people, 1, start=3)
    with reading.imap(people.office) as client:
        assert len(fetch_all(client)) == 4, "mail still comes in where Dovecot has been"


def test_folders_have_their_use_and_take_copies_and_moves(reading, people):
    send(reading, people, 2)
    with reading.imap(people.office) as client:
        _, listed = client.list()
        uses = dict(re.search(rb"\\(\w+)\) \"/\" (\w+)$", line).groups() for line in listed if b"INBOX" not in line)
        assert {name.decode(): use.decode() for use, name in uses.items()} == {name: name for name in FOLDERS}
        assert client.copy("1", "Archive")[0] == "OK"
        assert client._simple_command("MOVE", "2", "Trash")[0] == "OK"
        assert client.append("Sent", r"(\Seen)", None, b"Subject: Copy\r\n\r\nof what was sent\r\n")[0] == "OK"
        for folder, count in (("INBOX", b"1"), ("Archive", b"1"), ("Trash", b"1"), ("Sent", b"1")):
            assert client.select(folder) == ("OK", [count]), folder


def test_new_mail_shows_in_an_idle_session_within_two_seconds(reading, people):
    with reading.imap(people.office) as client, reading.installation.client(people.shop) as sender:
        client.send(b"i1 IDLE\r\n")
        assert client.readline().startswith(b"+ idling")
        began = time.monotonic()
        sender.sendmail(people.shop, [people.office], message(people.shop, people.office))
        client.sock.settimeout(10)
        assert client.readline() == b"* 1 EXISTS\r\n"
        print(f"an IDLE session heard of new mail after {time.monotonic() - began:.2f} s (promise: 2 s)")
        client.send(b"DONE\r\n")


def test_pop3_reads_and_deletes(reading, people):
    [sent] = send(reading, people, 1)
    client = poplib.POP3_SSL("localhost", reading.installation.pop3s, context=reading.context, timeout=60)
    client.user(people.office)
    with pytest.raises(poplib.error_proto, match="AUTH"):
        client.pass_("wrong")
    client.user(people.office)
    client.pass_(PASSWORD)
    assert client.stat()[0] == 1
    assert b"\r\n".join(client.retr(1)[1]).endswith(sent.rstrip(b"\r\n"))
    client.dele(1)
    client.quit()
    assert reading.installation.inbox(people.office).files() == []


def test_a_full_mailbox_takes_no_more_and_recovers(reading, people):
    reading.installation.run(
        f"Mailbox.objects.filter(address__domain__name={people.domain!r}).update(quota_bytes=20000)\n"
        f"world.changed({people.domain!r})"
    )
    letter = b"Subject: Large\r\n\r\n" + b"x" * 70 * 100
    with reading.imap(people.office) as client:
        until(lambda: client.append("INBOX", None, None, letter)[0] == "NO", within_s=20, what="a full mailbox")
        assert b"20" in client.getquotaroot("INBOX")[1][1][0]
        assert "[OVERQUOTA]" in str(client.append("INBOX", None, None, letter)[1])
        client.select("INBOX")
        client.store("1:*", "+FLAGS", r"(\Deleted)")
        client.expunge()
        assert client.append("INBOX", None, None, letter)[0] == "OK"


# Other clients


@pytest.mark.once("sqlite")
@needs("mbsync")
@pytest.mark.slow
def test_mbsync_syncs_both_ways_with_flags(reading, people, tmp_path):
    sent = send(reading, people, 200)
    local = tmp_path / "local"
    local.mkdir()
    config = tmp_path / "mbsyncrc"
    config.write_text(
        f"IMAPAccount office\nHost localhost\nPort {reading.installation.imaps}\nUser {people.office}\n"
        f'Pass "{PASSWORD}"\nSSLType IMAPS\nCertificateFile "{reading.installation.certificate}"\n\n'
        f"IMAPStore far\nAccount office\n\nMaildirStore near\nPath {local}/\nInbox {local}/INBOX\n\n"
        "Channel office\nFar :far:\nNear :near:\nPatterns INBOX Sent\nCreate Both\nExpunge Both\nSyncState *\n"
    )

    def sync() -> None:
        subprocess.run(["mbsync", "--config", config, "office"], check=True, timeout=120, capture_output=True)

    def near() -> list[Path]:
        return [*local.glob("INBOX/new/*"), *local.glob("INBOX/cur/*")]

    sync()
    assert len(near()) == 200
    # It adds a line of its own, X-TUID, and takes it away when it is done.
    read = {path.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")[2] for path in near()}
    assert read == {each.replace(b"\r\n", b"\n").partition(b"\n\n")[2] for each in sent}
    # By number: the folder's order is none, and what is deleted there must not be what is flagged here.
    [seen] = [path for path in near() if b"Line 154" in path.read_bytes()]
    if not (local / "INBOX" / "cur").exists():
        (local / "INBOX" / "cur").mkdir()
    seen.rename(local / "INBOX" / "cur" / (seen.name.partition(":")[0] + ":2,FS"))
    with reading.imap(people.office) as client:
        for number, flag in ((150, "Answered"), (151, "Answered"), (152, "Deleted"), (153, "Deleted")):
            [found] = client.search(None, "SUBJECT", f'"Message {number}"')[1][0].split()
            client.store(found.decode(), "+FLAGS", f"(\\{flag})")
        client.expunge()
    (local / "Sent" / "cur").mkdir(parents=True, exist_ok=True)
    for name in ("new", "tmp"):
        (local / "Sent" / name).mkdir(exist_ok=True)
    (local / "Sent" / "cur" / "1795517167.1.here:2,S").write_bytes(b"Subject: Mine\n\nby the client\n")
    sync()
    with reading.imap(people.office) as client:
        assert len(client.search(None, "SEEN FLAGGED")[1][0].split()) == 1
        assert client.select("Sent") == ("OK", [b"1"])
    assert len(near()) == 198
    assert len([path for path in near() if "R" in path.name.rpartition(":2,")[2]]) == 2


@needs("curl")
def test_curl_reads_over_imaps_with_a_checked_certificate(reading, people):
    [sent] = send(reading, people, 1)
    done = subprocess.run(
        [
            "curl", "--silent", "--show-error", "--cacert", reading.installation.certificate, "--user",
            f"{people.office}:{PASSWORD}", f"imaps://localhost:{reading.installation.imaps}/INBOX;UID=1",
        ],
        check=True, timeout=60, capture_output=True,
    )
    assert done.stdout.endswith(sent)


@needs("mutt")
def test_mutt_opens_the_folder_and_reads_a_message(reading, people, tmp_path):
    [sent] = send(reading, people, 1)
    read = tmp_path / "read"
    config = tmp_path / "muttrc"
    config.write_text(
        f'set imap_user="{people.office}" imap_pass="{PASSWORD}" folder="{tmp_path}" wait_key=no pipe_decode=no\n'
        f'set certificate_file="{reading.installation.certificate}" ssl_starttls=yes ssl_force_tls=yes\n'
        f'push "<pipe-message>cat >{read}<enter><exit>"\n'
    )
    folder = f"imaps://localhost:{reading.installation.imaps}/INBOX"
    # It wants a terminal, of which nobody reads more than it writes.
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", f"mutt -F {config} -f {folder}", tmp_path / "screen"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
        env={"TERM": "xterm", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout
    assert read.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")[2] == sent.replace(
        b"\r\n", b"\n"
    ).partition(b"\n\n")[2]


def test_managesieve_offers_tls_and_takes_a_script(reading, people):
    client = Sieve(reading)
    offered = client.answer()
    assert '"STARTTLS"' in offered
    client.secure()
    assert any("PLAIN" in line for line in client.answer())
    assert client.login(people.office, "wrong").startswith("NO")
    sieve = app_password(reading, people.office, "sieve")
    assert client.login(people.office, sieve).startswith("OK")
    assert client.put("away", 'require "fileinto"; fileinto "Archive";').startswith("OK")
    assert client.ask('SETACTIVE "away"')[-1].startswith("OK")
    assert client.ask("LISTSCRIPTS") == ['"away" ACTIVE', 'OK "Listscripts completed."']
