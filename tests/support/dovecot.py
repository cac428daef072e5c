"""A real Dovecot on an installation's data folder, as deploy/run starts it."""

import imaplib
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from panel import environment, system_users
from panel.operations import dovecot
from tests.support.installation import PASSWORD, ROOT, Installation, until

PROGRAM = "/usr/sbin/dovecot"


def prepare(installation: Installation) -> str:
    """Ready the data folder for Dovecot; the module with which the mailserver is then started.

    Under root the mailserver leaves root, unless this checkout or its Python can be reached
    by root alone: then it stays root's and shares by groups only.
    """
    if os.getuid() != 0:
        return "mailserver"
    users = system_users.ensure()
    if all(_is_open(path, users.uid) for path in (ROOT / "manage.py", Path(sys.executable).resolve())):
        return "mailserver --drop"
    installation.data.chmod(0o711)
    for name, group, mode in (("mail", system_users.MAIL, 0o2770), ("run", system_users.DOVECOT, 0o2711)):
        folder = installation.data / name
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, group=group)
        folder.chmod(mode)
    return "mailserver"


def _is_open(path: Path, uid: int) -> bool:
    return subprocess.run(["test", "-r", path], user=uid, group=uid, extra_groups=[], check=False).returncode == 0


class Dovecot:
    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.log = installation.data.parent / "dovecot.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.folder: Path | None = None

    @property
    def lmtp_socket(self) -> Path:
        return dovecot.lmtp_socket(environment.read(self.installation.environment))

    def write(self) -> Path:
        """Write its configuration."""
        configuration = Path(self.installation.run(
            "from django.conf import settings\nfrom panel.operations import dovecot\n"
            "answer = dovecot.write(settings.ENVIRONMENT, dovecot.owners())"
        ))
        self.folder = configuration.parent
        return configuration

    def start(self) -> None:
        """Write its configuration, start it and wait for its greeting."""
        configuration = self.write()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "-F", "-c", configuration], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, cwd="/",
            )
        until(self._greets, what="Dovecot's greeting")

    def _greets(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            self.connect().shutdown()
        except (OSError, imaplib.IMAP4.error):
            return False
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- clients -------------------------------------------------------------------------

    @property
    def context(self) -> ssl.SSLContext:
        """Checks the certificate and the name, as every mail client does."""
        return ssl.create_default_context(cafile=str(self.installation.certificate))

    def connect(self) -> imaplib.IMAP4_SSL:
        return imaplib.IMAP4_SSL("localhost", self.installation.imaps, ssl_context=self.context, timeout=60)

    @contextmanager
    def imap(self, login: str, password: str = PASSWORD, folder: str = "INBOX") -> Iterator[imaplib.IMAP4_SSL]:
        """An IMAP session with a selected folder."""
        client = self.connect()
        try:
            client.login(login, password)
            client.select(folder)
            yield client
        finally:
            client.shutdown()

    def refusal(self, login: str, password: str = PASSWORD) -> str:
        """What an IMAP login is answered with when it fails; empty when it is right."""
        client = self.connect()
        try:
            client.login(login, password)
        except imaplib.IMAP4.error as error:
            return str(error)
        finally:
            client.shutdown()
        return ""
