"""Carries a message to the mail store by LMTP: one Outcome for each recipient (RFC 2033).

For domains that are stored by Dovecot: a reply for each accepted recipient, over
connections that are used again. The store is named in the settings, so no DNS, no TLS,
and a private address is meant (contract 7). Knows neither queue nor session.

How it keeps contract 1: intake commits such recipients as waiting, leased by its own
worker's runner, before anything is said to the store or to the client, and the runner
delivers them at once. So 250 is always durable, the store being away costs nothing but
time, and a crash can at most repeat the delivery that was under way. A session with mail
from elsewhere waits a little for that first try: if the store refuses every recipient for
good (5xx), the session says so and the queue keeps nothing. 4xx and an unreachable store
stay in the queue. What was submitted here isn't waited for: its sender gets a DSN, and its
charge stands. Delivered first and committed then, a failed commit would repeat what the
store had taken already. DESIGN §5.

Dovecot 2.3 offers no SMTPUTF8: headers outside ASCII go to it as 8-bit, and a reverse-path
as it is, which it takes; only a recipient outside ASCII it doesn't understand.
"""

import time
from dataclasses import replace
from pathlib import Path

from mailserver import log
from mailserver.config import Config
from mailserver.envelope import Body, Claimed, ClaimedMessage, Outcome
from mailserver.transports.dialogue import IDLE_S, Carrier, Delivery
from mailserver.transports.wire import Deadlines, Lost, Wire, open_lmtp
from panel.environment import Listen
from panel.rules import reply
from panel.rules.addresses import Address, BadAddress, parse_address
from panel.rules.reply import Reply

WARN_EVERY_S = 60.0
STORE = "the mail store"  # what replies call it: tenants read them


class LmtpTransport(Carrier):
    """Delivers to the store that the settings name. One a worker."""

    def __init__(self, config: Config, *, deadlines: Deadlines | None = None, idle_s: float = IDLE_S) -> None:
        super().__init__(deadlines, idle_s)
        self._config = config
        self._quiet_until_s = 0.0

    async def deliver(self, message: ClaimedMessage, prefix: bytes, body: Body, *, within_s: float) -> list[Outcome]:
        """One Outcome a recipient, in `within_s` seconds; each `resolved` is a mailbox's own address.

        Raises OSError when the body's file can't be read, and CancelledError.
        """
        asked = [with_subaddress(each.original, each.resolved, self._config.separator) for each in message.recipients]
        told = replace(
            message,
            recipients=tuple(
                replace(each, resolved=name) for each, name in zip(message.recipients, asked, strict=True)
            ),
        )
        delivery = await Delivery.of(told, prefix, body)
        where = self._config.store.lmtp
        if where is None:
            # A domain says lmtp, and the setting that names the store was taken away.
            delivery.decide_rest(reply.NO_STORE)
            return list(delivery.outcomes.values())
        outcomes = await self.bounded(delivery, self._carry(delivery, where), within_s, STORE)
        # Without a host: it is ours, and who is told of it reads "delivered", not "relayed" (RFC 3464 §2.3.3).
        return [
            replace(
                outcome, reply=_unresolved(outcome.reply, recipient, name), host="", address="", dsn_passed_on=False
            )
            for outcome, recipient, name in zip(outcomes, message.recipients, asked, strict=True)
        ]

    async def _carry(self, delivery: Delivery, where: Listen | Path) -> None:
        await self.over_kept(delivery, where, _refuse_unsuitable)
        if not delivery.pending:
            return
        wire = None
        try:
            wire = await open_lmtp(
                where, host=STORE, hostname=self._config.hostname, deadlines=self._deadlines
            )
            await self.over(wire, delivery, where, _refuse_unsuitable)
        except Lost as lost:
            if isinstance(lost.__cause__, OSError):
                self._warn(where, lost.__cause__)
            delivery.decide_rest(lost.reply, wire)

    def _warn(self, where: Listen | Path, error: OSError) -> None:
        """Tell the operator, and no tenant, why the store can't be reached: now and then, not for each message."""
        now_s = time.monotonic()
        if now_s >= self._quiet_until_s:
            self._quiet_until_s = now_s + WARN_EVERY_S
            log.warning("the mail store can't be reached", at=where, because=str(error) or "it doesn't answer")


def _refuse_unsuitable(wire: Wire, delivery: Delivery) -> None:
    if "smtputf8" in wire.extensions:
        return
    for recipient in list(delivery.pending.values()):
        if not recipient.resolved.isascii():
            delivery.decide(recipient.id, reply.NO_SMTPUTF8_THERE.about(host=STORE), wire)


def with_subaddress(original: str, mailbox: str, separator: str) -> str:
    """The mailbox's address with the subaddress that mail for it was sent to, so that Sieve sees it (RFC 5233).

    Only its own: what followed an alias's name is nothing to the mailbox. The mailbox's very
    address where the store couldn't take the other one.
    """
    try:
        asked, own = parse_address(original), parse_address(mailbox)
    except BadAddress:
        return mailbox
    plain = asked.without_subaddress(separator)
    if plain == asked or plain.canonical.local_part != own.canonical.local_part:
        return mailbox
    detailed = str(Address(own.local_part + asked.local_part[len(plain.local_part):], own.domain))
    return detailed if detailed.isascii() and not detailed.startswith('"') else mailbox


def _unresolved(answer: Reply, recipient: Claimed, name: str) -> Reply:
    """The reply with the address that was asked for: who wrote to an alias isn't told where it leads (DESIGN §4).

    `name` is what the store was asked about; it may answer with the mailbox's own.
    """
    text = answer.text.replace(name, recipient.original)
    if name != recipient.resolved:
        text = text.replace(recipient.resolved, recipient.original)
    return replace(answer, text=text)
