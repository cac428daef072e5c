"""Mail addresses: the one place that parses, normalises and writes them.

Decides what is an address, on the wire (`parse_path`, `scan`) and in forms (`parse_address`), and under which
form two of them are the same; not whether anybody has it. RFC 5321 §4.1.2 (paths), RFC 6531 §3.3 (UTF-8),
RFC 5890 (A-labels), RFC 5233 (subaddresses), RFC 3461 §4 (xtext).
"""

import ipaddress
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import idna

MAX_ADDRESS = 254  # octets: a path of 256 without its brackets, RFC 5321 §4.5.3.1.3
MAX_DOMAIN = 253  # octets: 255 in DNS, RFC 1035 §2.3.4
MAX_LOCAL_PART = 64  # octets, RFC 5321 §4.5.3.1.1; asked of addresses made here, see `parse_path`

ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"  # RFC 5322 §3.2.3, for a character class
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# The last label begins with a letter here; the few others take the long way.
_COMMON_PATH = re.compile(
    rf" *<([{ATEXT}]+(?:\.[{ATEXT}]+)*)@"
    rf"((?:{_LABEL}\.)*[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?)>(?= |\Z)".encode()
).match
_DOT_STRING = re.compile(rf"[{ATEXT}\x80-\U0010ffff]++(?>(?:\.[{ATEXT}\x80-\U0010ffff]++)*)")
_QUOTED_STRING = re.compile(r'"((?>(?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~])*))"')
_DOMAIN_TEXT = re.compile(r'\[[^\[\]\s<>]*+\]|[^\s<>()@,;:"\[\]\\]++')
_ROUTE = re.compile(r'@[^\s<>()@,;:"\[\]\\]++(?>(?:,@[^\s<>()@,;:"\[\]\\]++)*):')
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)*({_LABEL})")
# A last label that a resolver may take for an IPv4 address, as in 127.1 or 0x7f000001.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*+)(?:=([!-<>-~\x80-\U0010ffff]++))?")  # RFC 5321 §4.1.2
_XTEXT = re.compile(r"(?>(?:[!-*,-<>-~]|\+[0-9A-F]{2})*)")  # RFC 3461 §4

# Controls, white space outside ASCII, the invisible, what turns text round, noncharacters, surrogates.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u180e"
    "\u2000-\u200b\u200e\u200f\u2028-\u202f\u205f-\u2064\u2066-\u206f\u3000\u3164"
    "\ud800-\udfff\ufdd0-\ufdef\ufeff\uffa0\ufff9-\uffff\U000e0000-\U000e007f"
    + "".join(f"{chr(plane + 0xfffe)}{chr(plane + 0xffff)}" for plane in range(0x10000, 0x110000, 0x10000))
    + "]"
)

NOT_AN_ADDRESS = "This is not a mail address; write it as name@example.com."
NOT_A_PATH = "The address is not understood; write <local@domain>."


class BadAddress(ValueError):
    """What should be an address, domain or parameter is none; the text is a sentence for a person.

    `text` with `{placeholders}`: `said` translates it, then fills in the facts. As str in English.
    """

    def __init__(self, text: str, **facts: object) -> None:
        super().__init__(text.format(**facts) if facts else text)
        self.text, self.facts = text, facts

    def said(self, translate: Callable[[str], str]) -> str:
        return translate(self.text).format(**self.facts) if self.facts else translate(self.text)


