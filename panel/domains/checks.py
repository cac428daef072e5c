"""What the DNS says of a domain: looked up, judged, kept; and what follows for its proof.

`check` looks now, `recheck_due` does what is due (the mailserver calls it), `shown` tells what is
known without asking anybody. The questions are asked outside of any transaction; one is made
afterwards. The audit log and the mailserver's caches hear of what changed, not of each look.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from panel.domains import lookup
from panel.domains.models import Domain, DomainAlias, DomainCheck, Proof
from panel.domains.services import BY_RECORD, CHECKED_BY_US, refuse_neighbours
from panel.environment import STANDARD_PORTS, Environment
from panel.rules import domain_life, facts, records, verdicts
from panel.rules.domain_life import Life
from panel.rules.records import Installation, Record
from panel.rules.status import Status
from panel.rules.verdicts import Answer, Found, Overall, Row, Verdict
from panel.tenants import audit
from panel.tenants.changes import Gone, ServiceError, Taken, alone, changed, lock, write
from panel.tenants.models import Tenant, User

BETWEEN = timedelta(seconds=10)  # two looks at a domain that somebody asks for
LEASE = timedelta(minutes=10)  # for which a look by itself keeps others off
MOST_DUE = lookup.DOMAINS_AT_ONCE  # looked at in one round
MOST_ALIASES = 20  # pending ones of a domain, proved with its look
MOST_PROVED = 5  # of its proved aliases that are looked at again with it
MOST_NEW = 200  # domains without a row that get one in one round
BY = "DNS check"


class TooSoon(ServiceError):
    """The domain was looked at just now."""


# What is expected


def installation(environment: Environment) -> Installation:
    """What the records say of this installation."""
    return Installation(
        host=environment.hostname, mx=environment.mx_names, spf=environment.spf,
        ports=tuple((service, environment.public_port(service)) for service in STANDARD_PORTS),
        takes_reports=bool(environment.postmaster), mta_sts=environment.mta_sts,
    )


def token(name: str, tenant: Tenant | None) -> str:
    """What a tenant's claim to a name is proved by: the same whenever it is asked for, and nobody else's."""
    key = tenant.proof_key if tenant else None
    return salted_hmac("panel.domains.proof", name, key, algorithm="sha256").hexdigest()[:32]


def expected(domain: Domain) -> tuple[Record, ...]:
    """The records for a domain. One that we checked ourselves needs none to prove it by."""
    checked_by_us = domain.proof == Proof.PROVED and domain.proved_by == CHECKED_BY_US
    return records.expected(
        domain.name, installation(settings.ENVIRONMENT), proof_required=domain.proof != Proof.PROVED,
        token="" if checked_by_us else token(domain.name, domain.tenant),
    )


def expected_of_alias(alias: DomainAlias) -> tuple[Record, ...]:
    """The records for a domain alias: of these, proof and MX are looked for with its domain's."""
    return records.expected(
        alias.name, installation(settings.ENVIRONMENT), token=token(alias.name, alias.domain.tenant),
        proof_required=alias.proof != Proof.PROVED,
    )


def _proof_of(alias: DomainAlias, tenant: Tenant | None) -> Record:
    return records.proof_record(alias.name, token(alias.name, tenant))


def _kept_by(alias: DomainAlias) -> tuple[Record, ...]:
    """What keeps a proved alias proved."""
    return tuple(record for record in expected_of_alias(alias) if record.key in ("proof", "mx"))


# What is known


@dataclass(frozen=True, slots=True)
class Shown:
    """A domain's records and what the latest look found of them. `life`: pending, active, warning or suspended."""

    rows: tuple[Row, ...]
    overall: Overall
    life: str
    sending_ends_at: datetime | None  # in warning
    checked_at: datetime | None
    changed_at: datetime | None
    due_at: datetime | None  # of the next look
    nameservers: tuple[str, ...]
    zone: str  # all records as a piece of a zone file

    @property
    def required(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.record.is_required)

    @property
    def optional(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if not row.record.is_required)

    @property
    def chips(self) -> tuple[Row, ...]:
        """The required records, for a list of domains: each row's record.label, look and verdict."""
        return tuple(row for row in self.required if row.record.key != "proof")

    @property
    def counts(self) -> dict[str, int]:
        """Of the required: how many are right, to change (different, conflicts), to add, and not known."""
        words = {
            Verdict.SAME: "right", Verdict.DIFFERENT: "to change", Verdict.CONFLICTS: "to change",
            Verdict.NOTHING: "to add", Verdict.UNREACHABLE: "unknown", Verdict.UNKNOWN: "unknown",
        }
        counted = dict.fromkeys(words.values(), 0)
        for row in self.required:
            counted[words[row.verdict]] += 1
        return counted


