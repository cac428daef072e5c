"""The directory's questions to the database: what an address leads to, who a login is, what changed.

Synchronous; each call runs on a thread with a connection of its own (`on_connection`).
Gives frozen facts, each with what it depends on: names of domains and ids of tenants.
Decides how aliases, domain aliases, subaddresses and catch-alls are followed and who may
send as whom (DESIGN §4); what a session does with it is decided in panel/rules/policy.
RFC 5321 §4.5.1 and RFC 2142 (postmaster, abuse), RFC 5233 (subaddresses).
"""

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import Q, QuerySet

from panel.domains import models as domains
from panel.mailboxes import models as mailboxes
from panel.mailboxes import passwords
from panel.rules import filtering, policy
from panel.rules.addresses import Address, BadAddress, parse_address
from panel.rules.facts import (
    Delivery,
    HostedDomain,
    LocalMailbox,
    Login,
    MailRules,
    Proof,
    Resolution,
    Route,
    SenderRights,
    Step,
    Vacation,
    Verdict,
)
from panel.rules.limits import Kind, Subject, Window, effective
from panel.rules.lockout import network_of
from panel.rules.status import Status, strictest
from panel.sending.models import OutboundRoute, SendingLimit
from panel.tenants.models import Tenant

MOST_NESTING = 10  # aliases behind one another
MOST_DELIVERIES = 200  # what one recipient may become
MOST_ADDRESSES = 1000  # looked at for one recipient: bounds the work where aliases cross
MOST_CHANGES = 1000  # at one poll; above it everything is dropped (and of tenants touched: every tenant)
MOST_PARENTS = 10  # of a tenant
MOST_NETWORKS = 1000  # from which a mailbox logged in
EVERY_SCOPE = frozenset({"submission", "imap", "pop3", "sieve"})  # the main password's
ROLES = frozenset({"postmaster", "abuse"})  # RFC 2142: they exist in each hosted domain

T = TypeVar("T")

# What an answer depends on: a domain's name, a tenant's id, all tenants', or on everything.
Dependency = str | int
EVERY_TENANT = 0
ANY_CHANGE = -1


class DirectoryUnavailable(Exception):
    """The database can't be asked just now; callers answer 4xx."""


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """An answer, what it depends on, and the moment from which it no longer holds, if there is one."""

    value: T
    depends: frozenset[Dependency]
    until: datetime | None = None


def on_connection(look_up: Callable[..., T], *args: Any) -> T:
    """Run a look-up on this thread's connection; a broken one is closed, so that the next call reconnects.

    Raises DirectoryUnavailable for whatever the database refuses.
    """
    try:
        connection.close_if_unusable_or_obsolete()
        return look_up(*args)
    except (DatabaseError, InterfaceError) as error:
        close_connection()
        raise DirectoryUnavailable(str(error)) from error


def close_connection() -> None:
    """Close this thread's connection, broken or not."""
    try:
        connection.close()
    except (DatabaseError, InterfaceError):
        pass  # it was broken already


# Statuses and limits

_ADDRESS = ("tenant__parent__parent", "tenant__plan", "domain__tenant__parent__parent")


def _tenant_status(tenant: Tenant | None) -> Status:
    """The strictest of a tenant's and its parents'; ACTIVE for none (a shared domain)."""
    status = Status.ACTIVE
    for _ in range(MOST_PARENTS):
        if tenant is None:
            break
        status = strictest((status, Status(tenant.status)))
        tenant = tenant.parent
    return status


def _domain_status(domain: domains.Domain) -> Status:
    return strictest((Status(domain.status), _tenant_status(domain.tenant)))


def _address_status(address: mailboxes.Address) -> Status:
    """The strictest of mailbox, domain, the domain's tenant and the address's."""
    box = getattr(address, "mailbox", None)
    own = Status(box.status) if box else Status.ACTIVE
    return strictest((own, _domain_status(address.domain), _tenant_status(address.tenant)))


def _own_limits(subjects: Mapping[Kind, Iterable[int]]) -> dict[tuple[Kind, int], dict[Window, int | None]]:
    """The SendingLimit rows of the subjects, as `effective` reads them."""
    fields = {
        Kind.CREDENTIAL: "credential_id",
        Kind.MAILBOX: "mailbox_id",
        Kind.DOMAIN: "domain_id",
        Kind.TENANT: "tenant_id",
    }
    found: dict[tuple[Kind, int], dict[Window, int | None]] = {}
    query = SendingLimit.objects.none()
    for kind, ids in subjects.items():
        query = query | SendingLimit.objects.filter(**{f"{fields[kind]}__in": list(ids)})
    for row in query.order_by():
        for kind, field in fields.items():
            subject = getattr(row, field)
            if subject is not None:
                found.setdefault((kind, subject), {})[Window(row.window)] = row.recipients
    return found


