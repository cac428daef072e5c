"""A message's HTML, made so that it can be shown: what it says and how it looks, nothing that it does.

Two passes. Ours reads the tags and writes them anew: balanced, only so deep, with those attributes alone
whose values are known to be harmless, links that show where they lead, pictures that came along; style
sheets by the same measure (letter_styles). It also keeps nh3's parser from what takes it minutes (100,000 open
tags) or memory (formatting that each paragraph repeats). Then nh3 (ammonia) reads
that as a browser does and has the last word: nothing is changed behind it.

What it doesn't decide: the page's policy, under which nothing is run or loaded even if both were wrong.
"""

import base64
import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from urllib.parse import unquote, urlsplit

import nh3

from panel.rules import mime
from panel.rules.letter_looks import LOOKS, looks_of
from panel.rules.letter_styles import Sheets
from panel.rules.mime import Letter, Part

MAX_HTML = 1024 * 1024  # characters, of all parts
MAX_PICTURES = 2 * 1024 * 1024  # bytes that come along, each as often as it is shown
MAX_TAGS = 20_000  # and each other "<"
MAX_ESCAPED = 40_000  # characters that are written as a reference: of 200,000 in one text nh3 takes seconds
MAX_OPEN = 200  # tags in one another
MAX_FORMATTING = 20  # of them such as <b>, which a parser opens again in each paragraph
MAX_BROKEN = 20  # tags without an end: each is looked for in all that follows
MAX_ATTRIBUTES = 40  # of a tag that are looked at
MAX_INTERNATIONAL = 200  # links to hosts in other letters, each of which takes a third of a millisecond to encode

PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_FORMATTING = frozenset((
    "a", "b", "big", "code", "em", "font", "i", "s", "small", "strike", "strong", "tt", "u",
    "span", "sub", "sup", "del", "ins", "mark", "cite", "q", "kbd", "samp", "var", "abbr",
))
_TABLE = frozenset(("table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption", "colgroup"))
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "center", "dd", "div", "dl", "dt", "figure", "figcaption", "footer",
    "h1", "h2", "h3", "h4", "h5", "h6", "header", "li", "main", "nav", "ol", "p", "pre", "section", "ul",
))
_VOID = frozenset(("br", "hr", "img", "wbr", "col"))
_TAGS = _FORMATTING | _TABLE | _BLOCKS | _VOID
_CELL = frozenset(("td", "th", "caption"))
# Which open tag ends where one begins, unless one of the others stands between.
_IMPLIED: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "li": (frozenset(("li",)), frozenset(("ul", "ol")) | _CELL),
    **dict.fromkeys(("dt", "dd"), (frozenset(("dt", "dd")), frozenset(("dl",)) | _CELL)),
    **dict.fromkeys(("td", "th"), (_CELL, frozenset(("tr", "table")))),
    "tr": (frozenset(("tr", "caption")), frozenset(("table",))),
    **dict.fromkeys(("thead", "tbody", "tfoot"), (frozenset(("thead", "tbody", "tfoot")), frozenset(("table",)))),
    "a": (frozenset(("a",)), _CELL),
}
_PARAGRAPH = (frozenset(("p",)), _CELL)
# Its content is no text. Where the end is missing, so is what follows, as in a browser.
_UNSEEN = (mime.UNSEEN - {"head"}) | {
    "iframe", "noembed", "noframes", "xmp", "select", "audio", "video", "canvas", "applet", "frameset", "plaintext",
}

