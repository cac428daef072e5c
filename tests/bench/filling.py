"""Fills a database with tenants and their mail, as an installation looks that has run for a month.

Rows are written past the services, by COPY on PostgreSQL and by executemany on SQLite; what they
hold is what the services and the mailserver would have written. Always the same for the same size,
but for the time at which it ends: now.
"""

import itertools
import random
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.color import no_style
from django.db import connection, models, transaction
from django.db.models import Max
from django.utils import timezone

from panel.database.ids import IdMaker
from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.models import (
    Address,
    Alias,
    AliasTarget,
    Credential,
    LoginEvent,
    Mailbox,
    MailboxUsage,
)
from panel.operations.models import Node
from panel.rules.limits import Kind, Rings
from panel.sending.models import Attempt, Counter, Message, OutboundRoute, Recipient, SendingLimit
from panel.tenants.models import AuditEntry, DirectoryChange, Membership, Plan, Tenant, User

DAYS = 30
QUEUE_DAYS = 5  # what waits is younger
AT_ONCE = 20_000  # messages in memory
BIG = 50_000  # from so many messages on, indexes are made after the rows
# How much of a day's mail falls into each hour.
HOURS = (1, 1, 1, 1, 1, 2, 4, 8, 12, 12, 11, 10, 8, 10, 11, 10, 9, 7, 5, 4, 3, 2, 2, 1)
# Where mail goes, and which part of it.
HOPS = {
    "gmail.example": 40, "outlook.example": 22, "icloud.example": 10, "yahoo.example": 8, "web.example": 6,
    "partner.example": 5, "post.example": 4, "uni.example": 2, "slow.example": 2, "gone.example": 1,
}
GREYLISTED = "451 4.7.1 Greylisted, please try again later"
THROTTLED = "421 4.7.28 Our system has detected an unusual rate of mail from your address"
RETRIES_S = (0, 60, 300, 900, 3600, 7200, 14_400, 28_800)  # after the first try, and how often it was tried
FIRST = ("ann", "bob", "carl", "dora", "eve", "finn", "gina", "hugo", "ida", "jan", "kim", "lea", "max", "nora", "otto")
LAST = ("archer", "brook", "carter", "dale", "ellis", "forge", "grant", "hill", "ivory", "jones", "king", "lake")
SUBJECTS = (
    "Invoice {}", "Re: Your order {}", "Minutes of the meeting, {}", "Delivery {} is on its way", "Offer {}",
    "Re: Re: Contract {}", "Newsletter {}", "Reminder: {}", "Photos from {}", "Ticket {} was answered",
)
ACTIONS = (
    "mailbox.created", "mailbox.changed", "password.set", "credential.created", "mailbox.suspended", "alias.changed",
)
CHARGED = '{"charged": [{"kind": "mailbox", "name": "ADDRESS", "used": 12, "allowed": 200, "window": "hour"}]}'

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    tenants: int
    mailboxes: int
    messages: int


def is_empty() -> bool:
    return not Tenant.objects.exists()


def fill(size: Size, tell: Tell = lambda text: None) -> None:
    """Write it all, beside what is there already. The first tenant is the largest."""
    with _fast(size):
        _Filling(size, tell).run()


def tidy() -> None:
    """What autovacuum does before long: PostgreSQL's figures of what the tables hold."""
    if not connection.in_atomic_block and connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


