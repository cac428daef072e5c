"""A checker of Thunderbird's autoconfig format 1.1, after its documentation.

(wiki.mozilla.org, Thunderbird:Autoconfiguration:ConfigFileFormat.) It knows the elements
that stand for servers and their values; extensions of single providers (OAuth2, web mail,
address books) are none of ours and count as faults.
"""

import re
import xml.etree.ElementTree as ET

SOCKETS = {"plain", "SSL", "STARTTLS"}
AUTHENTICATION = {
    "password-cleartext", "password-encrypted", "NTLM", "GSSAPI", "client-IP-address", "TLS-client-cert", "OAuth2",
    "none",
}
PLACEHOLDERS = {"EMAILADDRESS", "EMAILLOCALPART", "EMAILDOMAIN"}
TYPES = {"incomingServer": {"imap", "pop3"}, "outgoingServer": {"smtp"}}
# Each element of a server: how often it may stand.
SERVER = {"hostname": (1, 1), "port": (1, 1), "socketType": (1, 1), "authentication": (1, 8), "username": (1, 1)}
HOST = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9-]{1,63}\Z")


def violations(root: ET.Element) -> list[str]:
    """What is not as documented; nothing for a good document."""
    found = []
    if root.tag != "clientConfig" or root.get("version") != "1.1":
        found.append("no clientConfig of version 1.1")
    providers = root.findall("emailProvider")
    if len(providers) != 1 or len(root) != 1:
        return [*found, "not exactly one emailProvider"]
    [provider] = providers
    if not HOST.match(provider.get("id", "")):
        found.append("the provider's id is no domain")
    if not provider.findall("domain"):
        found.append("no domain")
    for element in provider:
        if element.tag in TYPES:
            found += _server(element)
        elif element.tag == "domain":
            found += [] if HOST.match(element.text or "") else [f"domain {element.text}"]
        elif element.tag not in ("displayName", "displayShortName"):
            found.append(f"unknown {element.tag}")
    found += [f"several {tag}" for tag in ("displayName", "displayShortName") if len(provider.findall(tag)) > 1]
    return found + [f"no {tag}" for tag in TYPES if not provider.findall(tag)]


def _server(server: ET.Element) -> list[str]:
    found = []
    if server.get("type") not in TYPES[server.tag]:
        found.append(f"{server.tag} of type {server.get('type')}")
    for tag, (least, most) in SERVER.items():
        if not least <= len(server.findall(tag)) <= most:
            found.append(f"{tag} {len(server.findall(tag))} times")
    for element in server:
        text = element.text or ""
        good = {
            "hostname": lambda text: HOST.match(text),
            "port": lambda text: text.isdigit() and 1 <= int(text) <= 65535,
            "socketType": lambda text: text in SOCKETS,
            "authentication": lambda text: text in AUTHENTICATION,
            "username": lambda text: text and set(re.findall(r"%([^%]*)%", text)) <= PLACEHOLDERS,
        }.get(element.tag)
        if good is None or not good(text):
            found.append(f"{element.tag} {text!r}")
    return found
