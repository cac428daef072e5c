"""Another mail host, from which mailboxes move in: a real Dovecot with its own configuration, on loopback."""

import datetime
import imaplib
import os
import pwd
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trustme

from tests.support.installation import until
from tests.support.postgres import free_port

PROGRAM = "/usr/sbin/dovecot"
PASSWORD = 'old "pass\\word" #1'

CONFIG = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
default_login_user = {login_user}
default_internal_user = {login_user}
default_internal_group = {login_group}
mail_location = {location}
auth_mechanisms = plain login
auth_failure_delay = 0
ssl = yes
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
disable_plaintext_auth = no
first_valid_uid = 1
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%u
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


class OldHost:
    """Its users have PASSWORD; `owner` has their mail, at `location`.

    `certificate` is of the authority that signed its name, `localhost`.
    """

    def __init__(self, *users: str, location: str = "maildir:{folder}/mail/%u:LAYOUT=fs") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ph-old-"))
        self.folder.chmod(0o755)
        self.server: subprocess.Popen[bytes] | None = None
        self.port, self.tls_port = free_port(), free_port()
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(str(self.folder / "key.pem"))
        for pem in issued.cert_chain_pems:
            pem.write_to_path(str(self.folder / "cert.pem"), append=True)
        self.certificate = self.folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.certificate))
        self.owner = owner = pwd.getpwnam("mail" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name)
        (self.folder / "mail").mkdir()
        os.chown(self.folder / "mail", owner.pw_uid, owner.pw_gid)
        (self.folder / "users").write_text("".join(f"{user}:{{PLAIN}}{PASSWORD}\n" for user in users))
        login = pwd.getpwnam("nobody") if os.getuid() == 0 else owner
        (self.folder / "dovecot.conf").write_text(CONFIG.format(
            folder=self.folder, port=self.port, tls_port=self.tls_port,
            location=location.format(folder=self.folder),
            uid=owner.pw_uid, gid=owner.pw_gid, login_user=login.pw_name,
            login_group="nogroup" if os.getuid() == 0 else owner.pw_name,
        ))

    def start(self) -> None:
        self.server = subprocess.Popen(
            [PROGRAM, "-F", "-c", str(self.folder / "dovecot.conf")], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        until(self._greets, what="the old host's greeting")

    def _greets(self) -> bool:
        try:
            with imaplib.IMAP4("127.0.0.1", self.port, timeout=5):
                return True
        except (OSError, imaplib.IMAP4.error):
            return False

    def discard(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, user: str) -> imaplib.IMAP4_SSL:
        """A mail client, logged in; a context manager that logs out."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        client = imaplib.IMAP4_SSL("localhost", self.tls_port, ssl_context=context, timeout=30)
        client.login(user, PASSWORD)
        return client

    def put_all(
        self, user: str, letters: list[bytes], *, folder: str = "INBOX", flags: Sequence[str] = ("",),
        at: float = 1_700_000_000,
    ) -> None:
        """Messages in a folder, which is made when it is missing.

        `flags` go round among them; `at`: when they arrived, in seconds of Unix time.
        """
        arrival = imaplib.Time2Internaldate(datetime.datetime.fromtimestamp(at, datetime.UTC))
        with self.client(user) as client:
            client.create(f'"{folder}"')
            for number, letter in enumerate(letters):
                status, answer = client.append(f'"{folder}"', f"({flags[number % len(flags)]})", arrival, letter)
                assert status == "OK", answer
