"""What a declaration of a message's style may say: how the text itself looks; nothing of place, layer or elsewhere."""

import re

MAX_STYLE = 2000  # characters of a style attribute, or of a rule

_SIDES = ("", "-top", "-right", "-bottom", "-left")
LOOKS = frozenset((
    "background-color", "color", "font", "font-family", "font-size", "font-style", "font-variant", "font-weight",
    "letter-spacing", "line-height", "text-align", "text-decoration", "text-transform", "vertical-align",
    "white-space", "word-break", "word-wrap", "overflow-wrap", "width", "max-width", "min-width", "height",
    "list-style-type", "border-collapse", "border-spacing", "border-radius", "display", "float", "clear", "direction",
    *(f"{name}{side}" for name in ("margin", "padding", "border") for side in _SIDES),
    *(f"border{side}-{what}" for side in _SIDES for what in ("color", "style", "width")),
))
# No function but a colour's, so no url(); no comment, no escape, nothing below zero.
_LOOK = re.compile(
    r"(?:(?:rgb|hsl)a?\([0-9 ,.%/]{1,40}\)|!(?= ?important)|[\w #%.,+]|(?<=[a-z])-(?=[a-z])){1,200}",
    re.ASCII | re.IGNORECASE,
)
_HEX = re.compile(r"#[0-9a-f]{3,8}\b", re.IGNORECASE)
_LARGE = re.compile(r"\d{5}|\de\+?\d", re.IGNORECASE)


def looks_of(style: str) -> str:
    """Of a style the declarations that only change how the text itself looks."""
    kept: list[str] = []
    for declaration in style[:MAX_STYLE].split(";"):
        name, colon, value = declaration.partition(":")
        name, value = name.strip().lower(), re.sub(r"[\s\"']+", " ", value).strip()
        if name == "background":
            name = "background-color"  # nothing but a colour passes
        if colon and name in LOOKS and _LOOK.fullmatch(value) and not _LARGE.search(_HEX.sub("", value)):
            kept.append(f"{name}:{value}")
    return ";".join(kept)
