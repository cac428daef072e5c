"""The sections of dovecot.conf that 2.3 and 2.4 write alike, but for the names of some settings."""

from collections.abc import Sequence
from pathlib import Path

from panel.environment import Environment, Listen
from panel.operations.dovecot.place import KICK_LISTENER, LMTP_SOCKET, SPECIAL_FOLDERS, Owners, quoted


def head(place: Path, version: str, formats: str = "") -> str:
    """`formats` says by which of Dovecot's versions to read this, for one that wants to know: whole lines."""
    return f"""# Dovecot {version} for Posthouse: reads the Maildirs that Posthouse's mailserver writes, and asks
# its authd for each login. Written by `manage.py dovecot config` from Posthouse's settings, and
# anew by each `deploy/run`: change the settings, not this file.
{formats}
base_dir = {quoted(place / "run")}
state_dir = {quoted(place / "state")}
log_path = /dev/stderr
instance_name = posthouse
protocols = imap pop3 sieve lmtp
login_greeting = Posthouse ready.
"""


def users(owners: Owners, chrooted: Sequence[str]) -> str:
    """`chrooted` are the services that lock themselves into a folder by default."""
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
    services = "".join(f"service {name} {{\n  chroot =\n}}\n" for name in chrooted)
    return f"{text}\n# Without root nothing can be locked into a folder.\n{services}"


def listeners(environment: Environment, owners: Owners, *, address: str, sessions: str, unlimited: str) -> str:
    """`address` names the setting of where to listen, `sessions` that of how many sessions a process serves."""
    return f"""# --- where it listens -------------------------------------------------------------------
# Login processes serve many connections each: a process a connection (the default) ends
# at 100 of them.
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
{_inet_listeners("imaps", environment.imaps, address, ssl=True)}
  {sessions} = {unlimited}
  process_min_avail = 2
}}
service pop3-login {{
  inet_listener pop3 {{
    port = 0
  }}
{_inet_listeners("pop3s", environment.pop3s, address, ssl=True)}
  {sessions} = {unlimited}
}}
service managesieve-login {{
{_inet_listeners("sieve", environment.sieve, address, ssl=False)}
  {sessions} = {unlimited}
}}
# A process of its own a session, but not a new one: to start it costs more than the login.
service imap {{
  {sessions} = 256
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


def _inet_listeners(name: str, listens: Sequence[Listen], address: str, *, ssl: bool) -> str:
    lines: list[str] = []
    for number, listen in enumerate(listens):
        lines += [
            f"  inet_listener {name}{number or ''} {{",
            f"    {address} = {listen.host}",
            f"    port = {listen.port}",
            *(["    ssl = yes"] if ssl else []),
            "  }",
        ]
    return "\n".join(lines)


def endings(owners: Owners) -> str:
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


def mail(environment: Environment, location: str) -> str:
    """`location` says that mail lies in Maildir in a mailbox's home: whole lines."""
    folders = "".join(
        f"  mailbox {name} {{\n    special_use = \\{name}\n    auto = subscribe\n  }}\n" for name in SPECIAL_FOLDERS
    )
    return f"""# --- mail ---------------------------------------------------------------------------------
# authd gives each mailbox's home: {environment.data}/mail/ab/OPAQUE
{location}mail_max_userip_connections = 50
# LMTP is told a subaddress for Sieve's eyes: mail for it goes where all of the mailbox's goes.
recipient_delimiter = {environment.separator}
lmtp_save_to_detail_mailbox = no
namespace inbox {{
  inbox = yes
  separator = /
{folders}}}
"""


def dict_process(owners: Owners) -> str:
    """For whom the dict process is: mail processes, which tell it what a mailbox holds."""
    return f"""service dict {{
  unix_listener dict {{
    mode = 0600
    user = {owners.mail}
  }}
}}
"""
