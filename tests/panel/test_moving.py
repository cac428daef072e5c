"""Moving mailboxes in from a real Dovecot, by a real mbsync."""

import dataclasses
import io
import os
import stat
import sys
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from panel import environment
from panel.operations.moving import mbsync, publish
from panel.operations.moving.accounts import Account, Host, parse_host, read_accounts
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry
from tests.support import world
from tests.support.old_host import PASSWORD, OldHost

pytestmark = [pytest.mark.django_db, pytest.mark.once("postgresql")]
QUOTED = '"' + PASSWORD.replace('"', '""') + '"'
ARRIVED_S = 1_700_000_000
OLD = Host("imap.old.test", 993)


def letter(number: int, body: str = "Hello.\r\n") -> bytes:
    head = f"From: ann@old.test\r\nSubject: Letter {number}\r\nMessage-ID: <{number}@old.test>\r\n"
    return f"{head}\r\n{body}".encode()


@pytest.fixture
def old_host():
    host = OldHost("ann", "bob")
    try:
        host.start()
        yield host
    finally:
        host.discard()


@pytest.fixture
def data(tmp_path, settings):
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, data=tmp_path / "data")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def move(old_host, data, tmp_path):
    """Runs the command on these CSV lines; what it writes."""
    def move(*lines: str, options=("--ca",), out=None):
        path = tmp_path / "accounts.csv"
        path.write_text("".join(f"{line}\n" for line in lines))
        path.chmod(0o600)
        out = out if out is not None else io.StringIO()
        chosen = [old_host.certificate if option == "--ca" else option for option in options]
        extra = ["--ca", *chosen] if "--ca" in options else chosen
        port = old_host.port if "--plain" in options else old_host.tls_port
        call_command("mailbox", "migrate", str(path), "--from", f"localhost:{port}", *map(str, extra), stdout=out)
        return out.getvalue()

    return move


def maildir(data: Path, mailbox) -> Path:
    return data / "mail" / mailbox.opaque_id[:2] / mailbox.opaque_id / "Maildir"


def files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("cur/*"), *folder.glob("new/*")])


def subjects(folder: Path) -> list[str]:
    return sorted(path.read_bytes().partition(b"Subject: ")[2].partition(b"\r\n")[0].decode() for path in files(folder))


# --- the whole way -----------------------------------------------------------------------------


@pytest.mark.mbsync
@pytest.mark.slow
def test_fifty_messages_move_with_flags_folders_and_every_byte(old_host, data, mailbox, move):
    flags = ["", "\\Seen", "\\Seen \\Answered", "\\Flagged", "\\Draft"]
    letters = [letter(number, f"Body {number}.\r\n" * (number + 1)) for number in range(40)]
    old_host.put_all("ann", letters, flags=flags, at=ARRIVED_S)
    old_host.put_all("ann", [letter(100 + number) for number in range(7)], folder="Work/Bills v1.2", flags=["\\Seen"])
    old_host.put_all("ann", [letter(200 + number) for number in range(3)], folder="B&APw-cher")
    said = move(f"shop@demo.test,ann,{QUOTED}")
    assert "All 1 accounts are here." in said and "Work/Bills v1.2 is called Work/Bills v1_2 here" in said
    home = maildir(data, mailbox)
    assert len(files(home)) == 40
    assert sorted(path.read_bytes() for path in files(home)) == sorted(letters)
    assert len(files(home / ".Work.Bills v1_2")) == 7 and len(files(home / ".B&APw-cher")) == 3
    names = {path.read_bytes().partition(b"Subject: Letter ")[2].partition(b"\r")[0]: path.name for path in files(home)}
    assert [names[b"%d" % number].partition(":2,")[2] for number in range(5)] == ["", "S", "RS", "F", "D"]
    for path in files(home):
        assert f",S={path.stat().st_size},W={path.stat().st_size}:2," in path.name
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert int(path.stat().st_mtime) == ARRIVED_S
    assert stat.S_IMODE(home.stat().st_mode) & 0o770 == 0o770
    listed = (home / "subscriptions").read_text()
    assert listed == "V\t2\n\nINBOX\nB&APw-cher\nWork\tBills v1_2\n"
    [entry] = AuditEntry.objects.filter(action="mailbox.migrated")
    assert (entry.tenant, entry.after["messages"], entry.after["complete"]) == (mailbox.address.tenant, 50, True)
    assert PASSWORD not in str(entry.after) + said


