"""What an outcome means: delivered, tried again, failed, held; and who is told.

Times are rules/schedule's, a DSN's words dsn.py's, rows the spool's. A recipient that fails
for good and can't be returned to a sender who authenticated here (inbound mail that was
forwarded, a DSN itself) is held as undeliverable, never dropped. DESIGN §5, "Queue".
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from mailserver import dsn, log
from mailserver.clock import Clock
from mailserver.config import Config
from mailserver.envelope import (
    Attempt,
    Claimed,
    ClaimedMessage,
    Disposition,
    Hold,
    Incoming,
    Outcome,
    Settlement,
    StoredContent,
)
from panel.database.ids import IdMaker
from panel.rules import reply, schedule
from panel.rules.facts import Delivery, Resolution, Verdict

ANSWER = "answer"  # the direction of what a mailbox answers by itself


class Judge:
    """Of one worker's queue. Touches nothing: gives what is to be written."""

    def __init__(self, config: Config, ids: IdMaker, clock: Clock, chance: random.Random) -> None:
        self._config = config
        self._ids = ids
        self._clock = clock
        self._chance = chance

    def settled(
        self,
        message: ClaimedMessage,
        outcomes: Sequence[Outcome],
        tell: Callable[[dsn.Kind, Sequence[dsn.Told]], Incoming | None],
        *,
        returnable: bool,
        refused: bool = False,
    ) -> list[Settlement]:
        """A Settlement for each outcome, and the DSNs that go with them."""
        now = self._clock.now()
        recipients = {recipient.id: recipient for recipient in message.recipients}
        settlements: dict[int, Settlement] = {}
        reports: dict[dsn.Kind, list[dsn.Told]] = {}
        for outcome in outcomes:
            recipient = recipients[outcome.recipient_id]
            # An automatic answer that nobody takes is gone: it was for a stranger, and nobody misses it.
            may_fail = returnable or refused or message.direction == ANSWER
            outcome, settlement = self._judge(message, recipient, outcome, may_fail, now)
            settlements[recipient.id] = settlement
            kind = _kind(recipient, outcome, now) if returnable else None
            if kind:
                until = recipient.expires_at if kind is dsn.Kind.DELAY else None
                reports.setdefault(kind, []).append(dsn.Told(recipient, outcome, not outcome.host, until))
        for kind, told in reports.items():
            try:
                report = tell(kind, told)
            except Exception:
                # The outcomes stand, whatever is wrong with the report: they must be settled.
                log.fault("a DSN can't be made", message=message.id)
                report = None
            if report is None:
                if kind is dsn.Kind.FAILURE:
                    for each in told:
                        settlements[each.recipient.id] = replace(
                            settlements[each.recipient.id], state="waiting", due_at=now, holds=int(Hold.UNDELIVERABLE)
                        )
                continue
            log.bounced(message.id, kind=kind.value.lower(), as_=report.id, recipients=len(told))
            for number, each in enumerate(told):
                settlement = settlements[each.recipient.id]
                settlements[each.recipient.id] = replace(
                    settlement, dsn=report if not number else None,
                    delay_reported=settlement.delay_reported or kind is dsn.Kind.DELAY,
                )
        return list(settlements.values())

    def _judge(
        self, message: ClaimedMessage, recipient: Claimed, outcome: Outcome, may_fail: bool, now: datetime
    ) -> tuple[Outcome, Settlement]:
        """What one outcome means for its recipient; the outcome again, for time can make it a failure."""
        tries = recipient.tries + 1
        due: datetime | None = None
        facts = {"recipient": recipient.original, "host": outcome.host, "reply": outcome.reply, "tls": outcome.tls}
        if outcome.disposition is Disposition.DEFERRED:
            due = schedule.next_try(now, tries, recipient.expires_at, self._chance.random())
            if due is None:
                expired = reply.EXPIRED.about(days=f"{self._config.queue_days:g}", last=str(outcome.reply))
                outcome = replace(outcome, disposition=Disposition.FAILED, reply=expired)
        settlement = Settlement(
            recipient_id=recipient.id, message_id=message.id, tenant_id=recipient.tenant_id,
            recipient_tenant_id=recipient.recipient_tenant_id, state="delivered", due_at=None, tries=tries, holds=0,
            delay_reported=recipient.delay_reported, reply=str(outcome.reply),
            attempt=Attempt(self._ids.next(), now, outcome),
        )
        if outcome.disposition is Disposition.DELIVERED:
            log.delivered(message.id, **facts)
            return outcome, settlement
        if due is not None:
            log.deferred(message.id, **facts, due=due)
            return outcome, replace(settlement, state="waiting", due_at=due)
        if may_fail:
            log.failed(message.id, **facts)
            return outcome, replace(settlement, state="failed")
        log.held(message.id, **facts, because="undeliverable")
        return outcome, replace(settlement, state="waiting", due_at=now, holds=int(Hold.UNDELIVERABLE))

    def told(
        self,
        message: ClaimedMessage,
        sender: Resolution | None,
        content: StoredContent | None,
        header: bytes,
        kind: dsn.Kind,
        told: Sequence[dsn.Told],
    ) -> Incoming | None:
        if sender is None:
            return None
        whole = None
        if content and content.body.data is not None:
            whole = content.prefix + content.body.data
        deliveries = sender.deliveries if sender.verdict is Verdict.HERE else (Delivery(sender.asked, None),)
        return dsn.incoming(
            kind, message, told,
            number=self._ids.next(), hostname=self._config.hostname, at=self._clock.now(), sender=sender.asked,
            deliveries=deliveries, tenant_id=sender.tenant_id, header=header, whole=whole,
            languages=languages_for(sender, self._config.language),
        )


def languages_for(sender: Resolution, installation: str) -> tuple[str, ...]:
    """In which languages a sender is told: its mailbox's, else the installation's; outside, English as well.

    Of an alias, that of the mailboxes behind it if they agree.
    """
    if sender.verdict is Verdict.ELSEWHERE:
        return tuple(dict.fromkeys((installation, "en")))
    first = sender.steps[0].mailbox if sender.steps else None
    mailboxes = [first] if first else [each.mailbox for each in sender.deliveries if each.mailbox]
    chosen = {mailbox.language or installation for mailbox in mailboxes}
    return (chosen.pop() if len(chosen) == 1 else installation,)


def waits(
    message: ClaimedMessage, recipient: Claimed, because: str, due_at: datetime, hold: Hold | None = None
) -> Settlement:
    """Not tried now: its tries stay as they were."""
    return Settlement(
        recipient_id=recipient.id, message_id=message.id, tenant_id=recipient.tenant_id,
        recipient_tenant_id=recipient.recipient_tenant_id, state="waiting", due_at=due_at, tries=recipient.tries,
        holds=int(hold or 0), delay_reported=recipient.delay_reported, reply=because, attempt=None,
    )


def _kind(recipient: Claimed, outcome: Outcome, now: datetime) -> dsn.Kind | None:
    """What the sender is to be told of an outcome now, if anything."""
    if outcome.disposition is Disposition.FAILED:
        kind = dsn.Kind.FAILURE
    elif outcome.disposition is Disposition.DELIVERED:
        if outcome.dsn_passed_on:  # RFC 3461 §5.2.3: its success is the next server's to report
            return None
        kind = dsn.Kind.SUCCESS
    elif schedule.delay_warning_due(recipient.accepted_at, now) and not recipient.delay_reported:
        kind = dsn.Kind.DELAY
    else:
        return None
    return kind if dsn.is_wanted(kind, recipient.notify) else None
