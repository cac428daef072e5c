"""Who may log in, who receives, who may send as whom: asked of the database, kept, dropped when it changes.

Decides how fresh an answer is. What the answers are is decided in the look-ups beside it
(resolution, nodes, hosting, logins, departure …): synchronous, each on a thread with a
connection of its own, they give frozen facts, each with what it depends on. What is kept
is decided in cache.py. A change made in the panel is known in every process within a second:
the DirectoryChange rows are polled four times a second (RECIPES "Following the directory").
"""

import asyncio
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from mailserver import log
from mailserver.clock import Clock
from mailserver.directory import (
    database,
    departure,
    following,
    hosting,
    login_history,
    logins,
    nodes,
    resolution,
    usage,
)
from mailserver.directory.cache import Cache
from mailserver.directory.database import DirectoryUnavailable
from mailserver.directory.found import EVERY_TENANT, Dependency, Found
from mailserver.directory.login_history import LoginFact, Use
from mailserver.directory.logins import Candidates
from mailserver.directory.usage import Crossing, Recorded, Uncounted, UsageChange, UsageFact
from panel.rules import policy
from panel.rules.addresses import Address, BadAddress, parse_address
from panel.rules.facts import HostedDomain, LocalMailbox, Login, Resolution, Route, Verdict

__all__ = [
    "EVERY_TENANT",
    "Candidates",
    "Crossing",
    "Dependency",
    "Directory",
    "DirectoryUnavailable",
    "LoginFact",
    "Recorded",
    "Uncounted",
    "UsageChange",
    "UsageFact",
    "Use",
]

POLL_S = 0.25
FRESH_S = 30.0  # how long kept answers serve while the changes can't be followed
KNOWN_DAYS = 30  # how long a network counts as one that a mailbox logs in from
DEADLINE_S = 10.0  # of one look-up, a wait for a free thread included
MOST_LOOK_UPS = 1000  # that wait for a thread: a stuck database must not pile them up

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Flight:
    """A look-up under way, and the version before it began."""

    version: int
    future: "asyncio.Future[Found[Any]]"