_OPENING = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:_-]*+)((?:[^>=]++|=[ \t\r\n\f]*+(?:\"[^\"]*+\"|'[^']*+')?+)*+)>")
_ATTRIBUTE = re.compile(
    r"([^ \t\r\n\f\"'<>/=]++)"
    r"(?:[ \t\r\n\f]*+=[ \t\r\n\f]*+(?:\"([^\"]*+)\"|'([^']*+)'|([^ \t\r\n\f>]++)))?+"
)
_WORD, _COLOUR = re.compile(r"[A-Za-z-]{1,20}"), re.compile(r"#?[0-9A-Za-z]{1,20}")
_LENGTH, _SPAN = re.compile(r"\d{1,4}(?:px|%)?"), re.compile(r"[1-9]\d?")
_ANYTHING = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f]{0,500}")
_VALUES: Mapping[str, re.Pattern[str]] = {
    "align": _WORD, "valign": _WORD, "dir": _WORD, "lang": _WORD, "type": re.compile(r"[1aAiI]|disc|circle|square"),
    "bgcolor": _COLOUR, "color": _COLOUR, "face": re.compile(r"[\w ,-]{1,100}"), "size": re.compile(r"[+-]?\d"),
    "width": _LENGTH, "height": _LENGTH, "border": _LENGTH, "cellpadding": _LENGTH, "cellspacing": _LENGTH,
    "colspan": _SPAN, "rowspan": _SPAN, "span": _SPAN, "start": re.compile(r"\d{1,4}"), "alt": _ANYTHING,
    # By which its style sheets name it.
    "class": re.compile(r"[\w -]{1,300}", re.ASCII), "id": re.compile(r"[\w-]{1,100}", re.ASCII),
}

_INTERNATIONAL = re.compile(r"[^/\\]*+[/\\]{2}[\x00-.0-\[\]-\x7f]*+[^\x00-\x7f]")
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\]")
_DATA = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,([A-Za-z0-9+/]++={0,2})")
_TO = re.compile(r"(?:mailto|tel):[^\s\"'<>\\]{1,400}", re.IGNORECASE)
_SHOWN_HOST = 45  # characters of where a link leads


class TooMuch(Exception):
    """It is too long, too nested or too broken to be shown with its formatting."""


@dataclass(frozen=True, slots=True)
class Formatted:
    """HTML to stand in a body. `has_remote`: it names pictures elsewhere, whether they are in it or left out.

    `styles`: CSS to stand in a style element.
    """

    markup: str
    has_remote: bool
    styles: str = ""


def is_offered(letter: Letter) -> bool:
    """Whether it can be shown with its formatting: some of it is HTML."""
    return any(part.is_formatted and part.type == "text/html" for part in letter.parts)


def formatted(message: bytes, letter: Letter, *, with_remote: bool) -> Formatted:
    """The message's text with its formatting. `with_remote`: with pictures that are loaded from elsewhere.

    Raises TooMuch.
    """
    said: list[str] = []
    left = MAX_HTML
    writer = _Writer(_Pictures(message, letter).of, with_remote)
    parts = [part for part in letter.parts if part.is_formatted]
    if len(parts) > mime.MAX_SHOWN:
        raise TooMuch
    for part in parts:
        # Base64 is a third longer, quoted-printable at most three times as long.
        if part.end - part.begin > 3 * MAX_HTML:
            raise TooMuch
        given = mime.decode(message, part, 3 * MAX_HTML)
        left -= len(given)
        if left < 0:
            raise TooMuch
        is_html = part.type == "text/html"
        said.append(sanitised(writer.write(given) if is_html else writer.write_plain(given)))
    return Formatted("<hr>".join(said), writer.has_remote, writer.sheets.text)


def sanitised(markup: str) -> str:
    """nh3's word on what is bounded and balanced already."""
    return _CLEANER.clean(markup)


class _Pictures:
    """The pictures that came along, for the HTML that names them by their Content-ID; at most MAX_PICTURES."""

    def __init__(self, message: bytes, letter: Letter) -> None:
        self.message = message
        self.parts: dict[str, Part] = {}
        for part in letter.parts:
            if part.id and part.type in PICTURES:
                self.parts.setdefault(part.id, part)
        self.left = MAX_PICTURES

    def of(self, source: str) -> str:
        """The address with the picture in it; empty where there is none, or no more room."""
        kind, colon, rest = source.partition(":")
        if not colon or kind.lower() not in ("cid", "data"):
            return ""
        if kind.lower() == "data":
            given = _DATA.fullmatch("".join(source.split()))
            return given[0] if given and self._takes(len(given[2])) else ""
        part = self.parts.get(unquote(rest))
        if not part or not self._takes(part.end - part.begin):
            return ""
        content = mime.content(self.message, part)
        return f"data:{part.type};base64,{base64.b64encode(content).decode()}"

    def _takes(self, encoded: int) -> bool:
        size = encoded * 3 // 4
        if size > self.left:
            return False
        self.left -= size
        return True


