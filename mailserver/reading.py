"""The sessions that Dovecot opened with our yes, and their end when that yes no longer holds.

Dovecot asks once, at the login; an IMAP session may go on for weeks after it. So authd
remembers the logins it let in, looks at them again when their domain or tenant changes or they
expire, and has Dovecot end the sessions of whoever couldn't log in any more: suspended, closed, frozen,
another password, networks or scopes. All of a user's sessions end then, and clients with a
good password log in again. At its end an authd leaves what it remembers to the next one, which
may already be running (a take-over); what one that was killed knew is lost.
"""

import asyncio
import json
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mailserver import log
from mailserver.clock import Clock
from mailserver.directory import EVERY_TENANT, Dependency, Directory, DirectoryUnavailable
from mailserver.doveadm import KickFailed
from panel.rules import policy
from panel.rules.facts import Login

MOST_SESSIONS = 50_000
AT_ONCE = 500  # credentials in one query
LOOK_S = 0.1  # how often the directory's version is compared
AGAIN_S = 2.0  # a session that was just opening is in Dovecot's list by then
TRIES = 5
KICKED_AT_ONCE = 100  # users in one call, which has a deadline
MOST_CALLS = 2
LEFT = "sessions-*.json"  # in the run folder, one of each authd that ended
LEFT_BYTES = 1024 * MOST_SESSIONS
LOOK_FOR_LEFT_S = 1.0
UNKNOWN = -1  # a version before all others: looked at as soon as the directory is followed

Depends = tuple[Dependency, ...]


@dataclass(frozen=True, slots=True)
class _Session:
    """A login that was right: one for all sessions that a client opens in the same way."""

    login: str
    depends: Depends  # what can change that it is right
    credential_id: int
    fingerprint: str
    protocol: str
    ip: str


@dataclass(slots=True)
class _Group:
    """Sessions that depend on the same, and the directory's version at which all of them were right."""

    version: int
    sessions: set[_Session]


