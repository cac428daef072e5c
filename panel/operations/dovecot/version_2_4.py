"""Dovecot 2.4's configuration (Debian 13), a function a section; those that 2.3 writes alike are in sections.py.

A section is complete in itself: it adds what it needs to `mail_plugins`, whose blocks add up.

2.4 has no passdb that asks by the dict protocol. Its Lua one asks instead, by a script of
ours (authd.lua), in a process of its own for each question, as 2.3's dict passdb does.
"""

from pathlib import Path

from panel.environment import DOVECOT_SOCKET, Environment
from panel.operations.dovecot import sections
from panel.operations.dovecot.place import JUNK_SCRIPT, QUOTA_DICT, Owners, quoted

VERSION = "2.4"
AUTHD_PART = "authd.lua"
NEEDED = {  # files and the packages that bring them, besides Dovecot's own
    Path("/usr/lib/dovecot/modules/auth/libauthdb_lua.so"): "dovecot-auth-lua",
    Path("/usr/share/lua/5.4/socket.lua"): "lua-socket",
}
CHROOTED = ("imap-login", "pop3-login", "managesieve-login")  # by default
FORMATS = """
# Whose settings' names and defaults, and whose format of index files, this is about.
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
"""


def configuration(environment: Environment, owners: Owners, place: Path) -> str:
    """The text of dovecot.conf, which is in `place`."""
    return "\n".join(
        (
            sections.head(place, VERSION, FORMATS),
            sections.users(owners, CHROOTED),
            _tls(environment),
            sections.listeners(
                environment, owners, address="listen", sessions="restart_request_count", unlimited="unlimited",
            ),
            _logins(environment, owners, place),
            sections.endings(owners),
            sections.mail(environment, "mail_driver = maildir\nmail_path = ~/Maildir\n"),
            _quota(environment, owners),
            _sieve(place),
        )
    )


def authd_part(environment: Environment) -> str:
    """The text of AUTHD_PART: how passdb and userdb ask authd. Holds no secret."""
    return Path(__file__).with_name(AUTHD_PART).read_text()


def _tls(environment: Environment) -> str:
    return f"""# --- TLS ------------------------------------------------------------------------------
# Nothing is offered without it. `doveadm -c THIS-FILE reload` reads a new certificate.
ssl = required
ssl_min_protocol = TLSv1.2
ssl_server_cert_file = {quoted(environment.tls_cert)}
ssl_server_key_file = {quoted(environment.tls_key)}
auth_allow_cleartext = no
"""


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
{sections.dict_process(owners)}"""


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
