"""Dovecot's configuration, from our settings.

Decides who asks whom and where mail lies. Who may log in is decided by authd for each
login; so Dovecot keeps no passwords and no cache of them, and adds no delays of its own for
good ones. Each version that is understood has a module with its text: 2.3 (Debian 12) asks
authd by the dict protocol, 2.4 (Debian 13) by a Lua script.
"""

import os
import subprocess
from pathlib import Path

from panel.environment import Environment
from panel.operations.dovecot import version_2_3, version_2_4
from panel.operations.dovecot.place import JUNK_SCRIPT, NoConfiguration, Owners, check, folder, lmtp_socket, owners
from panel.rules import filtering

__all__ = [
    "PACKAGES", "VERSIONS", "NoConfiguration", "Owners", "authd_configuration", "configuration", "folder",
    "installed_version", "lmtp_socket", "missing_packages", "owners", "rendered_version", "write",
]

PROGRAM = Path("/usr/sbin/dovecot")
SIEVE_COMPILER = Path("/usr/bin/sievec")
VERSIONS = {module.VERSION: module for module in (version_2_3, version_2_4)}
PACKAGES = "dovecot-imapd dovecot-pop3d dovecot-lmtpd dovecot-sieve dovecot-managesieved"


def installed_version() -> str:
    """The installed Dovecot's, such as 2.3.19.1 or 2.4.1-4; empty without one."""
    try:
        done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except OSError:
        return ""
    return done.stdout.partition(" ")[0].strip()


def rendered_version() -> str:
    """The one of VERSIONS that fits the installed Dovecot; without one the first. Raises NoConfiguration."""
    installed = installed_version()
    if not installed:
        return next(iter(VERSIONS))
    for version in VERSIONS:
        if installed.startswith(f"{version}."):
            return version
    raise NoConfiguration(f"this is Dovecot {installed}, and {' or '.join(VERSIONS)} is needed")


def missing_packages(version: str) -> str:
    """Which of Debian's packages this version needs besides PACKAGES and this machine doesn't have."""
    return " ".join(package for path, package in VERSIONS[version].NEEDED.items() if not path.exists())


def configuration(environment: Environment, owners: Owners, version: str) -> str:
    """The text of dovecot.conf. Raises NoConfiguration: a path that Dovecot can't have."""
    check(environment)
    return VERSIONS[version].configuration(environment, owners, folder(environment))


def authd_configuration(environment: Environment, version: str) -> str:
    """The text of the file by which passdb and userdb ask authd. 2.3's holds a secret. Raises BadSetting."""
    return VERSIONS[version].authd_part(environment)


def write(environment: Environment, owners: Owners) -> Path:
    """Write all files for the installed Dovecot; dovecot.conf's path.

    Raises NoConfiguration, BadSetting, OSError.
    """
    version = rendered_version()
    place = folder(environment)
    text = configuration(environment, owners, version)
    (place / "state").mkdir(mode=0o755, parents=True, exist_ok=True)
    part = place / VERSIONS[version].AUTHD_PART
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(authd_configuration(environment, version))
    (place / "dovecot.conf").write_text(text)
    script = place / JUNK_SCRIPT
    script.write_text(filtering.sieve_for_junk())
    _compile(script, place / "dovecot.conf")
    # Whatever the umask: Dovecot's processes pass through.
    for path in (place.parent, place, place / "state") if os.getuid() == 0 else ():
        path.chmod(0o755)
    for path in place.glob(f"{script.stem}.*"):
        path.chmod(0o644)
    return place / "dovecot.conf"


def _compile(script: Path, configuration: Path) -> None:
    """Its binary beside the script: mail processes may not write there. Without it they compile it each time."""
    if SIEVE_COMPILER.exists():
        subprocess.run(  # noqa: S603
            [SIEVE_COMPILER, "-c", str(configuration), str(script)], capture_output=True, timeout=30, check=False
        )