@pytest.mark.mbsync
def test_second_run_pulls_only_what_is_new(old_host, data, mailbox, move):
    old_host.put_all("ann", [letter(number) for number in range(5)])
    move(f"shop@demo.test,ann,{QUOTED}")
    home = maildir(data, mailbox)
    moved, gone, *_ = files(home)
    # The person has moved one and deleted another: neither may come again.
    (home / ".Done" / "cur").mkdir(parents=True)
    os.rename(moved, home / ".Done" / "cur" / moved.name)
    gone.unlink()
    old_host.put_all("ann", [letter(7)])
    assert "1 messages in 1 folders" in move(f"shop@demo.test,ann,{QUOTED}")
    assert len(files(home)) == 4 and "Letter 7" in subjects(home)
    assert "0 messages in 0 folders" in move(f"shop@demo.test,ann,{QUOTED}")


@pytest.mark.mbsync
def test_wrong_password_fails_that_account_alone(old_host, data, mailbox, move):
    other = world.mailbox("office@demo.test")
    old_host.put_all("bob", [letter(1)])
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 of 2 accounts failed, lines 1"):
        move("shop@demo.test,ann,no-such-password", f"office@demo.test,bob,{QUOTED}", out=out)
    assert subjects(maildir(data, other)) == ["Letter 1"]
    assert "AUTHENTICATIONFAILED" in out.getvalue()
    assert "no-such-password" not in out.getvalue() and PASSWORD not in out.getvalue()
    assert not files(maildir(data, mailbox))


