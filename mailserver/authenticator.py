"""Checks logins: what is right, what was right before, what is refused and why.

Decides whether a password is right and what is remembered of it: a login that was right
before is answered at once, never behind the hashing of wrong ones. Whether a right
password may be used (status, scope, network, expiry) is decided in panel/rules/policy; what
is "locked", because too many before were wrong, in lockout.py. RFC 4954 §6: a backend that
is down is "unavailable" (454), never "wrong" (535).
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mailserver import log
from mailserver.clock import Clock
from mailserver.directory import Candidates, Directory, DirectoryUnavailable, LoginFact, Use
from mailserver.hashing import Busy, Hashing, Locked, Question
from mailserver.lockout import Lockout
from mailserver.login_events import LoginEvents
from mailserver.panel_sign_ins import PanelSignIns
from mailserver.recent import Recent
from mailserver.rehash import Rehash
from panel.mailboxes import passwords
from panel.rules import policy, reply
from panel.rules.addresses import BadAddress, parse_address
from panel.rules.facts import Login
from panel.rules.lockout import network_of

MOST_REMEMBERED = 50_000
MOST_WRONG = 10_000
WRONG_S = 60.0
MOST_NAME = 320  # characters of a login name that are kept; an address has at most 254 octets

MAIN_WITH_FACTOR = "it opens no mail program while a second factor is on; use an app password"

AuthVerdict = Literal["ok", "wrong", "suspended", "scope", "locked", "unavailable"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one login. `login` is the mailbox's address when it is known, else as it was given.

    `fingerprint` is that of the password which was right: the session ends with it.
    """

    verdict: AuthVerdict
    credential_id: int | None
    login: str
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class _Right:
    """A password that was right, as long as these domains did not change since `version`."""

    credential_id: int
    fingerprint: str
    version: int
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Wrong:
    """A password that was compared with `stored` and is not the one."""

    stored: str
    until_s: float  # monotonic


