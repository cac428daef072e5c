"""Which logins are answered "try again later", because too many before them were wrong.

Counts different wrong passwords in a sliding window of 15 minutes. What was tried before,
for the same account and from the same network, counts once: a phone with an old password
is no attack, nor is a client that tries a second mechanism after a refusal. A login that
is locked is neither checked nor counted, so a lock ends by itself.

| counted | locked at | who still gets in | a day at most |
|---|---|---|---|
| one account from one network | 10 | nobody | 960 |
| one network, all accounts | 30 | accounts that know the network | 2,880 |
| one account, all networks | 30 | networks that the account knows | 2,880 |

An account knows a network when it logged in from there lately. So guessing that is spread
over the world locks the owner out nowhere but at new places, and an office (or a webmail,
or a mobile carrier's gateway) with one guesser in it goes on for everybody else. Ten
different passwords are more than a person tries who has forgotten it; NIST SP 800-63B-4
§3.2.2 allows a hundred. Thirty a network are three such persons in one office. At 2,880 a
day a password outside the million most common ones lasts a year.

A network is an IPv4 address or an IPv6 /64, what one customer's line has at least
(RFC 6177). This machine itself is nobody's network: a proxy or a webmail here speaks for
everybody, so only the counts of accounts hold there.

No lock depends on whether the account exists, so it tells nobody. Growing delays and
alerts are not decided here.
"""

import ipaddress
from array import array
from collections import OrderedDict
from enum import Enum
from functools import lru_cache

WINDOW_S = 15 * 60
MOST_FOLLOWED = 50_000  # keys of each count, the quietest go first: 0.5 KB each when full


class Lock(Enum):
    """Which count is full. The value is how it is called in the log."""

    ACCOUNT_FROM_NETWORK = "account from network"
    NETWORK = "network"
    ACCOUNT = "account"

    @property
    def spares_known(self) -> bool:
        """Whether an account still gets in from a network that it knows."""
        return self is not Lock.ACCOUNT_FROM_NETWORK


MOST_GUESSES = {Lock.ACCOUNT_FROM_NETWORK: 10, Lock.NETWORK: 30, Lock.ACCOUNT: 30}


@lru_cache(maxsize=4096)
def network_of(ip: str) -> str:
    """The network that an address counts for; empty for this machine and for what is no address."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped  # as a socket for both families names an IPv4 client
    if address.is_loopback:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((address, 64), strict=False))


class Guesses:
    """Different guesses by key within the window: at most `limit` of each of `most` keys.

    Each is one number: 32 bits of the guess's digest, 32 of the second. Two guesses that
    share their bits count once, by a chance of one in four thousand million.
    """

    def __init__(self, limit: int, most: int = MOST_FOLLOWED) -> None:
        self._limit = limit
        self._most = most
        # In the order of the latest guess.
        self._guesses: OrderedDict[bytes, array[int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._guesses)

    def is_full(self, key: bytes, now_s: float) -> bool:
        return len(self._recent(key, now_s)) >= self._limit

    def opens_in_s(self, key: bytes, now_s: float) -> float:
        """In how many seconds it is no longer full; 0 when it isn't."""
        recent = self._recent(key, now_s)
        return (recent[0] & 0xFFFFFFFF) + WINDOW_S - now_s if len(recent) >= self._limit else 0.0

    def add(self, key: bytes, guess: bytes, now_s: float) -> bool:
        """Count a wrong guess; whether that made it full. `now_s` never runs back."""
        recent = self._recent(key, now_s)
        bits = int.from_bytes(guess[:4], "big")
        if any(each >> 32 == bits for each in recent):
            return False
        was_full = len(recent) >= self._limit
        if was_full:
            recent.pop(0)  # several were under way when it became full
        recent.append(bits << 32 | int(now_s))
        self._guesses[key] = recent
        self._guesses.move_to_end(key)
        self._forget(now_s)
        return not was_full and len(recent) >= self._limit

    def _recent(self, key: bytes, now_s: float) -> "array[int]":
        found = self._guesses.get(key)
        if found is None:
            return array("Q")
        while found and _is_over(found[0], now_s):
            found.pop(0)
        return found

    def _forget(self, now_s: float) -> None:
        """Let go of what is over, a few at a time, and of the quietest above the bound."""
        for _ in range(2):
            key, oldest = next(iter(self._guesses.items()))
            if len(self._guesses) > self._most or not oldest or _is_over(oldest[-1], now_s):
                del self._guesses[key]


def _is_over(guess: int, now_s: float) -> bool:
    return (guess & 0xFFFFFFFF) + WINDOW_S <= now_s


class Lockouts:
    """The three counts. `account` is a digest of the login name, known here or not."""

    def __init__(self, most: int = MOST_FOLLOWED) -> None:
        self._counts = {lock: Guesses(limit, most) for lock, limit in MOST_GUESSES.items()}

    def locked(self, account: bytes, ip: str, now_s: float) -> Lock | None:
        """Which lock a login meets, the one without exceptions first; `now_s` is of a monotonic clock."""
        for lock, key in _keys(account, network_of(ip)).items():
            if self._counts[lock].is_full(key, now_s):
                return lock
        return None

    def opens_in_s(self, account: bytes, ip: str, now_s: float) -> float:
        """In how many seconds no lock holds any more; 0 when none does."""
        keys = _keys(account, network_of(ip))
        return max(self._counts[lock].opens_in_s(key, now_s) for lock, key in keys.items())

    def failed(self, account: bytes, ip: str, guess: bytes, now_s: float) -> list[Lock]:
        """Count a login that was wrong; the locks that begin with it.

        `guess` is a digest of login name and password, so that one and the same counts once.
        """
        keys = _keys(account, network_of(ip))
        return [lock for lock, key in keys.items() if self._counts[lock].add(key, guess, now_s)]


def _keys(account: bytes, network: str) -> dict[Lock, bytes]:
    keys = {Lock.ACCOUNT_FROM_NETWORK: account + network.encode()}
    if network:
        keys[Lock.NETWORK] = network.encode()
    return keys | {Lock.ACCOUNT: account}
