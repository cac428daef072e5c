"""SPF records: read, merged, and whether one lets a host of ours send. RFC 7208.

Decides on text alone: what a name resolves to is given. It doesn't evaluate includes; who is asked
about them is told by `names_to_follow`.
"""

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

MOST_LOOKUPS = 10  # terms that ask the DNS, those of includes too: RFC 7208 §4.6.4
_VERSION = re.compile(r"v=spf1(?: |\Z)", re.IGNORECASE)
_ASKING = ("include", "a", "mx", "ptr", "exists", "redirect")
_SOFTNESS = "+?~-"  # the qualifiers of `all`, the most lenient first

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_spf(text: str) -> bool:
    """Whether a TXT record is one of SPF, RFC 7208 §4.5."""
    return _VERSION.match(text) is not None


@dataclass(frozen=True, slots=True)
class Spf:
    """One record. `terms` are its mechanisms and modifiers as written, but for `all` and `redirect`.

    `all` is the term with its qualifier (`~all`), or empty; `redirect` the domain, or empty. What
    follows `all` can never match (RFC 7208 §5.1) and isn't kept, nor is a redirect beside one (§6.1).
    """

    terms: tuple[str, ...]
    all: str = ""
    redirect: str = ""

    def __str__(self) -> str:
        redirect = (f"redirect={self.redirect}",) if self.redirect else ()
        return " ".join(("v=spf1", *self.terms, *((self.all,) if self.all else ()), *redirect))

    @property
    def lookups(self) -> int:
        """How many of its own terms ask the DNS."""
        return sum(_name_of(term) in _ASKING for term in self.terms) + bool(self.redirect)


def parse(text: str) -> Spf:
    """The record; what isn't understood is kept as a term. `text` is one that `is_spf`."""
    terms: dict[str, None] = {}
    all_term = redirect = ""
    for term in text.split()[1:]:
        name = _name_of(term)
        if name == "redirect" and "=" in term:
            redirect = redirect or term.partition("=")[2]
        elif name == "all" and not all_term:
            all_term = term.lower()
        elif "=" in term.partition(":")[0] or not all_term:
            terms.setdefault(term)
    return Spf(tuple(terms), all_term, "" if all_term else redirect)


def merge(found: Sequence[str], ours: Sequence[str], *, instead: Sequence[str] = (), nested: int = 0) -> str:
    """One record that lets us send and everybody whom those that are there let.

    What is there stays as it is, with how it ends; ours stands first, where nothing can come before
    it. Of several records (which are an error that breaks all) the most lenient end is kept, and a
    redirect becomes an include. Without any: ours, and `~all`. `instead` are mechanisms of the same
    meaning that ask nothing: taken when the terms would ask the DNS more than ten times; `nested`
    is how often includes do. Merging the result again gives the same.
    """
    records = [parse(text) for text in found]
    if not records:
        return str(Spf(tuple(ours), "~all"))
    one = records[0] if len(records) == 1 else _together(records)
    missing = [term for term in ours if not _has(one, term)]
    if missing and instead and one.lookups + nested + _asking(missing) > MOST_LOOKUPS:
        missing = [term for term in instead if not _has(one, term)]
    # One that refuses us, or leaves us neutral, comes too late behind ours, and is no use.
    refused = {term for term in one.terms for own in (*ours, *instead) if term[:1] in "?~-" and _same(term[1:], own)}
    kept = [term for term in one.terms if term not in refused]
    return str(Spf((*missing, *kept), one.all, one.redirect))


def _together(records: Iterable[Spf]) -> Spf:
    terms: dict[str, None] = {}
    ends: list[str] = []
    for record in records:
        for term in record.terms:
            if _name_of(term) == "exp" and any(_name_of(other) == "exp" for other in terms):
                continue  # it may be there once, RFC 7208 §6
            terms.setdefault(term)
        if record.redirect:
            terms.setdefault(f"include:{record.redirect}")
        if record.all:
            ends.append(record.all)
    softest = min(ends, key=lambda term: _SOFTNESS.index(term[0]) if term[0] in _SOFTNESS else 0, default="")
    return Spf(tuple(terms), softest)


def lets_send(
    record: Spf, ours: Sequence[str], *, addresses: Mapping[str, Collection[str]], mx_hosts: Collection[str] = ()
) -> bool:
    """Whether the record, by its own terms, passes each mechanism of ours.

    `a:HOST` is passed as well by networks that hold all of the host's `addresses`, by `mx` where the
    host is one of `mx_hosts` or has none but their addresses, and by `+all`. Where mail comes in
    isn't always where it goes out.
    """
    if record.all in ("all", "+all"):
        return True
    networks = [network for term in record.terms if (network := _network(term)) is not None]
    of_mx = {address for host in mx_hosts for address in addresses.get(host, ())}
    for own in ours:
        if _has(record, own):
            continue
        name, _, host = own.partition(":")
        if name != "a" or not host:
            return False
        there = set(addresses.get(host, ()))
        has_mx = any(term.lower() in ("mx", "+mx") for term in record.terms)
        if has_mx and (host in mx_hosts or (there and there <= of_mx)):
            continue
        known = [ipaddress.ip_address(address) for address in there]
        if not known or not all(any(one in network for network in networks) for one in known):
            return False
    return True


def networks_of(addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses as mechanisms that ask nothing."""
    known = sorted({ipaddress.ip_address(address) for address in addresses}, key=lambda one: (one.version, int(one)))
    return tuple(f"ip{one.version}:{one}" for one in known)


def names_to_follow(record: Spf) -> tuple[str, ...]:
    """The domains whose records this one takes in: what asks more of the ten. None with a macro, RFC 7208 §7."""
    names = [term.partition(":")[2] for term in record.terms if _name_of(term) == "include"]
    return tuple(name.lower().rstrip(".") for name in (*names, record.redirect) if name and "%" not in name)


def _name_of(term: str) -> str:
    return re.split(r"[:=/]", term.lstrip("+-~?"), maxsplit=1)[0].lower()


def _asking(terms: Iterable[str]) -> int:
    return sum(_name_of(term) in _ASKING for term in terms)


def _has(record: Spf, own: str) -> bool:
    return any(_same(term.removeprefix("+"), own) for term in record.terms)


def _same(one: str, other: str) -> bool:
    return one.lower().rstrip(".") == other.lower().rstrip(".")


def _network(term: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    name, _, value = term.removeprefix("+").partition(":")
    if name.lower() not in ("ip4", "ip6"):
        return None
    try:
        return ipaddress.ip_network(value, strict=False)
    except ValueError:
        return None
