"""The operating system's users under which Posthouse runs when root starts it.

`posthouse` has the state: database, keys, queue. `vmail` has Dovecot's mail processes,
which reach the Maildirs, and only them, by its group, of which posthouse is a member:
folders 2770, files 0640. Dovecot refuses to serve mail as root. DESIGN §2.

Without root nobody changes: all programs are then one user.
"""

import grp
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVICE = "posthouse"
MAIL = "vmail"  # its primary group is the one that both share
DOVECOT = "dovecot"  # the group of Dovecot's auth processes; Debian's package makes it
UMASK = 0o027


class UsersMissing(Exception):
    """Why the users can't be had: a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class SystemUsers:
    """Numbers of the users and their groups."""

    uid: int
    gid: int
    mail_uid: int
    mail_gid: int

    def work_as(self) -> None:
        """From here on do everything as posthouse; root is kept at hand for `as_root`."""
        os.setgroups([self.gid, self.mail_gid])
        os.setegid(self.gid)
        os.seteuid(self.uid)
        os.umask(UMASK)

    @contextmanager
    def as_root(self) -> Iterator[None]:
        """Root's rights, between a `work_as` and a `become`."""
        os.seteuid(0)
        os.setegid(0)
        try:
            yield
        finally:
            os.setegid(self.gid)
            os.seteuid(self.uid)

    def become(self) -> None:
        """Be posthouse for good."""
        os.seteuid(0)
        os.setgroups([self.gid, self.mail_gid])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        os.umask(UMASK)


def find() -> SystemUsers | None:
    """The two users; None when one is missing."""
    try:
        service, mail = pwd.getpwnam(SERVICE), pwd.getpwnam(MAIL)
    except KeyError:
        return None
    return SystemUsers(service.pw_uid, service.pw_gid, mail.pw_uid, mail.pw_gid)


def ensure() -> SystemUsers:
    """The two users, made if missing. Needs root. Raises UsersMissing."""
    for name, options in ((MAIL, ["--user-group"]), (SERVICE, ["--user-group", "--groups", MAIL])):
        try:
            pwd.getpwnam(name)
        except KeyError:
            _make(name, options)
    users = find()
    if users is None or 0 in (users.uid, users.mail_uid):
        raise UsersMissing(f"the users {SERVICE} and {MAIL} must exist and not be root.")
    return users


def _make(name: str, options: list[str]) -> None:
    command = [
        "useradd", "--system", *options, "--no-create-home", "--home-dir", "/nonexistent", "--shell",
        "/usr/sbin/nologin", name,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 constants
        error = done.stderr.strip() if done.returncode else ""
    except FileNotFoundError:
        error = "there is no useradd here (Debian's package passwd)"
    if error:
        raise UsersMissing(f"the user {name} can't be made: {error}. Make it by hand: {' '.join(command)}")


def give(data: Path, users: SystemUsers) -> None:
    """Give the data folder and what is in it to the users. Needs root. Raises OSError.

    What root left there, in an earlier start without these users, is given once; only the top
    of the folder is looked at each time, never each message.
    """
    data.mkdir(parents=True, exist_ok=True)
    for entry in list(os.scandir(data)):
        if entry.stat(follow_symlinks=False).st_uid != users.uid:
            _give_all(Path(entry.path), users.uid, users.mail_gid if entry.name == "mail" else users.gid)
    _give_folder(data / "mail", users.uid, users.mail_gid, 0o2770)
    # Handed on by the setgid bit to the socket that Dovecot's auth processes connect to.
    _give_folder(data / "run", users.uid, _dovecot_gid(users), 0o2711)
    # Others may pass through, as Dovecot's processes must; nothing inside is open to them.
    _give_folder(data, users.uid, users.gid, 0o711)


def _dovecot_gid(users: SystemUsers) -> int:
    try:
        return grp.getgrnam(DOVECOT).gr_gid
    except KeyError:
        return users.gid


def _give_folder(path: Path, uid: int, gid: int, mode: int) -> None:
    path.mkdir(exist_ok=True)
    # By descriptor: posthouse owns the folder above, and root must not follow a link of its making.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _give_all(top: Path, uid: int, gid: int) -> None:
    """Give a file or a folder with all that is in it: group members enter mail/, nobody the rest."""
    _give_one(top, uid, gid, in_mail=top.name == "mail")
    for folder, names, files in os.walk(top):
        for name in (*names, *files):
            _give_one(Path(folder) / name, uid, gid, in_mail=top.name == "mail")


def _give_one(path: Path, uid: int, gid: int, *, in_mail: bool) -> None:
    found = path.lstat()
    is_folder = stat.S_ISDIR(found.st_mode)
    if not is_folder and (not stat.S_ISREG(found.st_mode) or found.st_nlink > 1):
        return  # a link could be to somebody else's file
    os.chown(path, uid, gid, follow_symlinks=False)
    if in_mail:
        os.chmod(path, 0o2770 if is_folder else 0o640)
    else:
        os.chmod(path, stat.S_IMODE(found.st_mode) & ~UMASK)


if __name__ == "__main__":
    # For a service manager, which starts everything as these users already: once, as root.
    from panel import environment

    try:
        give(environment.read().data, ensure())
    except (environment.BadSetting, UsersMissing) as problem:
        sys.exit(f"posthouse: {problem}")
    except OSError as problem:
        sys.exit(f"posthouse: the data folder can't be given to {SERVICE}: {problem}. This needs root.")
