"""What is read of a message: hostile ones too, and each in a bounded number of steps (or this never ends)."""

import base64

import pytest

from panel.rules import headers, mime
from panel.rules.mime import Part

HEAD = b"From: Ann <ann@acme.test>\r\nSubject: =?utf-8?q?Caf=C3=A9?=\r\n"


def shown(message: bytes) -> str:
    return mime.shown(message, mime.read(message))[0]


def attached(message: bytes) -> list[Part]:
    return [part for part in mime.read(message).parts if part.is_attached]


def of(kind: str, body: bytes, *more: str) -> bytes:
    lines = [f"Content-Type: {kind}", *more]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body + b"\r\n"


def multipart(*parts: bytes, kind: str = "mixed", boundary: str = "b", end: bool = True) -> bytes:
    joined = b"".join(b"--" + boundary.encode() + b"\r\n" + part for part in parts)
    closed = f"--{boundary}--\r\n".encode() if end else b""
    return f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'.encode() + joined + closed


def test_the_text_is_the_plain_one_of_alternatives_and_the_rest_is_attached():
    message = HEAD + multipart(
        multipart(of("text/plain", b"plain"), of("text/html", b"<p>rich</p>"), kind="alternative", boundary="c"),
        of("application/pdf", base64.b64encode(b"%PDF"), "Content-Transfer-Encoding: base64",
           'Content-Disposition: attachment; filename="offer.pdf"'),
        of("text/plain", b"log", "Content-Disposition: attachment"),
        of("message/rfc822", b"From: x@y.test\r\n\r\n<b>inner"),
    )
    assert shown(message) == "plain" and mime.read(message).is_whole
    pdf, log, inner = attached(message)
    assert (pdf.name, mime.content(message, pdf)) == ("offer.pdf", b"%PDF")
    assert mime.content(message, log) == b"log" and inner.type == "message/rfc822"
    assert mime.read(message).first(b"Subject") == "Café"


def test_html_becomes_what_would_be_read_and_each_link_says_where_it_leads():
    text, is_all = mime.of_html(
        '<head><title>no</title></head><style>p{}</style><script>alert(1)</script><!-- <b>no</b> --><p>Dear&nbsp;Ann,'
        '<br>your <a href="https://evil.test/?a&amp;b">bank.test</a> &lt;script&gt;<ul><li>one<li>two</ul>'
        '<img src=x onerror=alert(1)><a href="javascript:alert(1)">x</a><iframe src="//evil.test">'
    )
    assert is_all and "your bank.test <https://evil.test/?a&b> <script>" in text and "• one" in text
    for never in ("no", "alert", "p{}", "javascript"):
        assert never not in text


@pytest.mark.parametrize("markup", [
    "<", "</", "<!--", "<!-- x", "<script", "<script>", "<script>x</script", "<a href=", "<a href='", "&#99999999;",
    "<>", "<a\x00b>", "<p/", "<!DOCTYPE", "<![CDATA[", "<svg><script>", "&#x0;", "<textarea>",
    f"&#{'1' * 5000};", f"<a href='&#{'1' * 4900};'>", f"&#x{'f' * 5000};",
])
def test_broken_html_ends(markup):
    mime.of_html(markup)
    assert "x" not in mime.of_html(f"{markup} x")[0] or not markup.startswith(("<!--", "<script", "<svg"))


LONG = 100_000


@pytest.mark.parametrize("body", [
    b"<" * LONG, b"<script>" * LONG, b"<script>" + b"</script" * LONG, b"<!--" * LONG, b"<a href=" * LONG,
    b"<a " + b"href=' " * LONG, b"&" * LONG, b"&#" * LONG, b" " * LONG * 5, b"\n" * LONG * 5, b" \n" * LONG,
    b"<li>" * LONG, b"<b>" * LONG + b"x", b"\xff\x00" * LONG,
], ids=lambda body: repr(body[:12]))
def test_long_repetitions_are_read_in_a_bounded_number_of_steps(body):
    for kind in ("text/html", "text/plain"):
        message = HEAD + multipart(*[of(kind, body)] * 3)
        assert len(shown(message)) <= mime.MAX_TEXT + 10


def nested(depth: int) -> bytes:
    message = of("text/plain", b"deep")
    for level in range(depth):
        message = multipart(message, boundary=f"b{level}")
    return HEAD + message


@pytest.mark.parametrize("message", [
    HEAD + multipart(*[of("text/plain", b"x")] * 5000),
    HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"\r\n--bx" * LONG,
    HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * LONG,
    nested(500), nested(9),
], ids=["many parts", "near boundaries", "empty parts", "very deep", "deep"])
def test_what_has_too_much_is_read_as_far_as_the_bounds_and_says_so(message):
    read = mime.read(message)
    assert len(read.parts) <= mime.MAX_PARTS
    assert not read.is_whole or len(read.parts) < mime.MAX_PARTS