def shown(domain: Domain) -> Shown:
    """What is known of a domain; asks the database for its latest check, unless that was selected with it."""
    latest: DomainCheck | None = getattr(domain, "latest_check", None)
    found, nameservers = _stored(latest.found if latest else {})
    ours = installation(settings.ENVIRONMENT)
    rows = verdicts.judge(expected(domain), found, ours)
    life = _life(domain, latest)
    return Shown(
        rows=rows, overall=verdicts.overall(life.word, rows, verdicts.receives(rows, found, ours)), life=life.word,
        sending_ends_at=life.ends_at, checked_at=latest.checked_at if latest else None,
        changed_at=latest.changed_at if latest else None, due_at=latest.due_at if latest else None,
        nameservers=nameservers, zone=records.zone_text(domain.name, (row.record for row in rows)),
    )


def life_of_alias(alias: DomainAlias) -> Life:
    return Life(facts.Proof(alias.proof), alias.missing_since)


def _life(domain: Domain, latest: DomainCheck | None) -> Life:
    return Life(facts.Proof(domain.proof), latest.missing_since if latest else None)


# Looking


def check(domain: Domain, *, actor: User | None, ip: str | None = None) -> Shown:
    """Look now, as somebody asked. At most once in ten seconds a domain: raises TooSoon; lookup.Busy; Gone.

    `actor` and `ip` stand in the audit log if something changed. Takes up to ten seconds where
    name servers are slow: never inside a transaction.
    """
    now = timezone.now()
    _make_rows([domain], now)
    free = DomainCheck.objects.filter(Q(asked_at=None) | Q(asked_at__lte=now - BETWEEN), domain=domain)
    with transaction.atomic():
        is_free = free.update(asked_at=now)
    if not is_free:
        raise TooSoon(_(
            "{domain} was looked up within the last {count} seconds. What is shown is what was found."
        ).format(domain=domain, count=BETWEEN.seconds))
    looked = lookup.look_up([_wanted(domain)], settings.ENVIRONMENT.dns)[0]
    _settle(domain, looked, began=now, now=timezone.now(), actor=actor, ip=ip)
    fresh = Domain.objects.select_related("tenant", "latest_check").filter(pk=domain.pk).first()
    if fresh is None:
        raise Gone(_("{name} is no longer here.").format(name=domain))
    return shown(fresh)


@dataclass
class Round:
    """What a round of looks did. `changes`: domains and what their life became; `failed`: domains and why."""

    looked: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    changes: list[tuple[str, str]] = field(default_factory=list)
    is_full: bool = False  # more may be due


def recheck_due(now: datetime, *, most: int = MOST_DUE) -> Round:
    """One bounded round of what is due. Any number of nodes may do it at once: each domain is one's.

    Takes up to ten seconds. Raises Django's database errors when the database is gone.
    """
    hosted = Domain.objects.filter(status__lt=Status.CLOSED)
    _make_rows(hosted.filter(latest_check=None).order_by("pk")[:MOST_NEW], now)
    due = list(
        DomainCheck.objects.filter(due_at__lte=now, domain__status__lt=Status.CLOSED)
        .order_by("due_at").values_list("pk", "due_at")[:most]
    )
    ours: list[int] = []
    for pk, due_at in due:
        with transaction.atomic():
            rows = DomainCheck.objects.filter(pk=pk, due_at=due_at)
            if rows.update(due_at=now + LEASE, asked_at=now):
                ours.append(pk)
    domains = list(Domain.objects.select_related("tenant").filter(latest_check__in=ours).order_by("pk"))
    done = Round(is_full=len(due) == most)
    looks = lookup.look_up([_wanted(domain) for domain in domains], settings.ENVIRONMENT.dns) if domains else []
    for domain, looked in zip(domains, looks, strict=True):
        try:
            became = _settle(domain, looked, began=now, now=now)
        except Gone:
            continue  # deleted meanwhile
        except (OperationalError, InterfaceError):
            raise  # the database is gone: it isn't the domain's fault
        except Exception as error:
            # Whatever a name server's answer has led to: the others go on, and it is tried after LEASE.
            done.failed.append((domain.name, repr(error)[:300]))
            continue
        done.looked += 1
        if became:
            done.changes.append((domain.name, became))
    return done


def _make_rows(domains: Iterable[Domain], now: datetime) -> None:
    """The first look: at once where a proof is waited for, else some time in the next day."""
    rows = [
        DomainCheck(domain=domain, due_at=now if domain.proof == Proof.PENDING else now + _spread())
        for domain in domains
    ]
    if rows:
        with transaction.atomic():
            DomainCheck.objects.bulk_create(rows, ignore_conflicts=True)


