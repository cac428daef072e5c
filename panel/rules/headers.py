"""The header block: its fields, and who the authors are.

Decides what is a header, and which addresses it claims as its authors; not whether they are granted
(policy). A strict parser of our own: another that reads a different author than we checked would let one
tenant write as another (CERT VU#244112), and CPython's `email` returns the first of two From fields. So
what has two readings is refused, even where RFC 5322's obsolete grammar (§4) has a place for it. RFC 5322
§2.2 and §3.4, RFC 6532 (UTF-8), RFC 6854 (groups in From), RFC 2047 (encoded words).
"""

import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

from panel.rules import addresses, charsets
from panel.rules.addresses import Address, BadAddress

MAX_BLOCK = 1024 * 1024  # bytes
MAX_FIELDS = 2000  # an object each; long mailing-list traffic has some 200
MAX_ADDRESS_LIST = 16 * 1024  # bytes of one From, Sender or Resent field
MAX_AUTHOR_FIELDS = 64 * 1024  # bytes of all of them together: what can hold up the session's loop
MAX_AUTHORS = 100  # of one message; each is checked by policy
MAX_COMMENT_DEPTH = 5
MAX_FROM_TEXT = 320  # characters, Message.header_from

_FIELD = re.compile(rb"([!-9;-~]++):[^\r\n\0]*+\r\n(?>(?:[ \t][^\r\n\0]*+\r\n)*)").match
_NAME = re.compile(rb"[!-9;-~]+").fullmatch
_BLANK_FOLD = re.compile(rb"\r\n[ \t]*\r\n")
# What no address list holds: controls but TAB, and separators of lines and paragraphs.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
# In an encoded name: a reader may end the line there (Mailsploit). 0x80 to 0x9F are quotes and dashes
# of Windows programs that call their charset iso-8859-1.
_ENDS_A_NAME = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_SPACE = re.compile(r"[ \t]*+")
_COMMENT_PART = re.compile(r'[^()<>@"\\]++|[()]')
_ATOMS = re.compile(rf"[{addresses.ATEXT}.\x80-\U0010ffff]++")
_QUOTED = re.compile(r'"((?>(?:[^"\\]|\\.)*))"')
_ADDRESS_AHEAD = re.compile(rf'(?:{_ATOMS.pattern}|{_QUOTED.pattern})@')

_ENCODED_WORD = re.compile(r"=\?([A-Za-z0-9_.:-]{1,40})(?:\*[A-Za-z0-9-]{0,40})?\?([bBqQ])\?([!->@-~]*+)\?=")
_BETWEEN_WORDS = re.compile(r"(\?=)[ \t]+(?==\?)")
# What would let a value for display break out of its line or turn its direction.
NOT_FOR_DISPLAY = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


class BadHeader(ValueError):
    """A header that has no one reading. The text goes on after "because"; `field`: where, if known."""

    def __init__(self, because: str, field: str = "") -> None:
        super().__init__(because)
        self.field = field


@dataclass(frozen=True, slots=True)
class Field:
    """One header field. `raw` is all of it: name, folded lines, CRLF at the end."""

    name: bytes  # as it was written
    raw: bytes

    def is_named(self, name: bytes) -> bool:
        return self.name.lower() == name.lower()


@dataclass(frozen=True, slots=True)
class Authors:
    """Who a message says that it is from.

    `addresses` are all of From, Sender, and every Resent-From and Resent-Sender, in the header's order,
    repeated as they are. `from_text` is From's, for display, `from_addresses` From's alone. Exactly one
    From field is for policy to ask.
    """

    from_count: int
    addresses: tuple[Address, ...]
    from_text: str
    from_addresses: tuple[Address, ...] = ()


def header_end(body: bytes) -> int:
    """The index of the first byte behind the blank line; all of `body` when it has none."""
    if body.startswith(b"\r\n"):
        return 2
    at = body.find(b"\r\n\r\n")
    return len(body) if at < 0 else at + 4


def split(block: bytes) -> list[Field]:
    """The fields of a header block, with or without its blank line; none of an empty one. Raises BadHeader."""
    if len(block) > MAX_BLOCK:
        raise BadHeader(f"it is larger than {MAX_BLOCK} bytes")
    end = len(block)
    if block == b"\r\n" or block.endswith(b"\r\n\r\n"):
        end -= 2
    found: list[Field] = []
    at = 0
    while at < end:
        field = _FIELD(block, at, end)
        if not field:
            raise BadHeader(_why_no_field(block, at))
        if len(found) == MAX_FIELDS:
            raise BadHeader(f"it has more than {MAX_FIELDS} fields")
        found.append(Field(field[1], field[0]))
        at = field.end()
    return found