@pytest.mark.parametrize("message", [
    b"", b"\r\n", b"\n", b"\x00", HEAD, b"\r\n\r\n", b": x\r\n\r\n", HEAD + b"Content-Type: ;;;=\r\n\r\nx",
    HEAD + b'Content-Type: multipart/mixed; boundary="\r\n\r\nx', HEAD + b"Content-Type: multipart/mixed\r\n\r\nx",
    HEAD + b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n\r\nx\r\n--', multipart(b"", end=False),
    HEAD + b"Content-Type: text/plain; charset=rot13\r\n\r\nx",
    HEAD + b"Content-Type: text/plain; charset=idna\r\n\r\nx",
    HEAD + b"Content-Type: text/plain; charset=utf-7\r\n\r\n+ADw-script+AD4-",
    HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n=A=B=C=", HEAD + b"Content-Transfer-Encoding: base64\r\n\r\nA",
    HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n==3D=ZZ=",
    HEAD + b"Content-Type: text/plain; name*99999999999=x; name*=utf-8''%ff%00; name*0*='\r\n\r\n",
    HEAD + b"X: " + b"y" * 300_000 + b"\r\n\r\nx", HEAD + b'Content-Type: text/plain' + b';a="' * 20_000 + b"\r\n\r\n",
], ids=lambda message: repr(message[-24:]))
def test_nonsense_is_read_without_an_error(message):
    text = shown(mime.with_crlf(message))
    assert "<script" not in text and "\x00" not in text
    mime.sender(mime.read(message).fields)
    for part in mime.read(message).parts:
        mime.content(message, part)


def test_text_can_neither_turn_its_direction_nor_hide_controls():
    assert shown(HEAD + b"\r\n" + "a\u202egpj.exe\u2066\x1b[2J\x08b".encode()) == "a\ufffdgpj.exe\ufffd\ufffd[2J\ufffdb"


@pytest.mark.parametrize(("disposition", "name"), [
    ('filename="../../etc/passwd"', "passwd"), ('filename="C:\\\\Windows\\\\evil.exe"', "evil.exe"),
    ("filename*=utf-8''%E2%80%AEgpj.exe", "gpj.exe"), ('filename="a\tb\x01.txt"', "ab.txt"),
    ("filename*0=\"long \"; filename*1=\"name.txt\"", "long name.txt"),
    ('filename="=?utf-8?q?Caf=C3=A9.pdf?="', "Café.pdf"),
    ('filename="..."', ""), ("filename*=x-unknown''%41.txt", "A.txt"), ('filename="' + "x" * 300 + '.pdf"', None),
])
def test_an_attachments_name_is_no_path_and_hides_no_ending(disposition, name):
    message = HEAD + of("application/octet-stream", b"x", f"Content-Disposition: attachment; {disposition}")
    given = attached(message)[0].name
    assert given == name or (name is None and given.endswith("….pdf") and len(given) <= mime.MAX_NAME)


@pytest.mark.parametrize(("froms", "address", "others"), [
    ([b"Ann <ann@acme.test>"], "ann@acme.test", ()), ([b"ann@acme.test"], "ann@acme.test", ()),
    ([b'"ann@acme.test" <ann@acme.test>'], "ann@acme.test", ()),
    ([b'"boss@acme.test" <x@evil.test>'], "x@evil.test", ("boss@acme.test",)),
    (["boss\uff20acme.test <x@evil.test>".encode()], "x@evil.test", ("boss@acme.test",)),
    ([b"Ann <ann@acme.test>" + b" " * headers.MAX_ADDRESS_LIST + b", x@evil.test"], "", ()),
    ([b"=?utf-8?q?boss=40acme.test?= <x@evil.test>"], "x@evil.test", ("boss@acme.test",)),
    ([b"=?utf-8?b?Ym9zc0BhY21lLnRlc3Q=?= <x@evil.test>"], "x@evil.test", ("boss@acme.test",)),
    # No one reading, so no address at all.
    ([b"=?utf-8?q?boss=40acme.test=3E?= <x@evil.test>"], "", ()), ([b"a@x.test, b@y.test"], "", ()), ([b""], "", ()),
    ([b"a@x.test", b"b@y.test"], "", ()), ([], "", ()), ([b"<boss@acme.test> <x@evil.test>"], "", ()),
    ([b"=?utf-8?q?boss=40acme.test=00?= <x@evil.test>"], "", ()),
])
def test_a_sender_is_clear_or_it_is_said_that_it_is_not(froms, address, others):
    message = b"".join(b"From: " + value + b"\r\n" for value in froms) + b"\r\n"
    sender = mime.sender(mime.header(message))
    assert (sender.address, sender.others, sender.is_clear) == (address, others, bool(address))


@pytest.mark.parametrize(("answers", "told"), [
    ([], ""), ([b"ann@acme.test"], ""), ([b"Ann <ANN@acme.test>"], ""), ([b"x@evil.test"], "x@evil.test"),
    ([b"ann@acme.test.evil.test"], "ann@acme.test.evil.test"), ([b"joann@acme.test"], "joann@acme.test"),
    ([b'"ann@acme.test" <x@evil.test>'], '"ann@acme.test" <x@evil.test>'),
    ([b"ann@acme.test, x@evil.test"], "ann@acme.test, x@evil.test"), ([b"ann@acme.test", b"x@evil.test"], None),
])
def test_where_answers_go_is_told_unless_it_is_exactly_the_sender(answers, told):
    message = HEAD + b"".join(b"Reply-To: " + value + b"\r\n" for value in answers) + b"\r\n"
    found = mime.answers_to(mime.header(message), "ann@acme.test")
    assert found == told or (told is None and found)
