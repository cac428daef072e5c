"""Sends the letter that warns of a filling mailbox.

Decides neither when (usage.py, panel/rules/quota) nor what it says (panel/operations/notices/room).
"""

import asyncio

from mailserver import spool
from mailserver.clock import Clock
from mailserver.directory import Crossing


class Warnings:
    """One node's, in authd."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def send(self, crossing: Crossing) -> bool:
        """Put the letter into the queue; False: not now."""
        # Not on the directory's threads: the spool keeps a connection of its own to a thread.
        return await asyncio.to_thread(self._queue, crossing)

    def _queue(self, crossing: Crossing) -> bool:
        try:
            spool.tell_of_room(crossing.mailbox_id, crossing.used_bytes, crossing.quota_bytes, self._clock.now())
        except spool.SpoolUnavailable:
            return False
        finally:
            spool.close_connection()
        return True
