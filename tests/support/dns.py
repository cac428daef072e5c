"""A DNS server for tests: zones from text, over UDP, in a thread so that other processes can ask it too."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.name
import dns.node
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zone

from panel.environment import Listen

HEAD = "$TTL 0\n@ IN SOA ns hostmaster 1 3600 600 86400 0\n@ IN NS ns\n"  # TTL 0: a changed zone counts at once


class DnsServer:
    """Answers from `zones`; a name in `failing` gets SERVFAIL, one in `silent` no answer at all."""

    def __init__(self) -> None:
        self.zones: dict[dns.name.Name, dns.zone.Zone] = {}
        self.failing: set[dns.name.Name] = set()
        self.silent: set[dns.name.Name] = set()
        self.asked: Counter[tuple[str, str]] = Counter()  # (name, kind of record)
        self.listen = Listen("127.0.0.1", 0)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="dns", daemon=True)

    def zone(self, origin: str, text: str) -> None:
        """Serve a zone: its records as in a zone file; SOA and NS are added."""
        name = dns.name.from_text(origin)
        self.zones[name] = dns.zone.from_text(HEAD + text, origin=name)

    def fail(self, name: str) -> None:
        self.failing.add(dns.name.from_text(name))

    def be_silent(self, name: str) -> None:
        self.silent.add(dns.name.from_text(name))

    def recover(self) -> None:
        self.failing.clear()
        self.silent.clear()

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the DNS server didn't start")

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _serve(self) -> None:
        transport, _ = self._loop.run_until_complete(
            self._loop.create_datagram_endpoint(lambda: _Answerer(self), local_addr=("127.0.0.1", 0))
        )
        self.listen = Listen("127.0.0.1", transport.get_extra_info("sockname")[1])
        self._ready.set()
        self._loop.run_forever()
        transport.close()
        self._loop.run_until_complete(asyncio.sleep(0))  # let the transport close

    def answer(self, query: dns.message.Message) -> dns.message.Message | None:
        response = dns.message.make_response(query)
        question = query.question[0]
        self.asked[question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)] += 1
        if question.name in self.silent:
            return None
        if question.name in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        response.flags |= dns.flags.RA | dns.flags.AA
        self._fill(response, question.name, question.rdtype)
        return response

    def _fill(self, response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> None:
        for _ in range(8):  # a chain of CNAMEs
            zone = next((zone for origin, zone in self.zones.items() if name.is_subdomain(origin)), None)
            if zone is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                return
            relative = name.relativize(zone.origin)
            node = zone.get_node(relative)
            if node is None:
                if not any(other.is_subdomain(relative) for other in zone.nodes):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                response.authority.append(_absolute(zone, zone.origin, dns.rdatatype.SOA))
                return
            if node.get_rdataset(dns.rdataclass.IN, kind):
                response.answer.append(_absolute(zone, name, kind))
                return
            if not node.get_rdataset(dns.rdataclass.IN, dns.rdatatype.CNAME):
                response.authority.append(_absolute(zone, zone.origin, dns.rdatatype.SOA))
                return
            alias = _absolute(zone, name, dns.rdatatype.CNAME)
            response.answer.append(alias)
            name = alias[0].target


def _absolute(zone: dns.zone.Zone, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset:
    found = zone.get_rdataset(name.relativize(zone.origin), kind)
    records = [record.replace(**_targets(record, zone.origin)) for record in found]
    return dns.rrset.from_rdata_list(name, found.ttl, records)


def _targets(record, origin: dns.name.Name) -> dict[str, dns.name.Name]:
    fields = ("target", "exchange", "mname", "rname")
    return {field: getattr(record, field).derelativize(origin) for field in fields if hasattr(record, field)}


class _Answerer(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, sender) -> None:
        response = self._server.answer(dns.message.from_wire(data))
        if response is not None:
            self._transport.sendto(response.to_wire(), sender)


@contextmanager
def dns_server(**zones: str) -> Iterator[DnsServer]:
    """A running server. Zones by keyword: an underscore stands for the dot (`far_test="…"`)."""
    server = DnsServer()
    for name, text in zones.items():
        server.zone(name.replace("_", "."), text)
    server.start()
    try:
        yield server
    finally:
        server.stop()