def _tenant_subject(tenant: Tenant, own: Mapping[Window, int | None]) -> Subject:
    plan = {Window.HOUR: tenant.plan.tenant_hour, Window.DAY: tenant.plan.tenant_day}
    return Subject(Kind.TENANT, tenant.pk, tenant.name, effective(own, plan), tenant.pk)


def _mailbox_subject(row: mailboxes.Address, own: Mapping[Window, int | None]) -> Subject:
    plan = row.tenant.plan
    windows = effective(own, {Window.HOUR: plan.mailbox_hour, Window.DAY: plan.mailbox_day})
    return Subject(Kind.MAILBOX, row.mailbox.pk, str(Address(row.local_part, row.domain.name)), windows, row.tenant_id)


def _domain_subject(domain: domains.Domain, own: Mapping[Window, int | None]) -> Subject | None:
    windows = effective(own, {})
    return Subject(Kind.DOMAIN, domain.pk, domain.name, windows, domain.tenant_id) if windows else None


# Domains


@dataclass(frozen=True, slots=True)
class _Hosted:
    """A domain that the wire sees, and the proof of the name by which it was asked."""

    row: domains.Domain
    proof: Proof


def _hosted(names: Collection[str]) -> dict[str, _Hosted]:
    """The names that are hosted here, as a domain or an alias of one; pending ones don't exist."""
    found: dict[str, _Hosted] = {}
    if not names:
        return found
    seen = domains.Domain.objects.exclude(proof=domains.Proof.PENDING).select_related(
        "tenant__parent__parent"
    )
    for row in seen.filter(name__in=names):
        found[row.name] = _Hosted(row, Proof(row.proof))
    others = [name for name in names if name not in found]
    if others:
        aliases = (
            domains.DomainAlias.objects.filter(name__in=others)
            .exclude(proof=domains.Proof.PENDING)
            .exclude(domain__proof=domains.Proof.PENDING)
            .select_related("domain__tenant__parent__parent")
        )
        for alias in aliases:
            lapsed = domains.Proof.LAPSED in (alias.proof, alias.domain.proof)
            found[alias.name] = _Hosted(alias.domain, Proof.LAPSED if lapsed else Proof.PROVED)
    return found


def domain(name: str) -> Found[HostedDomain | None]:
    """The hosted domain of that name, or the one that a domain alias of that name leads to."""
    hosted = _hosted([name]).get(name)
    if hosted is None:
        return Found(None, frozenset({name}))
    row = hosted.row
    fact = HostedDomain(row.name, row.pk, row.tenant_id, _domain_status(row), hosted.proof)
    return Found(fact, frozenset({name, row.name}))


def route(name: str) -> Found[Route | None]:
    """The way to a destination: its own row, else the default one."""
    row = OutboundRoute.objects.filter(domain__in=[name, ""]).order_by("-domain").first()
    return Found(Route(row.host, row.port, row.tls) if row else None, frozenset({name}))


# What an address leads to


@dataclass(frozen=True, slots=True)
class _Node:
    """A step on the way: a mailbox, an alias (or the postmaster's role), outside, or nothing (all empty).

    Several addresses share a node: user+tag@ and user@, or all that a catch-all takes.
    """

    id: str
    tenant_id: int | None = None
    mailbox: LocalMailbox | None = None
    outside: Address | None = None
    targets: tuple[Address, ...] = ()  # of a mailbox: where it forwards to
    pays: mailboxes.Address | None = None  # the address whose tenant is charged for targets outside

    @property
    def answers(self) -> bool:
        return bool(self.mailbox and self.mailbox.rules and self.mailbox.rules.vacation)

    @property
    def is_end(self) -> bool:
        """Whether mail ends here, if perhaps not all of it."""
        rules = self.mailbox.rules if self.mailbox else None
        return self.outside is not None or (self.mailbox is not None and (rules is None or rules.keeps))


class _Loops(Exception):
    """An address that leads back to itself, too deep or too wide."""