class _Writer:
    """The first pass. Each character is looked at a bounded number of times."""

    def __init__(self, picture: Callable[[str], str], with_remote: bool) -> None:
        self.picture, self.with_remote = picture, with_remote
        self.has_remote = False
        self.sheets = Sheets(self._source)
        self.tags = self.broken = self.escaped = self.international = 0

    def write(self, markup: str) -> str:
        """Raises TooMuch."""
        self.out: list[str] = []
        self.open: list[str] = []
        self.formatting = 0
        at = 0
        while at < len(markup):
            begin = markup.find("<", at)
            self._text(markup[at : begin if begin >= 0 else len(markup)])
            if begin < 0:
                break
            at = self._behind(markup, begin)
        self._close_to(0)
        return "".join(self.out)

    def write_plain(self, text: str) -> str:
        """Plain text, with its lines as they are. Raises TooMuch."""
        self.out = ['<div style="white-space:pre-wrap">']
        self._text(text.strip().replace("&", "&amp;"))
        return f"{''.join(self.out)}</div>"

    def _text(self, given: str) -> None:
        text = mime.NOT_TEXT.sub("", mime.characters(given))
        self.escaped += sum(text.count(each) for each in "&<>\u00a0")
        if self.escaped > MAX_ESCAPED:
            raise TooMuch
        self.out.append(html.escape(text, quote=False))

    def _behind(self, markup: str, begin: int) -> int:
        """Reads what begins with this "<"; where to go on."""
        self.tags += 1
        if self.tags > MAX_TAGS:
            raise TooMuch
        if markup.startswith(("<!--", "<!", "<?"), begin):
            closing = "-->" if markup.startswith("<!--", begin) else ">"
            closed = markup.find(closing, begin + 2)  # "<!-->" is a whole comment, as in browsers
            return len(markup) if closed < 0 else closed + len(closing)
        found = _OPENING.match(markup, begin)
        if not found:
            self._text("<")
            self.broken += markup[begin + 1 : begin + 3].removeprefix("/")[:1].isalpha()
            if self.broken > MAX_BROKEN:
                raise TooMuch
            return begin + 1
        name, at = found[2].lower(), found.end()
        if found[1]:
            self._end(name)
        elif name in _UNSEEN:
            end = mime.end_of(markup, name, at)
            if name == "style":
                self.sheets.add(markup[at : markup.rfind("<", at, end) if end >= 0 else len(markup)])
            return len(markup) if end < 0 else end
        elif name == "body":
            self._begin("div", found[3])  # its colours; the frame has a body of its own
        elif name in _TAGS:
            self._begin(name, found[3])
        return at

    def _begin(self, name: str, given: str) -> None:
        closes = _IMPLIED.get(name)
        if closes:
            self._imply(*closes)
        if name in _BLOCKS or name == "hr":
            self._imply(*_PARAGRAPH)
        attributes = self._attributes(name, given)
        if name in ("a", "img") and not attributes:
            return
        if name not in _VOID:
            if name in _FORMATTING:
                if self.formatting >= MAX_FORMATTING:
                    return
                self.formatting += 1
            self.open.append(name)
            if len(self.open) > MAX_OPEN:
                raise TooMuch
        written = "".join(f' {key}="{html.escape(value)}"' for key, value in attributes.items())
        self.out.append(f"<{name}{written}>")

    def _imply(self, ends: frozenset[str], unless: frozenset[str]) -> None:
        for place in range(len(self.open) - 1, -1, -1):
            if self.open[place] in ends:
                self._close_to(place)
                return
            if self.open[place] in unless:
                return

    def _end(self, name: str) -> None:
        if name == "br":
            self.out.append("<br>")
        if name not in _TAGS or name in _VOID:
            return
        for place in range(len(self.open) - 1, -1, -1):
            if self.open[place] == name:
                self._close_to(place)
                return
            if name not in _TABLE and self.open[place] in _CELL:
                return  # nothing ends outside of its cell

    def _close_to(self, place: int) -> None:
        while len(self.open) > place:
            name = self.open.pop()
            self.formatting -= name in _FORMATTING
            self.out.append(f"</{name}>")

    def _attributes(self, tag: str, given: str) -> dict[str, str]:
        """Those that may stay. Empty for a link that leads nowhere and a picture with nothing to show."""
        kept: dict[str, str] = {}
        for key, value in islice(_pairs(given), MAX_ATTRIBUTES):
            if key in ("href", "src") and _INTERNATIONAL.match(value):
                self._count_international()
            if key == "style" or (tag == "div" and key == "bgcolor"):
                looks = looks_of(value if key == "style" else f"background-color:{value}")
                if looks:
                    kept.setdefault("style", looks)
            elif tag == "a" and key == "href":
                kept.update(_link(value))
            elif tag == "img" and key == "src":
                source = self._source(value)
                if source:
                    kept.setdefault("src", source)
            elif key in _VALUES and _VALUES[key].fullmatch(value):
                kept.setdefault(key, value)
        needed = {"a": ("href",), "img": ("src", "alt")}.get(tag)
        return kept if needed is None or any(kept.get(each) for each in needed) else {}

    def _count_international(self) -> None:
        self.international += 1
        if self.international > MAX_INTERNATIONAL:
            raise TooMuch

    def _source(self, value: str) -> str:
        value = value.strip()
        if value.startswith("//"):
            value = f"https:{value}"
        if value[:8].lower() != "https://":
            return self.picture(value)
        remote = _web_address(value)[0]
        self.has_remote = self.has_remote or bool(remote)
        return remote if self.with_remote else ""


