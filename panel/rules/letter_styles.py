"""A message's style sheets, written anew: rules that change how its own text looks, and nothing else.

What stays is known to be harmless piece by piece: selectors of names, classes and ids, declarations of a style
attribute (letter_looks), a picture behind where letter_html lets it, and @media by width. Whatever else it says,
and however it is broken, is left out: nothing of it can end the element, cover a link's host or load anything.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from panel.rules.letter_looks import MAX_STYLE, looks_of

MAX_SHEETS = 256 * 1024  # characters of all style elements; what is behind them is left out
MAX_RULES = 2000  # a browser asks for each of them whether it is meant, of each element

MAX_SELECTORS = 40  # of a rule

_END = re.compile(r"[{};]")
_BRACE = re.compile(r"[{}]")
_NOT_CODE = re.compile(r"/\*.*?(?:\*/|\Z)|<!--|-->", re.DOTALL)
# No pseudo-element: a link's host stands in one. No attribute: its value could be asked for.
_SIMPLE = (
    r"(?=[a-z*.#:])(?:[a-z][a-z0-9]{0,15}|\*)?"
    r"(?:[.#][a-z_-][\w-]{0,80}|:(?:link|visited|hover|active|first-child|last-child)){0,4}"
)
_SELECTOR = re.compile(rf"{_SIMPLE}(?:(?: ?[>+~] ?| ){_SIMPLE}){{0,6}}", re.ASCII | re.IGNORECASE)
_WIDTH = r"\((?:min|max)-(?:device-)?width ?: ?\d{1,4}(?:\.\d{1,3})?(?:px|em|rem)\)"
_MEDIA = re.compile(
    rf"@media (?:only )?(?:all|screen|{_WIDTH})(?: and ?{_WIDTH}){{0,3}}", re.ASCII | re.IGNORECASE
)
_PICTURE = re.compile(r"([^()]*)url\(\s*[\"']?([^\"'()\\\s]{1,2000})[\"']?\s*\)([^()]*)", re.IGNORECASE)
_BEHIND = re.compile(r"[a-z0-9#%., /!-]{0,100}", re.ASCII | re.IGNORECASE)
_ADDRESS = re.compile(r"[A-Za-z0-9:/?#@!$&*+,;=%._~\[\]-]+")
_BEHIND_MORE = ("background-repeat", "background-position", "background-size")


@dataclass(slots=True)
class Sheets:
    """Those of one message. `picture`: the address that a picture may be shown by, or nothing."""

    picture: Callable[[str], str]
    left: int = field(default_factory=lambda: MAX_SHEETS)
    rules: int = 0
    written: list[str] = field(default_factory=list)

    def add(self, sheet: str) -> None:
        """What may stay of a style element's text."""
        looked_at = sheet if len(sheet) <= self.left else sheet[: sheet.rfind("}", 0, self.left) + 1]
        self.left -= min(self.left, len(sheet))
        self.written += self._pieces(_NOT_CODE.sub(" ", looked_at))

    @property
    def text(self) -> str:
        return "\n".join(self.written)

    def _pieces(self, sheet: str) -> Iterator[str]:
        at, in_media = 0, False
        while found := _END.search(sheet, at):
            before, at = " ".join(sheet[at : found.start()].split()), found.end()
            if found[0] == "}":
                if in_media:
                    yield "}"
                in_media = False
            elif found[0] == "{" and before.startswith("@"):
                if not in_media and _MEDIA.fullmatch(before):
                    in_media = True
                    yield before + "{"
                else:
                    at = _behind_block(sheet, at)
            elif found[0] == "{":
                closed = sheet.find("}", at)
                body, at = sheet[at:] if closed < 0 else sheet[at:closed], len(sheet) if closed < 0 else closed + 1
                written = self._rule(before, body)
                if written:
                    if self.rules == MAX_RULES:
                        break
                    self.rules += 1
                    yield written
        if in_media:
            yield "}"

    def _rule(self, selectors: str, body: str) -> str:
        kept = [each for each in map(str.strip, selectors.split(",")[:MAX_SELECTORS]) if _SELECTOR.fullmatch(each)]
        looks = [look for each in body[:MAX_STYLE].split(";") if (look := self._look(each))] if kept else ()
        return f"{','.join(kept)}{{{';'.join(looks)}}}" if looks else ""

    def _look(self, declaration: str) -> str:
        name, _colon, value = declaration.partition(":")
        name = name.strip().lower()
        if name in ("background", "background-image") and (found := _PICTURE.fullmatch(value.strip())):
            beside = " ".join(f"{found[1]} {found[3]}".split())
            if not _BEHIND.fullmatch(beside):
                return ""
            address = self.picture(found[2])
            shown = f'url("{address}")' if _ADDRESS.fullmatch(address) else ""
            rest = " ".join(filter(None, (shown, beside)))
            return f"{name}:{rest}" if rest else ""
        if name in _BEHIND_MORE:
            value = " ".join(value.split())
            return f"{name}:{value}" if value and _BEHIND.fullmatch(value) else ""
        return looks_of(declaration)


def _behind_block(sheet: str, at: int) -> int:
    """Behind the brace that closes what was opened before `at`."""
    depth = 1
    for found in _BRACE.finditer(sheet, at):
        depth += 1 if found[0] == "{" else -1
        if not depth:
            return found.end()
    return len(sheet)