class _Walk:
    """Follows one recipient through aliases, a level a time: at most five queries each."""

    def __init__(self, *, separator: str, postmaster: Address | None, hostname: str, store: str) -> None:
        self._separator = separator
        self._store = store
        self._hostname = hostname
        self._postmaster = _Node("postmaster", targets=(postmaster,) if postmaster else ())
        self._nodes: dict[Address, _Node] = {}
        self._hosted: dict[str, _Hosted | None] = {}

    def resolve(self, asked: Address) -> Resolution:
        start = asked.canonical
        verdict = Verdict.HERE
        deliveries: tuple[Delivery, ...] = ()
        steps: tuple[Step, ...] = ()
        try:
            self._explore(start)
            found = self._collect(start)
            if any(node.mailbox and node.mailbox.rules for node in self._nodes.values()):
                steps = self._steps(start)
                deliveries = filtering.follow(steps, filtering.Mail(None)).deliveries
            else:
                deliveries = self._charge(found)
        except _Loops:
            verdict = Verdict.LOOPS
        node = self._nodes[start]
        if verdict is Verdict.LOOPS and node.mailbox:
            # Its forward leads too far, perhaps by another tenant's alias: that is no reason to return its mail.
            answering = _answer_limits([node.pays] if node.pays and node.answers else [])
            verdict, steps = Verdict.HERE, (Step(start, _answered_for(node.mailbox, answering)),)
            deliveries = filtering.follow(steps, filtering.Mail(None)).deliveries
        names = frozenset(name for name in self._hosted if name) | {
            hosted.row.name for hosted in self._hosted.values() if hosted
        }
        if node.outside:
            return Resolution(asked, Verdict.ELSEWHERE, domains=names)
        if verdict is Verdict.HERE and not deliveries:
            verdict = Verdict.UNKNOWN
        return Resolution(asked, verdict, node.tenant_id, deliveries, names, steps)

    def _explore(self, start: Address) -> None:
        frontier = [start]
        for _ in range(MOST_NESTING + 1):
            self._look_up(frontier)
            targets = dict.fromkeys(target for address in frontier for target in self._nodes[address].targets)
            frontier = [target for target in targets if target not in self._nodes]
            if not frontier:
                return
            if len(self._nodes) + len(frontier) > MOST_ADDRESSES:
                break
        raise _Loops

    def _look_up(self, addresses: Sequence[Address]) -> None:
        """Give each address its node."""
        names = {address.domain for address in addresses if address.domain not in self._hosted}
        hosted = _hosted([name for name in names if name])
        self._hosted.update((name, hosted.get(name)) for name in names)

        local_parts, ids = set(), set()
        for address in addresses:
            at = self._hosted[address.domain]
            if at:
                ids.add(at.row.pk)
                local_parts |= {
                    address.local_part,
                    address.without_subaddress(self._separator).local_part,
                    "",
                }
        rows: dict[tuple[int, str], mailboxes.Address] = {}
        if ids:
            query = mailboxes.Address.objects.filter(domain_id__in=ids, local_part__in=local_parts)
            query = query.select_related("mailbox__rules", "alias", *_ADDRESS).order_by()
            rows = {(row.domain_id, row.local_part): row for row in query}
        chosen = {address: self._choose(address, rows) for address in addresses}
        found = [row for row in chosen.values() if isinstance(row, mailboxes.Address)]
        targets, blocked = _targets(found), _blocked(found)
        for address, choice in chosen.items():
            self._nodes[address] = (
                choice if isinstance(choice, _Node) else _node(choice, address, targets, self._store, blocked)
            )

    def _choose(
        self, address: Address, rows: Mapping[tuple[int, str], mailboxes.Address]
    ) -> "mailboxes.Address | _Node":
        """The row that takes mail for an address: its own, that without the subaddress, the catch-all."""
        at = self._hosted[address.domain]
        if at is None:
            # RFC 5321 §4.5.1: the bare form reaches this server's postmaster.
            if address.local_part == "postmaster" and address.domain in ("", self._hostname):
                return self._postmaster
            return _Node(f"outside {address}", outside=address)
        domain_row = at.row
        plain = address.without_subaddress(self._separator).local_part
        for local_part in (address.local_part, plain):
            if local_part and (domain_row.pk, local_part) in rows:
                return rows[domain_row.pk, local_part]
        if (
            address.local_part in ROLES
            and self._postmaster.targets
            and _domain_status(domain_row).may_receive
        ):
            return _Node("postmaster", domain_row.tenant_id, targets=self._postmaster.targets)
        catch_all = rows.get((domain_row.pk, ""))
        if catch_all and domain_row.kind == domains.Domain.Kind.OWN:
            return catch_all
        return _Node(f"nobody {address}", domain_row.tenant_id)

    def _collect(self, start: Address) -> list[tuple[_Node, mailboxes.Address | None]]:
        """The ends that `start` leads to, each once, with the alias that pays for it. Raises _Loops."""
        ends: dict[str, tuple[_Node, mailboxes.Address | None]] = {}
        under_way: dict[str, _Node] = {}  # in the order of the way
        done: set[str] = set()

        def visit(address: Address, pays: mailboxes.Address | None) -> None:
            node = self._nodes[address]
            if node.id in under_way:
                circle = list(under_way)[list(under_way).index(node.id) :]
                if any(under_way[each].mailbox for each in circle):
                    return  # A mailbox that forwards has its copy, or gets it: filtering.follow.
                raise _Loops
            if node.id in done:
                return
            if node.is_end:
                ends[node.id] = (node, pays)
                if len(ends) > MOST_DELIVERIES:
                    raise _Loops
            under_way[node.id] = node
            for target in node.targets:
                visit(target, node.pays)
            del under_way[node.id]
            done.add(node.id)

        visit(start, None)
        return list(ends.values())

    def _charge(self, ends: Sequence[tuple[_Node, mailboxes.Address | None]]) -> tuple[Delivery, ...]:
        """The deliveries; those outside are charged to the alias's tenant, and its domain if limited."""
        charged = _charged([pays for node, pays in ends if node.outside and pays])
        deliveries = []
        for node, pays in ends:
            resolved = node.mailbox.address if node.mailbox else node.outside
            if resolved is not None:
                subjects = charged[pays.pk] if node.outside and pays else ()
                deliveries.append(Delivery(resolved, node.mailbox, subjects))
        return tuple(deliveries)

    def _steps(self, start: Address) -> tuple[Step, ...]:
        """The whole way from `start`: where mail goes on it depends on the message."""
        order: dict[str, tuple[Address, _Node]] = {}
        waiting = [start]
        while waiting:
            address = waiting.pop()
            node = self._nodes[address]
            if not node.outside and node.id not in order:
                order[node.id] = (address, node)
                waiting += reversed(node.targets)
        numbers = {name: number for number, name in enumerate(order)}
        leads = {name: [self._nodes[target] for target in node.targets] for name, (_, node) in order.items()}
        charged = _charged([
            node.pays for name, (_, node) in order.items()
            if node.pays and any(target.outside for target in leads[name])
        ])
        answering = _answer_limits([node.pays for _, node in order.values() if node.pays and node.answers])
        return tuple(
            Step(
                address, _answered_for(node.mailbox, answering),
                tuple(
                    Delivery(target.outside, None, charged[node.pays.pk] if node.pays else ())
                    for target in leads[name] if target.outside
                ),
                tuple(dict.fromkeys(numbers[target.id] for target in leads[name] if not target.outside)),
            )
            for name, (address, node) in order.items()
        )


