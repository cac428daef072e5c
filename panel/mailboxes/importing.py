"""Many mailboxes at once: from a CSV, all or none; and back into one.

Everything is checked before anything is hashed, and hashed before the transaction opens (26 ms a
password on each core): the transaction itself is a few bulk statements, whatever the number of rows.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import OuterRef, Subquery, Value
from django.utils.translation import gettext as _

from panel.domains.models import Domain, DomainAlias
from panel.mailboxes import passwords, sheet
from panel.mailboxes.models import BY_ADDRESS, MOST_QUOTA_BYTES, Address, Credential, Mailbox
from panel.mailboxes.services import OF_THE_PROVIDER, check_main_password, hold_storage
from panel.mailboxes.sheet import Errors, Row
from panel.rules.addresses import Address as Parsed
from panel.rules.status import Status
from panel.tenants import audit
from panel.tenants.changes import ServiceError, changed, count_against_plan, lock
from panel.tenants.decided import is_bound
from panel.tenants.models import AuditEntry, Plan, Tenant, User
from panel.tenants.shown import size

BATCH = 1000  # rows a statement; Django makes it smaller where the database takes less
CHUNK = 500  # addresses a question
TELL_S = 2.0  # between two words on the progress

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, or with `check` would have done."""

    mailboxes: int
    domains: tuple[str, ...]
    without_password: int
    hashed_s: float
    written_s: float


def import_mailboxes(
    path: Path,
    tenant: Tenant,
    *,
    check: bool = False,
    without_passwords: bool = False,
    tell: Tell = lambda text: None,
    actor: User | None,
    ip: str | None = None,
) -> Imported:
    """Make every mailbox of the file for this tenant, or none. Raises ServiceError, its sentences with their lines.

    `check` stops before anything is hashed or written.
    """
    errors = Errors()
    rows = sheet.read(path, errors, without_passwords=without_passwords)
    tell(f"{len(rows):,} rows are read.")
    return import_rows(rows, errors, tenant, check=check, tell=tell, actor=actor, ip=ip)


def import_rows(
    rows: Sequence[Row],
    errors: Errors,
    tenant: Tenant,
    *,
    check: bool = False,
    tell: Tell = lambda text: None,
    actor: User | None,
    ip: str | None = None,
) -> Imported:
    """Make a mailbox of each row, or none where `errors` has one or gets one; else as `import_mailboxes`."""
    domains = _domains(rows, tenant, errors, actor)
    # What is in others' domains isn't looked at: nobody learns there whether an address exists.
    known = [row for row in rows if row.address.domain in domains]
    _check_addresses(known, errors, actor)
    for row in rows:
        # A row that says none has what whoever asked gave for all.
        if row.quota_bytes is not None and row.quota_bytes > MOST_QUOTA_BYTES:
            errors.add(row.line, _("the quota {quota!r} is larger than any disk.").format(quota=size(row.quota_bytes)))
    _check_passwords(rows, errors, tell)
    errors.raise_if_any()
    names = tuple(sorted(domains))
    bare = sum(not (row.password or row.stored) for row in rows)
    with transaction.atomic():
        _hold_plan(tenant, rows)  # again when they are written: this one only comes before the hashing
    if check:
        return Imported(len(rows), names, bare, 0.0, 0.0)
    began_s = time.monotonic()
    stored = _hash(rows, tell)
    hashed_s = time.monotonic() - began_s
    began_s = time.monotonic()
    _write(rows, stored, domains, tenant, actor, ip)
    return Imported(len(rows), names, bare, hashed_s, time.monotonic() - began_s)


# Checks, which ask a few hundred rows at a time


def _domains(rows: Sequence[Row], tenant: Tenant, errors: Errors, actor: User | None) -> dict[str, Domain]:
    """The domains of the rows by name; what is wrong with one is told at each of its rows.

    A tenant's account gets those that it may place addresses in itself.
    """
    names = sorted({row.address.domain for row in rows})
    found: dict[str, Domain] = {}
    stand_for: dict[str, str] = {}
    for chunk in _chunks(names):
        found.update((domain.name, domain) for domain in Domain.objects.filter(name__in=chunk))
        aliases = DomainAlias.objects.filter(name__in=chunk)
        stand_for.update((alias.name, alias.domain.name) for alias in aliases.select_related("domain"))
    bound = is_bound(actor)
    if bound:
        found, stand_for = _of_the_tenant(found.values(), tenant), {}
    for row in rows:
        name = row.address.domain
        refused = _refusal(row.address, found.get(name), stand_for.get(name, ""), tenant, bound)
        if refused:
            errors.add(row.line, refused)
    return found


