"""Where mail for a domain goes: its mail servers in order, each with addresses that may be connected to.

Decides by MX, A and AAAA (RFC 5321 §5.1), null MX (RFC 7505), and the two guards:
never back to ourselves, never into an inner network. Whoever connects uses the
addresses given here and never looks the name up again, or a second answer could lead
inside. It does not connect, and knows nothing of routes but their host's name.
"""

import asyncio
import ipaddress
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

from mailserver import log
from mailserver.config import Config
from panel.environment import IPNetwork, Listen
from panel.rules import reply
from panel.rules.reply import Reply

LIFETIME_S = 20.0  # of one question with its repetitions; a resolver's own is 5 s a server
HOSTS = 10  # tried for one message; RFC 5321 §5.1 asks for at least two
ADDRESSES = 20
CACHE_ANSWERS = 10_000
ROUTE_NAME_S = 10.0  # for the machine's own names (hosts file)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052 §2.1
_TRANSLATED = ipaddress.ip_network("::/96")  # IPv4-compatible, RFC 4291 §2.5.5.1


@dataclass(frozen=True, slots=True)
class Host:
    """A mail server: its name, and the addresses that it may be reached at, in the order to try."""

    name: str
    addresses: tuple[str, ...]


class NoWay(Exception):
    """There is no mail server to try; `reply` says why."""

    def __init__(self, why: Reply) -> None:
        super().__init__(str(why))
        self.reply = why


class Permanent(NoWay):
    """No try will ever succeed."""


class Temporary(NoWay):
    """A later try may succeed."""


class NullMx(Permanent):
    """The domain says that it takes no mail (RFC 7505)."""


def is_inner(address: str) -> bool:
    """Whether an address is loopback, private, link-local, multicast, or otherwise not of the internet.

    An IPv4 address inside an IPv6 one (mapped, 6to4, Teredo, NAT64) counts as itself.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    return any(not one.is_global or one.is_multicast or one.is_reserved for one in _meant(ip))


def _meant(ip: IPAddress) -> list[IPAddress]:
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    if ip.ipv4_mapped:
        return [ip.ipv4_mapped]
    if ip in _NAT64 or ip in _TRANSLATED:
        return [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    embedded = [ip.sixtofour, *(ip.teredo or ())]
    return [ip, *(one for one in embedded if one)]


def is_this_machine(address: str) -> bool:
    """Whether an address is one of this machine's: packets to it would leave with it as their source.

    Nothing is sent. Binding to it would not tell: some machines may bind any address.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return bool(probe.getsockname()[0] == address)
    except OSError:
        return False


