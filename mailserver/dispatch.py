"""What becomes of one claimed message: may it go, where to, how did it go, who is told.

Where and how it is carried is the carrier's, what an outcome means the judge's. DESIGN §5, "Queue".
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from mailserver import log, spool
from mailserver.carrier import Carrier, address_in, aimed, outcomes_alike, without_marks
from mailserver.clock import Clock
from mailserver.content import ContentStore, header_block
from mailserver.directory import Directory
from mailserver.envelope import Claimed, ClaimedMessage, Disposition, Hold, Settlement, StoredContent
from mailserver.judge import ANSWER, Judge, waits
from mailserver.lanes import OURS
from panel.rules import reply
from panel.rules.facts import Resolution, Verdict
from panel.rules.reply import Reply

LOST_LEASES = 3  # a recipient that so many crashed workers had in hand is not touched again
WAITS_SUSPENDED = "waits: its sender is suspended"
WAITS_POISON = "held: its delivery crashed again and again"

T = TypeVar("T")


class Dispatcher:
    """Of one worker's queue; everything runs on its event loop."""

    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        content: ContentStore,
        executor: Executor,
        carrier: Carrier,
        judge: Judge,
        tell_session: Callable[[ClaimedMessage, Reply | None], bool],
    ) -> None:
        """`tell_session` takes a first try's refusal, if it was one; whether a session waited to hear of it."""
        self._directory = directory
        self._clock = clock
        self._content = content
        self._executor = executor
        self._carrier = carrier
        self._judge = judge
        self._tell_session = tell_session

    async def settlements(self, message: ClaimedMessage, until: datetime) -> list[Settlement]:
        """What becomes of each recipient, by `until`.

        Raises DirectoryUnavailable and SpoolUnavailable: then nothing was sent yet, and what
        was put into a mailbox is known there by its staged file.
        """
        settlements, going, over = await self._holds(message)
        if over:
            settlements += await self._bounce(replace(message, recipients=tuple(over)))
        if not going:
            return settlements
        sender = await self._returns_to(message)
        content = await self._call(partial(spool.read_content, message.id, folder=self._content.folder))
        places = {recipient.id: await self._carrier.where(recipient) for recipient in going}
        # With the addresses that they have there now: what is told of an outcome depends on them.
        message = replace(message, recipients=tuple(aimed(recipient, places[recipient.id]) for recipient in going))
        outcomes = await self._carrier.outcomes(message, places, content, until)
        refused = not settlements and all(outcome.disposition is Disposition.FAILED for outcome in outcomes)
        # A session that still waits refuses the message itself: then nothing of it is left to be returned or held.
        told = self._tell_session(message, outcomes[0].reply if refused else None) and refused
        tell = partial(self._judge.told, message, sender, *await self._returned(content))
        return settlements + self._judge.settled(
            message, outcomes, tell, returnable=sender is not None, refused=told
        )

    async def _holds(self, message: ClaimedMessage) -> tuple[list[Settlement], list[Claimed], list[Claimed]]:
        """Those that may not go, settled as held; those that may; those that never will."""
        held: list[Settlement] = []
        going: list[Claimed] = []
        over: list[Claimed] = []
        now = self._clock.now()
        for recipient in message.recipients:
            if recipient.lost_leases >= LOST_LEASES:
                log.held(message.id, recipient=recipient.original, because="poison")
                held.append(waits(message, recipient, WAITS_POISON, now, Hold.POISON))
            elif await self._may_go(message, recipient):
                going.append(recipient)
            elif await self._directory.is_over(
                recipient.tenant_id, address_in(message.reverse_path), message.credential_id
            ):
                over.append(recipient)
            else:
                log.held(message.id, recipient=recipient.original, because="suspended")
                held.append(waits(message, recipient, WAITS_SUSPENDED, now, Hold.SUSPENDED))
        return held, going, over

    async def _bounce(self, message: ClaimedMessage) -> list[Settlement]:
        """Fail what a closed sender left when its grace period is over; told to who still receives there, if anybody.

        Never held as undeliverable: with the sender nobody is left to whom it could matter.
        """
        sender = await self._returns_to(message)
        content = await self._call(partial(spool.read_content, message.id, folder=self._content.folder))
        outcomes = outcomes_alike(message.recipients, Disposition.FAILED, reply.SENDER_REMOVED)
        tell = partial(self._judge.told, message, sender, *await self._returned(content))
        return self._judge.settled(message, outcomes, tell, returnable=sender is not None, refused=True)

    async def _returned(self, content: StoredContent | None) -> tuple[StoredContent | None, bytes]:
        """What a DSN may show of a message, and its header block: not that somebody here forwards."""
        content = without_marks(content)
        return content, await self._call(partial(header_block, content)) if content else b""

    async def _may_go(self, message: ClaimedMessage, recipient: Claimed) -> bool:
        """Whether its tenant and sender may send. What comes in for a mailbox here always may: it is received."""
        if message.direction == "submission":
            sender = address_in(message.reverse_path) if message.reverse_path else None
            return await self._directory.may_go(recipient.tenant_id, sender, message.credential_id)
        if message.direction in ("inbound", ANSWER) and recipient.next_hop not in OURS:
            return await self._directory.may_go(recipient.tenant_id, None)
        return True

    async def _returns_to(self, message: ClaimedMessage) -> Resolution | None:
        """Where a DSN would go; None: nowhere. Only to who authenticated here, never for the null path."""
        if message.direction != "submission" or not message.reverse_path:
            return None
        sender = address_in(message.reverse_path)
        found = await self._directory.resolve(sender) if sender else None
        return found if found and found.verdict in (Verdict.HERE, Verdict.ELSEWHERE) else None

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