class Authenticator:
    """Checks logins. Passwords are remembered only as BLAKE2 digests under a key that this process made."""

    def __init__(
        self, directory: Directory, clock: Clock, verify: Callable[[str, str], bool] = passwords.verify_main
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._right: Recent[_Right] = Recent(MOST_REMEMBERED)
        self._wrong: Recent[_Wrong] = Recent(MOST_WRONG)
        self._hashing = Hashing(verify)
        # Verified in place of an unknown login's: it must take as long as a wrong password.
        self._nobodys = passwords.hash_main(secrets.token_urlsafe(16))
        self._under_way: dict[bytes, asyncio.Future[_Right | None]] = {}
        self._used: dict[int, Use] = {}
        self._rehash = Rehash(directory, self._hashing.threads)
        # Mailbox and tenant by login name: whose a refused login is.
        self._owners: Recent[tuple[int, int]] = Recent(MOST_REMEMBERED)
        self._lockout = Lockout(directory, clock, self._digest)
        self._events = LoginEvents(directory)
        self.panel = PanelSignIns(self._lockout, self._note)

    async def check(self, login: str, password: str, ip: str, protocol: str) -> Answer:
        """Whether this password opens this login for `protocol` from `ip`. Never raises for bad input."""
        name = canonical(login)
        try:
            if await self._lockout.holds(name, ip):
                self._note("locked", name, ip, protocol)
                return Answer("locked", None, login)
            right = await self._right_one(name, password, ip)
            if right is None:
                log.login_failed(login, ip, "unknown login or wrong password")
                self._lockout.failed(name, password, ip)
                self._note("wrong", name, ip, protocol)
                return Answer("wrong", None, login)
            known = await self._directory.login(right.credential_id)
        except Locked:
            self._note("locked", name, ip, protocol)
            return Answer("locked", None, login)
        except (DirectoryUnavailable, Busy) as error:
            log.login_failed(login, ip, "too much to hash" if isinstance(error, Busy) else "database gone")
            return Answer("unavailable", None, login)
        if known is None:
            log.login_failed(login, ip, "credential gone")
            return Answer("wrong", None, login)
        refused = policy.login_refused(known, scope=protocol, ip=ip, now=self._clock.now())
        if refused is not None:
            because = MAIN_WITH_FACTOR if known.has_factor else refused.text
            log.login_failed(known.name, ip, f"{known.credential}: {because}")
            verdict = _verdict(refused)
            outcome: str = verdict
            if verdict == "wrong":
                outcome = "factor" if known.has_factor else "refused"
                # What reads like a wrong one counts like one. Not a main password that is right: the console's sign-in,
                # which takes it, tells as much, and an office whose programs still have theirs would be locked out.
                if not known.has_factor:
                    self._lockout.failed(name, password, ip)
            self._note(outcome, name, ip, protocol, known)
            return Answer(verdict, None, known.name)
        self._used[right.credential_id] = Use(right.credential_id, self._clock.now(), ip)
        self._lockout.succeeded(name, ip)
        self._note("ok", name, ip, protocol, known)
        return Answer("ok", right.credential_id, known.name, right.fingerprint)

    def _note(self, outcome: str, name: str, ip: str, protocol: str, known: Login | None = None) -> None:
        """Keep a login for its LoginEvent; `known` is whose password was right."""
        now = self._clock.now()
        owner = (known.mailbox_id, known.tenant_id) if known else self._owners.get(self._digest(name, ""))
        self._events.add(
            LoginFact(
                at=now,
                last_at=now,
                count=1,
                login=name[:MOST_NAME],
                protocol=protocol,
                outcome=outcome,
                ip=ip,
                mailbox_id=owner[0] if owner else None,
                tenant_id=owner[1] if owner else None,
                credential_id=known.credential_id if known else None,
                credential=known.credential if known else "",
            )
        )

    async def flush(self, everything: bool = False) -> None:
        """Write last uses and logins, `everything` at the end; kept for the next time without a database."""
        await self._events.flush(everything)
        await self._rehash.flush()
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._directory.record_use(list(used.values()))
        except DirectoryUnavailable:
            self._used = used | self._used

    def close(self) -> None:
        self._hashing.close()

    def remembers(self, login: str, password: str) -> bool:
        """Whether `check` needs neither the database nor a hash to tell that this password is right."""
        right = self._right.get(self._digest(canonical(login), password))
        return right is not None and self._directory.is_current(right.version, right.domains)

    async def _right_one(self, name: str, password: str, ip: str) -> _Right | None:
        """The credential that this password opens, or None. Raises DirectoryUnavailable, Busy and Locked."""
        digest = self._digest(name, password)
        right = self._right.get(digest)
        if right is not None and self._directory.is_current(right.version, right.domains):
            return right
        # A mail client opens several connections at once: one look-up and one hash for all.
        under_way = self._under_way.get(digest)
        if under_way is None:
            under_way = asyncio.ensure_future(self._compare(name, password, ip, digest))
            self._under_way[digest] = under_way
            under_way.add_done_callback(partial(self._compared, digest))
        return await asyncio.shield(under_way)

    def _compared(self, digest: bytes, task: "asyncio.Future[_Right | None]") -> None:
        del self._under_way[digest]
        if not task.cancelled():
            task.exception()  # seen, also when all who asked have gone

    async def _compare(self, name: str, password: str, ip: str, digest: bytes) -> _Right | None:
        version = self._directory.version
        found = await self._directory.candidates(name)
        if found is None:
            self._owners.remove(self._digest(name, ""))
        else:
            self._owners.put(self._digest(name, ""), (found.mailbox_id, found.tenant_id))
        matching = await self._match(found, name, password, ip, digest)
        if matching is None or found is None:
            self._right.remove(digest)
            return None
        credential_id, stored = matching
        domains = (found.address.domain, name.rpartition("@")[2])
        if matching == found.main:
            self._rehash.was_right(credential_id, password, stored)
        right = _Right(credential_id, _fingerprint(found, matching), version, domains)
        self._right.put(digest, right)
        return right

    async def _match(
        self, found: Candidates | None, name: str, password: str, ip: str, digest: bytes
    ) -> tuple[int, str] | None:
        """The candidate, with its stored form, that this is the password of."""
        if not _is_text(password):
            return None
        if password.startswith(passwords.APP_PREFIX):
            # 128 random bits need no slow hash, known login or not.
            hashed = passwords.hash_app(password)
            apps = found.apps if found else ()
            return next((each for each in apps if secrets.compare_digest(each[1], hashed)), None)
        stored = found.main[1] if found and found.main else self._nobodys
        right = self._right.get(digest)
        if right is not None and found and found.main and right.fingerprint == _fingerprint(found, found.main):
            # It was right, and something else in its domain changed: in a large one somebody always does.
            return found.main
        wrong = self._wrong.get(digest)
        if wrong is not None and wrong.stored == stored and time.monotonic() < wrong.until_s:
            return None
        network = network_of(ip)
        known = network in found.used_from if found else False
        known = known or self._lockout.has_seen(name, network)
        question = Question(name, network, password, stored, partial(self._lockout.forbids, name, ip, known=known))
        if await self._hashing.verify(question, known=known) and found and found.main:
            return found.main
        self._wrong.put(digest, _Wrong(stored, time.monotonic() + WRONG_S))
        return None

    def _digest(self, name: str, password: str) -> bytes:
        # The name's length parts the two: no other pair gives the same bytes.
        text = f"{len(name)}:{name}{password}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()


def _fingerprint(found: Candidates, matching: tuple[int, str]) -> str:
    """Of a credential's password; the main one's is the same after it was hashed anew."""
    return (matching == found.main and found.main_fingerprint) or passwords.fingerprint(matching[1])


def _verdict(refused: reply.Reply) -> AuthVerdict:
    if refused.enhanced == reply.AUTH_SUSPENDED.enhanced:
        return "suspended"
    return "scope" if refused.text == reply.AUTH_NOT_FOR_SENDING.text else "wrong"


def canonical(login: str) -> str:
    """The login name as it is compared; what is no address stays as it is, and is nobody's."""
    try:
        return str(parse_address(login).canonical)
    except BadAddress:
        return login


def _is_text(password: str) -> bool:
    """Whether it can be encoded: a lone surrogate, from bytes that are no UTF-8, can't."""
    try:
        password.encode()
    except UnicodeEncodeError:
        return False
    return True
