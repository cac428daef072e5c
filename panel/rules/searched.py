"""What somebody typed into a search box can be: an address, a domain, an id, a Message-ID, a network, a name.

Decides what a text can mean, several things at once; not whether there is such a thing. Hostile
text means nothing, and is kept as it can be shown.
"""

import ipaddress
import unicodedata
from dataclasses import dataclass

from panel.rules.addresses import Address, BadAddress, canonical_domain, parse_address

MOST = 400  # characters; an address has 254, a Message-ID that is kept 200
MOST_SHOWN = 120

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Searched:
    """A text and its readings. An empty or None reading: it can't be one."""

    text: str  # as typed, without what can't be shown
    name: str = ""  # what the name of a tenant, a person or an account may begin with
    begins: str = ""  # what an address may begin with, canonical as far as it goes
    local_part: str | None = None  # of that, unquoted, when there is an @
    at_domain: str = ""  # what may follow the @, as far as it goes
    address: str = ""  # a whole address, canonical
    domain: str = ""  # a whole domain's name, canonical
    network: Network | None = None  # of one address, or more
    message_ids: tuple[str, ...] = ()  # as a Message-ID is kept

    @property
    def shown(self) -> str:
        return self.text if len(self.text) <= MOST_SHOWN else f"{self.text[:MOST_SHOWN]}…"

    @classmethod
    def of(cls, typed: str) -> "Searched":
        text = " ".join("".join(map(_visible, typed[: 4 * MOST])).split())
        if not text or len(text) > MOST:
            return cls(text)
        inner = text[1:-1] if text[0] + text[-1] in ("<>", "[]") else text
        network = _network(inner)
        if network is not None:
            return cls(text, network=network)
        address = _address(inner)
        if not inner or (" " in inner and address is None):
            return cls(text, name=text)
        begins = str(address) if address else _canonical(inner)
        local_part, at, at_domain = begins.rpartition("@")
        return cls(
            text, name=text, begins=begins, local_part=(address.local_part if address else local_part) if at else None,
            at_domain=at_domain if at else "", address=begins if address else "", domain=_domain(inner),
            message_ids=(inner[:200], f"<{inner}>"[:200]) if at or text[0] == "<" else (),
        )


def _visible(character: str) -> str:
    """The character; a space for controls, what turns text round, and what no database takes."""
    return " " if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else character


def _canonical(text: str) -> str:
    return unicodedata.normalize("NFC", text.lower())


def _address(text: str) -> Address | None:
    try:
        return parse_address(text).canonical
    except BadAddress:
        return None


def _domain(text: str) -> str:
    try:
        return canonical_domain(text.removeprefix("@"))
    except BadAddress:
        return ""


def _network(text: str) -> Network | None:
    if "." not in text and ":" not in text:
        return None
    try:
        network = ipaddress.ip_network(text.removeprefix("IPv6:"), strict=False)
    except ValueError:
        return None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.ip_network((mapped, network.prefixlen - 96), strict=False)
    return network
