"""Where aliases lead: whether one leads back to itself, and by which way.

Follows addresses as the mailserver does: domain aliases, the address itself, it without
its subaddress, the catch-all. The wire refuses loops too (5.4.6); here nobody can make one.
"""

from collections.abc import Collection, Mapping

from django.db.models import Q

from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.models import Address, Alias, AliasTarget
from panel.rules import addresses

MOST_ALIASES = 1000  # looked at for one change: bounds the work where aliases cross


def chain_back_to(alias: Alias, separator: str) -> list[str]:
    """The addresses from the alias back to itself, or nothing when it doesn't lead there.

    What another tenant's alias leads to stays hidden: it shows as "…".
    """
    mine = alias.address.tenant_id
    ways: dict[int, list[str]] = {alias.pk: [_written(alias)]}
    level: Collection[int] = [alias.pk]
    while level and len(ways) < MOST_ALIASES:
        targets: dict[str, list[str]] = {}
        rows = AliasTarget.objects.filter(alias__in=level).select_related("alias__address")
        for row in rows:
            hidden = row.alias.address.tenant_id != mine
            targets.setdefault(row.target, [*ways[row.alias_id], "…" if hidden else row.target])
        level = []
        for target, found in aliases_at(targets, separator).items():
            if found.pk == alias.pk:
                return _ended(targets[target], ways[alias.pk][0])
            if found.pk not in ways:
                ways[found.pk] = targets[target]
                level.append(found.pk)
    return []


def _written(alias: Alias) -> str:
    address = alias.address
    return str(addresses.Address(address.local_part, address.domain.name)) if address.local_part else str(address)


def _ended(way: list[str], start: str) -> list[str]:
    way = [step for at, step in enumerate(way) if step != "…" or way[at - 1] != "…"]
    return way if way[-1] == start else [*way, start]


def _parsed(text: str) -> addresses.Address | None:
    try:
        return addresses.parse_address(text).canonical
    except addresses.BadAddress:
        return None


def aliases_at(targets: Collection[str], separator: str) -> Mapping[str, Alias]:
    """The alias that takes the mail of each address, where one of ours does."""
    parsed = {target: address for target in targets if (address := _parsed(target))}
    names = {address.domain for address in parsed.values()}
    homes = dict(Domain.objects.filter(name__in=names).values_list("name", "pk"))
    homes |= dict(DomainAlias.objects.filter(name__in=names).values_list("name", "domain"))
    asked = {target: address for target, address in parsed.items() if address.domain in homes}
    plain = {target: address.without_subaddress(separator) for target, address in asked.items()}
    local_parts = {"", *(a.local_part for a in asked.values()), *(a.local_part for a in plain.values())}
    rows = Address.objects.filter(
        Q(domain__in={homes[address.domain] for address in asked.values()}, local_part__in=local_parts)
    ).select_related("alias__address__domain")
    at = {(row.domain_id, row.local_part): row for row in rows}
    found = {}
    for target, address in asked.items():
        home = homes[address.domain]
        ways = (at.get((home, name)) for name in (address.local_part, plain[target].local_part, ""))
        row = next(filter(None, ways), None)
        if row is not None and hasattr(row, "alias"):
            found[target] = row.alias
    return found
