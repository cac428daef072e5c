"""The list of mailboxes that move in: a CSV of address, remote user, remote password and perhaps host.

Reads it and refuses it as a whole, with every bad line's number; connects to nothing.
"""

import csv
import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

from panel.environment import STANDARD_PORTS, Listen
from panel.mailboxes.models import Mailbox
from panel.mailboxes.services import find_mailbox
from panel.rules.addresses import BadAddress, canonical_domain
from panel.rules.status import Status
from panel.tenants.changes import ServiceError

MOST_BYTES = 16 * 1024 * 1024
MOST_ERRORS = 20  # told at once
MOST_TEXT = 400  # of a user or password; mbsync's configuration has lines of 1,024 bytes
COLUMNS = ("address", "remote user", "remote password")
_ADDRESS_OF_IPV6 = re.compile(r"\[([0-9a-fA-F:.]{2,45})\](?::(\d+))?")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Host:
    """An IMAP server. On port 143 it is asked for STARTTLS, on any other TLS comes first."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        try:
            return self.name == "localhost" or ipaddress.ip_address(self.name).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Account:
    """A remote mailbox and the one here that it moves into. Its repr doesn't show the password."""

    line: int
    mailbox: Mailbox
    host: Host
    user: str
    password: str = field(repr=False)


def parse_host(text: str) -> Host:
    """HOST, HOST:PORT, an IPv6 address in brackets; without a port 993. Raises ServiceError."""
    text = text.strip()
    literal = _ADDRESS_OF_IPV6.fullmatch(text)
    if literal:
        name, port = literal[1], literal[2] or ""
    else:
        name, colon, port = text.partition(":")
        if colon and not port:
            port = "none"
        try:
            # An IPv4 address is no domain.
            name = name if re.fullmatch(r"[0-9.]{7,15}", name) else canonical_domain(name, single_label=True)
        except BadAddress:
            name = ""
    if not name or (port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536)):
        raise ServiceError(f"{text!r} is no mail host: write HOST or HOST:PORT, such as imap.old.example:993.", "host")
    return Host(name, int(port or STANDARD_PORTS["imaps"]))


def read_accounts(path: Path, host: Host | None) -> list[Account]:
    """Every account of the file; `host` is for lines without one. Raises ServiceError, a line a mistake."""
    accounts: list[Account] = []
    errors: list[str] = []
    seen: dict[tuple[object, ...], int] = {}
    try:
        for line, row in _rows(path):
            try:
                account = _account(line, row, host)
                key = (account.mailbox.pk, account.host, account.user)
                if key in seen:
                    raise ServiceError(f"{account.mailbox} is pulled from {account.user} in line {seen[key]} already.")
                seen[key] = line
                accounts.append(account)
            except ServiceError as error:
                errors.append(f"line {line}: {error}")
    except csv.Error as error:
        errors.append(f"{error}.")
    if errors:
        more = [f"and {len(errors) - MOST_ERRORS} more."] if len(errors) > MOST_ERRORS else []
        raise ServiceError("\n".join([f"{path} can't be used:", *errors[:MOST_ERRORS], *more]))
    if not accounts:
        raise ServiceError(f"{path} holds no account: write a line ADDRESS,REMOTE USER,REMOTE PASSWORD for each.")
    return accounts


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines with their numbers, without blank ones, comments and a line of titles. Raises ServiceError."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ServiceError(f"{path} can't be read: {error.strerror}.") from None
    if len(content) > MOST_BYTES:
        raise ServiceError(f"{path} is larger than {MOST_BYTES // 1024**2} MB: split it.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ServiceError(f"{path}, line {line}: it is not UTF-8; save it as UTF-8.") from None
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    start = 1
    for row in reader:
        number, start = start, reader.line_num + 1
        if not any(cell.strip() for cell in row) or row[0].lstrip().startswith("#"):
            continue
        if row[0].strip().lower() in ("address", "email", "mailbox"):
            continue
        yield number, row


def _account(line: int, row: list[str], host: Host | None) -> Account:
    if not len(COLUMNS) <= len(row) <= len(COLUMNS) + 1:
        raise ServiceError(
            f"it has {len(row)} {'column' if len(row) == 1 else 'columns'}: write {', '.join(COLUMNS)} and perhaps "
            "host:port, with a comma between, and a value that holds a comma or quote in double quotes."
        )
    address, user, password, *others = row
    user = user.strip() or address.strip()
    for name, text in (("remote user", user), ("remote password", password)):
        if not text or len(text.encode(errors="replace")) > MOST_TEXT or _CONTROLS.search(text):
            raise ServiceError(f"the {name} is empty, too long, or holds a control character.")
    where = _own_host(others[0]) if others and others[0].strip() else host
    if where is None:
        raise ServiceError("it names no host: write one in the fourth column, or --from HOST.")
    mailbox = find_mailbox(address)
    if mailbox.status == Status.CLOSED:
        raise ServiceError(f"{mailbox} is closed.")
    if _is_stored_elsewhere(mailbox):
        raise ServiceError(
            f"{mailbox} is stored by LMTP at {settings.ENVIRONMENT.store.lmtp}, and nobody would read what comes "
            "here: pull it where its Dovecot is."
        )
    return Account(line, mailbox, where, user, password)


def _own_host(text: str) -> Host:
    try:
        return parse_host(text)
    except ServiceError:
        # Not shown: it may be the end of a password.
        raise ServiceError(
            "its fourth column is no mail host: write HOST or HOST:PORT; a password with a comma goes in double quotes."
        ) from None


def _is_stored_elsewhere(mailbox: Mailbox) -> bool:
    """Whether another machine has its mail. A Unix socket and loopback lead to a Dovecot on our Maildirs."""
    store = settings.ENVIRONMENT.store
    if (mailbox.address.domain.store or store.default) != "lmtp":
        return False
    return isinstance(store.lmtp, Listen) and not store.lmtp.is_loopback


def hosts_beyond_loopback(accounts: Iterable[Account]) -> list[str]:
    return sorted({str(account.host) for account in accounts if not account.host.is_loopback})