def _refusal(address: Parsed, domain: Domain | None, other: str, tenant: Tenant, bound: bool) -> str:
    """Why the tenant can't have this address in the domain, or stand-in for `other`; nothing when it can."""
    separator = settings.ENVIRONMENT.separator
    if domain is None:
        if bound:
            return _("{domain} is none of your domains: add it first.").format(domain=address.domain)
        told = _("{domain} stands for {other}: use an address in {other}.") if other else (
            _("The domain {domain} isn't hosted here: create it first.")
        )
        return told.format(domain=address.domain, other=other)
    if domain.tenant_id not in (None, tenant.pk):
        return _("{domain} is not a domain of {tenant}.").format(domain=domain, tenant=tenant)
    if domain.status == Status.CLOSED:
        return _("The domain {domain} is closed.").format(domain=domain)
    if separator and address.without_subaddress(separator) != address:
        return _("{address} holds {separator}: what follows it is a subaddress.").format(
            address=address, separator=separator
        )
    if bound and domain.tenant_id is None and address.local_part in OF_THE_PROVIDER:
        return _("{address} speaks for the whole domain: the provider keeps it.").format(address=address)
    return ""


def _of_the_tenant(domains: Iterable[Domain], tenant: Tenant) -> dict[str, Domain]:
    """Of these its own, and the shared ones that its plan names."""
    shared = set(Plan.objects.filter(pk=tenant.plan_id).values_list("shared_domains", flat=True))
    return {
        each.name: each for each in domains
        if each.tenant_id == tenant.pk or (each.tenant_id is None and each.pk in shared)
    }


def _check_addresses(rows: Sequence[Row], errors: Errors, actor: User | None) -> None:
    by_address = {str(row.address): row for row in rows}
    for chunk in _chunks(list(by_address)):
        of = [by_address[text].address for text in chunk]
        held = Address.objects.filter(
            domain__name__in={one.domain for one in of}, local_part__in={one.local_part for one in of}
        )
        for local_part, name in held.values_list("local_part", "domain__name"):
            row = by_address.get(f"{local_part}@{name}")
            if row is not None:
                errors.add(row.line, _("The address {address} is taken already.").format(address=row.address))
        for account in User.objects.filter(email__in=chunk):
            errors.add(
                by_address[str(account)].line,
                (_("{account} can't be given to a mailbox: ask your provider.") if is_bound(actor)
                 else _("{account} is the login of a panel account.")).format(account=account),
            )


def _check_passwords(rows: Sequence[Row], errors: Errors, tell: Tell) -> None:
    told_s = time.monotonic()
    for number, row in enumerate(rows):
        if not row.password:
            continue
        if time.monotonic() - told_s >= TELL_S:
            told_s = time.monotonic()
            tell(f"{number:,} of {len(rows):,} passwords are checked.")
        try:
            check_main_password(row.password, User(email=str(row.address), name=row.name))
        except ServiceError as error:
            errors.add(row.line, str(error))


def _hold_plan(tenant: Tenant, rows: Sequence[Row]) -> None:
    """Lock the tenant, and refuse more than its plan has room for. Raises ServiceError."""
    held = count_against_plan(
        tenant, "mailboxes", lambda one: Mailbox.objects.filter(tenant=one).count(), more=len(rows)
    )
    hold_storage(held, [row.quota_bytes for row in rows])


# Hashing


def _hash(rows: Sequence[Row], tell: Tell) -> list[str]:
    """The stored form of each row's password, on all cores: argon2 lets other threads run."""
    stored = [row.stored for row in rows]
    to_hash = [number for number, row in enumerate(rows) if row.password]
    if not to_hash:
        return stored
    began_s = told_s = time.monotonic()
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as threads:
        futures = {threads.submit(passwords.hash_main, rows[number].password): number for number in to_hash}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                stored[futures[future]] = future.result()
                now_s = time.monotonic()
                if now_s - told_s >= TELL_S and done > 10 * cores:  # before that nobody knows how long it takes
                    told_s = now_s
                    left_s = (now_s - began_s) / done * (len(to_hash) - done)
                    tell(f"{done:,} of {len(to_hash):,} passwords are hashed, about {left_s:.0f} s more.")
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return stored


