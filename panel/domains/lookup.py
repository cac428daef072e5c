"""Asks the DNS what a domain's check needs, all at once and within a bound; judges nothing.

Whatever a server answers, an Answer comes of it: NXDOMAIN and "no such record" are an empty one,
everything that leaves the truth open (SERVFAIL, silence, rubbish) one with an error. Values are
cleaned and cut here, at the edge. Call it from a thread: never from an event loop's.
"""

import asyncio
import threading
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
from django.utils.translation import gettext as _

from panel.environment import Listen
from panel.rules import spf
from panel.rules.verdicts import CUT, MOST_VALUE, MOST_VALUES, Answer, Found, Question, keeps
from panel.tenants.changes import ServiceError

QUESTION_S = 3.0  # one question with its repetitions
FURTHER_S = 3.0  # all that is asked because of a first answer
AT_ONCE = 30  # questions of one domain
DOMAINS_AT_ONCE = 10
LOOKS_AT_ONCE = 2  # of a process: whose name servers are silent holds half of a panel's threads, not all
MOST_MX = 5  # mail servers elsewhere whose addresses are looked up
MOST_INCLUDES = 12  # SPF records that are followed; beyond ten lookups a record is void anyway
MOST_BYTES = 20_000  # of one TXT record that are read

_turns = threading.BoundedSemaphore(LOOKS_AT_ONCE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of one domain; `hosts` are ours, whose addresses are needed as well."""

    domain: str
    questions: frozenset[Question]
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Looked:
    """`nameservers` are who serves the domain, as far as that was told."""

    found: Found
    nameservers: tuple[str, ...] = ()


class Busy(ServiceError):
    """Others wait for the DNS already."""


def look_up(wanted: Sequence[Wanted], server: Listen | None) -> list[Looked]:
    """What the DNS says of each, in their order. `server` None asks the system's resolvers. Raises Busy."""
    if not _turns.acquire(blocking=False):
        raise Busy(_("Other domains are being looked up just now. Try again in ten seconds."))
    try:
        return asyncio.run(_look_up(wanted, server))
    finally:
        _turns.release()


async def _look_up(wanted: Sequence[Wanted], server: Listen | None) -> list[Looked]:
    try:
        resolver = dns.asyncresolver.Resolver(configure=server is None)
    except dns.resolver.NoResolverConfiguration:
        nobody = Answer(error="this server knows no DNS server: POSTHOUSE_DNS names one")
        return [Looked(Found(dict.fromkeys(one.questions, nobody))) for one in wanted]
    if server is not None:
        resolver.nameservers = [server.host]
        resolver.port = server.port
    resolver.cache = dns.resolver.LRUCache()  # our own hosts, the includes that many have
    turn = asyncio.Semaphore(DOMAINS_AT_ONCE)

    async def one(each: Wanted) -> Looked:
        async with turn:
            return await _Look(resolver, each).take()

    return list(await asyncio.gather(*map(one, wanted)))


class _Look:
    """The questions of one domain."""

    def __init__(self, resolver: dns.asyncresolver.Resolver, wanted: Wanted) -> None:
        self._resolver = resolver
        self._wanted = wanted
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._nested = 0
        self._included: list[str] = []
        self._is_followed = False

    async def take(self) -> Looked:
        order = sorted(self._wanted.questions)
        (servers, *answers), _ = await asyncio.gather(
            asyncio.gather(*(self._ask(name, kind) for name, kind in ((self._wanted.domain, "NS"), *order))),
            self._find_addresses(self._wanted.hosts),
        )
        found = dict(zip(order, answers, strict=True))
        with suppress(TimeoutError):
            async with asyncio.timeout(FURTHER_S):
                await asyncio.gather(
                    self._find_addresses(self._elsewhere(found)), self._follow(self._spf(found))
                )
        all_found = Found(found, self._addresses, self._nested, tuple(self._included), self._is_followed)
        return Looked(all_found, servers.values[:4])

    def _elsewhere(self, found: dict[Question, Answer]) -> Iterable[str]:
        chosen: dict[str, None] = {}
        for (_name, kind), answer in found.items():
            if kind != "MX":
                continue
            # The preferred first: whether those are ours is what counts.
            values = sorted(answer.values, key=lambda value: int(value.partition(" ")[0]))
            hosts = dict.fromkeys(value.partition(" ")[2] for value in values)
            elsewhere = [host for host in hosts if host not in (".", "", *self._wanted.hosts)]
            self._addresses |= dict.fromkeys(elsewhere[MOST_MX:], ())
            chosen |= dict.fromkeys(elsewhere[:MOST_MX])
        return chosen

    def _spf(self, found: dict[Question, Answer]) -> Sequence[str]:
        there = [text for text in found.get((self._wanted.domain, "TXT"), Answer()).values if spf.is_spf(text)]
        return spf.names_to_follow(spf.parse(there[0])) if len(there) == 1 else ()

    async def _find_addresses(self, hosts: Iterable[str]) -> None:
        async def of(host: str) -> None:
            four, six = await asyncio.gather(self._ask(host, "A"), self._ask(host, "AAAA"))
            known = (*four.values, *six.values)
            # Half an answer says enough of theirs, not of ours: theirs are compared with these.
            if not (four.error or six.error) or (known and host not in self._wanted.hosts):
                self._addresses[host] = known

        await asyncio.gather(*map(of, hosts))

    async def _follow(self, names: Iterable[str]) -> None:
        """The records that are included, level by level, and how often they ask."""
        seen: set[str] = set()
        told = True
        level = list(names)
        while level and len(seen) < MOST_INCLUDES:
            level = [name for name in dict.fromkeys(level) if name not in seen][: MOST_INCLUDES - len(seen)]
            seen.update(level)
            further: list[str] = []
            for answer in await asyncio.gather(*(self._ask(name, "TXT") for name in level)):
                told = told and not answer.error
                for text in [text for text in answer.values if spf.is_spf(text)][:1]:
                    record = spf.parse(text)
                    self._nested += record.lookups
                    self._included.append(text)
                    further += spf.names_to_follow(record)
            level = further
        self._is_followed = told

    async def _ask(self, name: str, kind: str) -> Answer:
        try:
            async with self._turn:
                answer = await _within(self._resolver.resolve(
                    dns.name.from_text(f"{name}."), kind, search=False, raise_on_no_answer=False, lifetime=QUESTION_S
                ))
        except dns.resolver.NXDOMAIN:
            return Answer()
        except dns.resolver.NoNameservers:
            return Answer(error="its name servers fail")
        except (dns.exception.Timeout, TimeoutError):
            return Answer(error=f"no answer within {QUESTION_S:.0f} seconds")
        except (dns.exception.DNSException, OSError, ValueError, EOFError) as error:
            # ValueError, EOFError: what a datagram of rubbish makes of the parser, or of a stream.
            return Answer(error=f"no answer that is understood, {type(error).__name__}")
        if answer.rrset is None or answer.rrset.rdtype != dns.rdatatype.from_text(kind):
            return Answer()
        texts = map(_text, answer.rrset)
        mine = (name, kind) if kind != "TXT" or (name, kind) in self._wanted.questions else (self._wanted.domain, kind)
        return Answer(tuple(sorted(_cut(text) for text in texts if keeps(mine, text)))[:MOST_VALUES])


async def _within(asked: Awaitable[dns.resolver.Answer]) -> dns.resolver.Answer:
    # dnspython's lifetime bounds its own waiting; a connection that trickles is bounded here.
    async with asyncio.timeout(QUESTION_S + 0.5):
        return await asked


def _text(rdata: Any) -> str:
    kind = dns.rdatatype.to_text(rdata.rdtype)
    if kind == "TXT":
        return _clean(b"".join(rdata.strings)[:MOST_BYTES].decode("utf-8", "replace"))
    if kind == "MX":
        return f"{rdata.preference} {_name(rdata.exchange)}"
    if kind == "SRV":
        return f"{rdata.priority} {rdata.weight} {rdata.port} {_name(rdata.target)}"
    if kind in ("CNAME", "NS"):
        return _name(rdata.target)
    return _clean(rdata.to_text())


def _name(name: dns.name.Name) -> str:
    return _clean(name.to_text(omit_final_dot=True).lower())


def _clean(text: str) -> str:
    """Without what would steer a terminal, or no database takes."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_VALUE else text[: MOST_VALUE - 1] + CUT