@pytest.mark.mbsync
def test_what_is_kept_is_private_and_holds_no_password(old_host, data, mailbox, move):
    old_host.put_all("ann", [letter(1)])
    move(f"shop@demo.test,ann,{QUOTED}")
    [state] = (data / "mail" / "migration").iterdir()
    for path in [state.parent, state, *state.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()
    move(f"shop@demo.test,ann,{QUOTED}", options=("--ca", "--last"))
    assert not state.exists()
    assert subjects(maildir(data, mailbox)) == ["Letter 1"]


@pytest.mark.mbsync
def test_secret_is_on_no_command_line_while_mbsync_runs(old_host, data, mailbox, move, monkeypatch, tmp_path):
    seen = tmp_path / "seen"
    spy = tmp_path / "mbsync"
    spy.write_text(f'#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >>{seen}\nexec {mbsync.program()} "$@"\n')
    spy.chmod(0o755)
    monkeypatch.setattr(mbsync, "program", lambda: str(spy))
    old_host.put_all("ann", [letter(1)])
    move(f"shop@demo.test,ann,{QUOTED}")
    assert "/dev/fd/" in seen.read_text() and "word" not in seen.read_text()


@pytest.mark.mbsync
def test_dry_run_logs_in_and_changes_nothing(old_host, data, mailbox, move):
    old_host.put_all("ann", [letter(1)], folder="Work")
    said = move(f"shop@demo.test,ann,{QUOTED}", options=("--ca", "--dry-run"))
    assert "ann has 2 folders: INBOX, Work" in said and "1 accounts can be pulled" in said
    assert not (data / "mail").exists()
    with pytest.raises(CommandError, match="1 of 1 accounts failed"):
        move("shop@demo.test,ann,wrong", options=("--ca", "--dry-run"))


@pytest.mark.mbsync
def test_folders_can_be_left_out(old_host, data, mailbox, move):
    for folder in ("INBOX", "Trash", "Trash/Old", "Work"):
        old_host.put_all("ann", [letter(1)], folder=folder)
    move(f"shop@demo.test,ann,{QUOTED}", options=("--ca", "--without", "Trash*"))
    home = maildir(data, mailbox)
    assert sorted(path.name for path in home.glob(".*")) == [".Work"]


@pytest.mark.mbsync
def test_unknown_certificate_is_refused(old_host, data, mailbox, move):
    old_host.put_all("ann", [letter(1)])
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 of 1 accounts failed"):
        move(f"shop@demo.test,ann,{QUOTED}", options=(), out=out)
    assert "certificate" in out.getvalue()


@pytest.mark.mbsync
def test_without_tls_only_from_loopback(old_host, data, mailbox, move):
    old_host.put_all("ann", [letter(1)])
    with pytest.raises(CommandError, match=r"Passwords don't go to imap\.old\.test:143 without TLS"):
        move(f"shop@demo.test,ann,{QUOTED},imap.old.test:143", options=("--plain",))
    move(f"shop@demo.test,ann,{QUOTED}", options=("--plain",))
    assert subjects(maildir(data, mailbox)) == ["Letter 1"]


@pytest.mark.mbsync
def test_a_run_that_was_killed_is_resumed_without_duplicates(old_host, data, mailbox, move, monkeypatch):
    old_host.put_all("ann", [letter(number) for number in range(30)])
    waited = []

    def killed(folder, home, found):
        waited.extend(mbsync.pulled_files(folder))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("panel.operations.moving.services.publish", killed)
        with pytest.raises(KeyboardInterrupt):
            move(f"shop@demo.test,ann,{QUOTED}")
    assert len(waited) == 30
    old_host.put_all("ann", [letter(30)])
    assert "31 messages in 1 folders" in move(f"shop@demo.test,ann,{QUOTED}")
    assert len(subjects(maildir(data, mailbox))) == len(set(subjects(maildir(data, mailbox)))) == 31


@pytest.mark.mbsync
def test_nothing_is_published_from_an_mbsync_that_was_killed(old_host, data, mailbox, move, monkeypatch, tmp_path):
    old_host.put_all("ann", [letter(1)])
    spy = tmp_path / "mbsync"
    spy.write_text(f'#!/bin/sh\n{mbsync.program()} "$@"\nkill -9 $$\n')
    spy.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(mbsync, "program", lambda: str(spy))
        with pytest.raises(CommandError, match="1 of 1 accounts failed"):
            move(f"shop@demo.test,ann,{QUOTED}")
    assert not files(maildir(data, mailbox))
    move(f"shop@demo.test,ann,{QUOTED}")
    assert subjects(maildir(data, mailbox)) == ["Letter 1"]


@pytest.mark.mbsync
def test_two_commands_do_not_work_on_one_account(old_host, data, mailbox, move, tmp_path):
    account = Account(1, mailbox, Host("localhost", old_host.tls_port), "ann", PASSWORD)
    out = io.StringIO()
    with mbsync.opened(mbsync.folder_of(data, account)):
        with pytest.raises(CommandError, match="1 of 1 accounts failed"):
            move(f"shop@demo.test,ann,{QUOTED}", out=out)
    assert "another `mailbox migrate` works on it" in out.getvalue()


@pytest.mark.mbsync
def test_dovecot_here_shows_folders_flags_and_arrival(old_host, mailbox, move, settings):
    # Where Dovecot's user may look as well.
    here = old_host.folder / "here"
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, data=here)
    (here / "mail").mkdir(parents=True)
    os.chown(here / "mail", old_host.owner.pw_uid, old_host.owner.pw_gid)
    old_host.put_all("ann", [letter(1)], flags=["\\Seen \\Flagged"], at=ARRIVED_S)
    old_host.put_all("ann", [letter(2)], folder="Work/Bills")
    move(f"shop@demo.test,ann,{QUOTED}")
    reader = OldHost("shop", location=f"maildir:{maildir(here, mailbox)}")
    try:
        reader.start()
        with reader.client("shop") as client:
            listed = [line.rpartition(b" ")[2] for line in client.lsub()[1]]
            assert sorted(listed) == [b"INBOX", b"Work/Bills"]
            client.select("INBOX")
            [(head, body), *_] = client.fetch("1", "(FLAGS INTERNALDATE BODY.PEEK[])")[1]
            assert b"\\Flagged" in head and b"\\Seen" in head and b"14-Nov-2023" in head
            assert body == letter(1)
            client.select("Work/Bills")
            assert client.fetch("1", "(BODY.PEEK[])")[1][0][1] == letter(2)
    finally:
        reader.discard()


# --- an mbsync that goes wrong -----------------------------------------------------------------


@pytest.fixture
def pull(tmp_path, mailbox, monkeypatch):
    """Pulls with a shell script in mbsync's place, which is given the account's folder; what is complained of."""
    account = Account(1, mailbox, Host("localhost", 993), "ann", PASSWORD)
    folder = tmp_path / "account"

    def pull(script: str) -> str:
        spy = tmp_path / "mbsync"
        spy.write_text(f"#!/bin/sh\nfolder={folder}\n{script}\n")
        spy.chmod(0o755)
        monkeypatch.setattr(mbsync, "program", lambda: str(spy))
        with mbsync.opened(folder) as lock:
            return mbsync.pull(
                account, folder, lock, plain=False, authority=None, without=(), progress=lambda waiting: None
            )

    pull.folder = folder
    return pull


