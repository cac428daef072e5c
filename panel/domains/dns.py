"""The DNS records that a domain's owner is advised to set, so that mail and mail clients find this server.

Decides what is advised; not whether it is there. MX: RFC 5321 §5.1. SPF: RFC 7208. SRV:
RFC 6186 (imaps, pop3s), RFC 8314 §5.1 (submissions), RFC 5804 §1.8 (sieve).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from panel.environment import Environment
from panel.rules.addresses import display_domain

TTL_S = 3600
_SRV = {
    # Service → its name in the DNS and its priority: the smaller, the rather it is taken.
    # TLS from the first byte before STARTTLS (RFC 8314 §3), IMAP before POP3 (RFC 6186 §3.4).
    "submissions": ("_submissions._tcp", 0),
    "submission": ("_submission._tcp", 10),
    "imaps": ("_imaps._tcp", 0),
    "pop3s": ("_pop3s._tcp", 10),
    "sieve": ("_sieve._tcp", 0),
}
_IN_THE_CLEAR = ("_imap._tcp", "_pop3._tcp")


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `name` is absolute, without its last dot; `value` is as a zone file has it."""

    name: str
    type: str
    value: str
    purpose: str


def dns_advice(domain: str, environment: Environment) -> tuple[Record, ...]:
    """The records for a domain (canonical A-labels), the most important first."""
    host = f"{environment.hostname}."
    return (
        Record(domain, "MX", f"10 {host}", "mail for the domain comes here"),
        Record(
            domain, "TXT", f'"v=spf1 a:{environment.hostname} ~all"',
            "this server may send for the domain; a domain has one such record: if there is one, add the a: to it",
        ),
        *_services(domain, environment),
        Record(f"autoconfig.{domain}", "CNAME", host, "Thunderbird and its kin find their settings"),
        Record(f"autodiscover.{domain}", "CNAME", host, "Outlook finds its settings"),
        Record(f"_autodiscover._tcp.{domain}", "SRV", f"0 1 443 {host}", "Outlook, under this server's certificate"),
    )


def _services(domain: str, environment: Environment) -> Iterable[Record]:
    for service, (name, priority) in _SRV.items():
        port = environment.public_port(service)
        if port:
            value, purpose = f"{priority} 1 {port} {environment.hostname}.", f"mail clients find {service}"
        else:
            value, purpose = "0 0 0 .", f"{service} isn't offered"
        yield Record(f"{name}.{domain}", "SRV", value, purpose)
    for name in _IN_THE_CLEAR:
        # A target of "." says that there is none, RFC 2782; STARTTLS on 143 and 110 isn't offered either.
        yield Record(f"{name}.{domain}", "SRV", "0 0 0 .", "there is none without TLS from the first byte")


def zone_text(domain: str, records: Iterable[Record]) -> str:
    """The records as a piece of a zone file, RFC 1035 §5: absolute names, each purpose a comment."""
    records = list(records)
    width = max((len(record.name) for record in records), default=0) + 1
    lines = [f"; Mail for {display_domain(domain)}"]
    for record in records:
        lines += [f"; {record.purpose}", f"{record.name + '.':{width}} {TTL_S} IN {record.type:5} {record.value}"]
    return "\n".join(lines) + "\n"
