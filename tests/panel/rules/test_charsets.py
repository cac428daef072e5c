"""Octets as characters, in whatever charset mail names."""

import base64
import random

import pytest

from panel.rules import charsets, headers, mime
from tests.panel.rules.test_mime import HEAD, of

pytestmark = pytest.mark.once("postgresql")


def test_every_named_charset_is_read_whatever_the_octets_are():
    octets = random.Random(1).randbytes(500) + bytes(range(256)) + b"\x1b$B\x1b(I\x1b$@!"
    for charset in (*charsets.CHARSETS, "", "rot13", "x\x00", "utf-16", "idna", "hex"):
        assert charsets.decode(b"", charset) == "" and charsets.decode(octets, charset)


@pytest.mark.parametrize("charset, octets, text", [
    ("ISO-2022-JP", "\u65e5\u672c".encode("iso-2022-jp"), "\u65e5\u672c"),
    ("iso-2022-jp", b"a \x1b$B-!\x1b(B\r\n\x1b(I1\x1b(B", "a \u2460\r\n\uff71"),
    ("iso-2022-jp", b"\x1b$B-!F|\r\n\x1b(Bb", "\u2460\u65e5\r\nb"),
    ("Shift_JIS", "\u2460\u9ad9\u30bd".encode("cp932"), "\u2460\u9ad9\u30bd"),
    ("gb2312", "\u4e2d\u6587\u9555".encode("gb18030"), "\u4e2d\u6587\u9555"),
    ("gb18030", "\U00020000".encode("gb18030"), "\U00020000"), ("ks_c_5601-1987", "\ubdc1".encode("cp949"), "\ubdc1"),
    ("iso-8859-1", b"\x93caf\xe9\x94 \x80", "\u201ccaf\xe9\u201d \u20ac"), ("us-ascii", b"caf\xc3\xa9", "caf\xe9"),
    ("no-such", b"caf\xc3\xa9 \xff", "caf\xe9 \ufffd"),
])
def test_what_programs_call_by_anothers_name_is_read_as_it_was_meant(charset, octets, text):
    assert charsets.decode(octets, charset) == text
    message = HEAD + of(f"text/plain; charset={charset}", base64.b64encode(octets), "Content-Transfer-Encoding: base64")
    assert mime.shown(message, mime.read(message))[0] == text.replace("\r\n", "\n")
    if charset != "no-such":
        assert headers.decode_words(f"=?{charset}?B?{base64.b64encode(octets).decode()}?=") == text
