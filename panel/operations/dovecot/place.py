"""Where Dovecot's files lie and whose its processes are, the same for every version of it."""

import grp
import hashlib
import os
import pwd
import re
from dataclasses import dataclass
from pathlib import Path

from panel import system_users
from panel.environment import DOVECOT_SOCKET, SOCKET_PATH_BYTES, Environment

LMTP_SOCKET = "posthouse-lmtp"
QUOTA_DICT = "quota"  # mailserver/dict_protocol.py knows it by this name
JUNK_SCRIPT = "junk.sieve"  # rules/filtering.sieve_for_junk, run before people's own scripts
SPECIAL_FOLDERS = ("Drafts", "Sent", "Junk", "Trash", "Archive")  # RFC 6154, made with each mailbox
KICK_LISTENER = "posthouse-kick"
LONGEST_SOCKET = "run/token-login/imap-urlauth"
# Nothing ends a line, is a variable or a comment, or ends the path in 2.3's `uri = proxy:PATH:auth`.
_NOT_IN_A_PATH = re.compile(r"[\x00-\x1f\x7f:#$%\\]")


class NoConfiguration(Exception):
    """Why there can be none: a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Owners:
    """Names of the users and groups that Dovecot's processes run as."""

    mail: str
    mail_group: str
    internal: str
    internal_group: str
    login: str
    service: str  # whom the LMTP socket is for

    @property
    def are_one(self) -> bool:
        return self.mail == self.internal

    @property
    def mail_uid(self) -> int:
        return pwd.getpwnam(self.mail).pw_uid


def owners() -> Owners:
    """Under root posthouse's, vmail's and Dovecot's own; else this user for everything. Raises NoConfiguration."""
    if os.getuid() == 0:
        users = system_users.find()
        if users is None:
            raise NoConfiguration("the users posthouse and vmail are missing; `deploy/run` as root makes them.")
        group = grp.getgrgid(users.mail_gid).gr_name
        return Owners(system_users.MAIL, group, "dovecot", "dovecot", "dovenull", system_users.SERVICE)
    try:
        name, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    except KeyError:
        raise NoConfiguration("Dovecot needs a user and a group that have names, and this one's have none.") from None
    return Owners(name, group, name, group, name, name)


def folder(environment: Environment) -> Path:
    """Where Dovecot keeps its configuration, state and sockets.

    Root's are not in the data folder: that is posthouse's, and whoever takes over the panel
    must not be able to tell root's Dovecot what to run.
    """
    return _roots_folder(environment.data) if os.getuid() == 0 else environment.data / "dovecot"


def kick_socket(data: Path) -> Path:
    """Where Dovecot ends sessions when it is asked to; for whoever asks, which isn't root."""
    roots = _roots_folder(data) / "run" / KICK_LISTENER
    return roots if roots.exists() else data / "dovecot" / "run" / KICK_LISTENER


def _roots_folder(data: Path) -> Path:
    return Path("/run/posthouse") / hashlib.blake2b(os.fsencode(data), digest_size=8).hexdigest()


def lmtp_socket(environment: Environment) -> Path:
    """Where Dovecot takes mail by LMTP: what POSTHOUSE_STORE names, if this Dovecot is to store it."""
    return folder(environment) / "run" / LMTP_SOCKET


def quoted(path: Path) -> str:
    """A path as a value of dovecot.conf; spaces and quotes may be in it."""
    return '"' + str(path).replace('"', '\\"') + '"'


def check(environment: Environment) -> None:
    """Raises NoConfiguration: a path that Dovecot can't have."""
    for path in (environment.data, environment.tls_cert, environment.tls_key):
        if _NOT_IN_A_PATH.search(str(path)):
            raise NoConfiguration(f"Dovecot's configuration can't hold the path {str(path)!r}; use letters and digits.")
    sockets = (environment.data / DOVECOT_SOCKET, folder(environment) / LONGEST_SOCKET)
    longest = max(len(os.fsencode(path)) for path in sockets)
    if longest > SOCKET_PATH_BYTES:
        raise NoConfiguration(
            f"the path {environment.data} is too long for Dovecot's sockets; set POSTHOUSE_DATA to one of at most "
            f"{len(os.fsencode(environment.data)) - longest + SOCKET_PATH_BYTES} characters."
        )
