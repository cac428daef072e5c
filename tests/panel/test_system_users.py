"""The users that root's programs run as: who owns what in the data folder, and who can read it."""

import grp
import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from panel import system_users
from panel.system_users import SystemUsers

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can make users and be another one")


@pytest.fixture
def users() -> SystemUsers:
    return system_users.ensure()


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder that others can reach; pytest's own is root's alone."""
    with tempfile.TemporaryDirectory(prefix="ph-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder) / "data"


def as_user(uid: int, *gids: int, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], user=uid, group=gids[0], extra_groups=gids, capture_output=True, text=True, timeout=30,
        check=False, cwd="/",
    )


def owner(path: Path) -> tuple[str, str, str]:
    found = path.lstat()
    mode = oct(stat.S_IMODE(found.st_mode))[2:]
    return pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name, mode


def test_the_users_are_made_once_and_are_not_root(users):
    assert system_users.ensure() == users == system_users.find()
    assert 0 not in (users.uid, users.gid, users.mail_uid, users.mail_gid)
    assert users.uid != users.mail_uid
    assert pwd.getpwnam("posthouse").pw_shell.endswith("nologin")


def test_a_new_data_folder_is_posthouses_and_mail_is_shared_with_vmail(users, data):
    system_users.give(data, users)
    mail_group = grp.getgrgid(users.mail_gid).gr_name
    assert owner(data) == ("posthouse", "posthouse", "711")
    assert owner(data / "mail") == ("posthouse", mail_group, "2770")
    assert owner(data / "run")[0::2] == ("posthouse", "2711")


def test_what_root_left_is_given_and_closed_to_others(users, data):
    maildir = data / "mail" / "ab" / "abc" / "Maildir" / "new"
    maildir.mkdir(parents=True)
    (maildir / "message").write_text("x")
    (data / "db.sqlite3").write_text("x")
    (data / "secret.key").touch(0o600)
    outside = data.parent / "outside"
    outside.write_text("root's")
    (data / "link").symlink_to(outside)
    os.link(outside, data / "hard-link")
    system_users.give(data, users)
    mail_group = grp.getgrgid(users.mail_gid).gr_name
    assert owner(maildir) == ("posthouse", mail_group, "2770")
    assert owner(maildir / "message") == ("posthouse", mail_group, "640")
    assert owner(data / "db.sqlite3") == ("posthouse", "posthouse", "640")
    assert owner(data / "secret.key") == ("posthouse", "posthouse", "600")
    assert owner(outside)[0] == "root", "neither link is followed"


def test_dovecots_mail_user_reads_mail_and_nothing_else(users, data):
    system_users.give(data, users)
    (data / "db.sqlite3").touch(0o640)
    (data / "tls").mkdir(0o750)
    system_users.give(data, users)
    write = f"umask 027; echo x >{data}/mail/m"
    assert as_user(users.uid, users.gid, users.mail_gid, command=write).returncode == 0
    vmail = (users.mail_uid, users.mail_gid)
    assert as_user(*vmail, command=f"cat {data}/mail/m").stdout == "x\n"
    for closed in (f"cat {data}/db.sqlite3", f"ls {data}", f"ls {data}/tls", f"ls {data}/run"):
        assert as_user(*vmail, command=closed).returncode != 0, closed


def test_become_cannot_be_undone(users, tmp_path):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            users.work_as()
            assert (os.getuid(), os.geteuid()) == (0, users.uid)
            with users.as_root():
                assert os.geteuid() == 0
            assert os.geteuid() == users.uid
            users.become()
            assert os.getresuid() == (users.uid,) * 3
            assert os.getresgid() == (users.gid,) * 3
            assert set(os.getgroups()) == {users.gid, users.mail_gid}
            try:
                os.seteuid(0)
            except PermissionError:
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