def _charged(paying: Sequence[mailboxes.Address]) -> dict[int, tuple[Subject, ...]]:
    """Who pays for what leaves the house behind each address: its tenant, and its domain if that has a limit."""
    if not paying:
        return {}
    limits = _own_limits(
        {
            Kind.TENANT: {pays.tenant_id for pays in paying},
            Kind.DOMAIN: {pays.domain_id for pays in paying},
        }
    )
    found: dict[int, tuple[Subject, ...]] = {}
    for pays in paying:
        of_domain = _domain_subject(pays.domain, limits.get((Kind.DOMAIN, pays.domain_id), {}))
        of_tenant = _tenant_subject(pays.tenant, limits.get((Kind.TENANT, pays.tenant_id), {}))
        found[pays.pk] = (of_domain, of_tenant) if of_domain else (of_tenant,)
    return found


def _answer_limits(answering: Sequence[mailboxes.Address]) -> dict[int, tuple[Subject, ...]]:
    """Who pays for what these mailboxes answer, by the mailbox's id: as if its owner sent it."""
    if not answering:
        return {}
    own = _own_limits({
        Kind.MAILBOX: {row.mailbox.pk for row in answering},
        Kind.DOMAIN: {row.domain_id for row in answering},
        Kind.TENANT: {row.tenant_id for row in answering},
    })
    return {
        row.mailbox.pk: tuple(subject for subject in (
            _mailbox_subject(row, own.get((Kind.MAILBOX, row.mailbox.pk), {})),
            _domain_subject(row.domain, own.get((Kind.DOMAIN, row.domain_id), {})),
            _tenant_subject(row.tenant, own.get((Kind.TENANT, row.tenant_id), {})),
        ) if subject)
        for row in answering
    }


def _answered_for(
    mailbox: LocalMailbox | None, charged: Mapping[int, tuple[Subject, ...]]
) -> LocalMailbox | None:
    """The mailbox with who pays for its answers, if it gives any."""
    if mailbox is None or mailbox.rules is None or mailbox.rules.vacation is None:
        return mailbox
    vacation = replace(mailbox.rules.vacation, charged=charged[mailbox.mailbox_id])
    return replace(mailbox, rules=replace(mailbox.rules, vacation=vacation))


def _targets(rows: Sequence[mailboxes.Address]) -> dict[int, tuple[Address, ...]]:
    """The targets of the aliases among the rows; one that can't be read leads nowhere."""
    aliases = [row.alias.pk for row in rows if getattr(row, "alias", None)]
    found: dict[int, list[Address]] = {}
    if aliases:
        query = mailboxes.AliasTarget.objects.filter(alias__in=aliases).order_by("pk")
        for alias_id, text in query.values_list("alias_id", "target"):
            try:
                found.setdefault(alias_id, []).append(parse_address(text).canonical)
            except BadAddress:
                continue
    return {alias_id: tuple(targets) for alias_id, targets in found.items()}


def _blocked(rows: Sequence[mailboxes.Address]) -> dict[int, frozenset[str]]:
    """Whom the mailboxes among the rows that have rules block; no question when none has any."""
    ruled = [row.mailbox.pk for row in rows if getattr(getattr(row, "mailbox", None), "rules", None)]
    found: dict[int, set[str]] = {}
    if ruled:
        entries = mailboxes.BlockEntry.objects.filter(mailbox__in=ruled).order_by()
        for mailbox_id, sender in entries.values_list("mailbox_id", "sender"):
            found.setdefault(mailbox_id, set()).add(sender)
    return {mailbox_id: frozenset(senders) for mailbox_id, senders in found.items()}


