"""What a person may read of a message: its text, its attachments, and whether its sender is clear.

Untrusted bytes in, plain text out: HTML becomes text (how it is shown with its formatting: letter_html).
A strict reader of our own, since CPython's `email` nests and backtracks as deep as a message says; every
loop here has a bound. RFC 2045, RFC 2046, RFC 2183, RFC 2231.
"""

import binascii
import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote_to_bytes

from panel.rules import charsets, headers
from panel.rules.addresses import Address
from panel.rules.headers import NOT_FOR_DISPLAY, BadHeader, Field

MAX_DEPTH = 8  # multiparts in one another
MAX_PARTS = 100
MAX_MARKERS = 10_000  # lines that look like a boundary, in all
MAX_PART_HEADER = 64 * 1024  # bytes
MAX_VALUE = 4000  # bytes of a Content-Type or Content-Disposition
MAX_TEXT = 200_000  # characters that are shown
MAX_NAME = 150  # characters of an attachment's name
MAX_SHOWN = 20  # parts
MAX_ENCODED = 4 * MAX_TEXT  # bytes that are decoded for them, in all
MAX_TAGS = 50_000  # of a part's HTML

_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,100}")
_PARAMETER = re.compile(r';[ \t]*([A-Za-z0-9*_-]{1,60})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*+)"|([^;"]*+))', re.DOTALL)
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))
NOT_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_ADDRESS = re.compile(r"[^\s<>\"'(),;:@]++@[^\s<>\"'(),;:@]++")
# More digits than any character's number has; Python reads no number of some thousands.
_LONG_NUMBER = re.compile(r"&#[0-9]{20,}+;?")
# What begins on a line of its own.
_BLOCKS = frozenset((
    "p", "div", "br", "tr", "li", "ul", "ol", "table", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "hr",
    "section", "article", "header", "footer",
))
UNSEEN = frozenset(("script", "style", "head", "title", "template", "noscript", "textarea", "svg", "math", "object"))


@dataclass(frozen=True, slots=True)
class Part:
    """A part that isn't made of others: where its content begins and ends in the message, still encoded."""

    type: str  # such as text/plain
    charset: str
    encoding: str
    name: str  # of the file, for display; may be empty
    is_shown: bool  # as the message's text
    begin: int
    end: int
    is_formatted: bool = False  # shown where the message is shown with its formatting; if neither, it is attached
    id: str = ""  # by which the HTML may name it. RFC 2392

    @property
    def is_attached(self) -> bool:
        return not (self.is_shown or self.is_formatted)


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it is shown. `is_whole`: no bound cut anything off."""

    fields: Sequence[Field]
    parts: Sequence[Part]
    is_whole: bool

    def first(self, name: bytes, limit: int = 300) -> str:
        return headers.first(self.fields, name, limit)


@dataclass(frozen=True, slots=True)
class Sender:
    """Who a message says that it is from. `address` is empty where that can't be told."""

    shown: str  # the whole field, for display
    address: str
    others: tuple[str, ...]  # addresses that its name shows, and that aren't it
    is_clear: bool  # one From with one reading


def read(message: bytes) -> Letter:
    """The message's header and its parts. Never raises."""
    reader = _Reader(message)
    begin, fields = reader.header(0, len(message))
    return Letter(fields, reader.parts(begin, len(message), fields, 0)[:MAX_PARTS], reader.is_whole)


def header(message: bytes) -> list[Field]:
    """The message's header alone, as far as it is among these bytes. Never raises."""
    return _Reader(message).header(0, len(message))[1]


def with_crlf(message: bytes) -> bytes:
    """The message with lines as they are sent; some programs store it with LF alone."""
    line = message.find(b"\n")
    return message if line < 0 or message[line - 1 : line] == b"\r" else message.replace(b"\n", b"\r\n")


