"""The mailserver's settings, frozen: the environment's, and bounds with their sources."""

from dataclasses import dataclass
from pathlib import Path

from panel.environment import (
    DOVECOT_SOCKET,
    MAILDIRS,
    Environment,
    IPNetwork,
    Listen,
    Store,
    socket_path,
)


class CannotStart(Exception):
    """Why the mailserver can't start: a sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Config:
    """All that the mailserver is told. Times in seconds, sizes in bytes."""

    hostname: str
    node_name: str
    data: Path
    mx: tuple[Listen, ...]
    submission: tuple[Listen, ...]
    submissions: tuple[Listen, ...]
    tls_cert: Path
    tls_key: Path
    dns: Listen | None
    outward_port: int
    outward_private: tuple[IPNetwork, ...]
    workers: int
    message_size: int
    separator: str
    postmaster: str
    store: Store = MAILDIRS
    full_refused: bool = False  # a full mailbox is 552 at RCPT, not 452
    login_days: int = 90  # how long logins are recorded
    language: str = "en"  # of what is told to who never chose one

    inline_bytes: int = 64 * 1024  # bodies up to this stay in memory and in the row (DESIGN: measured)
    line_bytes: int = 2048  # a command line; 512 and the extensions' additions, RFC 5321 §4.5.3.1.4
    auth_line_bytes: int = 12288  # RFC 4954 §4
    text_line_bytes: int = 65536  # a line of the message; RFC 5322 says 998, clients overrun it
    header_bytes: int = 1024 * 1024
    recipients: int = 1000  # RFC 5321 §4.5.3.1.8 asks for at least 100
    hops: int = 50  # Received fields, RFC 5321 §6.3
    failed_logins: int = 3  # a connection's
    errors: int = 20  # a connection's
    idle_timeout_s: float = 300.0  # RFC 5321 §4.5.3.2.7
    data_timeout_s: float = 180.0  # between two blocks, RFC 5321 §4.5.3.2.5
    data_rate_bytes_s: int = 1000  # the least over a minute
    queue_days: float = 5.0  # RFC 5321 §4.5.4.1: 4 to 5
    lease_s: float = 900.0
    stop_s: float = 30.0  # what a stop waits for sessions and deliveries under way
    finish_s: float = 60.0  # what a mailserver that was taken over waits for its sessions before it stops

    @classmethod
    def of(cls, environment: Environment) -> "Config":
        return cls(
            hostname=environment.hostname,
            node_name=environment.node,
            data=environment.data,
            mx=environment.mx,
            submission=environment.submission,
            submissions=environment.submissions,
            tls_cert=environment.tls_cert,
            tls_key=environment.tls_key,
            dns=environment.dns,
            outward_port=environment.outward_port,
            outward_private=environment.outward_private,
            workers=environment.workers,
            message_size=environment.message_size,
            separator=environment.separator,
            postmaster=environment.postmaster,
            store=environment.store,
            finish_s=environment.finish_s,
            full_refused=environment.full_refused,
            login_days=environment.login_days,
            language=environment.language,
        )

    @property
    def spool(self) -> Path:
        """Where large bodies are."""
        return self.data / "spool"

    @property
    def staging(self) -> Path:
        """Local copies that are durable and not yet published."""
        return self.data / "mail" / "staging"

    @property
    def run(self) -> Path:
        """Sockets and the lock file."""
        return self.data / "run"

    def socket(self, name: str) -> Path:
        """A Unix socket of ours."""
        return socket_path(self.data, name)

    @property
    def dovecot_socket(self) -> Path:
        """Where authd answers Dovecot."""
        return self.data / DOVECOT_SOCKET

    def maildir(self, opaque_id: str) -> Path:
        """A mailbox's folder: never derived from its address."""
        return self.data / "mail" / opaque_id[:2] / opaque_id / "Maildir"