def test_complaints_without_end_are_cut(pull):
    with pytest.raises(mbsync.PullError) as refused:
        pull("yes complaint | head -c 3000000 >&2; yes listed | head -c 3000000; exit 1")
    assert 1000 < len(str(refused.value)) <= mbsync.MOST_OUTPUT


def test_what_mbsync_keeps_in_memory_has_a_bound(pull, monkeypatch):
    monkeypatch.setattr(mbsync, "MOST_MEMORY", 256 * 1024**2)
    with pytest.raises(mbsync.PullError, match="MemoryError"):
        pull(f"exec {sys.executable} -c 'import time\ntime.sleep(0.2)\nbytearray(400 * 1024**2)'")


def test_far_side_that_gets_nowhere_is_given_up(pull, monkeypatch):
    monkeypatch.setattr(mbsync, "PROGRESS_EVERY_S", 0.01)
    monkeypatch.setattr(mbsync, "STALLED_S", 0.1)
    with pytest.raises(mbsync.PullError, match="nothing new came from localhost:993"):
        pull("exec sleep 600")


def test_work_that_was_left_undone_is_told_whatever_the_exit_code(pull):
    # With the disk full mbsync 1.4 ends with 0.
    assert "cannot write" in pull('echo "cannot write" >&2; : >$folder/state/INBOX.journal')
    assert pull("rm $folder/state/INBOX.journal") == ""


@pytest.mark.mbsync
def test_message_that_mbsync_leaves_out_is_told(old_host, data, mailbox, move):
    old_host.put_all("ann", [letter(1), b"Subject: a header without end\r\n"])
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 of 1 accounts failed"):
        move(f"shop@demo.test,ann,{QUOTED}", options=("--ca", "--last"), out=out)
    assert "1 messages in 1 folders; not all came: Warning: message 2 from far side" in out.getvalue()
    assert subjects(maildir(data, mailbox)) == ["Letter 1"]


def test_mbsync_that_outlives_the_command_keeps_the_account_locked(pull, monkeypatch, tmp_path):
    def die(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mbsync, "_wait", die)  # as kill -9 would: nobody stops mbsync
        patch.setattr(mbsync, "_stop", lambda process: left.append(process))
        left: list = []
        with pytest.raises(KeyboardInterrupt):
            pull("exec sleep 600")
    with pytest.raises(mbsync.PullError, match="another `mailbox migrate`"):
        pull("exit 0")
    left[0].kill()
    left[0].wait()
    assert pull("exit 0") == ""


# --- publishing --------------------------------------------------------------------------------