class _Reader:
    def __init__(self, message: bytes) -> None:
        self.message = message
        self.is_whole = True
        self.markers = self.found = 0

    def header(self, begin: int, end: int) -> tuple[int, list[Field]]:
        """Where the content begins, and the fields before it."""
        if self.message.startswith(b"\r\n", begin):
            return begin + 2, []
        blank = self.message.find(b"\r\n\r\n", begin, end)
        behind = end if blank < 0 else blank + 4
        return behind, headers.legible(self.message[begin : min(behind, begin + MAX_PART_HEADER)])

    def parts(self, begin: int, end: int, fields: Sequence[Field], depth: int) -> list[Part]:
        if self.found >= MAX_PARTS:
            self.is_whole = False
            return []
        value = _value(fields, b"Content-Type")
        kind = value.partition(";")[0].strip().lower()
        kind = kind if _TYPE.fullmatch(kind) else "text/plain"
        parameters = _parameters(value)
        boundary = parameters.get("boundary", "").rstrip()
        if kind.startswith("multipart/") and boundary and depth < MAX_DEPTH:
            found = []
            for first, last in self._between(begin, end, boundary.encode("latin-1", "replace")):
                behind, inner = self.header(first, last)
                found += self.parts(behind, last, inner, depth + 1)
            if kind == "multipart/alternative" and {"text/plain", "text/html"} <= {
                each.type for each in found if each.is_shown
            }:
                found = [_as_alternative(each) if each.is_shown else each for each in found]
            return found
        self.found += 1
        disposition = _value(fields, b"Content-Disposition")
        name = _file_name(_parameters(disposition).get("filename") or parameters.get("name", ""))
        is_attached = disposition.partition(";")[0].strip().lower() == "attachment" or bool(name)
        encoding = _value(fields, b"Content-Transfer-Encoding").strip().lower()
        is_shown = kind in ("text/plain", "text/html") and not is_attached
        named = _value(fields, b"Content-ID").strip().removeprefix("<").removesuffix(">")
        return [Part(
            kind, parameters.get("charset", "").lower(), encoding, name, is_shown, begin, end, is_shown, named[:300]
        )]

    def _between(self, begin: int, end: int, boundary: bytes) -> list[tuple[int, int]]:
        """What stands between the boundary's lines. RFC 2046 §5.1.1."""
        marker = b"\r\n--" + boundary
        found: list[tuple[int, int]] = []
        opened = -1
        at = begin - 2  # the line's end before the content is one before the first boundary too
        while True:
            at = self.message.find(marker, at, end)
            self.markers += 1
            if at < 0 or self.markers > MAX_MARKERS or len(found) >= MAX_PARTS:
                self.is_whole = self.is_whole and at < 0
                break
            behind = at + len(marker)
            line = self.message.find(b"\r\n", behind, end)
            rest = self.message[behind : min(behind + 200, end if line < 0 else line)].rstrip(b" \t")
            if rest in (b"", b"--"):
                if opened >= 0:
                    found.append((opened, max(at, opened)))
                opened = -1
                if rest or line < 0:
                    return found
                opened = line + 2
                at = line  # the line's end may begin the next boundary
            else:
                at = behind
        if opened >= 0:
            # It was cut off, or its end is missing.
            found.append((opened, end))
        return found


def _as_alternative(part: Part) -> Part:
    """The plain one is the text, the HTML one the text with its formatting."""
    is_html = part.type == "text/html"
    return replace(part, is_shown=not is_html, is_formatted=is_html)


def content(message: bytes, part: Part, most: int | None = None) -> bytes:
    """The part's content as it was before it was encoded; of its first `most` encoded bytes."""
    end = part.end if most is None else min(part.end, part.begin + most)
    encoded = message[part.begin : end]
    if part.encoding == "base64":
        letters = encoded.translate(None, _NOT_BASE64)
        letters = letters[: len(letters) - (len(letters) % 4 == 1)]
        return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))
    return binascii.a2b_qp(encoded) if part.encoding == "quoted-printable" else encoded


def shown(message: bytes, letter: Letter) -> tuple[str, bool]:
    """The message's text, one part below the other, at most MAX_TEXT characters; and whether that is all of it."""
    said: list[str] = []
    left, encoded = MAX_TEXT, MAX_ENCODED
    parts = [part for part in letter.parts if part.is_shown]
    is_whole = len(parts) <= MAX_SHOWN
    for part in parts[:MAX_SHOWN]:
        text, is_all = _text(message, part, encoded)
        encoded -= min(encoded, part.end - part.begin)
        is_whole = is_whole and is_all and len(text) <= left
        said.append(text[:left])
        left -= len(said[-1])
    return "\n\n".join(filter(None, said)), is_whole


def decode(message: bytes, part: Part, most: int) -> str:
    """The characters of the part's first `most` encoded bytes; a charset that isn't mail's is taken for UTF-8."""
    return charsets.decode(content(message, part, most), part.charset).replace("\r\n", "\n")


def _text(message: bytes, part: Part, most: int) -> tuple[str, bool]:
    """The text of the part's first `most` encoded bytes, and whether that is all of it."""
    decoded = decode(message, part, most)
    is_all = part.end - part.begin <= most
    if part.type == "text/html":
        decoded, is_read = of_html(decoded)
        is_all = is_all and is_read
    return _spaced(NOT_TEXT.sub("\ufffd", decoded)), is_all


def _spaced(given: str) -> str:
    """With one blank line where there are several."""
    lines: list[str] = []
    for line in given.split("\n"):
        line = line.rstrip()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).rstrip()


def of_html(markup: str) -> tuple[str, bool]:
    """What would be read of it, with each link's target; and whether that is all of it.

    Each character is looked at a bounded number of times.
    """
    said: list[str] = []
    target = ""
    at = tags = 0
    while at < len(markup):
        begin = markup.find("<", at)
        if begin < 0:
            said.append(_words(markup[at:]))
            break
        said.append(_words(markup[at:begin]))
        if markup.startswith("<!--", begin):
            closed = markup.find("-->", begin)
            if closed < 0:
                break
            at = closed + 3
            continue
        closed = markup.find(">", begin)
        if closed < 0:
            break
        tags += 1
        if tags > MAX_TAGS:
            return "".join(said), False
        inside, at = markup[begin + 1 : min(closed, begin + 5000)], closed + 1
        is_end, name = inside.startswith("/"), _tag(inside)
        if name in UNSEEN and not is_end:
            closed = end_of(markup, name, at)
            if closed < 0:
                break
            at = closed
        elif name in _BLOCKS:
            said.append("\n• " if name == "li" and not is_end else "\n")
        elif name in ("td", "th") and is_end:
            said.append("\t")
        elif name == "a":
            if target:
                said.append(f" <{target}>")
            target = "" if is_end else _target(inside)
    return "".join(said), True