def _mail_rules(row: mailboxes.Address, blocked: Mapping[int, frozenset[str]]) -> MailRules | None:
    """The rules of the mailbox at this address; None when none does anything.

    Who may not send neither forwards nor answers: what was set by a thief who is locked out ends with that.
    """
    box = row.mailbox
    stored = getattr(box, "rules", None)
    if stored is None:
        return None
    status = _address_status(row)
    vacation = Vacation(
        text=stored.vacation_text, subject=stored.vacation_subject, name=box.name, days=stored.vacation_days,
        first=stored.vacation_from, last=stored.vacation_until,
    )
    answers = stored.vacation and policy.may_go(status, Proof(row.domain.proof))
    forwards = bool(stored.forward_to) and status.may_send
    rules = MailRules(
        vacation=vacation if answers else None, junk=stored.junk, forwards=forwards,
        keeps=stored.forward_keep or not forwards, blocked=blocked.get(box.pk, frozenset()),
    )
    return None if rules == MailRules() else rules


def _parsed(texts: Iterable[str]) -> tuple[Address, ...]:
    found = []
    for text in texts:
        try:
            found.append(parse_address(text).canonical)
        except BadAddress:
            continue
    return tuple(found)


def _node(
    row: mailboxes.Address, asked: Address, targets: Mapping[int, tuple[Address, ...]], store: str,
    blocked: Mapping[int, frozenset[str]],
) -> _Node:
    """What an address row is: closed ones are nothing. Its mailbox's rules are read with it."""
    if not _address_status(row).may_receive:
        return _Node(f"closed {row.pk}", row.tenant_id)
    box = getattr(row, "mailbox", None)
    if box:
        # A catch-all has no address of its own to name.
        address = Address(row.local_part or asked.local_part, row.domain.name)
        local = LocalMailbox(
            box.pk, box.opaque_id, row.tenant_id, address, box.quota_bytes, row.domain.store or store,
            _mail_rules(row, blocked),
        )
        onward = _parsed(box.rules.forward_to) if local.rules and local.rules.forwards else ()
        return _Node(f"address {row.pk}", row.tenant_id, mailbox=local, targets=onward, pays=row)
    alias = getattr(row, "alias", None)
    found = targets.get(alias.pk, ()) if alias else ()
    return _Node(f"address {row.pk}", row.tenant_id, targets=found, pays=row)


def resolve(
    asked: Address, *, separator: str, postmaster: Address | None, hostname: str, store: str = "maildir"
) -> Found[Resolution]:
    """Where mail for an address goes. A nested target that doesn't exist is left out.

    `store` is who stores mail of domains that don't say.
    """
    walk = _Walk(separator=separator, postmaster=postmaster, hostname=hostname, store=store)
    found = walk.resolve(asked)
    return Found(found, frozenset(found.domains))


def mailbox(address: Address) -> Found[LocalMailbox | None]:
    """The mailbox of this very address, or of the one that a proved domain alias means; None for a closed one."""
    name = address.domain
    hosted = _hosted([name]).get(name)
    names = frozenset({name, hosted.row.name} if hosted else {name})
    query = mailboxes.Address.objects.filter(
        domain__name=hosted.row.name if hosted else name, local_part=address.local_part, mailbox__isnull=False
    )
    row = query.select_related("mailbox__rules", *_ADDRESS).first() if address.local_part else None
    # Who stores its mail, and whom it blocks, is nothing to who reads it.
    return Found(_node(row, address, {}, "", {}).mailbox if row else None, names)


# Logins


def login(credential_id: int, *, separator: str, now: datetime) -> Found[Login | None]:
    """A credential and all that decides what it may do; None when it is no more. Four queries."""
    credential = _credentials().filter(pk=credential_id).first()
    if credential is None or not credential.mailbox.address.local_part:
        return Found(None, frozenset())
    row = credential.mailbox.address
    tenant = row.tenant
    aliases = list(domains.DomainAlias.objects.filter(domain=row.domain).order_by())
    aliases_of_its_own, from_domains = _alias_rights(Address(row.local_part, row.domain.name), tenant)
    rights = SenderRights(
        local_part=row.local_part,
        domains=frozenset({row.domain.name, *(a.name for a in aliases if a.proof == domains.Proof.PROVED)}),
        aliases=aliases_of_its_own,
        separator=separator,
    )
    fact = _login_fact(credential, rights, _login_limits(credential), now)
    names = {row.domain.name, *(alias.name for alias in aliases), *from_domains}
    depends: frozenset[Dependency] = frozenset({*names, tenant.pk, EVERY_TENANT})
    expired = credential.expires_at is not None and credential.expires_at <= now
    return Found(fact, depends, None if expired else credential.expires_at)