class _Filling:
    def __init__(self, size: Size, tell: Tell) -> None:
        self.size, self.tell = size, tell
        self.now = timezone.now().astimezone(UTC)
        self.began = self.now - timedelta(days=DAYS)
        self.random = random.Random(size.messages)
        self.tenant, self.domain, self.address, self.mailbox, self.person = (
            (model.objects.aggregate(most=Max("pk"))["most"] or 0) + 1
            for model in (Tenant, Domain, Address, Mailbox, User)
        )
        # Largest first, falling slowly: a few have thousands of mailboxes, most have some dozen.
        weights = [1 / (place + 5) for place in range(size.tenants)]
        self.held = _shares(size.mailboxes, weights)
        self.starts = list(itertools.accumulate(self.held, initial=0))  # the first mailbox of each tenant

    def run(self) -> None:
        with transaction.atomic():
            self.tell("tenants and mailboxes …")
            self.tenants()
            self.mailboxes()
            self.aliases()
            self.records()
        self.mail()
        with connection.cursor() as cursor:
            for sql in connection.ops.sequence_reset_sql(no_style(), [Tenant, Domain, Address, Mailbox, User, Alias]):
                cursor.execute(sql)

    # --- who -------------------------------------------------------------------------------

    def tenant_of(self, mailbox: int) -> int:
        """The tenant's id of the mailbox with this number."""
        return self.tenant + bisect(self.starts, mailbox) - 1

    def name_of(self, mailbox: int) -> str:
        return f"{FIRST[mailbox % len(FIRST)]}.{LAST[mailbox // len(FIRST) % len(LAST)]}{mailbox}"

    def domain_of(self, tenant: int) -> str:
        return f"t{tenant}.example"

    def address_of(self, mailbox: int) -> str:
        return f"{self.name_of(mailbox)}@{self.domain_of(self.tenant_of(mailbox))}"

    def tenants(self) -> None:
        ids = range(self.tenant, self.tenant + self.size.tenants)
        plans = [Plan.objects.get_or_create(name=name)[0].pk for name in ("Standard", "Large", "Reseller")]
        _write(
            Tenant, ["id", "name", "plan_id", "status", "status_reason", "parent_id"],
            (
                (each, f"Tenant {each}", plans[each % 3], 2 if each % 50 == 49 else 0,
                 "unpaid" if each % 50 == 49 else "", self.tenant if each % 20 == 19 else None)
                for each in ids
            ),
        )
        _write(
            Domain, ["id", "name", "tenant_id", "proof", "proved_by"],
            (
                (self.domain + n, self.domain_of(each), each, "pending" if n % 100 == 99 else "proved",
                 "" if n % 100 == 99 else "checked by us")
                for n, each in enumerate(ids)
            ),
            kind="own",
        )
        _write(
            DomainAlias, ["name", "domain_id", "proof"],
            ((f"a{each}.example", self.domain + n, "proved") for n, each in enumerate(ids) if n % 3 == 0),
        )
        _write(
            User, ["id", "email", "name"],
            ((self.person + n, f"owner{each}@elsewhere.example", f"Owner {each}") for n, each in enumerate(ids)),
            kind="panel", password="!",
        )
        _write(
            Membership, ["user_id", "tenant_id", "role"],
            ((self.person + n, each, "owner") for n, each in enumerate(ids)),
        )
        _write(
            SendingLimit, ["owner_id", "tenant_id", "window", "recipients"],
            ((each, each, "day", 50_000) for each in ids if each % 4 == 0),
        )
        _write(
            OutboundRoute, ["domain", "host"],
            ((f"route{each}.example", f"relay{each}.example") for each in ids if each % 10 == 0),
        )
        _write(
            Counter, ["subject", "rings"],
            ((each, self.rings(40)) for each in ids), kind=int(Kind.TENANT),
        )
        if not Node.objects.exists():
            Node.objects.create(
                number=1, name="mx1.provider.example", version="1", started_at=self.began, last_seen_at=self.now
            )
        self.person += self.size.tenants

    def mailboxes(self) -> None:
        count = self.size.mailboxes
        numbers = range(count)
        owners = [self.tenant_of(number) for number in numbers]
        # Of every ten addresses eight are mailboxes', the rest aliases': `aliases` goes on after these.
        _write(
            Address, ["id", "local_part", "domain_id", "tenant_id"],
            (
                (self.address + n, self.name_of(n), self.domain + owners[n] - self.tenant, owners[n])
                for n in numbers
            ),
        )
        _write(
            User, ["id", "name"], ((self.person + n, self.name_of(n)) for n in numbers),
            kind="person", email=None, password="!",
        )
        _write(
            Mailbox, [
                "id", "address_id", "tenant_id", "domain_name", "local_part", "person_id", "opaque_id", "name",
                "quota_bytes", "status", "status_reason",
            ],
            (
                (self.mailbox + n, self.address + n, owners[n], self.domain_of(owners[n]), self.name_of(n),
                 self.person + n, f"{self.mailbox + n:020x}",
                 self.name_of(n).replace(".", " ").title(), 5 << 30, 2 if n % 200 == 199 else 0,
                 "spam" if n % 200 == 199 else "")
                for n in numbers
            ),
        )
        _write(
            Credential, ["mailbox_id", "secret", "last_used_at", "last_used_ip"],
            (
                (self.mailbox + n, f"argon2$argon2id$v=19$m=19456,t=2,p=1${n:022x}${n:043x}",
                 _text(self.now - timedelta(minutes=n % 40_000)), "203.0.113.9")
                for n in numbers
            ),
            kind="main",
        )
        _write(
            Credential, ["mailbox_id", "label", "secret", "frozen_at", "frozen_reason"],
            (
                (self.mailbox + n, ("phone", "web shop", "printer")[n % 3], f"{self.mailbox + n:064x}",
                 _text(self.now) if n % 100 == 0 else None, "spam" if n % 100 == 0 else "")
                for n in numbers if n % 5 == 0
            ),
            kind="app", scopes='["submission"]',
        )
        _write(
            MailboxUsage, ["mailbox_id", "used_bytes", "messages", "known_at", "counted_at"],
            (
                (self.mailbox + n, n * 7_919 % (5 << 30), n * 31 % 60_000, _text(self.now), _text(self.now))
                for n in numbers
            ),
        )
        _write(
            Counter, ["subject", "rings"],
            ((self.mailbox + n, self.rings(1 + n % 7)) for n in numbers), kind=int(Kind.MAILBOX),
        )
        _write(
            SendingLimit, ["owner_id", "mailbox_id", "window", "recipients"],
            ((owners[n], self.mailbox + n, "hour", 500) for n in numbers if n % 100 == 0),
        )

    def rings(self, recipients: int) -> bytes:
        rings = Rings()
        rings.charge(recipients, self.now.timestamp() - recipients * 60)
        return rings.pack()

    def aliases(self) -> None:
        count = self.size.mailboxes // 5
        first = self.address + self.size.mailboxes
        base = (Alias.objects.aggregate(most=Max("pk"))["most"] or 0) + 1
        places = [n * 5 for n in range(count)]  # the mailbox beside each
        owners = [self.tenant_of(place) for place in places]
        names = [f"{('info', 'sales', 'desk')[n % 3]}{n}" for n in range(count)]
        _write(
            Address, ["id", "local_part", "domain_id", "tenant_id"],
            (
                (first + n, names[n], self.domain + owners[n] - self.tenant, owners[n])
                for n in range(count)
            ),
        )
        _write(
            Alias, ["id", "address_id", "tenant_id", "domain_name", "local_part"],
            ((base + n, first + n, owners[n], self.domain_of(owners[n]), names[n]) for n in range(count)),
            description="Desk",
        )
        _write(
            AliasTarget, ["alias_id", "target"],
            ((base + n, self.address_of(place)) for n, place in enumerate(places)),
        )
        _write(
            AliasTarget, ["alias_id", "target"],
            ((base + n, f"x{n}@elsewhere.example") for n in range(count) if n % 4 == 0),
        )

    def records(self) -> None:
        """Logins, the audit log, and what the caches follow."""
        count = 2 * self.size.mailboxes
        step = timedelta(days=DAYS) / max(count, 1)
        outcomes = ["ok"] * 17 + ["wrong", "wrong", "scope"]

        def logins() -> Iterator[tuple[Any, ...]]:
            for n in range(count):
                mailbox = n * 7 % self.size.mailboxes
                at = _text(self.began + n * step)
                yield (
                    at, at, 1 + n % 4, self.tenant_of(mailbox), self.mailbox + mailbox, self.address_of(mailbox),
                    f"203.0.113.{n % 250}", ("imap", "submission", "imap", "panel")[n % 4], outcomes[n % 20],
                )

        _write(
            LoginEvent,
            ["at", "last_at", "count", "tenant_id", "mailbox_id", "login", "ip", "protocol", "outcome"],
            logins(), credential_text="main password",
        )

        def entries() -> Iterator[tuple[Any, ...]]:
            for n in range(count):
                mailbox = n * 11 % self.size.mailboxes
                tenant = self.tenant_of(mailbox)
                yield (
                    _text(self.began + n * step), f"owner{tenant}@elsewhere.example", ACTIONS[n % len(ACTIONS)], tenant,
                    self.mailbox + mailbox, self.address_of(mailbox),
                )

        _write(
            AuditEntry, ["at", "actor_name", "action", "tenant_id", "subject_id", "subject_name"], entries(),
            subject_type="mailbox", ip="192.0.2.7", before='{"name": ""}', after='{"name": "Ann"}',
        )
        # A long history of one thing: the first tenant's own.
        _write(
            AuditEntry, ["at", "action", "reason"],
            (
                (_text(self.began + n * step), ("tenant.suspended", "tenant.resumed")[n % 2], "unpaid")
                for n in range(min(count, 5000))
            ),
            actor_name="command line", subject_type="tenant", subject_id=self.tenant, tenant_id=self.tenant,
            subject_name=f"Tenant {self.tenant}",
        )
        _write(
            DirectoryChange, ["domain"],
            ((self.domain_of(self.tenant + n % self.size.tenants),) for n in range(count // 10)),
        )

    # --- mail ------------------------------------------------------------------------------

    def mail(self) -> None:
        """Messages in the order of their time, each part in a transaction of its own."""
        lines = _Lines(self)
        done = 0
        for times in _batched(self.times(), AT_ONCE):
            lines.clear()
            for at_s in times:
                lines.message(done, at_s)
                done += 1
            with transaction.atomic():
                lines.write()
            self.tell(f"{done:,} of {self.size.messages:,} messages")

    def times(self) -> Iterator[float]:
        """When each message was accepted, in seconds since 1970, rising."""
        first_s = self.began.timestamp()
        for day, of_day in enumerate(_shares(self.size.messages, [1.0] * DAYS)):
            for hour, of_hour in enumerate(_shares(of_day, HOURS)):
                begins_s = first_s + day * 86_400 + hour * 3600
                for n in range(of_hour):
                    yield begins_s + n * 3600 / of_hour


class _Lines:
    """The rows of messages, their recipients and tries, until they are written."""

    def __init__(self, filling: _Filling) -> None:
        self.of = filling
        self.random = filling.random
        node = (filling.tenant // filling.size.tenants) % 60  # another one if there is mail already
        self.clock_s = 0.0
        # A worker for each number of try: its tries rise in time as the messages do.
        self.maker = self.made_by(node, 0)
        self.makers = [self.made_by(node, 1 + number) for number in range(len(RETRIES_S) + 1)]
        self.hops = list(HOPS)
        self.hop_weights = list(itertools.accumulate(HOPS.values()))
        # So that a tenth of all messages' number waits, all of it young.
        self.waits = 0.1 * DAYS / QUEUE_DAYS / 0.75
        self.queue_s = filling.now.timestamp() - QUEUE_DAYS * 86_400
        self.clear()

    def made_by(self, node: int, worker: int) -> IdMaker:
        return IdMaker(node, worker, lambda: self.clock_s)

    def clear(self) -> None:
        self.messages: list[tuple[Any, ...]] = []
        self.recipients: list[tuple[Any, ...]] = []
        self.attempts: list[tuple[Any, ...]] = []

    def message(self, number: int, at_s: float) -> None:
        """Three of four are submitted and go elsewhere; the rest come in for mailboxes here."""
        of, chance = self.of, self.random.random
        mailbox = int(chance() * of.size.mailboxes)
        tenant, address = of.tenant_of(mailbox), of.address_of(mailbox)
        self.clock_s = at_s
        message = self.maker.next()
        at = _text_s(at_s)
        submitted = number % 4 != 3
        sender = address if submitted else f"{FIRST[number % len(FIRST)]}{number % 5000}@{self.hop()}"
        self.messages.append((
            message, at, "submission" if submitted else "inbound", tenant if submitted else None, sender,
            SUBJECTS[number % len(SUBJECTS)].format(number), f"<{number:x}.{message:x}@{sender.rpartition('@')[2]}>",
            sender, "main password" if submitted else "", f"198.51.100.{number % 250}", 900 + number * 97 % 90_000,
            CHARGED.replace("ADDRESS", address) if submitted else "{}",
        ))
        several = 1 if number % 10 else 3
        for n in range(several):
            if submitted:
                hop = self.hop()
                to = f"{LAST[(number + n) % len(LAST)]}{number % 20_000}@{hop}"
                self.recipient(message, tenant, None, to, hop, at_s)
            else:
                self.recipient(message, tenant, tenant, address, "local", at_s)

    def hop(self) -> str:
        return self.hops[bisect(self.hop_weights, self.random.random() * self.hop_weights[-1])]

    def recipient(
        self, message: int, tenant: int, recipient_tenant: int | None, to: str, hop: str, at_s: float
    ) -> None:
        chance = self.random.random
        self.clock_s = at_s
        number = self.maker.next()
        now_s = self.of.now.timestamp()
        waits = at_s > self.queue_s and recipient_tenant is None and chance() < self.waits / 1.2
        if waits:
            state, tries = "waiting", min(len(RETRIES_S), 1 + int((now_s - at_s) / 7200))
            reply = THROTTLED if hop == self.hops[0] else GREYLISTED
        elif hop == "gone.example" or (recipient_tenant is None and chance() < 0.01):
            state, tries, reply = "failed", 1, "550 5.1.1 No such user here"
        else:
            state, tries = "delivered", 1 if chance() < 0.9 else 2
            reply = "250 2.0.0 OK"
        holds = self.random.choice((1, 1, 1, 1, 1, 1, 1, 1, 2, 4)) if waits and chance() < 0.02 else 0
        self.recipients.append((
            number, message, tenant, recipient_tenant, to, to, hop, state, holds,
            _text_s(now_s + chance() * 3600) if waits else _text_s(at_s), tries, _text_s(at_s + QUEUE_DAYS * 86_400),
            reply, None if waits else _text_s(at_s + 1),
        ))
        tried_s = at_s
        for which in range(tries):
            tried_s += RETRIES_S[which] + 0.3
            if tried_s > now_s:
                break
            last = which == tries - 1
            outcome = "deferred" if waits or not last else state
            self.clock_s = tried_s
            self.attempts.append((
                self.makers[which].next(), number, tenant, recipient_tenant, _text_s(tried_s), outcome,
                "" if recipient_tenant else f"mx.{hop}", "" if recipient_tenant else f"192.0.2.{number % 250}",
                "" if recipient_tenant else "TLSv1.3", reply if last or waits else GREYLISTED, 20 + number % 900,
            ))

    def write(self) -> None:
        _write(
            Message,
            ["id", "accepted_at", "direction", "tenant_id", "reverse_path", "subject", "message_id", "header_from",
             "credential_text", "client_ip", "size", "facts"],
            self.messages, client_name="client.example", tls="TLSv1.3 TLS_AES_256_GCM_SHA384", body="8BITMIME",
        )
        _write(
            Recipient,
            ["id", "message_id", "tenant_id", "recipient_tenant_id", "original", "resolved", "next_hop", "state",
             "holds", "due_at", "tries", "expires_at", "last_reply", "settled_at"],
            self.recipients,
        )
        _write(
            Attempt,
            ["id", "recipient_id", "tenant_id", "recipient_tenant_id", "at", "outcome", "host", "address", "tls",
             "reply", "duration_ms"],
            self.attempts,
        )


def _shares(total: int, weights: Sequence[float]) -> list[int]:
    """The total in whole numbers, as the weights go."""
    bounds = [round(total * part / sum(weights)) for part in itertools.accumulate(weights, initial=0)]
    return [after - before for before, after in itertools.pairwise(bounds)]


def _batched(values: Iterable[float], size: int) -> Iterator[list[float]]:
    values = iter(values)
    while some := list(itertools.islice(values, size)):
        yield some


def _text(at: datetime) -> str:
    """A time as both databases read it: SQLite keeps this text, PostgreSQL's connections are in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def _text_s(at_s: float) -> str:
    return _text(datetime.fromtimestamp(at_s, UTC))


def _write(model: type[models.Model], names: list[str], rows: Iterable[tuple[Any, ...]], **same: Any) -> None:
    """Write rows of the columns `names`; of the others, `same` in each, or else their default."""
    fields = {field.attname: field for field in model._meta.concrete_fields if not isinstance(field, models.AutoField)}
    for name, field in fields.items():
        if name not in names and name not in same:
            same[name] = field.get_db_prep_save(field.get_default(), connection)
    columns = ", ".join(connection.ops.quote_name(model._meta.get_field(name).column) for name in [*names, *same])
    table = connection.ops.quote_name(model._meta.db_table)
    rest = tuple(same.values())
    connection.ensure_connection()
    with connection.connection.cursor() if connection.vendor == "postgresql" else _closing() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row + rest)
        else:
            marks = ", ".join("?" * (len(names) + len(rest)))
            cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", (row + rest for row in rows))


@contextmanager
def _closing() -> Iterator[Any]:
    """SQLite's own cursor, which takes rows as they come."""
    cursor = connection.connection.cursor()
    try:
        yield cursor
    finally:
        cursor.close()


@contextmanager
def _fast(size: Size) -> Iterator[None]:
    """Without indexes that no constraint needs, and on SQLite without waiting for the disk, until all is written."""
    if connection.in_atomic_block or size.messages < BIG:
        yield
        return
    sqlite = connection.vendor == "sqlite"
    indexes = [
        (model, index)
        for model in (Message, Recipient, Attempt, LoginEvent, AuditEntry, AliasTarget) for index in model._meta.indexes
    ]
    with connection.schema_editor() as editor:
        for model, index in indexes:
            editor.remove_index(model, index)
    if sqlite:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA synchronous=OFF")
            cursor.execute("PRAGMA cache_size=-400000")
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            for model, index in indexes:
                editor.add_index(model, index)
        if sqlite:
            connection.close()  # the next connection waits for the disk again