class Directory:
    """The directory as one process sees it. Everything but the constructor runs on one event loop.

    `executor` bounds the look-ups at once; each of its threads keeps a database
    connection. Nothing is kept until `follow` runs. Raises BadAddress when the
    postmaster's address is none.
    """

    def __init__(
        self,
        separator: str,
        postmaster: str,
        hostname: str,
        executor: Executor,
        clock: Clock | None = None,
        store: str = "maildir",
    ) -> None:
        self._separator = separator
        self._store = store
        self._postmaster = parse_address(postmaster).canonical if postmaster else None
        self._hostname = hostname
        self._executor = executor
        self._clock = clock or Clock()
        self._cache = Cache()
        self._flights: dict[Hashable, _Flight] = {}
        self._on_threads = 0
        self._seen: str | None = None
        self._heard_at_s: float | None = None  # monotonic

    @property
    def version(self) -> int:
        """Rises with each noticed change. Take it before a look-up, never after."""
        return self._cache.version

    def is_current(self, version: int, domains: Iterable[Dependency]) -> bool:
        """Whether what was learned of these domains and tenants at `version` still holds; False if that isn't known."""
        return self._is_fresh() and self._cache.is_current(version, domains)

    # Look-ups

    async def resolve(self, address: Address) -> Resolution:
        """Where mail for `address` goes. Raises DirectoryUnavailable."""
        key = ("resolve", address)
        kept = self._kept(key)
        if kept is not None:
            return kept.value
        # Mail outward names ever new addresses of the same domains: no question each.
        outside = self._kept(("domain", address.domain))
        if outside is not None and outside.value is None and not self._is_ours(address):
            return Resolution(address, Verdict.ELSEWHERE, domains=frozenset({address.domain}))
        look_up = partial(
            resolution.resolve, separator=self._separator, postmaster=self._postmaster, hostname=self._hostname,
            now=self._clock.now(), store=self._store,
        )
        return await self._look_up(key, look_up, address)

    async def domain(self, name: str) -> HostedDomain | None:
        """The domain hosted under that name, or that a domain alias leads to; None elsewhere or pending."""
        return await self._ask(("domain", name), hosting.domain, name)

    async def mailbox(self, address: Address) -> LocalMailbox | None:
        """The mailbox of this very address, whatever its status but closed; no alias, no subaddress."""
        return await self._ask(("mailbox", address), nodes.mailbox, address)

    async def login(self, credential_id: int, fingerprint: str = "") -> Login | None:
        """A credential with its rights and limits; None when it is no more.

        `fingerprint`: of the password that was right just now. What is kept of another one is
        older than that password, or the password has been changed: asked again.
        """
        key = ("login", credential_id)
        kept = self._kept(key)
        if kept is not None and (not kept.value or fingerprint in ("", kept.value.fingerprint)):
            return kept.value
        look_up = partial(logins.login, separator=self._separator, now=self._clock.now())
        return await self._look_up(key, look_up, credential_id)

    async def readers(self, credential_ids: Collection[int]) -> Mapping[int, Login]:
        """Those of these credentials that there still are, as far as reading needs them. Never kept."""
        look_up = partial(logins.readers, now=self._clock.now())
        return await self._bounded(self._on_thread(look_up, credential_ids))

    async def route(self, domain: str) -> Route | None:
        """The provider's way to a destination; None: by MX."""
        return await self._ask(("route", domain), hosting.route, domain)

    async def may_go(
        self, tenant_id: int | None, sender: Address | None, credential_id: int | None = None
    ) -> bool:
        """Whether mail may leave the queue now; False: its tenant or its sender here may not send."""
        if tenant_id is None:
            return True
        if credential_id is not None:
            login = await self.login(credential_id)
            if login is not None and not policy.may_go(login.status, login.proof):
                return False
        look_up = partial(departure.may_go, separator=self._separator)
        return await self._ask(("may_go", tenant_id, sender), look_up, tenant_id, sender)

    async def is_over(self, tenant_id: int | None, sender: Address | None, credential_id: int | None) -> bool:
        """Whether what may not go is to bounce: the grace period of its mailbox, domain or tenant has ended.

        Never kept: asked only of what waits, and time alone changes the answer.
        """
        if tenant_id is None:
            return False
        look_up = partial(departure.is_over, now=self._clock.now())
        return await self._bounded(self._on_thread(look_up, tenant_id, sender, credential_id))

    async def candidates(self, login: str) -> Candidates | None:
        """What a password for this login name is compared with; None for an unknown name.

        Never kept: a password that was just changed must not be called wrong.
        """
        try:
            address = parse_address(login).canonical
        except BadAddress:
            return None
        return await self._bounded(self._on_thread(logins.candidates, address))

    async def replace_hash(self, credential_id: int, old: str, new: str) -> bool:
        """Keep a main password by another hash of it, if it is still kept by `old`; whether it is now."""
        return await self._bounded(self._on_thread(logins.replace_hash, credential_id, old, new))

    async def record_use(self, uses: Sequence[Use]) -> None:
        """Write when credentials were last used, in one transaction."""
        await self._written(self._on_thread(login_history.record_use, uses))

    async def record_logins(self, facts: Sequence[LoginFact]) -> None:
        """Write LoginEvents, in one transaction."""
        await self._written(self._on_thread(login_history.record_logins, facts))

    async def forget_logins(self, days: int, most: int) -> int:
        """Delete at most so many LoginEvents older than `days`; how many. Raises DirectoryUnavailable."""
        before = self._clock.now() - timedelta(days=days)
        return await self._bounded(self._on_thread(login_history.forget_logins, before, most))

    async def known_networks(self, mailbox_id: int) -> frozenset[str]:
        """The networks from which a mailbox logged in within KNOWN_DAYS, as rules/lockout counts them."""
        since = self._clock.now() - timedelta(days=KNOWN_DAYS)
        return await self._bounded(self._on_thread(login_history.known_networks, mailbox_id, since))

    # What mailboxes hold: never kept here (mailserver/usage.py does)

    async def usage(self, mailbox_ids: Sequence[int]) -> dict[int, UsageFact]:
        """What these mailboxes hold, as the database knows it. Raises DirectoryUnavailable."""
        return await self._bounded(self._on_thread(usage.read, mailbox_ids))

    async def record_usage(self, changes: Sequence[UsageChange]) -> Recorded:
        """Write what changed, in one transaction. Raises DirectoryUnavailable; it may have been written then."""
        return await self._bounded(self._on_thread(usage.record, changes, self._clock.now()))

    async def uncounted(self, before: datetime, limit: int) -> list[Uncounted]:
        """The mailboxes to count next. Raises DirectoryUnavailable."""
        return await self._bounded(self._on_thread(usage.next_uncounted, before, limit))

    async def places(self, mailbox_ids: Sequence[int]) -> list[Uncounted]:
        """Where these mailboxes lie. Raises DirectoryUnavailable."""
        return await self._bounded(self._on_thread(usage.places, mailbox_ids))

    async def was_counted(self, mailbox_id: int, since: datetime) -> bool:
        """Whether a mailbox has been counted since then. Raises DirectoryUnavailable."""
        return await self._bounded(self._on_thread(usage.was_counted, mailbox_id, since))

    # Following

    async def follow(self) -> None:
        """Follow the changes until cancelled. A lost database is tried again at each poll."""
        loop = asyncio.get_running_loop()
        # A thread of its own: a burst of look-ups must not delay the news of a suspension.
        thread = ThreadPoolExecutor(1, thread_name_prefix="directory-follow")
        lost = False
        try:
            while True:
                try:
                    changes = await loop.run_in_executor(thread, database.on_connection, following.changes, self._seen)
                except DirectoryUnavailable as error:
                    if not lost:
                        log.warning("the directory can't be followed, the database is gone", error=error)
                    lost = True
                except Exception:  # ours or the database's mistake; who asks is answered all the same, more slowly
                    if not lost:
                        log.fault("the directory can't be followed")
                    lost = True
                else:
                    if lost:
                        log.warning("the directory is followed again")
                    lost = False
                    self._take(changes)
                await asyncio.sleep(POLL_S)
        finally:
            thread.submit(database.close_connection)
            thread.shutdown(wait=False)

    def _take(self, changes: following.Changes) -> None:
        if self._seen is None:
            # A look-up begun before the starting point may have missed a change that is never told.
            self._cache.drop(None)
        elif changes.dropped is None or changes.dropped:
            self._cache.drop(changes.dropped)
        self._seen = changes.seen
        self._heard_at_s = time.monotonic()

    def _is_fresh(self) -> bool:
        return self._heard_at_s is not None and time.monotonic() - self._heard_at_s < FRESH_S

    # Asking once

    def _is_ours(self, address: Address) -> bool:
        """Whether an address outside the hosted domains is this server's own."""
        return address.domain in ("", self._hostname)

    def _kept(self, key: Hashable) -> Found[Any] | None:
        if not self._is_fresh():
            return None
        found = self._cache.get(key)
        if found is None or (found.until is not None and found.until <= self._clock.now()):
            return None
        return found

    async def _ask(self, key: Hashable, look_up: Callable[..., Found[T]], *args: Any) -> T:
        kept = self._kept(key)
        return await self._look_up(key, look_up, *args) if kept is None else kept.value

    async def _look_up(self, key: Hashable, look_up: Callable[..., Found[T]], *args: Any) -> T:
        flight = self._flights.get(key)
        # One begun before a change was noticed may not know of it.
        if flight is None or flight.version != self._cache.version:
            flight = _Flight(self._cache.version, self._on_thread(look_up, *args))
            self._flights[key] = flight
            flight.future.add_done_callback(lambda _: self._land(key, flight))
        found: Found[T] = await self._bounded(flight.future)
        return found.value

    def _land(self, key: Hashable, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.future.cancelled() or flight.future.exception() is not None:
            return
        found = flight.future.result()
        if not self._is_fresh():
            return
        value = found.value
        if (
            isinstance(value, Resolution)
            and value.verdict is Verdict.ELSEWHERE
            and not self._is_ours(value.asked)
        ):
            outside: Found[None] = Found(None, found.depends)
            self._cache.keep(("domain", value.asked.domain), outside, flight.version)
            return
        weight = _weight(value) if isinstance(value, Resolution) else 1
        self._cache.keep(key, found, flight.version, weight)

    def _on_thread(self, look_up: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        if self._on_threads >= MOST_LOOK_UPS:
            raise DirectoryUnavailable(f"{MOST_LOOK_UPS} look-ups wait for the database")
        future = asyncio.get_running_loop().run_in_executor(self._executor, database.on_connection, look_up, *args)
        self._on_threads += 1
        future.add_done_callback(self._off_thread)
        return future

    def _off_thread(self, future: "asyncio.Future[Any]") -> None:
        self._on_threads -= 1

    async def _written(self, future: "asyncio.Future[None]") -> None:
        # As long as it takes: a thread can't be cancelled, and who gave up would write the same again.
        await asyncio.shield(future)

    async def _bounded(self, future: "asyncio.Future[T]") -> T:
        # Shielded: others may wait for the same answer, and a thread can't be cancelled.
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await asyncio.shield(future)
        except TimeoutError:
            raise DirectoryUnavailable(f"no answer from the database in {DEADLINE_S:.0f} s") from None


def _weight(found: Resolution) -> int:
    """In KB, roughly: a long alias, block list or vacation text takes the place of many others."""
    rules = [step.mailbox.rules for step in found.steps if step.mailbox and step.mailbox.rules]
    texts = sum(len(each.vacation.text) for each in rules if each.vacation)
    blocked = sum(len(each.blocked) for each in rules)
    return 1 + len(found.deliveries) + len(found.steps) + blocked // 10 + texts // 1000