# Writing


@dataclass(frozen=True, slots=True)
class _Made:
    """One mailbox's rows, not saved yet; they name one another."""

    address: Address
    person: User
    mailbox: Mailbox
    credential: Credential | None
    entry: AuditEntry


def _made(row: Row, stored: str, domain: Domain, tenant: Tenant, actor: User | None, ip: str | None) -> _Made:
    address = Address(local_part=row.address.local_part, domain=domain, tenant=tenant)
    person = User(kind=User.Kind.PERSON, email=None, name=row.name)
    person.set_unusable_password()
    mailbox = Mailbox(
        **Mailbox.standing_at(address), person=person, name=row.name, quota_bytes=row.quota_bytes
    )
    credential = Credential(mailbox=mailbox, kind=Credential.Kind.MAIN, secret=stored) if stored else None
    entry = audit.entry(
        actor, "mailbox.created", mailbox, tenant=tenant, reason="imported", ip=ip,
        after={"address": row.address, "name": row.name, "quota_bytes": row.quota_bytes},
    )
    return _Made(address, person, mailbox, credential, entry)


def _write(
    rows: Sequence[Row], stored: Sequence[str], domains: dict[str, Domain], tenant: Tenant, actor: User | None,
    ip: str | None,
) -> None:
    # Made before: on SQLite everybody else who writes waits for the transaction.
    made = [
        _made(row, secret, domains[row.address.domain], tenant, actor, ip)
        for row, secret in zip(rows, stored, strict=True)
    ]
    try:
        with transaction.atomic():
            _write_all(made, rows, domains, tenant)
    except IntegrityError:
        errors = Errors()
        _check_addresses(rows, errors, actor)
        errors.raise_if_any()
        raise ServiceError(
            _("Nothing is imported: somebody else changed the same addresses; try again.")
        ) from None


def _write_all(made: Sequence[_Made], rows: Sequence[Row], domains: dict[str, Domain], tenant: Tenant) -> None:
    _hold_plan(tenant, rows)
    # In one order, as everybody who locks several.
    for domain in sorted(domains.values(), key=lambda one: one.pk):
        held = lock(domain)
        if held.status == Status.CLOSED or held.tenant_id not in (None, tenant.pk):
            raise ServiceError(
                _("Nothing is imported: the domain {domain} was closed or given away meanwhile.").format(domain=domain)
            )
    Address.objects.bulk_create([one.address for one in made], batch_size=BATCH)
    User.objects.bulk_create([one.person for one in made], batch_size=BATCH)
    Mailbox.objects.bulk_create([one.mailbox for one in made], batch_size=BATCH)
    Credential.objects.bulk_create([one.credential for one in made if one.credential], batch_size=BATCH)
    for one in made:
        one.entry.subject_id = one.mailbox.pk
    AuditEntry.objects.bulk_create([one.entry for one in made], batch_size=BATCH)
    changed(*domains)


def _chunks(values: Sequence[Any]) -> Iterator[Any]:
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


# Back into a file


def exported(tenant: Tenant, *, with_hashes: bool) -> Iterator[dict[str, str]]:
    """The tenant's mailboxes as rows of the file that an import takes, in the order of their addresses."""
    rows = Mailbox.objects.filter(tenant=tenant).order_by(*BY_ADDRESS)
    mains = Credential.objects.filter(mailbox=OuterRef("pk"), kind=Credential.Kind.MAIN).order_by()
    secret = Subquery(mains.values("secret")[:1]) if with_hashes else Value("")
    told = rows.annotate(main=secret).values_list("local_part", "domain_name", "main", "quota_bytes", "name")
    for local_part, domain, main, quota_bytes, name in told.iterator(chunk_size=BATCH):
        yield sheet.as_cells(str(Parsed(local_part, domain)), main or "", quota_bytes, name)
