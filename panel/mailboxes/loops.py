"""Where aliases and forwards lead: whether one leads back to itself, and by which way.

Follows addresses as the mailserver does: domain aliases, the address itself, it without
its subaddress, the catch-all. The wire stops loops too (5.4.6); here nobody can make one.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from django.db.models import Q

from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.models import Address, AliasTarget
from panel.rules import addresses

MOST_ADDRESSES = 1000  # looked at for one change: bounds the work where aliases cross


@dataclass(frozen=True, slots=True)
class Onward:
    """An alias, or a mailbox that forwards, with where it leads."""

    address: Address
    targets: tuple[str, ...]


def chain_back_to(start: Address, targets: Collection[str], separator: str) -> list[str]:
    """The addresses from `start`, which leads to `targets`, back to itself, or nothing when it doesn't lead there.

    What another tenant's address leads to stays hidden: it shows as "…".
    """
    mine = start.tenant_id
    ways: dict[int, list[str]] = {start.pk: [_written(start)]}
    level = {target: [*ways[start.pk], target] for target in targets}
    while level and len(ways) < MOST_ADDRESSES:
        following: dict[str, list[str]] = {}
        for target, found in onward_at(level, separator, start).items():
            if found.address.pk == start.pk:
                return _ended(level[target], ways[start.pk][0])
            if found.address.pk not in ways:
                ways[found.address.pk] = level[target]
                hidden = found.address.tenant_id != mine
                for each in found.targets:
                    following[each] = [*level[target], "…" if hidden else each]
        level = following
    return []


def _written(address: Address) -> str:
    return str(addresses.Address(address.local_part, address.domain.name)) if address.local_part else str(address)


def _ended(way: list[str], start: str) -> list[str]:
    way = [step for at, step in enumerate(way) if step != "…" or way[at - 1] != "…"]
    return way if way[-1] == start else [*way, start]


def _parsed(text: str) -> addresses.Address | None:
    try:
        return addresses.parse_address(text).canonical
    except addresses.BadAddress:
        return None


def onward_at(targets: Collection[str], separator: str, also: Address | None = None) -> Mapping[str, Onward]:
    """What takes the mail of each address and leads on, where one of ours does; `also` is taken for one that does."""
    parsed = {target: address for target in targets if (address := _parsed(target))}
    names = {address.domain for address in parsed.values()}
    aliases = DomainAlias.objects.filter(name__in=names).order_by().values_list("name", "domain")
    # No name is both.
    homes = dict(
        Domain.objects.filter(name__in=names).order_by().values_list("name", "pk").union(aliases, all=True)
        if names else ()
    )
    asked = {target: address for target, address in parsed.items() if address.domain in homes}
    plain = {target: address.without_subaddress(separator) for target, address in asked.items()}
    local_parts = {"", *(a.local_part for a in asked.values()), *(a.local_part for a in plain.values())}
    rows = Address.objects.filter(
        Q(domain__in={homes[address.domain] for address in asked.values()}, local_part__in=local_parts)
    ).select_related("domain", "alias", "mailbox__rules")
    at = {(row.domain_id, row.local_part): row for row in rows}
    takers: dict[str, Address] = {}
    for target, address in asked.items():
        home = homes[address.domain]
        ways = (at.get((home, name)) for name in (address.local_part, plain[target].local_part, ""))
        row = next(filter(None, ways), None)
        if row is not None:
            takers[target] = row
    leads = _leads_of({row.pk: row for row in takers.values()}.values())
    if also is not None:
        leads.setdefault(also.pk, ())
    return {target: Onward(row, leads[row.pk]) for target, row in takers.items() if row.pk in leads}


def _leads_of(rows: Collection[Address]) -> dict[int, tuple[str, ...]]:
    """Where the addresses lead that do, by the row's id."""
    aliases = {row.alias.pk: row for row in rows if hasattr(row, "alias")}
    found: dict[int, tuple[str, ...]] = {row.pk: () for row in aliases.values()}
    for alias_id, target in AliasTarget.objects.filter(alias__in=aliases).values_list("alias_id", "target"):
        found[aliases[alias_id].pk] += (target,)
    for row in rows:
        rules = getattr(getattr(row, "mailbox", None), "rules", None)
        if rules is not None and rules.forward_to:
            found[row.pk] = tuple(rules.forward_to)
    return found