def readers(credential_ids: Collection[int], *, now: datetime) -> dict[int, Login]:
    """What decides whether these may go on reading: no rights to send, no limits. One query."""
    return {
        credential.pk: _login_fact(credential, SenderRights("", frozenset(), frozenset()), (), now)
        for credential in _credentials().filter(pk__in=credential_ids, mailbox__address__local_part__gt="")
    }


def _credentials() -> QuerySet[mailboxes.Credential]:
    return mailboxes.Credential.objects.select_related(
        "mailbox__address__mailbox", *(f"mailbox__address__{path}" for path in _ADDRESS)
    )


def _login_fact(
    credential: mailboxes.Credential, rights: SenderRights, limits: tuple[Subject, ...], now: datetime
) -> Login:
    box = credential.mailbox
    row = box.address
    return Login(
        credential_id=credential.pk,
        credential=str(credential),
        mailbox_id=box.pk,
        address=Address(row.local_part, row.domain.name),
        tenant_id=row.tenant.pk,
        domain=row.domain.name,
        status=_address_status(row),
        suspended=_what_is_suspended(row),
        proof=Proof(row.domain.proof),
        usable=credential.frozen_at is None and (credential.expires_at is None or credential.expires_at > now),
        scopes=EVERY_SCOPE if credential.kind == credential.Kind.MAIN else frozenset(credential.scopes),
        networks=tuple(ipaddress.ip_network(network, strict=False) for network in credential.networks),
        may_send_as=rights,
        limits=limits,
        expires_at=credential.expires_at,
        fingerprint=_fingerprint(credential),
    )


def _alias_rights(address: Address, tenant: Tenant) -> tuple[frozenset[Address], set[str]]:
    """The aliases that the mailbox may send as, and the domains of all that name it.

    Those of its own tenant that name it directly; never a catch-all, and only while
    their domain is proved and may send.
    """
    query = mailboxes.Address.objects.filter(alias__targets__target=str(address.canonical), tenant=tenant)
    rows = list(query.select_related(*_ADDRESS).order_by())
    rights = frozenset(
        Address(row.local_part, row.domain.name)
        for row in rows
        if row.local_part and row.domain.proof == domains.Proof.PROVED and _address_status(row).may_send
    )
    return rights, {row.domain.name for row in rows}


def _what_is_suspended(row: mailboxes.Address) -> str:
    """Which of mailbox, domain and tenant is not active, the strictest first; empty when all are."""
    candidates: list[tuple[Status, str]] = [
        (Status(row.mailbox.status), str(Address(row.local_part, row.domain.name))),
        (Status(row.domain.status), row.domain.name),
        (
            strictest((_tenant_status(row.tenant), _tenant_status(row.domain.tenant))),
            f"the tenant {row.tenant.name}",
        ),
    ]
    status, name = max(candidates, key=lambda candidate: candidate[0])
    return "" if status is Status.ACTIVE else name


