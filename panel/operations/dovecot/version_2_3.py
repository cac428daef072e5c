"""Dovecot 2.3's configuration (Debian 12), a function a section; those that 2.4 writes alike are in sections.py.

A section is complete in itself and adds what it needs to `mail_plugins` and `plugin {}`. What is for
all protocols is added to `mail_plugins` in `_quota`, before a protocol adds its own: later is too late.
"""

from pathlib import Path

from panel.environment import DOVECOT_SOCKET, Environment, dovecot_key, secret_key
from panel.operations.dovecot import sections
from panel.operations.dovecot.place import JUNK_SCRIPT, QUOTA_DICT, Owners, quoted

VERSION = "2.3"
AUTHD_PART = "authd.conf.ext"
NEEDED: dict[Path, str] = {}  # files and the packages that bring them, besides Dovecot's own
CHROOTED = ("anvil", "ipc", "old-stats", "imap-login", "pop3-login", "managesieve-login")  # by default


def configuration(environment: Environment, owners: Owners, place: Path) -> str:
    """The text of dovecot.conf, which is in `place`."""
    return "\n".join(
        (
            sections.head(place, VERSION),
            sections.users(owners, CHROOTED),
            _tls(environment),
            sections.listeners(environment, owners, address="address", sessions="service_count", unlimited="0"),
            _logins(owners, place),
            sections.endings(owners),
            sections.mail(environment, "mail_location = maildir:~/Maildir\n"),
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
{sections.dict_process(owners)}"""


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
