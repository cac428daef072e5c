"""Dovecot 2.3's configuration (Debian 12), a function a section.

A section is complete in itself and adds what it needs to `mail_plugins` and `plugin {}`. What is for
all protocols is added to `mail_plugins` in `_quota`, before a protocol adds its own: later is too late.
"""

from collections.abc import Sequence
from pathlib import Path

from panel.environment import DOVECOT_SOCKET, Environment, Listen, dovecot_key, secret_key
from panel.operations.dovecot.place import (
    JUNK_SCRIPT,
    KICK_LISTENER,
    LMTP_SOCKET,
    QUOTA_DICT,
    SPECIAL_FOLDERS,
    Owners,
    quoted,
)

VERSION = "2.3"
AUTHD_PART = "authd.conf.ext"
NEEDED: dict[Path, str] = {}  # files and the packages that bring them, besides Dovecot's own


def configuration(environment: Environment, owners: Owners, place: Path) -> str:
    """The text of dovecot.conf, which is in `place`."""
    return "\n".join(
        (
            _head(place),
            _users(owners),
            _tls(environment),
            _listeners(environment, owners),
            _logins(owners, place),
            _endings(owners),
            _mail(environment),
            _quota(environment, owners),
            _sieve(place),
        )
    )


def authd_part(environment: Environment) -> str:
    """The text of AUTHD_PART: how passdb and userdb ask authd. Holds a secret. Raises BadSetting."""
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


def _head(place: Path) -> str:
    return f"""# Dovecot 2.3 for Posthouse: reads the Maildirs that Posthouse's mailserver writes, and asks
# its authd for each login. Written by `manage.py dovecot config` from Posthouse's settings, and
# anew by each `deploy/run`: change the settings, not this file.

base_dir = {quoted(place / "run")}
state_dir = {quoted(place / "state")}
log_path = /dev/stderr
instance_name = posthouse
protocols = imap pop3 sieve lmtp
login_greeting = Posthouse ready.
"""


def _users(owners: Owners) -> str:
    text = f"""# --- users ----------------------------------------------------------------------------
default_internal_user = {owners.internal}
default_internal_group = {owners.internal_group}
default_login_user = {owners.login}

# The only user that mail processes may run as.
mail_uid = {owners.mail}
mail_gid = {owners.mail_group}
first_valid_uid = {owners.mail_uid}
last_valid_uid = {owners.mail_uid}
"""
    if not owners.are_one:
        return text
    chrooted = ("anvil", "ipc", "old-stats", "imap-login", "pop3-login", "managesieve-login")
    services = "".join(f"service {name} {{\n  chroot =\n}}\n" for name in chrooted)
    return f"{text}\n# Without root nothing can be locked into a folder.\n{services}"


def _tls(environment: Environment) -> str:
    return f"""# --- TLS ------------------------------------------------------------------------------
# Nothing is offered without it. `doveadm -c THIS-FILE reload` reads a new certificate.
# What follows `<` is a path up to the line's end, without quotes.
ssl = required
ssl_min_protocol = TLSv1.2
ssl_cert = <{environment.tls_cert}
ssl_key = <{environment.tls_key}
disable_plaintext_auth = yes
"""


def _listeners(environment: Environment, owners: Owners) -> str:
    return f"""# --- where it listens -------------------------------------------------------------------
# Login processes serve many connections each: a process a connection (the default) ends
# at 100 of them.
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
{_inet_listeners("imaps", environment.imaps, ssl=True)}
  service_count = 0
  process_min_avail = 2
}}
service pop3-login {{
  inet_listener pop3 {{
    port = 0
  }}
{_inet_listeners("pop3s", environment.pop3s, ssl=True)}
  service_count = 0
}}
service managesieve-login {{
{_inet_listeners("sieve", environment.sieve, ssl=False)}
  service_count = 0
}}
# A process of its own a session, but not a new one: to start it costs more than the login.
service imap {{
  service_count = 256
  process_min_avail = 4
}}
service lmtp {{
  user = {owners.mail}
  # Dovecot's own, which everybody on this machine could write to.
  unix_listener lmtp {{
    mode = 0
  }}
  unix_listener {LMTP_SOCKET} {{
    mode = 0600
    user = {owners.service}
  }}
}}
"""