def _words(markup: str) -> str:
    return re.sub(r"[ \t\r\n\f]++", " ", characters(markup))


def characters(markup: str) -> str:
    """With each character reference as the character."""
    return html.unescape(_LONG_NUMBER.sub("\ufffd", markup))


def _tag(inside: str) -> str:
    found = re.match(r"/?([A-Za-z][A-Za-z0-9]{0,20})", inside)
    return found[1].lower() if found else ""


def end_of(markup: str, name: str, at: int) -> int:
    """Behind the end tag; -1 where there is none."""
    found = re.compile(f"</{name}", re.IGNORECASE).search(markup, at)
    return markup.find(">", found.end()) + 1 or -1 if found else -1


def _target(inside: str) -> str:
    found = re.search(r"\shref\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>]++))", inside[:5000], re.IGNORECASE)
    given = characters(next((each for each in found.groups() if each), "")) if found else ""
    target = "".join(given.split())[:500]
    return target if target.lower().startswith(("http://", "https://", "mailto:")) else ""


def sender(fields: Sequence[Field]) -> Sender:
    """From whom, as far as one may believe the header."""
    shown = headers.first(fields, b"From", 320)
    found = _mailboxes(fields, b"From")
    address = str(found[0]) if len(found) == 1 else ""
    own = {address.lower(), found[0].display.lower()} if address else set()
    # "＠" looks like "@".
    looks = unicodedata.normalize("NFKC", shown)
    others = dict.fromkeys(each for each in _ADDRESS.findall(looks) if each.lower() not in own) if address else ()
    return Sender(shown, address, tuple(others), bool(address))


def answers_to(fields: Sequence[Field], address: str) -> str:
    """Where it says that answers go, for display; empty where that is to this address and nowhere else."""
    found = _mailboxes(fields, b"Reply-To")
    if address and {str(each).lower() for each in found} == {address.lower()}:
        return ""
    return headers.first(fields, b"Reply-To", 300)


def _mailboxes(fields: Sequence[Field], name: bytes) -> tuple[Address, ...]:
    """The addresses of the one field of this name; none where there are several, or where it can't be read."""
    named = [field for field in fields if field.is_named(name)]
    try:
        return headers.mailboxes(headers.unfold(named[0].raw)) if len(named) == 1 else ()
    except BadHeader:
        return ()


def _value(fields: Sequence[Field], name: bytes) -> str:
    """The first such field's value, without comments' reading: what a mail program makes of it is looser."""
    for field in fields:
        if field.is_named(name):
            return headers.unfold(field.raw)[:MAX_VALUE].decode("latin-1")
    return ""


def _parameters(value: str) -> dict[str, str]:
    """By name in small letters; what RFC 2231 spread over several is put together."""
    plain: dict[str, str] = {}
    spread: dict[str, dict[int, tuple[bool, str]]] = {}
    for found in _PARAMETER.finditer(value):
        given = re.sub(r"\\(.)", r"\1", found[2]) if found[2] is not None else found[3].strip()
        name, star, number = found[1].lower().partition("*")
        if not star:
            plain.setdefault(name, given)
        else:
            order = number.rstrip("*")
            if order == "" or (order.isascii() and order.isdecimal() and len(order) < 3):
                spread.setdefault(name, {})[int(order or 0)] = (number.endswith("*") or number == "", given)
    for name, pieces in spread.items():
        charset, octets = "utf-8", b""
        for place, (is_encoded, given) in sorted(pieces.items()):
            if is_encoded and place == 0 and given.count("'") >= 2:
                charset, _language, given = given.split("'", 2)
            octets += unquote_to_bytes(given) if is_encoded else given.encode("latin-1", "replace")
        plain[name] = charsets.decode(octets, charset)
    return plain


def _file_name(given: str) -> str:
    """As it is shown and offered to keep: no path, nothing that turns its direction or hides its end."""
    try:
        given = given.encode("latin-1").decode("utf-8")  # as many programs write it, against RFC 2047
    except UnicodeError:
        pass
    name = NOT_FOR_DISPLAY.sub("", headers.decode_words(given))
    name = " ".join(re.split(r"[/\\]", name)[-1].split()).strip(". ")
    if len(name) > MAX_NAME:
        stem, dot, ending = name.rpartition(".")
        name = f"{stem[: MAX_NAME - len(ending) - 2]}….{ending}" if dot and len(ending) < 20 else name[:MAX_NAME]
    return name
