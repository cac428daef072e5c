"""Where mail for an address goes: aliases, domain aliases, subaddresses, catch-alls and forwards, followed.

RFC 5321 §4.5.1 and RFC 2142 (postmaster, abuse), RFC 5233 (subaddresses).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from mailserver.directory.found import Found
from mailserver.directory.hosting import Hosted, find_hosted
from mailserver.directory.limits import answer_limits, who_pays
from mailserver.directory.nodes import Node, blocked_by, expiry_of, has_expired, node_of, targets_of
from mailserver.directory.statuses import OWNERS, domain_status
from panel.domains.models import Domain
from panel.mailboxes import models as mailboxes
from panel.rules import filtering
from panel.rules.addresses import Address
from panel.rules.facts import Delivery, LocalMailbox, Resolution, Step, Verdict
from panel.rules.limits import Subject

MOST_NESTING = 10  # aliases behind one another
MOST_DELIVERIES = 200  # what one recipient may become
MOST_ADDRESSES = 1000  # looked at for one recipient: bounds the work where aliases cross
ROLES = frozenset({"postmaster", "abuse"})  # RFC 2142: they exist in each hosted domain


def resolve(
    asked: Address, *, separator: str, postmaster: Address | None, hostname: str, now: datetime,
    store: str = "maildir",
) -> Found[Resolution]:
    """Where mail for an address goes at this moment. A nested target that doesn't exist is left out.

    `store` is who stores mail of domains that don't say.
    """
    walk = _Walk(separator=separator, postmaster=postmaster, hostname=hostname, now=now, store=store)
    found = walk.resolve(asked)
    return Found(found, frozenset(found.domains), walk.until)


class _Loops(Exception):
    """An address that leads back to itself, too deep or too wide."""


class _Walk:
    """Follows one recipient through aliases, a level a time: at most five queries each."""

    def __init__(
        self, *, separator: str, postmaster: Address | None, hostname: str, now: datetime, store: str
    ) -> None:
        self.until: datetime | None = None  # when the first alias on the way expires
        self._now = now
        self._separator = separator
        self._store = store
        self._hostname = hostname
        self._postmaster = Node("postmaster", targets=(postmaster,) if postmaster else ())
        self._nodes: dict[Address, Node] = {}
        self._hosted: dict[str, Hosted | None] = {}

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
            answering = answer_limits([node.pays] if node.pays and node.answers else [])
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
        hosted = find_hosted([name for name in names if name])
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
            query = query.select_related("mailbox__rules", "alias", *OWNERS).order_by()
            rows = {(row.domain_id, row.local_part): row for row in query}
        chosen = {address: self._choose(address, rows) for address in addresses}
        found = [row for row in chosen.values() if isinstance(row, mailboxes.Address)]
        ends = [end for row in found if (end := expiry_of(row)) and end > self._now]
        self.until = min([*ends, *([self.until] if self.until else [])], default=None)
        targets, blocked = targets_of(found), blocked_by(found)
        for address, choice in chosen.items():
            self._nodes[address] = (
                choice if isinstance(choice, Node) else node_of(choice, address, targets, self._store, blocked)
            )

    def _choose(
        self, address: Address, rows: Mapping[tuple[int, str], mailboxes.Address]
    ) -> "mailboxes.Address | Node":
        """The row that takes mail for an address: its own, that without the subaddress, the catch-all.

        An expired alias keeps its address from the catch-all, but postmaster and abuse from nobody.
        """
        at = self._hosted[address.domain]
        if at is None:
            # RFC 5321 §4.5.1: the bare form reaches this server's postmaster.
            if address.local_part == "postmaster" and address.domain in ("", self._hostname):
                return self._postmaster
            return Node(f"outside {address}", outside=address)
        domain_row = at.row
        plain = address.without_subaddress(self._separator).local_part
        own = next(
            (rows[domain_row.pk, local_part] for local_part in (address.local_part, plain)
             if local_part and (domain_row.pk, local_part) in rows), None,
        )
        if own and not has_expired(own, self._now):
            return own
        if (
            address.local_part in ROLES
            and self._postmaster.targets
            and domain_status(domain_row).may_receive
        ):
            return Node("postmaster", domain_row.tenant_id, targets=self._postmaster.targets)
        catch_all = rows.get((domain_row.pk, ""))
        if catch_all and not own and not has_expired(catch_all, self._now) and domain_row.kind == Domain.Kind.OWN:
            return catch_all
        return Node(f"nobody {address}", domain_row.tenant_id)

    def _collect(self, start: Address) -> list[tuple[Node, mailboxes.Address | None]]:
        """The ends that `start` leads to, each once, with the alias that pays for it. Raises _Loops."""
        ends: dict[str, tuple[Node, mailboxes.Address | None]] = {}
        under_way: dict[str, Node] = {}  # in the order of the way
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

    def _charge(self, ends: Sequence[tuple[Node, mailboxes.Address | None]]) -> tuple[Delivery, ...]:
        """The deliveries; those outside are charged to the alias's tenant, and its domain if limited."""
        charged = who_pays([pays for node, pays in ends if node.outside and pays])
        deliveries = []
        for node, pays in ends:
            resolved = node.mailbox.address if node.mailbox else node.outside
            if resolved is not None:
                subjects = charged[pays.pk] if node.outside and pays else ()
                deliveries.append(Delivery(resolved, node.mailbox, subjects))
        return tuple(deliveries)

    def _steps(self, start: Address) -> tuple[Step, ...]:
        """The whole way from `start`: where mail goes on it depends on the message."""
        order: dict[str, tuple[Address, Node]] = {}
        waiting = [start]
        while waiting:
            address = waiting.pop()
            node = self._nodes[address]
            if not node.outside and node.id not in order:
                order[node.id] = (address, node)
                waiting += reversed(node.targets)
        numbers = {name: number for number, name in enumerate(order)}
        leads = {name: [self._nodes[target] for target in node.targets] for name, (_, node) in order.items()}
        charged = who_pays([
            node.pays for name, (_, node) in order.items()
            if node.pays and any(target.outside for target in leads[name])
        ])
        answering = answer_limits([node.pays for _, node in order.values() if node.pays and node.answers])
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


def _answered_for(
    mailbox: LocalMailbox | None, charged: Mapping[int, tuple[Subject, ...]]
) -> LocalMailbox | None:
    """The mailbox with who pays for its answers, if it gives any."""
    if mailbox is None or mailbox.rules is None or mailbox.rules.vacation is None:
        return mailbox
    vacation = replace(mailbox.rules.vacation, charged=charged[mailbox.mailbox_id])
    return replace(mailbox, rules=replace(mailbox.rules, vacation=vacation))
