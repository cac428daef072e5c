"""The DNS records that a domain's owner is to set, so that mail and mail clients find this installation.

Decides what they should be; whether they are is decided in verdicts.py, and a record that is to keep
what is there (SPF) is completed there. MX: RFC 5321 §5.1. SPF: RFC 7208. DMARC: RFC 9989. TLS-RPT:
RFC 8460. SRV: RFC 6186 (imaps, pop3s), RFC 8314 §5.1 (submissions), RFC 5804 §1.8 (sieve).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from panel.rules.addresses import display_domain

TTL_S = 3600
PROOF_NAME = "_posthouse"
PROOF_BEGIN = "posthouse-proof="
_SRV = {
    # Service → its name in the DNS and its priority: the smaller, the rather it is taken.
    # TLS from the first byte before STARTTLS (RFC 8314 §3), IMAP before POP3 (RFC 6186 §3.4).
    "submissions": ("_submissions._tcp", 0),
    "submission": ("_submission._tcp", 10),
    "imaps": ("_imaps._tcp", 0),
    "pop3s": ("_pop3s._tcp", 10),
    "sieve": ("_sieve._tcp", 0),
}
# STARTTLS on 143 and 110 isn't offered.
_IN_THE_CLEAR = {"imap": "_imap._tcp", "pop3": "_pop3._tcp"}
NOT_OFFERED = "0 0 0 ."  # a target of "." says that there is none, RFC 2782


@dataclass(frozen=True, slots=True)
class Installation:
    """What the records say of this installation. Names are A-labels without their last dot."""

    host: str  # mail clients, autoconfig
    mx: tuple[str, ...]  # where mail comes in, the preferred first
    spf: tuple[str, ...]  # the mechanisms that pass what it sends, such as a:mx1.example.com
    ports: tuple[tuple[str, int | None], ...] = ()  # by service of _SRV; None: it isn't offered
    takes_reports: bool = False  # whether postmaster@ of a hosted domain reaches somebody
    # Records appear as soon as there is something to tell: a selector and the name that its CNAME leads to …
    dkim: tuple[tuple[str, str], ...] = ()
    # … and the host that serves the policies of MTA-STS, for which DOMAIN's policy is asked.
    mta_sts: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One record set. `name` and names in `values` are without their last dot.

    `values` are what one types at a DNS provider: a TXT's text without quotes, an MX as
    "10 mx1.example.com". `key` stays the same over releases: mx, spf, dkim-SELECTOR, dmarc, mta-sts,
    mta-sts-policy, tls-rpt, autoconfig, autodiscover, srv-SERVICE, proof.
    """

    key: str
    label: str
    name: str
    type: str
    values: tuple[str, ...]
    is_required: bool
    purpose: str

    @property
    def zone_lines(self) -> tuple[str, ...]:
        """As lines of a zone file, RFC 1035 §5."""
        return tuple(f"{self.name}. {TTL_S} IN {self.type} {in_zone(self.type, value)}" for value in self.values)


def expected(
    domain: str, installation: Installation, *, token: str = "", proof_required: bool = False
) -> tuple[Record, ...]:
    """The records for a domain (canonical A-labels): the required ones first, the most important first.

    Without a token there is none to prove the ownership by.
    """
    host = installation.host
    proof = (proof_record(domain, token, is_required=proof_required),) if token else ()
    mx = tuple(f"{10 * at} {name}" for at, name in enumerate(installation.mx, 1))
    return (
        *(proof if proof_required else ()),
        Record("mx", "MX", domain, "MX", mx, True, "mail for the domain comes here"),
        Record(
            "spf", "SPF", domain, "TXT", (" ".join(("v=spf1", *installation.spf, "~all")),), True,
            "this server may send for the domain; a domain has one such record",
        ),
        *(
            Record(f"dkim-{selector}", "DKIM", f"{selector}._domainkey.{domain}", "CNAME", (target,), True,
                   "what the domain sends is signed, by keys that we renew")
            for selector, target in installation.dkim
        ),
        Record(
            "dmarc", "DMARC", f"_dmarc.{domain}", "TXT", ("v=DMARC1; p=none",), True,
            "large receivers ask for it; a stricter one is as good",
        ),
        *(() if proof_required else proof),
        Record("autoconfig", "Autoconfig", f"autoconfig.{domain}", "CNAME", (host,), False,
               "Thunderbird and its kin find their settings"),
        Record("autodiscover", "Autodiscover", f"autodiscover.{domain}", "CNAME", (host,), False,
               "Outlook finds its settings"),
        Record("srv-autodiscover", "Autodiscover", f"_autodiscover._tcp.{domain}", "SRV", (f"0 1 443 {host}",), False,
               "Outlook, under this server's certificate"),
        *_mta_sts(domain, installation),
        *((Record("tls-rpt", "TLS-RPT", f"_smtp._tls.{domain}", "TXT",
                  (f"v=TLSRPTv1; rua=mailto:postmaster@{domain}",), False, "others report failed TLS"),)
          if installation.takes_reports else ()),
        *_services(domain, installation),
    )