def legible(block: bytes) -> list[Field]:
    """The fields of a header block in which lines may be none: those are left out. At most MAX_FIELDS. Never raises.

    For mail from elsewhere, where what one bad line hides would be worse than what it says.
    """
    found: list[Field] = []
    at = 0
    block = block[:MAX_BLOCK]
    while at < len(block) and len(found) < MAX_FIELDS:
        field = _FIELD(block, at)
        if field:
            found.append(Field(field[1], field[0]))
            at = field.end()
        else:
            line = block.find(b"\r\n", at)
            at = len(block) if line < 0 else line + 2
    return found


def _why_no_field(block: bytes, at: int) -> str:
    """What is wrong with the line at `at`, at which _FIELD or its folded lines ended."""
    line, crlf, _ = block[at:].partition(b"\r\n")
    name, colon, _ = line.partition(b":")
    if not line and crlf:
        return "a blank line stands inside it"
    if b"\0" in line:
        return "it holds a NUL byte"
    if not line.startswith((b" ", b"\t")):
        if not colon:
            return "a line has no colon"
        if not name:
            return "a field has no name"
        if name.endswith((b" ", b"\t")):
            return "there is a space before a colon"
        if not _NAME(name):
            return "a field's name holds what is no letter, digit or sign"
    elif not at:
        return "its first line is a continuation"
    return "a line does not end with CR LF"


def unfold(raw: bytes) -> bytes:
    """A field's value on one line, without its name and the white space around it. RFC 5322 §2.2.3."""
    return raw.partition(b":")[2].replace(b"\r\n", b"").strip(b" \t")


def authors(fields: Iterable[Field]) -> Authors:
    """Everybody whom the message names as its author or sender. Raises BadHeader with the field's name.

    Every such field must be understood. A From without an address (RFC 6854 allows an empty group) names no
    author and is refused; none or several From fields are only counted.
    """
    from_count = 0
    size = 0
    found: list[Address] = []
    from_found: list[Address] = []
    for field in fields:
        name = field.name.lower()
        if name not in (b"from", b"sender", b"resent-from", b"resent-sender"):
            continue
        label = name.decode("ascii").title()
        size += len(field.raw)
        if size > MAX_AUTHOR_FIELDS:
            raise BadHeader(f"the fields with authors are longer than {MAX_AUTHOR_FIELDS} bytes", label)
        if _BLANK_FOLD.search(field.raw):
            raise BadHeader("a line of it is blank", label)
        try:
            named = mailboxes(unfold(field.raw))
        except BadHeader as error:
            raise BadHeader(str(error), label) from None
        if not named:
            raise BadHeader("there is no address in it", label)
        if name == b"from":
            from_count += 1
            from_found += named
        found += named
        if len(found) > MAX_AUTHORS:
            raise BadHeader(f"there are more than {MAX_AUTHORS} addresses", label)
    from_text = _clamp(", ".join(map(str, from_found)), MAX_FROM_TEXT)
    return Authors(from_count, tuple(found), from_text, tuple(from_found))


def mailboxes(value: bytes) -> tuple[Address, ...]:
    """The addresses of an unfolded address list, those in groups too. Raises BadHeader.

    Understood: `a@x`, `Name <a@x>`, `"Name" <a@x>`, groups, comments beside an address. Refused although
    RFC 5322 knows it: comments, spaces or a route within an address, empty elements, and whatever shows
    some reader an address that is not in the result: `@` or brackets in a comment or a quoted local part, a
    name that holds `<a@x>`, escapes beside a name that holds an @.
    """
    if len(value) > MAX_ADDRESS_LIST:
        raise BadHeader(f"it is longer than {MAX_ADDRESS_LIST} bytes")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise BadHeader("it is neither ASCII nor UTF-8") from None
    if _CONTROL.search(text):
        raise BadHeader("it holds a control character")
    return _AddressList(text).read()


