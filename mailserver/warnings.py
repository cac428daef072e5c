"""Sends the mail that warns of a filling mailbox: into the queue, as a message of this server's own.

Decides neither when (usage.py, panel/rules/quota) nor what it says (quota_warning.py).
"""

import asyncio
from datetime import timedelta

from mailserver import log, quota_warning, spool
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.directory import Crossing, Directory
from mailserver.envelope import Accepted, Incoming
from panel.database.ids import IdMaker
from panel.rules import reply
from panel.rules.addresses import Address, BadAddress, parse_address
from panel.rules.facts import Verdict


class Warnings:
    """One node's, in authd."""

    def __init__(self, config: Config, directory: Directory, ids: IdMaker, clock: Clock) -> None:
        self._config = config
        self._directory = directory
        self._ids = ids
        self._clock = clock

    async def send(self, crossing: Crossing) -> bool:
        """Put the warning into the queue; False: not now. Raises DirectoryUnavailable."""
        resolution = await self._directory.resolve(crossing.address)
        if resolution.verdict is not Verdict.HERE or not crossing.address.local_part:
            return True  # closed meanwhile, or a catch-all: it has no address to write to
        message = quota_warning.incoming(
            resolution, crossing.used_bytes, crossing.quota_bytes, number=self._ids.next(),
            hostname=self._config.hostname, postmaster=self._postmaster(), at=self._clock.now(),
        )
        # Not on the directory's threads: the spool keeps a connection of its own to a thread.
        return await asyncio.to_thread(self._queue, message)

    def _postmaster(self) -> Address | None:
        try:
            return parse_address(self._config.postmaster).canonical if self._config.postmaster else None
        except BadAddress:
            return None

    def _queue(self, message: Incoming) -> bool:
        try:
            entry = spool.Entry(
                message, spool.recipients_of(message, self._ids.next, staged=False), keep_content=True
            )
            (answer,) = spool.accept(
                [entry], now=self._clock.now(), life=timedelta(days=self._config.queue_days)
            )
        finally:
            spool.close_connection()
        if isinstance(answer, Accepted):
            log.accepted(message.id, direction="internal", recipients=len(entry.recipients), subject=message.subject)
            return True
        # What the database won't hold it never will: told once, by the log.
        return answer.reply != reply.UNAVAILABLE
