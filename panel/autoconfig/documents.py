"""The settings as each mail client wants them, and the policy that mail servers ask. Pure: servers in, bytes out.

Thunderbird: "Autoconfig file format", version 1.1 (wiki.mozilla.org). Outlook: MS-OXDSCLI
and its Outlook schema 2006a. Apple: "Configuration Profile Reference", the mail payload.
"""

import plistlib
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from panel.autoconfig.servers import Server
from panel.rules.addresses import Address, display_domain

AUTODISCOVER = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"
POLICY_S = 7 * 24 * 3600  # how long others keep a policy; RFC 8461 §3.2 wants weeks
OUTLOOK = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"


def thunderbird(domain: str, servers: Sequence[Server]) -> bytes:
    """config-v1.1.xml. The client itself puts the address where the placeholder stands."""
    root = ET.Element("clientConfig", {"version": "1.1"})
    provider = ET.SubElement(root, "emailProvider", {"id": domain})
    _add(provider, domain=domain, displayName=display_domain(domain), displayShortName=display_domain(domain))
    for server in servers:
        kind = "outgoingServer" if server.protocol == "smtp" else "incomingServer"
        # password-cleartext: PLAIN or LOGIN, inside TLS.
        _add(
            ET.SubElement(provider, kind, {"type": server.protocol}),
            hostname=server.host, port=str(server.port), socketType="STARTTLS" if server.starttls else "SSL",
            authentication="password-cleartext", username="%EMAILADDRESS%",
        )
    return _written(root)


def outlook(address: Address, servers: Sequence[Server]) -> bytes:
    """The answer of Autodiscover: one server a protocol, since Outlook takes only the first."""
    root = ET.Element("Autodiscover", {"xmlns": AUTODISCOVER})
    response = ET.SubElement(root, "Response", {"xmlns": OUTLOOK})
    _add(ET.SubElement(response, "User"), DisplayName=str(address))
    account = ET.SubElement(response, "Account")
    _add(account, AccountType="email", Action="settings")
    for server in _first_of_each(servers):
        protocol = ET.SubElement(account, "Protocol")
        _add(
            protocol, Type=server.protocol.upper(), Server=server.host, Port=str(server.port), DomainRequired="off",
            LoginName=str(address), SPA="off", SSL="on", Encryption="TLS" if server.starttls else "SSL",
            AuthRequired="on",
        )
        if server.protocol == "smtp":
            _add(protocol, UsePOPAuth="on", SMTPLast="off")
    return _written(root)


def outlook_error(code: int, text: str, *, time: str) -> bytes:
    """Autodiscover's own way of saying no (MS-OXDSCLI §2.2.4.1.1.3). `time`: the server's, HH:MM:SS."""
    root = ET.Element("Autodiscover", {"xmlns": AUTODISCOVER})
    response = ET.SubElement(root, "Response")
    error = ET.SubElement(response, "Error", {"Time": time, "Id": "0"})
    _add(error, ErrorCode=str(code), Message=text, DebugData="")
    return _written(root)


def apple(address: Address, servers: Sequence[Server]) -> bytes | None:
    """An unsigned profile without a password, which the device asks for. None: there is no IMAP or no way out."""
    found = {server.protocol: server for server in _first_of_each(servers)}
    if not found.keys() >= {"imap", "smtp"}:
        return None
    incoming, outgoing = found["imap"], found["smtp"]
    # The same address gives the same profile: installing it again replaces it.
    number = uuid.uuid5(uuid.NAMESPACE_URL, f"mailto:{address}@{incoming.host}")
    identifier = ".".join(reversed(incoming.host.split("."))) + f".mail.{number}"
    mail = {
        "PayloadType": "com.apple.mail.managed",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{identifier}.account",
        "PayloadUUID": str(uuid.uuid5(number, "account")).upper(),
        "PayloadDisplayName": str(address),
        "EmailAccountDescription": address.display,
        "EmailAccountType": "EmailTypeIMAP",
        "EmailAddress": str(address),
        "IncomingMailServerAuthentication": "EmailAuthPassword",
        "IncomingMailServerHostName": incoming.host,
        "IncomingMailServerPortNumber": incoming.port,
        "IncomingMailServerUseSSL": True,
        "IncomingMailServerUsername": str(address),
        "OutgoingMailServerAuthentication": "EmailAuthPassword",
        "OutgoingMailServerHostName": outgoing.host,
        "OutgoingMailServerPortNumber": outgoing.port,
        "OutgoingMailServerUseSSL": True,
        "OutgoingMailServerUsername": str(address),
        "OutgoingPasswordSameAsIncomingPassword": True,
        "SMIMEEnabled": False,
    }
    return plistlib.dumps({
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": identifier,
        "PayloadUUID": str(number).upper(),
        "PayloadDisplayName": f"Mail of {address.display}",
        "PayloadDescription": f"Sets up {address.display} in Mail. The device asks for the password.",
        "PayloadOrganization": display_domain(address.domain),
        "PayloadContent": [mail],
    })


def _first_of_each(servers: Sequence[Server]) -> list[Server]:
    found: dict[str, Server] = {}
    for server in servers:
        found.setdefault(server.protocol, server)
    return list(found.values())


def _add(parent: ET.Element, **texts: str) -> None:
    for tag, text in texts.items():
        ET.SubElement(parent, tag).text = text


def _written(root: ET.Element) -> bytes:
    ET.indent(root)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="utf-8", xml_declaration=False)


def mta_sts(mx: Iterable[str]) -> str:
    """The policy, RFC 8461 §3.2: others deliver to these hosts over verified TLS, or wait."""
    lines = ("version: STSv1", "mode: enforce", *(f"mx: {name}" for name in mx), f"max_age: {POLICY_S}")
    return "".join(f"{line}\r\n" for line in lines)
