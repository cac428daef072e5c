"""Dovecot's configuration, from our settings.

Decides who asks whom and where mail lies. Who may log in is decided by authd for each
login, over its dict socket (mailserver/dict_protocol.py); so Dovecot keeps no passwords and
no cache of them, and adds no delays of its own for good ones.

For Dovecot 2.3 (Debian 12). 2.4 (Debian 13) has another syntax and no dict passdb any more:
there authd must be asked in another way.
"""

import grp
import hashlib
import os
import pwd
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from panel import system_users
from panel.environment import DOVECOT_SOCKET, SOCKET_PATH_BYTES, Environment, Listen, dovecot_key, secret_key

PROGRAM = Path("/usr/sbin/dovecot")
PACKAGES = "dovecot-imapd dovecot-pop3d dovecot-lmtpd dovecot-sieve dovecot-managesieved"
VERSION = "2.3"
AUTHD_PART = "authd.conf.ext"
QUOTA_DICT = "quota"  # mailserver/dict_protocol.py knows it by this name
LONGEST_SOCKET = "run/token-login/imap-urlauth"
_PLAIN_PATH = re.compile(r"[\w./+@:,=-]+", re.ASCII)


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
    if os.getuid() == 0:
        name = hashlib.blake2b(os.fsencode(environment.data), digest_size=8).hexdigest()
        return Path("/run/posthouse") / name
    return environment.data / "dovecot"


def installed_version() -> str:
    """The installed Dovecot's, such as 2.3.19.1; empty without one."""
    try:
        done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except OSError:
        return ""
    return done.stdout.partition(" ")[0].strip()


def configuration(environment: Environment, owners: Owners) -> str:
    """The text of dovecot.conf. Raises NoConfiguration: a path that Dovecot can't have."""
    for path in (environment.data, environment.tls_cert, environment.tls_key):
        if not _PLAIN_PATH.fullmatch(str(path)):
            raise NoConfiguration(f"Dovecot's configuration can't hold the path {str(path)!r}; use letters and digits.")
    longest = max(len(str(path)) for path in (environment.data / DOVECOT_SOCKET, folder(environment) / LONGEST_SOCKET))
    if longest > SOCKET_PATH_BYTES:
        raise NoConfiguration(
            f"the path {environment.data} is too long for Dovecot's sockets; set POSTHOUSE_DATA to one of at most "
            f"{len(str(environment.data)) - longest + SOCKET_PATH_BYTES} characters."
        )
    return _text(environment, owners)


def _listeners(name: str, listens: Sequence[Listen], *, ssl: bool) -> str:
    lines: list[str] = []
    for number, listen in enumerate(listens):
        lines += [
            f"  inet_listener {name}{number or ''} {{",
            f"    address = {listen.host}",
            f"    port = {listen.port}",
            *(["    ssl = yes"] if ssl else []),
            "  }",
        ]
    return "\n".join(lines)


