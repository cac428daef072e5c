"""Dovecot's configuration, from our settings.

Decides who asks whom and where mail lies. Who may log in is decided by authd for each
login, over its dict socket (mailserver/dict_protocol.py); so Dovecot keeps no passwords and
no cache of them, and adds no delays of its own for good ones.

For Dovecot 2.3 (Debian 12). 2.4 (Debian 13) has another syntax and no dict passdb any more:
there authd must be asked in another way.
"""

import os
import subprocess
from pathlib import Path

from panel.environment import Environment
from panel.operations.dovecot import version_2_3
from panel.operations.dovecot.place import NoConfiguration, Owners, check, folder, lmtp_socket, owners

__all__ = [
    "NoConfiguration", "Owners", "authd_configuration", "configuration", "folder", "lmtp_socket", "owners", "write",
]

PROGRAM = Path("/usr/sbin/dovecot")
PACKAGES = "dovecot-imapd dovecot-pop3d dovecot-lmtpd dovecot-sieve dovecot-managesieved"
VERSION = version_2_3.VERSION


def installed_version() -> str:
    """The installed Dovecot's, such as 2.3.19.1; empty without one."""
    try:
        done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except OSError:
        return ""
    return done.stdout.partition(" ")[0].strip()


def configuration(environment: Environment, owners: Owners) -> str:
    """The text of dovecot.conf. Raises NoConfiguration: a path that Dovecot can't have."""
    check(environment)
    return version_2_3.configuration(environment, owners, folder(environment))


def authd_configuration(environment: Environment) -> str:
    """The text of the file by which passdb and userdb ask authd. Holds a secret. Raises BadSetting."""
    return version_2_3.authd_part(environment)


def write(environment: Environment, owners: Owners) -> Path:
    """Write both files; dovecot.conf's path. Raises NoConfiguration, BadSetting, OSError."""
    place = folder(environment)
    text = configuration(environment, owners)
    (place / "state").mkdir(mode=0o755, parents=True, exist_ok=True)
    secret = place / version_2_3.AUTHD_PART
    secret.unlink(missing_ok=True)
    descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(authd_configuration(environment))
    (place / "dovecot.conf").write_text(text)
    # Whatever the umask: Dovecot's processes pass through.
    for path in (place.parent, place, place / "state") if os.getuid() == 0 else ():
        path.chmod(0o755)
    return place / "dovecot.conf"