def _inet_listeners(name: str, listens: Sequence[Listen], *, ssl: bool) -> str:
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


def _logins(owners: Owners, place: Path) -> str:
    return f"""# --- logins: authd decides ----------------------------------------------------------------
auth_mechanisms = plain login
# Empty: every character; else +, ' and UTF-8 would be refused before authd is asked.
auth_username_chars =
# Each question waits in a process of its own. authd lets at most 100 wait (MOST_HELD) and answers
# the others at once, so that of these processes some are always free for good passwords; more of
# them would only have to be started when many log in at once.
auth_worker_max_count = 120
service auth-worker {{
  user = $default_internal_user
  process_limit = 150
  # Some at hand before the first burst, and those that a burst made kept for the next.
  process_min_avail = 20
  idle_kill = 10 mins
}}
# Every IMAP process and login process may be connected to it.
service auth {{
  client_limit = 2048
}}
# Delays for an address whose logins fail would hit everybody behind it; lockouts are authd's.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
passdb {{
  driver = dict
  args = {quoted(place / AUTHD_PART)}
}}
userdb {{
  driver = dict
  args = {quoted(place / AUTHD_PART)}
  # LMTP's process, which is this user's, may ask about mailboxes of its own user alone.
  default_fields = uid={owners.mail} gid={owners.mail_group}
}}
"""


def _endings(owners: Owners) -> str:
    return f"""# --- the end of sessions: of whoever may not log in any more, on authd's word --------------------
# Over its sockets doveadm does nothing else. At a shell `doveadm -c THIS-FILE …` does everything.
doveadm_allowed_commands = kick
service doveadm {{
  unix_listener {KICK_LISTENER} {{
    mode = 0600
    user = {owners.service}
  }}
}}
"""


def _mail(environment: Environment) -> str:
    folders = "".join(
        f"  mailbox {name} {{\n    special_use = \\{name}\n    auto = subscribe\n  }}\n" for name in SPECIAL_FOLDERS
    )
    return f"""# --- mail ---------------------------------------------------------------------------------
# authd gives each mailbox's home: {environment.data}/mail/ab/OPAQUE
mail_location = maildir:~/Maildir
mail_max_userip_connections = 50
# LMTP is told a subaddress for Sieve's eyes: mail for it goes where all of the mailbox's goes.
recipient_delimiter = {environment.separator}
lmtp_save_to_detail_mailbox = no
namespace inbox {{
  inbox = yes
  separator = /
{folders}}}
"""


def _quota(environment: Environment, owners: Owners) -> str:
    told = Path(f"proxy:{environment.data / DOVECOT_SOCKET}:{QUOTA_DICT}")
    return f"""# --- quota ----------------------------------------------------------------------------------
mail_plugins = $mail_plugins quota quota_clone
protocol imap {{
  mail_plugins = $mail_plugins imap_quota
}}
# A full mailbox is 452 at LMTP: the queue tries again.
quota_full_tempfail = yes
plugin {{
  # Counts what others than Dovecot delivered as well.
  quota = count:User quota
  quota_vsizes = yes
  # Whenever a mailbox changes here, authd is told what it holds.
  quota_clone_dict = proxy::{QUOTA_DICT}
}}
# Mail processes ask this dict process, and only it connects to authd.
dict {{
  {QUOTA_DICT} = {quoted(told)}
}}
service dict {{
  unix_listener dict {{
    mode = 0600
    user = {owners.mail}
  }}
}}
"""


def _sieve(place: Path) -> str:
    return f"""# --- Sieve: what LMTP delivers is sorted by each mailbox's own script --------------------------
protocol lmtp {{
  mail_plugins = $mail_plugins sieve
}}
plugin {{
  sieve = file:~/sieve;active=~/.dovecot.sieve
  # Before people's own scripts: marked junk into Junk, for mailboxes with that rule.
  sieve_before = {quoted(place / JUNK_SCRIPT)}
  sieve_global_extensions = +vnd.dovecot.environment
  # Scripts sort mail; they send none. What they would send is nobody's whom Posthouse knows, and counts
  # against no limit. Posthouse itself answers and forwards: the mailbox's rules.
  sieve_extensions = -vacation -reject -enotify
  sieve_max_redirects = 0
}}
"""
