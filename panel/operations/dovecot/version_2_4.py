"""Dovecot 2.4's configuration (Debian 13), a function a section.

A section is complete in itself: it adds what it needs to `mail_plugins`, whose blocks add up.

2.4 has no passdb that asks by the dict protocol. Its Lua one asks instead, by a script of
ours (authd.lua), in a process of its own for each question, as 2.3's dict passdb does.
"""

from collections.abc import Sequence
from pathlib import Path

from panel.environment import DOVECOT_SOCKET, Environment, Listen
from panel.operations.dovecot.place import (
    JUNK_SCRIPT,
    KICK_LISTENER,
    LMTP_SOCKET,
    QUOTA_DICT,
    SPECIAL_FOLDERS,
    Owners,
    quoted,
)

VERSION = "2.4"
AUTHD_PART = "authd.lua"
NEEDED = {  # files and the packages that bring them, besides Dovecot's own
    Path("/usr/lib/dovecot/modules/auth/libauthdb_lua.so"): "dovecot-auth-lua",
    Path("/usr/share/lua/5.4/socket.lua"): "lua-socket",
}


def configuration(environment: Environment, owners: Owners, place: Path) -> str:
    """The text of dovecot.conf, which is in `place`."""
    return "\n".join(
        (
            _head(place),
            _users(owners),
            _tls(environment),
            _listeners(environment, owners),
            _logins(environment, owners, place),
            _endings(owners),
            _mail(environment),
            _quota(environment, owners),
            _sieve(place),
        )
    )


def authd_part(environment: Environment) -> str:
    """The text of AUTHD_PART: how passdb and userdb ask authd. Holds no secret."""
    return Path(__file__).with_name(AUTHD_PART).read_text()


def _head(place: Path) -> str:
    return f"""# Dovecot 2.4 for Posthouse: reads the Maildirs that Posthouse's mailserver writes, and asks
# its authd for each login. Written by `manage.py dovecot config` from Posthouse's settings, and
# anew by each `deploy/run`: change the settings, not this file.

# Whose settings' names and defaults, and whose format of index files, this is about.
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0

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
    chrooted = ("imap-login", "pop3-login", "managesieve-login")
    services = "".join(f"service {name} {{\n  chroot =\n}}\n" for name in chrooted)
    return f"{text}\n# Without root nothing can be locked into a folder.\n{services}"


def _tls(environment: Environment) -> str:
    return f"""# --- TLS ------------------------------------------------------------------------------
# Nothing is offered without it. `doveadm -c THIS-FILE reload` reads a new certificate.
ssl = required
ssl_min_protocol = TLSv1.2
ssl_server_cert_file = {quoted(environment.tls_cert)}
ssl_server_key_file = {quoted(environment.tls_key)}
auth_allow_cleartext = no
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
  restart_request_count = unlimited
  process_min_avail = 2
}}
service pop3-login {{
  inet_listener pop3 {{
    port = 0
  }}
{_inet_listeners("pop3s", environment.pop3s, ssl=True)}
  restart_request_count = unlimited
}}
service managesieve-login {{
{_inet_listeners("sieve", environment.sieve, ssl=False)}
  restart_request_count = unlimited
}}
# A process of its own a session, but not a new one: to start it costs more than the login.
service imap {{
  restart_request_count = 256
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
            f"    listen = {listen.host}",
            f"    port = {listen.port}",
            *(["    ssl = yes"] if ssl else []),
            "  }",
        ]
    return "\n".join(lines)


def _logins(environment: Environment, owners: Owners, place: Path) -> str:
    lua = f"""  lua_file = {quoted(place / AUTHD_PART)}
  lua_settings {{
    socket = {quoted(environment.data / DOVECOT_SOCKET)}
  }}"""
    return f"""# --- logins: authd decides ----------------------------------------------------------------
auth_mechanisms = plain login
# Empty: every character; else +, ' and UTF-8 would be refused before authd is asked.
auth_username_chars =
# Each question waits in a process of its own. authd lets at most 100 wait (MOST_HELD) and answers
# the others at once, so that of these processes some are always free for good passwords.
service auth-worker {{
  user = $SET:default_internal_user
  process_limit = 150
  # Some at hand before the first burst, and those that a burst made kept for the next.
  process_min_avail = 20
  idle_kill_interval = 10 mins
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
  # LMTP's process, which is this user's, counts its deliveries there.
  unix_listener anvil {{
    mode = 0600
    user = {owners.mail}
  }}
}}
passdb lua {{
  use_worker = yes
{lua}
}}
userdb lua {{
  use_worker = yes
{lua}
  # LMTP's process, which is this user's, may ask about mailboxes of its own user alone.
  fields {{
    uid = {owners.mail}
    gid = {owners.mail_group}
  }}
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
mail_driver = maildir
mail_path = ~/Maildir
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
    return f"""# --- quota ----------------------------------------------------------------------------------
mail_plugins {{
  quota = yes
  quota_clone = yes
}}
protocol imap {{
  mail_plugins {{
    imap_quota = yes
  }}
}}
# A full mailbox is 452 at LMTP: the queue tries again.
quota_full_tempfail = yes
# Counts what others than Dovecot delivered as well. authd gives each mailbox's quota_storage_size.
quota "User quota" {{
  driver = count
}}
# Whenever a mailbox changes here, authd is told what it holds.
quota_clone {{
  dict proxy {{
    name = {QUOTA_DICT}
  }}
}}
# Mail processes ask this dict process, and only it connects to authd.
dict_server {{
  dict {QUOTA_DICT} {{
    driver = proxy
    proxy_name = {QUOTA_DICT}
    proxy_socket_path = {quoted(environment.data / DOVECOT_SOCKET)}
  }}
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
  mail_plugins {{
    sieve = yes
  }}
}}
sieve_script personal {{
  driver = file
  path = ~/sieve
  active_path = ~/.dovecot.sieve
}}
# Before people's own scripts: marked junk into Junk, for mailboxes with that rule.
sieve_script junk {{
  type = before
  driver = file
  path = {quoted(place / JUNK_SCRIPT)}
}}
sieve_global_extensions {{
  vnd.dovecot.environment = yes
}}
# Scripts sort mail; they send none. What they would send is nobody's whom Posthouse knows, and counts
# against no limit. Posthouse itself answers and forwards: the mailbox's rules.
sieve_extensions {{
  vacation = no
  reject = no
  enotify = no
}}
sieve_max_redirects = 0
"""