def _spread() -> timedelta:
    return timedelta(days=random.random())  # noqa: S311 spreads load, no secret


def _wanted(domain: Domain) -> lookup.Wanted:
    ours = installation(settings.ENVIRONMENT)
    named = (term.partition(":")[2] for term in ours.spf if term.startswith("a:"))
    hosts = tuple(dict.fromkeys((ours.host, *ours.mx, *named)))
    # By lot: those that are never proved don't keep the others waiting for good.
    waiting = domain.aliases.filter(proof=Proof.PENDING).order_by("?")[:MOST_ALIASES]
    # Those in doubt first: how long that lasts is what counts. They are this domain's, and so is their tenant.
    proved = domain.aliases.select_related("domain__tenant").filter(proved_by=BY_RECORD).exclude(proof=Proof.PENDING)
    again = proved.order_by(F("missing_since").asc(nulls_last=True), "?")[:MOST_PROVED]
    asked = (
        *expected(domain), *(_proof_of(alias, domain.tenant) for alias in waiting),
        *(record for alias in again for record in _kept_by(alias)),
    )
    return lookup.Wanted(domain.name, verdicts.questions(asked), hosts)


# What follows


@transaction.atomic
def _settle(
    domain: Domain, looked: lookup.Looked, *, began: datetime, now: datetime, actor: User | None = None,
    ip: str | None = None,
) -> str:
    """Keep what was found, and what follows for the proof; what its life became, or nothing. Raises Gone.

    `began` is when it was asked: what another look found since then is newer, and stays.
    """
    alone("domain names")  # as whatever proves one: none under or over it may be proved at the same time
    stored = lock(domain)
    latest = DomainCheck.objects.select_for_update(of=("self",)).filter(domain=stored).first()
    if latest is None:
        raise Gone(_("{name} is no longer here.").format(name=domain))
    # Later than LEASE is a clock that was wrong, and no reason to look for nothing.
    if latest.checked_at is not None and began < latest.checked_at < began + LEASE:
        return ""
    ours = installation(settings.ENVIRONMENT)
    rows = verdicts.judge(expected(stored), looked.found, ours)
    before = _life(stored, latest)
    after = domain_life.step(
        before, by_record=stored.proved_by == BY_RECORD, proof_found=_is_there(rows),
        mx_is_ours=verdicts.receives(rows, looked.found, ours), now=now,
    )
    if after != before:
        after = _become(stored, before, after, actor, ip)
    now_is = {row.record.key: row.verdict.value for row in rows}
    known = {**latest.known, **{key: verdict for key, verdict in now_is.items() if verdict != Verdict.UNREACHABLE}}
    known = {key: verdict for key, verdict in known.items() if key in now_is}
    _prove_aliases(stored, looked.found, actor, ip)
    _keep_aliases(stored, looked.found, ours, now, ip)
    if before.proof is not facts.Proof.PENDING:
        _tell_records(stored, rows, latest.known, known)
    answered = not any(row.verdict is Verdict.UNREACHABLE for row in rows if row.record.is_required)
    due_in_s = domain_life.next_look_s(
        after, age=now - stored.created_at, answered=answered, jitter=random.random(),  # noqa: S311 spreads load
    )
    DomainCheck.objects.filter(pk=latest.pk).update(
        checked_at=now, due_at=now + timedelta(seconds=due_in_s), missing_since=after.missing_since,
        changed_at=now if now_is != latest.verdicts else latest.changed_at, verdicts=now_is, known=known,
        found=_to_store(looked),
    )
    return after.word if after.word != before.word else ""


def _is_there(rows: Sequence[Row]) -> bool | None:
    """Whether the record that proves the domain is there; None: nobody knows, or none is asked for."""
    for row in rows:
        if row.record.key == "proof" and row.verdict not in (Verdict.UNREACHABLE, Verdict.UNKNOWN):
            return row.verdict is Verdict.SAME
    return None


def _become(stored: Domain, before: Life, after: Life, actor: User | None, ip: str | None) -> Life:
    """Write the proof, and tell of it. What can't be proved, because of a neighbour, stays as it was."""
    facts_of: dict[str, Any] = {"tenant": stored.tenant, "ip": ip, "by": BY}
    if after.proof is before.proof:
        if (after.missing_since is None) != (before.missing_since is None):
            action = "domain.proof_missing" if after.missing_since else "domain.proof_found"
            audit.record(None, action, stored, **facts_of, after={"sending stops": after.ends_at})
        return after
    if after.proof is facts.Proof.PROVED:
        try:
            refuse_neighbours(stored.name, stored.tenant, only_proved=True)
        except Taken:
            return before
        was, is_now = write(stored, proof=Proof.PROVED.value, proved_by=BY_RECORD)
        audit.record(actor, "domain.proved", stored, before=was, after=is_now, **facts_of)
    else:
        was, is_now = write(stored, proof=Proof(after.proof.value).value)
        audit.record(None, "domain.lapsed", stored, before=was, after=is_now, **facts_of)
    changed(stored.name, *stored.aliases.values_list("name", flat=True))
    return after


