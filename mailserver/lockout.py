"""authd's lockouts: asks the rules before a password is looked at, and knows who logged in from where.

What is counted and who is spared is decided in panel/rules/lockout. Here is decided what
it may cost: nothing but memory while no lock holds; for a lock that spares known networks
one look-up an account and minute, of which one is under way at a time, so that a flood of
locked logins never takes the database away from good ones. The counts are one authd's (a
node's) and end with it.
"""

import asyncio
from collections.abc import Callable

from mailserver import log
from mailserver.clock import Clock
from mailserver.directory import Directory
from mailserver.recent import Recent
from panel.rules.lockout import Lockouts, network_of
from panel.rules.sign_in import Answer, Standing

MOST_KNOWN = 100_000  # account from network, seen here to be right
MOST_ACCOUNTS = 10_000  # whose networks were looked up
MOST_WAITING = 16  # for the one look-up; more are refused as if the network were unknown
LOOKED_UP_S = 60.0  # other nodes see logins as well


class Lockout:
    """Whether a login is locked. `digest` makes a key of a login name and a password."""

    def __init__(self, directory: Directory, clock: Clock, digest: Callable[[str, str], bytes]) -> None:
        self._directory = directory
        self._clock = clock
        self._digest = digest
        self._lockouts = Lockouts()
        self._known: Recent[bool] = Recent(MOST_KNOWN)
        self._looked_up: Recent[tuple[frozenset[str], float]] = Recent(MOST_ACCOUNTS)
        self._one = asyncio.Semaphore(1)
        self._waiting = 0

    async def holds(self, login: str, ip: str) -> bool:
        """Whether this login is to be told to come again later. Raises DirectoryUnavailable."""
        account = self._digest(login, "")
        lock = self._lockouts.locked(account, ip, self._clock.time_s())
        if lock is None:
            return False
        return not lock.spares_known or not await self._knows(login, account, network_of(ip))

    def forbids(self, login: str, ip: str, *, known: bool) -> bool:
        """The same, when it is known already whether the account knows the network."""
        lock = self._lockouts.locked(self._digest(login, ""), ip, self._clock.time_s())
        return lock is not None and not (lock.spares_known and known)

    def has_seen(self, login: str, network: str) -> bool:
        """Whether this account is known to log in from this network, without asking the database."""
        account = self._digest(login, "")
        return bool(self._known.get(account + network.encode())) or network in (self._fresh(account) or ())

    def standing(self, login: str, ip: str) -> Answer:
        """What the panel is told; unlike `holds` from memory alone, as it knows its accounts' networks itself."""
        account = self._digest(login, "")
        now_s = self._clock.time_s()
        lock = self._lockouts.locked(account, ip, now_s)
        if lock is None or (lock.spares_known and self._known.get(account + network_of(ip).encode())):
            return Answer(Standing.OPEN)
        standing = Standing.STRANGERS if lock.spares_known else Standing.LOCKED
        return Answer(standing, self._lockouts.opens_in_s(account, ip, now_s))

    def failed(self, login: str, password: str, ip: str) -> None:
        """Count a wrong password."""
        guess = self._digest(login, password)
        for lock in self._lockouts.failed(self._digest(login, ""), ip, guess, self._clock.time_s()):
            log.login_locked(login, ip, lock.value)

    def succeeded(self, login: str, ip: str) -> None:
        """Remember that this account logs in from there."""
        self._known.put(self._digest(login, "") + network_of(ip).encode(), True)

    async def _knows(self, login: str, account: bytes, network: str) -> bool:
        if self._known.get(account + network.encode()):
            return True
        networks = self._fresh(account)
        if networks is None:
            if self._waiting >= MOST_WAITING:
                return False
            self._waiting += 1
            try:
                async with self._one:
                    networks = self._fresh(account)
                    if networks is None:
                        found = await self._directory.candidates(login)
                        networks = (
                            await self._directory.known_networks(found.mailbox_id) if found else frozenset()
                        )
                        self._looked_up.put(account, (networks, self._clock.time_s() + LOOKED_UP_S))
            finally:
                self._waiting -= 1
        return network in networks

    def _fresh(self, account: bytes) -> frozenset[str] | None:
        """The networks that were looked up less than a minute ago."""
        looked_up = self._looked_up.get(account)
        return looked_up[0] if looked_up is not None and self._clock.time_s() < looked_up[1] else None