def _login_limits(credential: mailboxes.Credential) -> tuple[Subject, ...]:
    """Credential and domain if limited; mailbox and tenant always, so that their usage is counted."""
    box = credential.mailbox
    row = box.address
    own = _own_limits(
        {
            Kind.CREDENTIAL: [credential.pk],
            Kind.MAILBOX: [box.pk],
            Kind.DOMAIN: [row.domain_id],
            Kind.TENANT: [row.tenant_id],
        }
    )
    of_credential = effective(own.get((Kind.CREDENTIAL, credential.pk), {}), {})
    subjects = [
        Subject(Kind.CREDENTIAL, credential.pk, str(credential), of_credential, row.tenant_id)
        if of_credential
        else None,
        _mailbox_subject(row, own.get((Kind.MAILBOX, box.pk), {})),
        _domain_subject(row.domain, own.get((Kind.DOMAIN, row.domain_id), {})),
        _tenant_subject(row.tenant, own.get((Kind.TENANT, row.tenant_id), {})),
    ]
    return tuple(subject for subject in subjects if subject)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a password for a login name is compared with. Secrets: never logged."""

    address: Address  # the mailbox's own
    mailbox_id: int
    tenant_id: int
    main: tuple[int, str] | None  # credential id, its stored hash
    apps: tuple[tuple[int, str], ...]  # credential id, SHA-256 hex
    used_from: frozenset[str]  # the networks from which these were last used, as rules/lockout counts them
    main_fingerprint: str = ""  # of the main password, also before it was hashed anew

    def __repr__(self) -> str:
        return f"Candidates({self.address})"


def candidates(address: Address) -> Candidates | None:
    """The credentials of a mailbox, by its address or that of a proved domain alias."""
    name = address.domain
    query = mailboxes.Credential.objects.filter(mailbox__address__local_part=address.local_part)
    query = query.select_related("mailbox__address")
    found = list(query.filter(mailbox__address__domain__name=name).order_by())
    if not found:
        hosted = _hosted([name]).get(name)
        if hosted is None or hosted.row.name == name:
            return None
        name = hosted.row.name
        found = list(query.filter(mailbox__address__domain__name=name).order_by())
    if not found or not address.local_part:
        return None
    mains = [(row.pk, row.secret) for row in found if row.kind == row.Kind.MAIN]
    apps = tuple((row.pk, row.secret) for row in found if row.kind == row.Kind.APP)
    box = found[0].mailbox
    used_from = frozenset(network_of(row.last_used_ip) for row in found if row.last_used_ip)
    prints = [_fingerprint(row) for row in found if row.kind == row.Kind.MAIN]
    return Candidates(
        Address(address.local_part, name), box.pk, box.address.tenant_id, mains[0] if mains else None, apps, used_from,
        prints[0] if prints else "",
    )


def _fingerprint(credential: mailboxes.Credential) -> str:
    return credential.began_as or passwords.fingerprint(credential.secret)


def replace_hash(credential_id: int, old: str, new: str) -> bool:
    """Keep a main password by a hash of ours, unless it was changed meanwhile; whether it was kept.

    Never a DirectoryChange: it is the same password, and its fingerprint stays.
    """
    with transaction.atomic():
        mine = mailboxes.Credential.objects.filter(pk=credential_id, secret=old, began_as="")
        return bool(mine.update(secret=new, began_as=passwords.fingerprint(old)))


@dataclass(frozen=True, slots=True)
class Use:
    """When and from where a credential was last used."""

    credential_id: int
    at: datetime
    ip: str


def record_use(uses: Sequence[Use]) -> None:
    """Write the last uses. Never a DirectoryChange: nothing that anybody caches has changed."""
    with transaction.atomic():
        # In order of id, as everybody who locks several rows.
        for use in sorted(uses, key=lambda use: use.credential_id):
            mailboxes.Credential.objects.filter(pk=use.credential_id).update(
                last_used_at=use.at, last_used_ip=_ip(use.ip)
            )


@dataclass(frozen=True, slots=True)
class LoginFact:
    """Logins that were alike, as a LoginEvent keeps them: its fields, its outcomes."""

    at: datetime
    last_at: datetime
    count: int
    login: str
    protocol: str
    outcome: str
    ip: str = ""  # empty: from many networks
    mailbox_id: int | None = None  # None: no mailbox's, or not looked up
    tenant_id: int | None = None
    credential_id: int | None = None
    credential: str = ""


def record_logins(facts: Sequence[LoginFact]) -> None:
    """Write them in one transaction. What a client said is cleaned and cut to what a column holds."""
    mailboxes.LoginEvent.objects.bulk_create(
        [
            mailboxes.LoginEvent(
                at=fact.at,
                last_at=fact.last_at,
                count=fact.count,
                tenant_id=fact.tenant_id,
                mailbox_id=fact.mailbox_id,
                credential_id=fact.credential_id,
                credential_text=_clean(fact.credential, 120),
                login=_clean(fact.login, 320),
                ip=_ip(fact.ip),
                protocol=_clean(fact.protocol, 20),
                outcome=fact.outcome,
            )
            for fact in facts
        ],
        batch_size=500,
    )


def forget_logins(before: datetime, most: int) -> int:
    """Delete at most so many LoginEvents from before then, the oldest first; how many that were."""
    events = mailboxes.LoginEvent.objects
    old = list(events.filter(at__lt=before).order_by("at").values_list("pk", flat=True)[:most])
    if old:
        with transaction.atomic():
            events.filter(pk__in=old).delete()
    return len(old)


def _clean(text: str, most: int) -> str:
    """What a column can hold (no NUL, no lone surrogate) and a page can show."""
    return "".join(character if character.isprintable() else "?" for character in text[:most])


def _ip(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def known_networks(mailbox_id: int, since: datetime) -> frozenset[str]:
    """The networks from which a mailbox logged in since then, as rules/lockout counts them."""
    events = mailboxes.LoginEvent.objects.filter(mailbox=mailbox_id, outcome="ok", last_at__gte=since)
    uses = mailboxes.Credential.objects.filter(mailbox=mailbox_id, last_used_at__gte=since)
    ips = {
        *events.order_by().values_list("ip", flat=True).distinct()[:MOST_NETWORKS],
        *uses.order_by().values_list("last_used_ip", flat=True),
    }
    return frozenset(network_of(ip) for ip in ips if ip)


# Whether a queue may go


def may_go(tenant_id: int, sender: Address | None, *, separator: str) -> Found[bool]:
    """Whether mail that this tenant caused may leave now: it, and the sender if its own, may send.

    False while one of them is suspended: the queue waits.
    """
    return Found(_may_go(tenant_id, sender, separator), frozenset({ANY_CHANGE}))


def _may_go(tenant_id: int, sender: Address | None, separator: str) -> bool:
    tenant = Tenant.objects.select_related("parent__parent").filter(pk=tenant_id).first()
    if tenant is None or not _tenant_status(tenant).may_send:
        return False
    if sender is None:
        return True
    sender = sender.canonical
    hosted = _hosted([sender.domain]).get(sender.domain)
    if hosted is None:
        return True
    plain = sender.without_subaddress(separator).local_part
    query = mailboxes.Address.objects.filter(domain=hosted.row, local_part__in={sender.local_part, plain})
    rows = {row.local_part: row for row in query.select_related("mailbox", *_ADDRESS).order_by()}
    row = rows.get(sender.local_part) or rows.get(plain)
    if row is not None:
        # Another tenant's sender came in through an alias: its suspension is not this tenant's.
        return row.tenant_id != tenant_id or policy.may_go(_address_status(row), hosted.proof)
    return hosted.row.tenant_id != tenant_id or policy.may_go(_domain_status(hosted.row), hosted.proof)


def is_over(tenant_id: int, sender: Address | None, credential_id: int | None, *, now: datetime) -> bool:
    """Whether the grace period of the tenant, or of the mailbox or domain that sent it, has ended."""

    def over(path: str = "") -> Q:
        return Q(**{f"{path}status": Status.CLOSED, f"{path}grace_ends_at__lte": now})

    if Tenant.objects.filter(over(), pk=tenant_id).exists():
        return True
    of_box = over("mailbox__") | over("mailbox__address__domain__")
    if credential_id is not None and mailboxes.Credential.objects.filter(of_box, pk=credential_id).exists():
        return True
    if sender is None:
        return False
    sender = sender.canonical
    here = mailboxes.Address.objects.filter(domain__name=sender.domain, tenant=tenant_id)
    if here.filter(over("mailbox__") | over("domain__"), local_part=sender.local_part).exists():
        return True
    return domains.Domain.objects.filter(over(), name=sender.domain, tenant=tenant_id).exists()


# Following the changes


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since the last poll. `seen` is where the next one starts.

    `dropped` None means everything.
    """

    seen: str
    dropped: frozenset[Dependency] | None