class NeedsSmtputf8(BadAddress):
    """An address that is good but outside ASCII, where only ASCII is taken."""

    def __init__(self) -> None:
        super().__init__("An address outside ASCII needs SMTPUTF8.")


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A mail address. `local_part` is unquoted; `domain` is A-labels in lower case, or a literal in brackets.

    The domain is empty only for the bare `<postmaster>` (RFC 5321 §4.5.1).
    """

    local_part: str
    domain: str

    @property
    def canonical(self) -> "Address":
        """The form under which it is stored and compared: local part in NFC, case folded."""
        local_part = _fold(self.local_part)
        return self if local_part == self.local_part else Address(local_part, self.domain)

    def without_subaddress(self, separator: str) -> "Address":
        """user@ for user+tag@; itself when there is no separator, or nothing before it."""
        at = self.local_part.find(separator) if separator else -1
        return Address(self.local_part[:at], self.domain) if at > 0 else self

    @property
    def is_ascii(self) -> bool:
        """Whether a server without SMTPUTF8 can be told of it."""
        return self.local_part.isascii()

    @property
    def display(self) -> str:
        """For a person's eyes: the domain in its own script."""
        return self._written(display_domain(self.domain))

    def __str__(self) -> str:
        return self._written(self.domain)

    def _written(self, domain: str) -> str:
        local_part = self.local_part
        if not _DOT_STRING.fullmatch(local_part):
            local_part = '"' + local_part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local_part}@{domain}" if domain else local_part


def _fold(local_part: str) -> str:
    if local_part.isascii():
        return local_part.lower()
    # Decomposed first: the canonical caseless match of Unicode §3.13, D145.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", local_part).casefold())


def parse_address(text: str, *, smtputf8: bool = True) -> Address:
    """The address that a person or program wrote in a form, on the command line or in JSON.

    White space around it is dropped; a domain in its own script becomes A-labels (UTS 46 mapping, as in browsers).
    Raises BadAddress; NeedsSmtputf8 for a local part outside ASCII when `smtputf8` is false.
    """
    text = text.strip()
    if not text:
        raise BadAddress("Write an address, such as name@example.com.")
    if len(text) > 2 * MAX_ADDRESS:
        raise BadAddress("The address is longer than {most} bytes.", most=MAX_ADDRESS)
    if _FORBIDDEN.search(text):
        raise BadAddress("The address holds a control character, an odd space or an invisible character.")
    if "@" not in text:
        raise BadAddress("The address has no @; write it as name@example.com.")
    local_part, at = _read_local_part(text, 0, NOT_AN_ADDRESS)
    if not text.startswith("@", at):
        raise BadAddress(NOT_AN_ADDRESS)
    address = _bounded(Address(local_part, _domain(text[at + 1 :], mapped=True)))
    if max(_octets(local_part), _octets(_fold(local_part))) > MAX_LOCAL_PART:
        raise BadAddress("The part before the @ is longer than {most} bytes.", most=MAX_LOCAL_PART)
    if not smtputf8 and not address.is_ascii:
        raise NeedsSmtputf8
    return address


def canonical_domain(text: str, *, single_label: bool = False) -> str:
    """A domain's name in A-labels, lower case, without a dot at its end. Raises BadAddress.

    At least two labels (a domain hosted here), unless `single_label`; never an address literal.
    """
    name = text.strip()
    if not name:
        raise BadAddress("Write a domain, such as example.com.")
    if _FORBIDDEN.search(name):
        raise BadAddress("The domain holds a control character, an odd space or an invisible character.")
    if "@" in name:
        raise BadAddress("Write the domain alone, without an @.")
    if name.startswith("["):
        raise BadAddress("Write a domain's name, not an IP address.")
    name = _domain(name.removesuffix("."), mapped=True)
    if "." not in name and not single_label:
        raise BadAddress("The domain has only one part; write it as example.com.")
    for label in name.split("."):
        if label.startswith("xn--") and _in_own_script(label) == label:
            raise BadAddress("{label} is not an international domain name.", label=label)
    return name


def display_domain(a_label: str) -> str:
    """The domain in its own script; a label that is no valid A-label stays as it is."""
    if "xn--" not in a_label:
        return a_label
    labels = a_label.split(".")
    return ".".join(_in_own_script(label) if label.startswith("xn--") else label for label in labels)


def _in_own_script(label: str) -> str:
    try:
        text = idna.ulabel(label)
        return text if idna.alabel(text) == label.encode("ascii") else label
    except UnicodeError:  # idna.IDNAError is one
        return label


