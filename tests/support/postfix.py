"""A real Postfix on loopback, with a configuration, queue and log of its own."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.postgres import free_port

PROGRAM = Path("/usr/sbin/postfix")

MASTER = """
{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """Final destination of `domain` for the local parts in `users`; `hops` sends domains to a port of loopback."""

    def __init__(self, domain: str, users: tuple[str, ...] = ("bob",), hops: dict[str, int] | None = None) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="ph-postfix-"))
        self.folder.chmod(0o755)
        self.config = self.folder / "etc"
        self.mail = self.folder / "mail"
        self.log = self.folder / "log"
        for each in (self.config, self.mail, self.folder / "data", self.folder / "queue"):
            each.mkdir()
        shutil.chown(self.folder / "data", "postfix")
        shutil.chown(self.mail, "postfix")
        addresses = " ".join(f"{{ {user}@{domain} = {user}/ }}" for user in users)
        transports = " ".join(f"{{ {name} = smtp:[127.0.0.1]:{port} }}" for name, port in (hops or {}).items())
        uid = self.mail.stat().st_uid
        settings = {
            "compatibility_level": "3.6", "queue_directory": self.folder / "queue",
            "data_directory": self.folder / "data", "mail_owner": "postfix", "setgid_group": "postdrop",
            "myhostname": f"mx.{domain}", "mydestination": "", "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4", "mynetworks": "127.0.0.0/8", "virtual_mailbox_domains": domain,
            "virtual_mailbox_maps": f"inline:{{ {addresses} }}", "virtual_mailbox_base": self.mail,
            "virtual_uid_maps": f"static:{uid}", "virtual_gid_maps": f"static:{uid}", "virtual_minimum_uid": "1",
            "transport_maps": f"inline:{{ {transports} }}" if transports else "", "maillog_file": self.log,
            "maillog_file_prefixes": self.folder, "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtpd_recipient_restrictions": "reject_unlisted_recipient, permit", "smtputf8_enable": "yes",
            "minimal_backoff_time": "2s", "maximal_backoff_time": "5s", "queue_run_delay": "2s",
            "smtp_tls_security_level": "may", "alias_maps": "", "alias_database": "", "in_flow_delay": "0",
            "smtpd_peername_lookup": "no", "smtp_host_lookup": "native", "disable_dns_lookups": "yes",
        }
        (self.config / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        (self.config / "master.cf").write_text(MASTER.format(port=f"127.0.0.1:{self.port}"))

    def run(self, command: str) -> None:
        subprocess.run([PROGRAM, "-c", self.config, command], check=True, capture_output=True, timeout=60)

    def start(self) -> None:
        self.run("start")

    def stop(self) -> None:
        """Its daemons end within a few seconds; waits until the master is gone."""
        subprocess.run([PROGRAM, "-c", self.config, "stop"], check=False, capture_output=True, timeout=60)
        deadline = time.monotonic() + 20
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(0.1)

    def is_running(self) -> bool:
        done = subprocess.run([PROGRAM, "-c", self.config, "status"], check=False, capture_output=True, timeout=60)
        return done.returncode == 0

    def inbox(self, user: str) -> list[Path]:
        return sorted((self.mail / user).glob("new/*"))

    def discard(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
