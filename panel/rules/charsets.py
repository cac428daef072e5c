"""Octets of mail as characters, in the charset that a header names; never an error.

Read as browsers do where programs call one charset by another's name (WHATWG Encoding Standard §4.2): Windows'
extension of it, whose characters came out as boxes. RFC 1468 (ISO-2022-JP), RFC 2978.
"""

import re

# Named one by one: Python's look-up keeps every name that it is asked for, and some codecs are slow.
CHARSETS = frozenset((
    "utf-8", "utf8", "us-ascii", "ascii", "koi8-r", "koi8-u", "tis-620", "cp874", "macintosh",
    "gb2312", "gbk", "gb18030", "big5", "big5-hkscs",
    "iso-2022-jp", "iso-2022-kr", "shift_jis", "euc-jp", "euc-kr", "ks_c_5601-1987",
    "shift-jis", "x-sjis", "sjis", "windows-31j", "cp932", "x-euc-jp", "x-gbk", "cp936", "cp949", "windows-949",
    "windows-874", "latin1",
    *(f"iso-8859-{part}" for part in range(1, 17) if part != 12),
    *(f"{name}{page}" for name in ("windows-", "cp") for page in range(1250, 1259)),
))
_CODECS = {
    **dict.fromkeys(("us-ascii", "ascii"), "utf-8"),
    **dict.fromkeys(("shift_jis", "shift-jis", "x-sjis", "sjis", "windows-31j"), "cp932"), "x-euc-jp": "euc-jp",
    **dict.fromkeys(("gb2312", "gbk", "x-gbk", "cp936"), "gb18030"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987", "windows-949"), "cp949"),
    **dict.fromkeys(("iso-8859-1", "latin1"), "windows-1252"), "iso-8859-9": "windows-1254",
    **dict.fromkeys(("tis-620", "windows-874", "iso-8859-11"), "cp874"), "big5": "big5-hkscs",
}
_ESCAPE = re.compile(rb"\x1b(\$[@B]|\([BJI])")
_HIGH = bytes(each | 0x80 if 0x21 <= each <= 0x7E else each for each in range(256))


def is_known(charset: str) -> bool:
    return charset.lower() in CHARSETS


def decode(octets: bytes, charset: str) -> str:
    """In a charset that isn't mail's, or in none: as UTF-8. U+FFFD stands for what isn't in it."""
    charset = charset.lower()
    if charset == "iso-2022-jp":
        return _iso_2022_jp(octets)
    codec = _CODECS.get(charset, charset) if charset in CHARSETS else "utf-8"
    return octets.decode(codec, "replace")


def _iso_2022_jp(octets: bytes) -> str:
    """With half-width katakana and Windows' row 13 (such as ①), which the RFC leaves out and programs send."""
    try:
        return octets.decode("iso-2022-jp")
    except UnicodeDecodeError:
        pieces = _ESCAPE.split(octets)
    said = [pieces[0].decode("utf-8", "replace")]
    for escape, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        if escape.startswith(b"$"):
            said.append(piece.translate(_HIGH).decode("euc_jis_2004", "replace"))
        elif escape == b"(I":
            said.append(piece.translate(_HIGH).decode("cp932", "replace"))
        else:
            said.append(piece.decode("ascii", "replace"))
    return "".join(said)