def proof_record(domain: str, token: str, *, is_required: bool = True) -> Record:
    """The record by which its owner proves a domain. It stands below the domain, so that it is in no other's way."""
    return Record(
        "proof", "Proof", f"{PROOF_NAME}.{domain}", "TXT", (f"{PROOF_BEGIN}{token}",), is_required,
        "proves that the domain is yours; keep it",
    )


def _mta_sts(domain: str, installation: Installation) -> Iterable[Record]:
    """Both by CNAME: what they say changes with our policy, not with the domain. RFC 8461 §3.1, §8.2."""
    if installation.mta_sts:
        purpose = "others deliver to the domain over verified TLS only"
        yield Record("mta-sts", "MTA-STS", f"_mta-sts.{domain}", "CNAME", (f"_mta-sts.{installation.mta_sts}",),
                     False, purpose)
        yield Record("mta-sts-policy", "MTA-STS", f"mta-sts.{domain}", "CNAME", (installation.mta_sts,), False,
                     f"{purpose}: where they read so")


def _services(domain: str, installation: Installation) -> Iterable[Record]:
    for service, port in installation.ports:
        name, priority = _SRV[service]
        value, purpose = (
            (f"{priority} 1 {port} {installation.host}", f"mail clients find {service}") if port
            else (NOT_OFFERED, f"{service} isn't offered")
        )
        yield Record(f"srv-{service}", service, f"{name}.{domain}", "SRV", (value,), False, purpose)
    for service, name in _IN_THE_CLEAR.items():
        yield Record(f"srv-{service}", service, f"{name}.{domain}", "SRV", (NOT_OFFERED,), False,
                     "there is none without TLS from the first byte")


def with_values(record: Record, *values: str) -> Record:
    return replace(record, values=values)


# As text


def zone_text(domain: str, records: Iterable[Record]) -> str:
    """The records as a piece of a zone file, RFC 1035 §5: absolute names, each purpose a comment."""
    lines = [f"; Mail for {display_domain(domain)}"]
    for record in records:
        lines += [f"; {record.purpose}", *record.zone_lines]
    return "\n".join(lines) + "\n"


def in_zone(kind: str, value: str) -> str:
    """A value as a zone file has it: names absolute, a TXT in quoted pieces of at most 255 octets."""
    if kind == "TXT":
        return " ".join(_quoted(piece) for piece in txt_pieces(value))
    if kind in ("MX", "SRV", "CNAME"):
        return value if value.endswith(".") else f"{value}."
    return value


def txt_pieces(text: str) -> Sequence[bytes]:
    """The character-strings of a TXT record, RFC 1035 §3.3: at most 255 octets each. At least one."""
    raw = text.encode()
    return [raw[at : at + 255] for at in range(0, len(raw), 255)] or [b""]


def _quoted(piece: bytes) -> str:
    return '"' + "".join(
        f"\\{chr(octet)}" if octet in b'"\\' else chr(octet) if 32 <= octet < 127 else f"\\{octet:03}"
        for octet in piece
    ) + '"'