def _text(environment: Environment, owners: Owners) -> str:
    data = environment.data
    mail_ids = f"""
# The only user that mail processes may run as.
mail_uid = {owners.mail}
mail_gid = {owners.mail_group}
first_valid_uid = {pwd.getpwnam(owners.mail).pw_uid}
last_valid_uid = {pwd.getpwnam(owners.mail).pw_uid}
"""
    without_root = """
# Without root nothing can be locked into a folder.
service anvil {
  chroot =
}
service ipc {
  chroot =
}
service old-stats {
  chroot =
}
service imap-login {
  chroot =
}
service pop3-login {
  chroot =
}
service managesieve-login {
  chroot =
}
"""
    return f"""# Dovecot 2.3 for Posthouse: reads the Maildirs that Posthouse's mailserver writes, and asks
# its authd for each login. Written by `manage.py dovecot config` from Posthouse's settings, and
# anew by each `deploy/run`: change the settings, not this file.

base_dir = {folder(environment)}/run
state_dir = {folder(environment)}/state
log_path = /dev/stderr
instance_name = posthouse
protocols = imap pop3 sieve lmtp
login_greeting = Posthouse ready.

# --- users ----------------------------------------------------------------------------
default_internal_user = {owners.internal}
default_internal_group = {owners.internal_group}
default_login_user = {owners.login}
{mail_ids}{without_root if owners.are_one else ""}
# --- TLS ------------------------------------------------------------------------------
# Nothing is offered without it. `doveadm -c THIS-FILE reload` reads a new certificate.
ssl = required
ssl_min_protocol = TLSv1.2
ssl_cert = <{environment.tls_cert}
ssl_key = <{environment.tls_key}
disable_plaintext_auth = yes

# --- where it listens -------------------------------------------------------------------
# Login processes serve many connections each: a process a connection (the default) ends
# at 100 of them.
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
{_listeners("imaps", environment.imaps, ssl=True)}
  service_count = 0
  process_min_avail = 2
}}
service pop3-login {{
  inet_listener pop3 {{
    port = 0
  }}
{_listeners("pop3s", environment.pop3s, ssl=True)}
  service_count = 0
}}
service managesieve-login {{
{_listeners("sieve", environment.sieve, ssl=False)}
  service_count = 0
}}
service lmtp {{
  user = {owners.mail}
  unix_listener posthouse-lmtp {{
    mode = 0600
    user = {owners.service}
  }}
}}

# --- logins: authd decides ----------------------------------------------------------------
auth_mechanisms = plain login
# Empty: every character; else +, ' and UTF-8 would be refused before authd is asked.
auth_username_chars =
# Each question waits in a process of its own; with few of them wrong passwords would hold up good ones.
auth_worker_max_count = 400
service auth-worker {{
  user = $default_internal_user
  process_limit = 400
  # Some at hand before the first burst, and those that a burst made kept for the next.
  process_min_avail = 20
  idle_kill = 10 mins
}}
# Delays for an address whose logins fail would hit everybody behind it; lockouts are authd's.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
passdb {{
  driver = dict
  args = {folder(environment) / AUTHD_PART}
}}
userdb {{
  driver = dict
  args = {folder(environment) / AUTHD_PART}
  # LMTP looks mailboxes up by itself, and may do so only for those of its own user.
  default_fields = uid={owners.mail} gid={owners.mail_group}
}}

# --- quotas: authd is told ------------------------------------------------------------------
# Mail processes ask this dict process, and only it connects to authd.
dict {{
  {QUOTA_DICT} = proxy:{data / DOVECOT_SOCKET}:{QUOTA_DICT}
}}
service dict {{
  unix_listener dict {{
    mode = 0600
    user = {owners.mail}
  }}
}}

# --- mail ---------------------------------------------------------------------------------
# authd gives each mailbox's home: {data}/mail/ab/OPAQUE
mail_location = maildir:~/Maildir
mail_max_userip_connections = 50
mail_plugins = quota quota_clone
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Drafts {{
    special_use = \\Drafts
    auto = subscribe
  }}
  mailbox Sent {{
    special_use = \\Sent
    auto = subscribe
  }}
  mailbox Junk {{
    special_use = \\Junk
    auto = subscribe
  }}
  mailbox Trash {{
    special_use = \\Trash
    auto = subscribe
  }}
  mailbox Archive {{
    special_use = \\Archive
    auto = subscribe
  }}
}}
protocol imap {{
  mail_plugins = $mail_plugins imap_quota
}}
protocol lmtp {{
  mail_plugins = $mail_plugins sieve
}}
# A full mailbox is 452 at LMTP: the queue tries again.
quota_full_tempfail = yes
plugin {{
  # Counts what others than Dovecot delivered as well.
  quota = count:User quota
  quota_vsizes = yes
  # Whenever a mailbox changes here, authd is told what it holds.
  quota_clone_dict = proxy::{QUOTA_DICT}
  sieve = file:~/sieve;active=~/.dovecot.sieve
}}
"""


def authd_configuration(environment: Environment) -> str:
    """The text of authd.conf.ext: how Dovecot's passdb and userdb ask authd. Holds a secret."""
    key = dovecot_key(secret_key(environment))
    return f"""# How Dovecot 2.3 asks Posthouse's authd; named by dovecot.conf beside it. Holds a secret: for
# Dovecot only.
uri = proxy:{environment.data / DOVECOT_SOCKET}:auth
iterate_disable = yes
key passdb {{
  # protocol, the client's address, user, password. The password is sealed, since Dovecot's log
  # shows this key whenever a look-up fails.
  key = passdb/%s/%r/%u/%{{encrypt;algo=aes-256-cbc,key={key},format=hex:password}}
  format = json
}}
key userdb {{
  key = userdb/%u
  format = json
}}
passdb_objects = passdb
userdb_objects = userdb
"""


def write(environment: Environment, owners: Owners) -> Path:
    """Write both files; dovecot.conf's path. Raises NoConfiguration, BadSetting, OSError."""
    place = folder(environment)
    text = configuration(environment, owners)
    (place / "state").mkdir(mode=0o755, parents=True, exist_ok=True)
    secret = place / AUTHD_PART
    secret.unlink(missing_ok=True)
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(authd_configuration(environment))
    (place / "dovecot.conf").write_text(text)
    # Whatever the umask: Dovecot's processes pass through.
    for path in (place.parent, place, place / "state") if os.getuid() == 0 else ():
        path.chmod(0o755)
    return place / "dovecot.conf"