class Sessions:
    """Those that were opened, at most MOST_SESSIONS, the latest; `kick` ends all sessions of some users."""

    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        kick: Callable[[Collection[str]], Awaitable[None]],
        again_s: float = AGAIN_S,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._kick = kick
        self._again_s = again_s
        self._open: OrderedDict[_Session, None] = OrderedDict()
        self._groups: dict[Depends, _Group] = {}
        self._expires: dict[_Session, datetime] = {}
        self._first_expires: datetime | None = None  # or before that
        self._ending: set[_Session] = set()  # being kicked
        self._calls = asyncio.Semaphore(MOST_CALLS)  # each takes a process of Dovecot's
        self._late = False  # a login was decided on before the latest change, and came after the look at it

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, login: Login, fingerprint: str, *, protocol: str, ip: str, version: int) -> None:
        """Remember a login; `fingerprint` is that of the password which was right at `version` of the directory."""
        depends = (login.domain, login.tenant_id, EVERY_TENANT)
        session = _Session(login.name, depends, login.credential_id, fingerprint, protocol, ip)
        self._open[session] = None
        self._open.move_to_end(session)
        self._put(session, version)
        self._note_expiry(session, login.expires_at)
        self._late = self._late or version != self._directory.version
        if len(self._open) > MOST_SESSIONS:
            self._forget(next(iter(self._open)))

    def _put(self, session: _Session, version: int) -> None:
        group = self._groups.setdefault(session.depends, _Group(version, set()))
        group.version = min(group.version, version)
        group.sessions.add(session)

    def _note_expiry(self, session: _Session, at: datetime | None) -> None:
        if at is None:
            self._expires.pop(session, None)
            return
        self._expires[session] = at
        self._first_expires = min(at, self._first_expires or at)

    def _look_for_expired(self) -> None:
        """Have them looked at: nothing tells that a time has come."""
        now = self._clock.now()
        if self._first_expires is None or now < self._first_expires:
            return
        for session in [session for session, at in self._expires.items() if at <= now]:
            del self._expires[session]
            self._groups[session.depends].version = UNKNOWN
            self._late = True
        self._first_expires = min(self._expires.values(), default=None)

    def _forget(self, session: _Session) -> None:
        self._open.pop(session, None)
        self._expires.pop(session, None)
        group = self._groups.get(session.depends)
        if group is not None:
            group.sessions.discard(session)
            if not group.sessions:
                del self._groups[session.depends]

    async def follow(self) -> None:
        """End what must end, until cancelled. A lost database is asked again at each look."""
        seen = -1
        async with asyncio.TaskGroup() as kicking:
            while True:
                self._look_for_expired()
                version = self._directory.version
                if version != seen or self._late:
                    self._late = False
                    try:
                        ended = await self._ended(version)
                    except DirectoryUnavailable:
                        self._late = True
                    except Exception:
                        seen = version
                        log.fault("open sessions can't be looked at")  # they are again at the next change
                    else:
                        seen = version
                        for some in _by_users(ended):
                            kicking.create_task(self._end(some))
                await asyncio.sleep(LOOK_S)

    async def _ended(self, version: int) -> set[_Session]:
        """All sessions of the users of whom one must end, forgotten here. Raises DirectoryUnavailable."""
        changed = [
            (group, list(group.sessions))
            for depends, group in self._groups.items()
            if not self._directory.is_current(group.version, depends)
        ]
        logins: set[str] = set()
        for batch in _batches([session for _, sessions in changed for session in sessions]):
            known = await self._directory.readers({session.credential_id for session in batch})
            for session in batch:
                now = known.get(session.credential_id)
                if not self._may_go_on(session, now):
                    logins.add(session.login)
                elif now is not None and session in self._open:
                    self._note_expiry(session, now.expires_at)
        for group, looked_at in changed:
            if group.sessions <= set(looked_at):  # else one came meanwhile, and is looked at the next time
                group.version = version
        ended = {session for _, sessions in changed for session in sessions if session.login in logins}
        for session in ended:
            self._forget(session)
        return ended

    def _may_go_on(self, session: _Session, now: Login | None) -> bool:
        if now is None or now.fingerprint != session.fingerprint:
            return False
        return policy.login_refused(now, scope=session.protocol, ip=session.ip, now=self._clock.now()) is None

    async def _end(self, sessions: set[_Session]) -> None:
        """Kick now, and once more for a session that was just opening."""
        logins = {session.login for session in sessions}
        self._ending |= sessions
        kicked = 0
        for _ in range(TRIES):
            try:
                async with self._calls:
                    await self._kick(logins)
                kicked += 1
                if kicked == 1:
                    log.sessions_ended(logins, "may not log in any more")
            except KickFailed as error:
                log.warning("sessions of users who may not log in any more go on", users=len(logins), because=error)
            except Exception:
                log.fault("sessions of users who may not log in any more go on")
            if kicked == 2:
                break
            await asyncio.sleep(self._again_s)
        self._ending -= sessions  # not when this is cancelled: then the next authd ends them

    # From one authd to the next

    def leave(self, folder: Path) -> None:
        """Write down what is remembered, for the next authd of this node. Raises OSError."""
        left = [*self._open, *self._ending]
        if not left:
            return
        facts = [
            [each.login, each.depends, each.credential_id, each.fingerprint, each.protocol, each.ip] for each in left
        ]
        path = folder / LEFT.replace("*", str(time.time_ns()))
        part = path.with_suffix(".part")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(facts, file)
        part.rename(path)

    async def take_up(self, folder: Path) -> None:
        """Remember what others leave there, until cancelled."""
        while True:
            try:
                for session in await asyncio.to_thread(_left_in, folder):
                    self._take(session)
            except Exception:
                log.fault("the sessions that another authd left are not known")
            await asyncio.sleep(LOOK_FOR_LEFT_S)

    def _take(self, session: _Session) -> None:
        # Older than all here, so it makes none of these be forgotten.
        if session in self._open or len(self._open) >= MOST_SESSIONS:
            return
        self._open[session] = None
        self._open.move_to_end(session, last=False)
        self._put(session, UNKNOWN)
        self._late = True


def _left_in(folder: Path) -> list[_Session]:
    """What is in the files there, which are removed. Raises OSError, ValueError, TypeError."""
    left: list[_Session] = []
    for path in sorted(folder.glob(LEFT)):
        with path.open() as file:
            path.unlink()  # also one that can't be read: not again and again
            facts = json.loads(file.read(LEFT_BYTES))
        left += [_Session(login, tuple(depends), *others) for login, depends, *others in facts]
    return left


def _by_users(sessions: set[_Session]) -> Iterator[set[_Session]]:
    """All sessions of at most KICKED_AT_ONCE users together."""
    of_users: dict[str, list[_Session]] = {}
    for session in sessions:
        of_users.setdefault(session.login, []).append(session)
    each = list(of_users.values())
    for start in range(0, len(each), KICKED_AT_ONCE):
        yield {session for some in each[start : start + KICKED_AT_ONCE] for session in some}


def _batches(sessions: list[_Session]) -> Iterator[list[_Session]]:
    for start in range(0, len(sessions), AT_ONCE):
        yield sessions[start : start + AT_ONCE]