def _prove_aliases(stored: Domain, found: Found, actor: User | None, ip: str | None) -> None:
    """Those whose record is there, unless a neighbour of somebody else's is in the way."""
    asked = [name.removeprefix(f"{records.PROOF_NAME}.") for name, kind in found.answers if kind == "TXT"]
    for alias in stored.aliases.filter(proof=Proof.PENDING, name__in=asked).order_by("pk"):
        record = _proof_of(alias, stored.tenant)
        answer = found.answer(record)
        if answer is None or record.values[0] not in answer.values:
            continue
        try:
            refuse_neighbours(alias.name, stored.tenant, only_proved=True)
        except Taken:
            continue
        was, is_now = write(alias, proof=Proof.PROVED.value, proved_by=BY_RECORD)
        audit.record(
            actor, "domainalias.proved", alias, tenant=stored.tenant, before=was, after=is_now, ip=ip, by=BY
        )
        changed(alias.name, stored.name)


def _keep_aliases(stored: Domain, found: Found, ours: Installation, now: datetime, ip: str | None) -> None:
    """The life of those proved by their record that were looked at, by the rule that holds for domains."""
    asked = [name.removeprefix(f"{records.PROOF_NAME}.") for name, kind in found.answers if kind == "TXT"]
    proved = stored.aliases.select_related("domain__tenant").filter(proved_by=BY_RECORD, name__in=asked)
    for alias in proved.exclude(proof=Proof.PENDING).order_by("pk"):
        rows = verdicts.judge(_kept_by(alias), found, ours)
        before = life_of_alias(alias)
        after = domain_life.step(
            before, by_record=True, proof_found=_is_there(rows), mx_is_ours=verdicts.receives(rows, found, ours),
            now=now,
        )
        if after != before:
            _alias_becomes(alias, before, after, ip)


def _alias_becomes(alias: DomainAlias, before: Life, after: Life, ip: str | None) -> None:
    facts_of: dict[str, Any] = {"tenant": alias.domain.tenant, "ip": ip, "by": BY}
    if after.proof is before.proof:
        write(alias, missing_since=after.missing_since)
        if (after.missing_since is None) != (before.missing_since is None):
            action = "domainalias.proof_missing" if after.missing_since else "domainalias.proof_found"
            audit.record(None, action, alias, **facts_of, after={"sending stops": after.ends_at})
        return
    if after.proof is facts.Proof.PROVED:
        try:
            refuse_neighbours(alias.name, alias.domain.tenant, only_proved=True)
        except Taken:
            return
    was, is_now = write(alias, proof=Proof(after.proof.value).value)
    DomainAlias.objects.filter(pk=alias.pk).update(missing_since=None)
    action = "domainalias.proved" if after.proof is facts.Proof.PROVED else "domainalias.lapsed"
    audit.record(None, action, alias, before=was, after=is_now, **facts_of)
    changed(alias.name, alias.domain.name)


def _tell_records(stored: Domain, rows: Sequence[Row], before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """An entry for the required records that became right or wrong since the look before."""
    required = {row.record.key for row in rows if row.record.is_required and row.record.key != "proof"}
    moved = sorted(key for key in required if key in before and before[key] != after[key])
    if moved:
        audit.record(
            None, "domain.records_changed", stored, tenant=stored.tenant, by=BY,
            before={key: before[key] for key in moved}, after={key: after[key] for key in moved},
        )


# As it is stored


def _to_store(looked: lookup.Looked) -> dict[str, Any]:
    return {
        "answers": [
            {"name": name, "type": kind, "values": list(answer.values), "error": answer.error}
            for (name, kind), answer in looked.found.answers.items()
        ],
        "addresses": {host: list(addresses) for host, addresses in looked.found.addresses.items()},
        "nested": looked.found.nested,
        "included": list(looked.found.included),
        "is_followed": looked.found.is_followed,
        "nameservers": list(looked.nameservers),
    }


def _stored(found: Mapping[str, Any]) -> tuple[Found, tuple[str, ...]]:
    if not found:
        return Found(), ()
    answers = {
        (each["name"], each["type"]): Answer(tuple(each["values"]), each["error"]) for each in found["answers"]
    }
    addresses = {host: tuple(each) for host, each in found["addresses"].items()}
    is_followed = found.get("is_followed", True)
    kept = Found(answers, addresses, found["nested"], tuple(found["included"]), is_followed)
    return kept, tuple(found["nameservers"])