@pytest.fixture
def pulled(tmp_path):
    """A folder as mbsync leaves it, with three messages in INBOX."""
    folder, home = tmp_path / "state", tmp_path / "mail" / "ab" / "opaque" / "Maildir"
    for name in (*mbsync.FOLDERS, "inbox/cur", "inbox/new", "inbox/tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "mail").mkdir()
    for number in range(3):
        content = letter(number).replace(b"\r\n", b"\n").replace(b"\n\n", b"\nX-TUID: abcdefghijkl\n\n", 1)
        (folder / "inbox" / "cur" / f"170000000{number}.1_{number}.host,U={number + 1}:2,S").write_bytes(content)
    return folder, home


@pytest.mark.parametrize(("step", "call"), [
    ("panel.operations.moving.publish._sync", call) for call in range(1, 10)
] + [("os.rename", call) for call in range(1, 4)])
def test_wherever_a_crash_falls_each_message_comes_once(pulled, monkeypatch, step, call):
    folder, home = pulled
    count = 0
    real = publish._sync if step.endswith("_sync") else os.rename

    def crash(*arguments):
        nonlocal count
        count += 1
        if count == call:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(step, crash)
        try:
            publish.publish(folder, home, publish.Published())
        except KeyboardInterrupt:
            pass
    publish.publish(folder, home, publish.Published())
    assert subjects(home) == ["Letter 0", "Letter 1", "Letter 2"]
    assert not list(mbsync.pulled_files(folder)) and not files(folder / "ready")


@pytest.mark.parametrize(("stored", "came"), [
    (b"A: b\nX-TUID: abcdefghijkl\n\nbody\n", b"A: b\r\n\r\nbody\r\n"),
    (b"A: b\nX-TUID: abcdefghijkl\n", b"A: b\r\n"),
    (b"X-TUID: abcdefghijkl\n\nbody", b"\r\nbody"),
    (b"A: b\n\nX-TUID: of the body\n", b"A: b\r\n\r\nX-TUID: of the body\r\n"),
    (b"A: b\n\n", b"A: b\r\n\r\n"),
    (b"", b""),
])
def test_message_is_given_back_its_own_bytes(stored, came):
    assert publish.as_it_came(stored) == came


def test_subscriptions_of_either_version_are_added_to(pulled):
    folder, home = pulled
    for part in ("cur", "new", "tmp"):
        (folder / "folders" / "Work" / "Bills" / part).mkdir(parents=True)
    home.mkdir(parents=True)
    (home / "subscriptions").write_text("Sent\nWork.Bills")
    publish.publish(folder, home, publish.Published())
    assert (home / "subscriptions").read_text() == "Sent\nWork.Bills\nINBOX\n"
    (home / "subscriptions").write_text("V\t2\n\nSent\n")
    publish.publish(folder, home, publish.Published())
    assert (home / "subscriptions").read_text() == "V\t2\n\nSent\nINBOX\nWork\tBills\n"
    assert not (home / "subscriptions.lock").exists()


def test_folder_within_a_folder_may_have_any_name(pulled):
    folder, home = pulled
    for name in ("Work", "Work/new", "Work/new/cur", "tmp"):
        for part in ("cur", "new", "tmp"):
            (folder / "folders" / name / part).mkdir(parents=True, exist_ok=True)
        (folder / "folders" / name / "new" / f"1700000009.{name.count('/')}{len(name)}.host").write_bytes(letter(9))
    publish.publish(folder, home, publish.Published())
    assert {path.name: len(files(path)) for path in home.glob(".*")} == {
        ".Work": 1, ".Work.new": 1, ".Work.new.cur": 1, ".tmp": 1,
    }
    assert not list(mbsync.pulled_files(folder))


@pytest.mark.parametrize(("there", "here"), [
    (b"Entw\xc3\xbcrfe", b"Entw\xc3\xbcrfe"), (b"Entw\xfcrfe", b"Entw_rfe"), (b"a\x01b/c.d", b"a_b.c_d"),
    (b"x" * 199 + b"\xc3\xbc", b"x" * 199), (b"x" * 199 + b"/yy", b"x" * 199),
])
def test_folder_gets_a_name_that_dovecot_shows(there, here):
    found = publish.Published()
    assert os.fsencode(publish._box(os.fsdecode(there), found)) == here
    assert bool(found.renamed) == (there != here)


def test_files_are_the_maildirs_owners(pulled):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    folder, home = pulled
    os.chown(home.parents[2], 12345, 23456)
    home.parents[2].chmod(0o2770)
    publish.publish(folder, home, publish.Published())
    for path in [*home.rglob("*"), home, home.parent]:
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456), path
        assert path.is_file() or stat.S_IMODE(path.stat().st_mode) == 0o2770


# --- the list ----------------------------------------------------------------------------------


def read(tmp_path, text: str, host: Host | None = OLD):
    path = tmp_path / "accounts.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_accounts(path, host)


def test_list_is_read_with_titles_comments_quotes_and_own_hosts(tmp_path, mailbox):
    world.mailbox("office@demo.test")
    found = read(tmp_path, (
        "\ufeffAddress,User,Password\r\n\r\n# ours\r\nshop@demo.test,,secret\r\n"
        'Office@demo.test,bob,"with "" and ,",[::1]:1993\r\n'
    ))
    assert [(one.line, str(one.mailbox), one.user, one.password, str(one.host)) for one in found] == [
        (4, "shop@demo.test", "shop@demo.test", "secret", "imap.old.test:993"),
        (5, "office@demo.test", "bob", 'with " and ,', "[::1]:1993"),
    ]
    assert "secret" not in repr(found[0])