class _AddressList:
    """A reader of one address list: where it is, and what it has found."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: list[Address] = []
        self.names: list[str] = []

    def read(self) -> tuple[Address, ...]:
        self._list(in_group=False)
        if self.at < len(self.text):
            raise BadHeader("an address is followed by what is no comma")
        if "\\" in self.text and any("@" in name for name in self.names):
            # A reader that overlooks the escape takes quotes for closed that aren't.
            raise BadHeader("a name holds an @ where a backslash is, too")
        return tuple(self.found)

    def _list(self, *, in_group: bool) -> None:
        while True:
            self._space()
            self._element(in_group)
            self._space()
            if not self._take(","):
                return

    def _element(self, in_group: bool) -> None:
        if _ADDRESS_AHEAD.match(self.text, self.at):
            self._address()
            return
        name = self._name()
        if self._take("<"):
            self._address()
            if not self._take(">"):
                raise BadHeader("the bracket < is not closed behind the address")
        elif name and not in_group and self._take(":"):
            self._group()
        else:
            raise BadHeader("an address is missing or not understood")

    def _group(self) -> None:
        self._space()
        if not self.text.startswith(";", self.at):
            self._list(in_group=True)
        if not self._take(";"):
            raise BadHeader("a group does not end with a semicolon")

    def _address(self) -> None:
        try:
            address, self.at = addresses.scan(self.text, self.at)
        except BadAddress:
            raise BadHeader("an address is missing or not understood") from None
        if re.search(r'[<>@"\\]', address.local_part):
            raise BadHeader("there are special characters before the @ of an address")
        if len(self.found) == MAX_AUTHORS:
            raise BadHeader(f"there are more than {MAX_AUTHORS} addresses")
        self.found.append(address)

    def _name(self) -> str:
        """The words before a bracket or colon, if there are any. RFC 5322 §3.2.5, and dots (§4.1)."""
        words: list[str] = []
        while True:
            if quoted := _QUOTED.match(self.text, self.at):
                words.append(re.sub(r"\\(.)", r"\1", quoted[1]))
                self.at = quoted.end()
            elif atoms := _ATOMS.match(self.text, self.at):
                words.append(atoms[0])
                self.at = atoms.end()
            else:
                break
            self._space()
        name = " ".join(words)
        self.names.append(name)
        self._refuse_address_in(name)
        return name

    def _refuse_address_in(self, name: str) -> None:
        # Encoded words are decoded for this question only: some mail programs read addresses behind them.
        shown = decode_words(name)
        if "=?" in shown:
            raise BadHeader("a name holds an encoded word that is not understood")
        if _ENDS_A_NAME.search(shown):
            raise BadHeader("a name holds an encoded control character")
        if any("@" in text and ("<" in text or ">" in text) for text in (name, shown)):
            raise BadHeader("a name holds an address in brackets")

    def _space(self) -> None:
        """Go on behind white space and comments."""
        depth = 0
        begin = self.at
        while True:
            if not depth:
                space = _SPACE.match(self.text, self.at)
                self.at = space.end() if space else self.at
                if not self.text.startswith("(", self.at):
                    break
            part = _COMMENT_PART.match(self.text, self.at)
            if not part:
                raise BadHeader("a comment is not closed, or holds one of < > @ \" \\")
            depth += {"(": 1, ")": -1}.get(part[0], 0)
            if depth > MAX_COMMENT_DEPTH:
                raise BadHeader(f"comments are nested deeper than {MAX_COMMENT_DEPTH}")
            self.at = part.end()
        self._refuse_address_in(self.text[begin : self.at])

    def _take(self, character: str) -> bool:
        if self.text.startswith(character, self.at):
            self.at += 1
            return True
        return False


def first(fields: Iterable[Field], name: bytes, limit: int = 200) -> str:
    """The first such field's value for a person's eyes, at most `limit` characters; empty when there is none.

    Encoded words are decoded, bad bytes and controls replaced. Never to decide by.
    """
    for field in fields:
        if field.is_named(name):
            # Four bytes a character, thrice for =XX, and as much again for the words' wrapping.
            value = unfold(field.raw)[: 24 * limit].decode("utf-8", "replace")
            return _clamp(NOT_FOR_DISPLAY.sub("\ufffd", decode_words(value).replace("\t", " ")), limit)
    return ""


def decode_words(text: str) -> str:
    """`text` with its encoded words (RFC 2047) decoded, for display; what is not understood stays as it is."""
    if "=?" not in text:
        return text
    return _ENCODED_WORD.sub(_decode_word, _BETWEEN_WORDS.sub(r"\1", text))


def _decode_word(word: re.Match[str]) -> str:
    charset, encoding, payload = word[1].lower(), word[2].lower(), word[3].encode("ascii")
    if not charsets.is_known(charset):
        return word[0]
    try:
        if encoding == "b":
            payload = payload.rstrip(b"=")
            octets = binascii.a2b_base64(payload + b"=" * (-len(payload) % 4))
        else:
            octets = binascii.a2b_qp(payload, header=True)
        return charsets.decode(octets, charset)
    except (ValueError, LookupError):
        return word[0]


def _clamp(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