def changes(seen: str | None) -> Changes:
    """The directory's changes after `seen`; with None only where to start from.

    SQLite has one writer, so ids appear in order. On PostgreSQL they become visible out
    of order, and a sequence moves before its row is there: rows are asked for by snapshot
    (each keeps its transaction's id), which misses none and gives none twice.
    """
    names, now_seen = _by_snapshot(seen) if connection.vendor == "postgresql" else _by_id(seen)
    if seen is None or names == []:
        return Changes(now_seen, frozenset())
    if names is None or "" in names or len(names) > MOST_CHANGES:
        return Changes(now_seen, None)
    return Changes(now_seen, _touched(set(names)))


def _by_id(seen: str | None) -> tuple[list[str] | None, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT MAX(id) FROM tenants_directorychange")
        last = cursor.fetchone()[0] or 0
        if seen is None or last == int(seen):
            return [], str(last)
        if last < int(seen):
            return None, str(last)  # another database than before: restored, or pruned empty
        cursor.execute(
            "SELECT domain FROM tenants_directorychange WHERE id > %s AND id <= %s LIMIT %s",
            [int(seen), last, MOST_CHANGES + 1],
        )
        return [row[0] for row in cursor.fetchall()], str(last)


def _by_snapshot(seen: str | None) -> tuple[list[str] | None, str]:
    with connection.cursor() as cursor:
        if seen is None:
            cursor.execute("SELECT pg_current_snapshot()::text")
            return [], cursor.fetchone()[0]
        # One statement, so that both come from one snapshot. The last condition leaves out rows
        # of a restored dump, whose transaction ids may lie in this cluster's future for ever.
        cursor.execute(
            """
            SELECT pg_current_snapshot()::text, ARRAY(
                SELECT domain FROM tenants_directorychange
                WHERE xid >= pg_snapshot_xmin(%s::pg_snapshot)
                  AND NOT pg_visible_in_snapshot(xid, %s::pg_snapshot)
                  AND pg_visible_in_snapshot(xid, pg_current_snapshot())
                LIMIT %s)
            """,
            [seen, seen, MOST_CHANGES + 1],
        )
        now_seen, names = cursor.fetchone()
        return list(names), now_seen


def _touched(names: set[str]) -> frozenset[Dependency]:
    """The names, the domains that they are aliases of, and the tenants that a change there can give a right.

    A tenant's new alias makes a sender right of a login in another domain: logins
    depend on their tenant for that.
    """
    names = names | set(
        domains.DomainAlias.objects.filter(name__in=names).values_list("domain__name", flat=True)
    )
    owners = domains.Domain.objects.filter(name__in=names, tenant__isnull=False).values_list(
        "tenant_id", flat=True
    )
    holders = mailboxes.Address.objects.filter(alias__isnull=False, domain__name__in=names).order_by()
    tenants = {*owners, *holders.values_list("tenant_id", flat=True).distinct()[: MOST_CHANGES + 1]}
    return frozenset({ANY_CHANGE, *names, *(tenants if len(tenants) <= MOST_CHANGES else {EVERY_TENANT})})