def _pairs(given: str) -> Iterator[tuple[str, str]]:
    for found in _ATTRIBUTE.finditer(given):
        value = next((each for each in found.groups()[1:] if each is not None), "")
        yield found[1].lower(), mime.characters(value)


def _link(value: str) -> dict[str, str]:
    """What a link is written with; `data-to` is what is shown of where it leads."""
    value = re.sub(r"[\x00-\x1f\x7f]", "", value).strip()
    if _TO.fullmatch(value) and not mime.NOT_TEXT.search(value):
        return {"href": value, "data-to": _end_of(value.partition(":")[2].partition("?")[0]), "title": value}
    address, host = _web_address(value)
    return {"href": address, "data-to": _end_of(host), "title": address[:500]} if address else {}


def _end_of(place: str) -> str:
    """Of a host, and of an address, what matters where it is long."""
    return place if len(place) <= _SHOWN_HOST else f"…{place[-_SHOWN_HOST:]}"


def _web_address(value: str) -> tuple[str, str]:
    """The address as a browser reads it, without a user's name before the host, and the host; else empty."""
    value = re.sub(r"[\x00-\x1f\x7f]", "", value).strip().replace("\\", "/").replace(" ", "%20")
    if len(value) > 4000:
        return "", ""
    try:
        read = urlsplit(value)
        host, port = read.hostname or "", read.port
        if len(host) > 253:
            return "", ""
        if not host.isascii():
            host = host.encode("idna").decode()  # letters that look like others show as what they are
    except (ValueError, UnicodeError):
        return "", ""
    host = f"[{host}]" if ":" in host else host
    if read.scheme not in ("http", "https") or not _HOST.fullmatch(host):
        return "", ""
    rest = f"{read.path}{f'?{read.query}' if read.query else ''}{f'#{read.fragment}' if read.fragment else ''}"
    return f"{read.scheme}://{host}{f':{port}' if port is not None else ''}{rest}", host


def _kept(tag: str, attribute: str, value: str) -> str | None:
    """nh3 asks for each attribute that it would keep."""
    if tag == "a" and attribute == "href":
        return value if value.startswith(("http://", "https://")) or _TO.fullmatch(value) else None
    if attribute == "src":
        return value if value.startswith("https://") or _DATA.fullmatch(value) else None
    return value


_CLEANER = nh3.Cleaner(
    tags=set(_TAGS), clean_content_tags=set(_UNSEEN),
    attributes={
        "*": {key for key in _VALUES if key != "alt"} | {"style"}, "a": {"href", "title", "data-to"},
        "img": {"src", "alt"},
    },
    attribute_filter=_kept, strip_comments=True, link_rel="noopener noreferrer nofollow",
    set_tag_attribute_values={"a": {"target": "_blank"}}, url_schemes={"http", "https", "mailto", "tel", "data"},
    url_relative="deny", filter_style_properties=set(LOOKS),
)