def parse_path(
    raw: bytes, *, smtputf8: bool, null_allowed: bool = False, postmaster_allowed: bool = False
) -> tuple[Address | None, bytes]:
    """The path at the start of `raw`, which follows `FROM:` or `TO:`, and the bytes behind it: its parameters.

    The address is None for `<>`, and Address("postmaster", "") for `<postmaster>`. A source route is accepted
    and ignored (RFC 5321 §3.6.1). The rest is empty or begins with a space. Raises BadAddress, and
    NeedsSmtputf8 for a path that `smtputf8` would make good: SMTPUTF8 is itself a parameter of MAIL, so ask
    again with it on and see whether the parameters have it.

    A local part may be longer than 64 octets, as variable reverse-paths of mailing lists often are, if the
    whole is within 254: RFC 5321 §4.5.3.1 asks servers not to refuse what they can handle.
    """
    common = _COMMON_PATH(raw)
    if common and common.end() - common.start(1) - 1 <= MAX_ADDRESS:
        local_part, domain = common.groups()
        return Address(local_part.decode("ascii"), domain.decode("ascii").lower()), raw[common.end() :]
    return _parse_any_path(raw, smtputf8, null_allowed, postmaster_allowed)


def _parse_any_path(
    raw: bytes, smtputf8: bool, null_allowed: bool, postmaster_allowed: bool
) -> tuple[Address | None, bytes]:
    try:
        text = raw.lstrip(b" ").decode()
    except UnicodeDecodeError:
        raise BadAddress("The command holds bytes that are neither ASCII nor UTF-8.") from None
    if not text.startswith("<"):
        raise BadAddress("The address does not stand in angle brackets; write <local@domain>.")
    address: Address | None
    if text.startswith("<>"):
        if not null_allowed:
            raise BadAddress("The empty path <> is possible only as a sender.")
        address, end = None, 1
    elif postmaster_allowed and text[:12].lower() == "<postmaster>":
        address, end = Address("postmaster", ""), 11
    else:
        address, end = scan(text, _after_route(text))
    if not text.startswith(">", end):
        raise BadAddress(NOT_A_PATH)
    path, rest = text[: end + 1], text[end + 1 :]
    if _octets(path) > MAX_ADDRESS + 2:
        raise BadAddress("The address is longer than {most} bytes.", most=MAX_ADDRESS)
    if rest and not rest.startswith(" "):
        raise BadAddress("A space is missing behind the address.")
    if not smtputf8 and not path.isascii():
        raise NeedsSmtputf8
    return address, rest.encode()


def _after_route(text: str) -> int:
    """Where the mailbox begins behind "<" and its source route `@a,@b:`, if it has one."""
    route = _ROUTE.match(text, 1)
    if not route:
        return 1
    if route.end() > MAX_ADDRESS:
        raise BadAddress("The source route is too long.")
    for domain in route[0][1:-1].split(",@"):
        _domain(domain, mapped=False)
    return route.end()


def scan(text: str, at: int) -> tuple[Address, int]:
    """The address that begins at `at`, by the wire's rules, and the index behind it. Raises BadAddress."""
    local_part, at = _read_local_part(text, at, NOT_A_PATH)
    domain = _DOMAIN_TEXT.match(text, at + 1) if text.startswith("@", at) else None
    if not domain:
        raise BadAddress(NOT_A_PATH)
    if _FORBIDDEN.search(local_part):
        raise BadAddress("The address holds a control character, an odd space or an invisible character.")
    return _bounded(Address(local_part, _domain(domain[0], mapped=False))), domain.end()


def _read_local_part(text: str, at: int, otherwise: str) -> tuple[str, int]:
    quoted = _QUOTED_STRING.match(text, at)
    if quoted:
        if not quoted[1]:
            # The grammar allows it; here an empty local part is a domain's catch-all.
            raise BadAddress("There is nothing before the @.")
        return re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
    plain = _DOT_STRING.match(text, at)
    if not plain:
        raise BadAddress("There is nothing before the @." if text.startswith("@", at) else otherwise)
    return plain[0], plain.end()


