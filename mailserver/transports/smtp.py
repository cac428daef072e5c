"""Carries a message to its next hop by SMTP: one Outcome for each recipient.

Decides which servers are tried, in which order, and what they can't take; the dialogue
itself and what its answers mean is dialogue's. Knows neither queue nor schedule. RFC
5321 §5, RFC 1870 (SIZE), RFC 6531 (SMTPUTF8).

8-bit bodies go out as they are to a server without 8BITMIME. RFC 6152 §3 asks for
conversion or a bounce; conversion would break signatures, and servers that really
can't take 8-bit are no longer met: mail clients send it undeclared as well.
"""

import functools
from dataclasses import dataclass

from mailserver.config import Config
from mailserver.envelope import Body, ClaimedMessage, Outcome
from mailserver.resolver import Host, NoWay, Resolver
from mailserver.transports.dialogue import IDLE_S, Carrier, Delivery
from mailserver.transports.wire import Deadlines, Lost, TlsContexts, Wire, open_wire
from panel.rules import reply
from panel.rules.facts import Route
from panel.rules.reply import Reply


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a message goes: the key of the pool, too."""

    hop: str
    route: Route | None
    port: int
    tls: str


@functools.cache
def _system_contexts() -> TlsContexts:
    """One pair for the process, which nobody changes."""
    return TlsContexts.default()


class SmtpTransport(Carrier):
    """Delivers to other mail servers, over connections that are used again. One a worker."""

    def __init__(
        self,
        config: Config,
        resolver: Resolver,
        *,
        contexts: TlsContexts | None = None,
        deadlines: Deadlines | None = None,
        idle_s: float = IDLE_S,
    ) -> None:
        super().__init__(deadlines, idle_s)
        self._config = config
        self._resolver = resolver
        self._contexts = contexts or _system_contexts()

    async def deliver(
        self, message: ClaimedMessage, prefix: bytes, body: Body, *, hop: str, route: Route | None, within_s: float
    ) -> list[Outcome]:
        """One Outcome a recipient, in `within_s` seconds. `hop` is a domain; a route leads there in place of its MX.

        Raises OSError when the body's file can't be read, and CancelledError.
        """
        port, tls = (route.port, route.tls) if route else (self._config.outward_port, "opportunistic")
        way = _Way(hop, route, port, tls)
        delivery = await Delivery.of(message, prefix, body)
        return await self.bounded(delivery, self._carry(delivery, way), within_s, route.host if route else hop)

    async def _carry(self, delivery: Delivery, way: _Way) -> None:
        """Over a kept connection, else over each address in turn, until all recipients are decided."""
        await self.over_kept(delivery, way, self._refuse_unsuitable)
        if not delivery.pending:
            return
        try:
            hosts = await self._hosts(way)
        except NoWay as no_way:
            delivery.decide_rest(no_way.reply)
            return
        last: tuple[Reply, Wire | None] = (reply.UNREACHABLE.about(host=way.hop), None)
        for host in hosts:
            for address in host.addresses:
                wire = None
                try:
                    wire = await open_wire(
                        host.name, address, way.port, hostname=self._config.hostname, tls=way.tls,
                        contexts=self._contexts, deadlines=self._deadlines,
                    )
                    await self.over(wire, delivery, way, self._refuse_unsuitable)
                except Lost as lost:
                    last = lost.reply, wire
                if not delivery.pending:
                    return
        delivery.decide_rest(*last)

    async def _hosts(self, way: _Way) -> list[Host]:
        if way.route:
            return [await self._resolver.route_host(way.route.host)]
        return await self._resolver.hops(way.hop)

    def _refuse_unsuitable(self, wire: Wire, delivery: Delivery) -> None:
        """What this server can't take, known before MAIL: a size, or addresses outside ASCII."""
        limit = wire.number("size")
        if limit and delivery.size > limit:
            delivery.decide_rest(reply.TOO_LARGE.about(limit=limit), wire)  # RFC 1870 §6.1
        if "smtputf8" in wire.extensions:
            return
        bound = not delivery.headers_ascii or not delivery.message.reverse_path.isascii()
        for recipient in list(delivery.pending.values()):
            if bound or not recipient.resolved.isascii():
                # RFC 6531 §3.2: never mangled into ASCII.
                delivery.decide(recipient.id, reply.NO_SMTPUTF8_THERE.about(host=wire.host), wire)