class Resolver:
    """Finds mail servers. `hops` raises Permanent or Temporary, each with a reply."""

    def __init__(
        self,
        server: Listen | None,
        *,
        hostname: str,
        port: int = 25,
        private_allowed: tuple[IPNetwork, ...] = (),
        own_listeners: tuple[Listen, ...] = (),
        is_own_machine: Callable[[str], bool] = is_this_machine,
        chance: random.Random | None = None,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        """`server` None asks the system's resolvers; `port` is where other mail servers are reached."""
        self._hostname = hostname.lower().rstrip(".")
        self._private_allowed = private_allowed
        self._own_ports = {listener.port for listener in own_listeners}
        self._port = port
        self._is_own_machine = is_own_machine
        self._chance = chance or random.Random()  # noqa: S311 spreads load, no secret
        self._lifetime_s = lifetime_s
        try:
            self._dns = dns.asyncresolver.Resolver(configure=server is None)
        except dns.resolver.NoResolverConfiguration as error:
            # A machine without a resolver still takes mail; what is for elsewhere waits. libc asks this address, too.
            log.warning("the system names no DNS server, mail to other domains waits: set POSTHOUSE_DNS", error=error)
            self._dns = dns.asyncresolver.Resolver(configure=False)
            self._dns.nameservers = ["127.0.0.1"]
        if server is not None:
            self._dns.nameservers = [server.host]
            self._dns.port = server.port
        self._dns.cache = dns.resolver.LRUCache(CACHE_ANSWERS)

    @classmethod
    def of(cls, config: Config) -> "Resolver":
        return cls(
            config.dns, hostname=config.hostname, port=config.outward_port,
            private_allowed=config.outward_private, own_listeners=config.mx,
        )

    async def hops(self, domain: str) -> list[Host]:
        """The mail servers of `domain` (A-labels, or a literal in brackets), in the order to try.

        Never empty; at most 10 hosts with 20 addresses. Raises Permanent or Temporary.
        """
        if domain.startswith("["):
            return self._within([_literal(domain)], domain)
        exchanges = await self._exchanges(domain)
        found = await asyncio.gather(
            *(self._addresses(name, domain) for _, name in exchanges), return_exceptions=True
        )
        hosts: list[tuple[int, Host]] = []
        unknown: Temporary | None = None
        for (preference, name), addresses in zip(exchanges, found, strict=True):
            if isinstance(addresses, Temporary):
                unknown, addresses = addresses, ()
            elif isinstance(addresses, BaseException):
                raise addresses
            if self._is_own(name, addresses):
                # RFC 5321 §5.1: we are among its mail servers, so only better ones may be tried.
                hosts = [(better, host) for better, host in hosts if better < preference]
                if not hosts:
                    raise Permanent(reply.ROUTE_LOOPS.about(domain=domain))
                break
            hosts.append((preference, Host(name, addresses)))
        return self._within([host for _, host in hosts], domain, unknown)

    async def route_host(self, name: str) -> Host:
        """The provider's own choice of a host: an address, or a name of the DNS or of this machine.

        It may be in an inner network. Raises Temporary: a route is mended, mail needn't be returned.
        """
        try:
            return Host(name, (str(ipaddress.ip_address(name.strip("[]"))),))
        except ValueError:
            pass
        try:
            addresses = await self._addresses(name, name)
        except Permanent:
            addresses = ()
        if not addresses:
            look_up = partial(asyncio.get_running_loop().getaddrinfo, name, None, type=socket.SOCK_STREAM)
            try:
                async with asyncio.timeout(ROUTE_NAME_S):
                    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in await look_up()))
            except (OSError, UnicodeError):  # TimeoutError is an OSError
                raise Temporary(reply.DNS_UNAVAILABLE.about(domain=name)) from None
        return Host(name, addresses[:ADDRESSES])

    async def _exchanges(self, domain: str) -> list[tuple[int, str]]:
        """(preference, name), sorted, equals in random order. Without MX the domain itself (RFC 5321 §5.1)."""
        answer = await self._ask(domain, dns.rdatatype.MX, domain, missing=reply.NO_SUCH_DOMAIN)
        records = [
            (record.preference, record.exchange.to_text(omit_final_dot=True).lower()) for record in answer
        ]
        if not records:
            return [(0, domain)]
        if all(name in ("", ".", "@") for _, name in records):
            raise NullMx(reply.NULL_MX.about(domain=domain))
        exchanges = [(p, self._chance.random(), name) for p, name in records if name not in ("", ".", "@")]
        return [(preference, name) for preference, _, name in sorted(exchanges)][:HOSTS]

    async def _addresses(self, name: str, domain: str) -> tuple[str, ...]:
        """IPv4 first: receivers refuse IPv6 clients without a PTR record, and many have none.

        Empty when there are none. Raises Temporary when neither kind could be asked for.
        """
        kinds: tuple[Awaitable[list], ...] = tuple(
            self._ask(name, kind, domain) for kind in (dns.rdatatype.A, dns.rdatatype.AAAA)
        )
        answers = await asyncio.gather(*kinds, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, Temporary):
                raise answer
        found = [record.address for answer in answers if isinstance(answer, list) for record in answer]
        if not found and (failed := [answer for answer in answers if isinstance(answer, Temporary)]):
            raise failed[0]
        return tuple(dict.fromkeys(found))

    async def _ask(self, name: str, kind: dns.rdatatype.RdataType, domain: str, missing: Reply | None = None) -> list:
        """The records, CNAMEs followed. A name that doesn't exist has none, or is Permanent(`missing`)."""
        absolute = name if name.endswith(".") else name + "."
        try:
            answer = await self._dns.resolve(
                absolute, kind, raise_on_no_answer=False, search=False, lifetime=self._lifetime_s
            )
        except (dns.resolver.NXDOMAIN, dns.name.LabelTooLong, dns.name.EmptyLabel, dns.name.NameTooLong,
                dns.name.BadEscape, UnicodeError):
            if missing is None:
                return []
            raise Permanent(missing.about(domain=domain)) from None
        except (dns.exception.DNSException, OSError):
            raise Temporary(reply.DNS_UNAVAILABLE.about(domain=domain)) from None
        return list(answer.rrset or ())

    def _is_own(self, name: str, addresses: tuple[str, ...]) -> bool:
        return name.rstrip(".") == self._hostname or any(self._leads_back(address) for address in addresses)

    def _leads_back(self, address: str) -> bool:
        # Within an allowed network (a test, a provider's inner one) other mail servers may share our address.
        if not self._is_own_machine(address):
            return False
        return self._port in self._own_ports or not self._is_allowed(address)

    def _is_allowed(self, address: str) -> bool:
        ip = ipaddress.ip_address(address)
        return any(ip.version == network.version and ip in network for network in self._private_allowed)

    def _within(self, hosts: list[Host], domain: str, unknown: Temporary | None = None) -> list[Host]:
        """The hosts without their inner addresses (no inner network is reachable from here)."""
        reachable: list[Host] = []
        inner = False
        room = ADDRESSES
        for host in hosts:
            outer = tuple(
                address for address in host.addresses if self._is_allowed(address) or not is_inner(address)
            )
            inner = inner or len(outer) < len(host.addresses)
            if domain.startswith("[") and any(self._leads_back(address) for address in outer):
                raise Permanent(reply.ROUTE_LOOPS.about(domain=domain))
            if outer and room:
                reachable.append(Host(host.name, outer[:room]))
                room -= len(outer[:room])
        if reachable:
            return reachable
        if unknown:
            raise unknown
        raise Permanent((reply.PRIVATE_ADDRESS if inner else reply.NO_MAIL_SERVER).about(domain=domain))


def _literal(domain: str) -> Host:
    """[192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321 §4.1.3)."""
    text = domain[1:-1]
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    try:
        return Host(domain, (str(ipaddress.ip_address(text)),))
    except ValueError:
        raise Permanent(reply.NO_SUCH_DOMAIN.about(domain=domain)) from None