def _domain(text: str, *, mapped: bool) -> str:
    """A-labels in lower case, or a literal. `mapped`: by UTS 46, as a person's writing needs.

    On the wire nothing but case is mapped: a receiver might map otherwise, and read another domain.
    """
    if text.startswith("["):
        return _literal(text)
    if not text:
        raise BadAddress("There is no domain behind the @.")
    if len(text) > MAX_DOMAIN:
        raise BadAddress("The domain is longer than {most} bytes.", most=MAX_DOMAIN)
    if not text.isascii():
        try:
            unmapped = text if mapped else unicodedata.normalize("NFC", text.lower())
            text = idna.encode(unmapped, strict=not mapped, uts46=mapped, std3_rules=True).decode("ascii")
        except UnicodeError:  # idna.IDNAError is one
            raise BadAddress("The domain is not an international domain name.") from None
    text = text.lower()
    ldh = _DOMAIN.fullmatch(text)
    if not ldh:
        raise BadAddress("The domain is not a domain name; write it as example.com.")
    if len(text) > MAX_DOMAIN:
        raise BadAddress("The domain is longer than {most} bytes.", most=MAX_DOMAIN)
    if _NUMBER.fullmatch(ldh[1]):
        raise BadAddress("The domain ends in a number; write an IP address in brackets, such as [192.0.2.1].")
    return text


def _literal(text: str) -> str:
    """An address literal in one spelling, RFC 5321 §4.1.3: `[192.0.2.1]` or `[IPv6:2001:db8::1]`."""
    inner = text[1:-1]
    try:
        if text.endswith("]") and len(inner) <= 50 and inner.isascii() and "%" not in inner:
            if inner[:5].lower() == "ipv6:":
                return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
            return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        pass
    raise BadAddress("The address literal is not understood; write [192.0.2.1] or [IPv6:2001:db8::1].")


def _bounded(address: Address) -> Address:
    # In this order: normalising a long run of combining marks takes quadratic time.
    if _octets(str(address)) > MAX_ADDRESS or _octets(str(address.canonical)) > MAX_ADDRESS:
        raise BadAddress("The address is longer than {most} bytes.", most=MAX_ADDRESS)
    return address


def _octets(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def parse_parameters(raw: bytes, *, smtputf8: bool = False) -> dict[str, str]:
    """The parameters behind a path: keyword in upper case → value as it came, empty when it has none.

    RFC 5321 §4.1.2; a value may hold UTF-8 only with `smtputf8` (RFC 6531 §3.3). Raises BadAddress for a
    keyword or value that the grammar doesn't know, and for one that is given twice.
    """
    if not raw:
        return {}
    try:
        text = raw.decode("utf-8" if smtputf8 else "ascii")
    except UnicodeDecodeError:
        raise BadAddress("A parameter holds bytes outside ASCII.") from None
    found: dict[str, str] = {}
    for word in filter(None, text.split(" ")):
        parameter = _PARAMETER.fullmatch(word)
        if not parameter or _FORBIDDEN.search(word):
            raise BadAddress("A parameter is not understood; write KEYWORD or KEYWORD=value.")
        keyword = parameter[1].upper()
        if keyword in found:
            raise BadAddress("The parameter {keyword} is given twice.", keyword=keyword[:40])
        found[keyword] = parameter[2] or ""
    return found


def decode_xtext(text: str) -> str:
    """What ENVID and ORCPT say, RFC 3461 §4. Raises BadAddress, also when a control character is inside."""
    if not _XTEXT.fullmatch(text):
        raise BadAddress("A value is not xtext (RFC 3461).")
    octets = re.sub(rb"\+(..)", lambda pair: bytes.fromhex(pair[1].decode("ascii")), text.encode("ascii"))
    try:
        decoded = octets.decode()
    except UnicodeDecodeError:
        raise BadAddress("A value in xtext is not UTF-8 inside.") from None
    if _FORBIDDEN.search(decoded):
        raise BadAddress("A value in xtext holds a control character or an invisible one.")
    return decoded


def encode_xtext(text: str) -> str:
    """`text` as ENVID and ORCPT carry it; its UTF-8 where it is not ASCII. Raises BadAddress for controls."""
    if _FORBIDDEN.search(text):
        raise BadAddress("A value holds a control character or an invisible one.")
    return "".join(
        chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}"
        for octet in text.encode()
    )