@pytest.mark.parametrize(("text", "words"), [
    ("shop@demo.test;ann;x\n", "line 1: it has 1 column: write address"),
    ("\nshop@demo.test,ann\n", "line 2: it has 2 columns"),
    ("shop@demo.test,ann,a,b,c\n", "line 1: it has 5 columns"),
    ("shop@demo.test,ann,pass,word\x01\n", "line 1: its fourth column is no mail host"),
    ("nobody@demo.test,ann,x\n", "line 1: There is no mailbox nobody@demo.test"),
    ("no address,ann,x\n", "line 1: The address has no @"),
    ("shop@demo.test,ann,\n", "line 1: the remote password is empty"),
    ("shop@demo.test,ann,x\x07\n", "line 1: the remote password"),
    ('shop@demo.test,ann,"x\ny"\n', "line 1: the remote password"),
    ("shop@demo.test," + "u" * 500 + ",x\n", "line 1: the remote user"),
    ("shop@demo.test,ann,x\n\nshop@demo.test,ann,y\n", "line 3: shop@demo.test is pulled from ann in line 1 already"),
    ('shop@demo.test,ann,"x\n', "unexpected end of data"),
    ("shop@demo.test,ann,x,old.test:99999\n", "line 1: its fourth column is no mail host"),
    ("# nothing\n", "holds no account"),
    (b"shop@demo.test,ann,x\n\xff\n", "line 2: it is not UTF-8"),
    ("a\nb\n", "line 2"),
])
def test_a_mistake_is_told_with_its_line_and_nothing_is_pulled(tmp_path, mailbox, text, words):
    with pytest.raises(ServiceError) as refused:
        read(tmp_path, text)
    assert words in str(refused.value)
    assert "word\x01" not in str(refused.value), "it may be the end of a password"



@pytest.mark.parametrize(("store", "goes"), [
    ("lmtp:192.0.2.9:24", False), ("maildir,lmtp:192.0.2.9:24", True), ("lmtp:127.0.0.1:24", True),
    ("lmtp:/run/socket", True),
])
def test_mailbox_that_another_machine_stores_is_refused(tmp_path, mailbox, settings, store, goes):
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, store=read_store(store))
    if goes:
        assert len(read(tmp_path, "shop@demo.test,ann,x\n")) == 1
        return
    with pytest.raises(ServiceError, match=r"line 1: shop@demo\.test is stored by LMTP at 192\.0\.2\.9:24"):
        read(tmp_path, "shop@demo.test,ann,x\n")


def read_store(text: str) -> environment.Store:
    return environment.read({"POSTHOUSE_STORE": text}).store


def test_under_root_the_state_is_the_mailservers_user(data, mailbox, move, monkeypatch):
    became = []

    class Users:
        uid = data.stat().st_uid

        def become(self) -> None:
            became.append(list(data.iterdir()))
            raise ServiceError("enough")

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("panel.system_users.find", Users)
    with pytest.raises(CommandError, match="enough"):
        move(f"shop@demo.test,ann,{QUOTED}")
    assert became == [[]], "before anything is kept"


def test_a_line_needs_a_host_and_a_closed_mailbox_is_refused(tmp_path, mailbox):
    with pytest.raises(ServiceError, match="line 1: it names no host"):
        read(tmp_path, "shop@demo.test,ann,x\n", None)
    mailbox.status = 3
    mailbox.save(update_fields=["status"])
    with pytest.raises(ServiceError, match=r"line 1: shop@demo\.test is closed"):
        read(tmp_path, "shop@demo.test,ann,x\n")


@pytest.mark.parametrize(("text", "host", "loopback"), [
    ("imap.old.example", "imap.old.example:993", False), ("IMAP.old.example:143", "imap.old.example:143", False),
    ("localhost:2143", "localhost:2143", True), ("127.0.0.1", "127.0.0.1:993", True), ("[::1]", "[::1]:993", True),
    ("127.evil.example", "127.evil.example:993", False), ("bücher.example", "xn--bcher-kva.example:993", False),
])
def test_host_is_read(text, host, loopback):
    assert str(parse_host(text)) == host and parse_host(text).is_loopback == loopback


@pytest.mark.parametrize("text", ["", ":993", "a b", "host:", "host:x", "host:0", "host:70000", 'h"x', "h\nPass x"])
def test_what_is_no_host_is_refused(text):
    with pytest.raises(ServiceError, match="is no mail host"):
        parse_host(text)


def test_configuration_quotes_what_it_is_given(tmp_path, mailbox):
    account = Account(1, mailbox, Host("old.test", 143), 'a"b', 'c\\"d')
    text = mbsync.configuration(account, tmp_path, plain=False, authority=None, without=['x"y'])
    assert 'User "a\\"b"\n' in text and 'Pass "c\\\\\\"d"\n' in text and '"!x\\"y"' in text
    assert "SSLType STARTTLS\n" in text


def test_without_mbsync_the_command_says_what_to_install(monkeypatch, db):
    monkeypatch.setattr(mbsync, "program", lambda: None)
    with pytest.raises(CommandError, match="apt-get install isync"):
        call_command("mailbox", "migrate", "x.csv")
