"""A message's HTML as it is shown: what is hostile in it is gone, what it says is there, and it ends in time."""

import base64
import re
from html.parser import HTMLParser

import pytest

from panel.rules import letter_html, mime
from tests.panel.rules.test_mime import HEAD, multipart, of
from tests.support.hostile_html import GIANTS, SPECIMENS

pytestmark = pytest.mark.once("postgresql")

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 40


class Harmless(HTMLParser):
    """Fails at whatever isn't known to be harmless: by what may be, not by what may not."""

    TAGS = frozenset((
        "a", "abbr", "address", "article", "aside", "b", "big", "blockquote", "br", "caption", "center",
        "cite", "code", "col", "colgroup", "dd", "del", "div", "dl", "dt", "em", "figcaption", "figure",
        "font", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "i", "img", "ins", "kbd", "li",
        "main", "mark", "nav", "ol", "p", "pre", "q", "s", "samp", "section", "small", "span", "strike",
        "strong", "sub", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "tt", "u", "ul", "var",
        "wbr",
    ))
    PLAIN = frozenset((
        "align", "valign", "dir", "lang", "type", "bgcolor", "color", "face", "size", "width", "height",
        "border", "cellpadding", "cellspacing", "colspan", "rowspan", "span", "start", "alt", "title", "data-to",
        "class", "id",
    ))

    def __init__(self, with_remote: bool = False) -> None:
        super().__init__()
        self.with_remote = with_remote

    def handle_starttag(self, tag, attributes):
        assert tag in self.TAGS
        for name, value in attributes:
            if name == "href":
                assert re.match(r"(?:https?://[a-z0-9._-]+(?:[:/?#]|$)|mailto:|tel:)", value), value
            elif name == "src":
                assert re.match(r"data:image/(?:png|gif|jpeg|webp);base64,", value) or (
                    self.with_remote and value.startswith("https://")
                ), value
            elif name == "style":
                assert not re.search(r"url|position|expression|[\\@<>/*]|:\s*-\d|(?<!rgb)(?<!rgba)\(", value), value
            elif name in ("target", "rel"):
                assert (tag, value) in (("a", "_blank"), ("a", "noopener noreferrer nofollow"))
            else:
                assert name in self.PLAIN, name

    def handle_decl(self, decl):
        raise AssertionError(decl)

    handle_comment = handle_pi = unknown_decl = handle_decl


def sheet(styles: str, *, with_remote: bool = False, more: str = "") -> letter_html.Formatted:
    message = HEAD + of("text/html; charset=utf-8", f"<style>{styles}</style>{more}<p>x".encode())
    return letter_html.formatted(message, mime.read(message), with_remote=with_remote)


def shown(markup: str, *more: bytes, with_remote: bool = False, kind: str = "text/html; charset=utf-8") -> str:
    message = HEAD + multipart(of(kind, markup.encode("utf-8", "surrogatepass")), *more, kind="related")
    return letter_html.formatted(message, mime.read(message), with_remote=with_remote).markup


@pytest.mark.parametrize("with_remote", [False, True])
@pytest.mark.parametrize("kind", [
    "text/html; charset=utf-8", "text/html; charset=utf-7", "text/html; charset=iso-2022-jp", "text/html; charset=x",
])
def test_whatever_is_hostile_is_gone_wherever_it_stands(kind, with_remote):
    for specimen in SPECIMENS:
        for markup in (
            specimen, f"<div><table><tr><td>{specimen}", f"<p>before {specimen} behind</p>",
            f"{specimen}{specimen[::-1]}", f"<b title='{specimen}'>", f'<p style="{specimen}">',
            f'<a href="{specimen}">', f"<svg>{specimen}",
        ):
            page = shown(markup, kind=kind, with_remote=with_remote)
            Harmless(with_remote).feed(page)
    Harmless().feed(shown("".join(SPECIMENS)))


def test_a_giant_is_shown_as_text_or_bounded():
    """Each ends in a moment; without our own pass nh3 alone takes minutes for some."""
    for giant in GIANTS:
        try:
            page = shown(giant)
        except letter_html.TooMuch:
            continue
        Harmless().feed(page)
        assert len(page) < 5 * letter_html.MAX_HTML, giant[:20]


@pytest.mark.parametrize("tag", ["<a =", "</a =", "<a b", "</a b"])
def test_many_tags_without_an_end_are_not_looked_through_each_to_the_end(tag):
    with pytest.raises(letter_html.TooMuch):
        shown(tag * (letter_html.MAX_BROKEN + 1))


def test_what_it_says_and_how_it_looks_stays():
    page = shown(
        "<html><head><title>no</title><style>p{color:red}</style></head><body bgcolor=#fff>"
        "<h1 align=center>Caf\u00e9</h1><p style=\"color:#333; font-family:'Times New Roman',serif; "
        "background:rgb(1,2,3); margin:0 auto\">One <b>two<p>three<ul><li>a<li>b</ul>"
        "<table width=600 cellpadding=0><tr><td colspan=2>x<td>y</table>&lt;b&gt; &amp; 1 < 2 "
        "<a href='HTTPS://user@Shop.test:8443/x y?a&amp;b#c'>shop</a>"
        "<a href=mailto:ann@acme.test?subject=x>ann</a><a href='https://b\u00fccher.test'>b</a>"
    )
    for part in (
        '<h1 align="center">Caf\u00e9</h1>', "color:#333", "font-family:Times New Roman", "margin:0 auto",
        "<b>two</b></p><p>three</p><ul><li>a</li><li>b</li></ul>",
        '<table width="600"', '<td colspan="2">x</td><td>y</td>',
        "&lt;b&gt; &amp; 1 &lt; 2", 'href="https://shop.test:8443/x%20y?a&amp;b#c" data-to="shop.test"',
        'data-to="ann@acme.test"', 'data-to="xn--bcher-kva.test"',
    ):
        assert part in page, part
    assert "no" not in page.partition("<h1")[0]


@pytest.mark.parametrize("address, to", [
    ("https://bank.test@evil.test/", "evil.test"), ("https://evil.test\\@bank.test/", "evil.test"),
    ("https://bank.test:x@evil.test/", "evil.test"), ("ht\ntps://evil.test/", "evil.test"),
    ("https://" + "bank.test." * 9 + "evil.test/", "bank.test.bank.test.bank.test.bank.evil.test"[-9:]),
    ("https:evil.test", None), ("https:///evil.test", None), ("//evil.test", None), ("https://%65vil.test/", None),
    ("https://[::1", None), ("/me/", None), ("https://evil.test:99999/", None),
    ("https://ev\u3002il.test", "ev.il.test"),
    ("mailto:" + "ann@bank.test." * 5 + "@evil.test", "@evil.test"), ("mailto:ann@\u202etset.knab", None),
])
def test_a_link_shows_the_host_that_a_browser_goes_to(address, to):
    page = shown(f'<a href="{address}">bank.test</a>')
    found = re.search(r'data-to="([^"]*)"', page)
    assert (found[1] if found else None) == to or (to and found[1].endswith(to) and found[1].startswith("…"))
    assert bool(found) == ("<a " in page)


def test_pictures_that_came_along_are_in_it_and_those_elsewhere_only_when_asked_for(monkeypatch):
    picture = of("image/png", base64.b64encode(PNG), "Content-Transfer-Encoding: base64", "Content-ID: <a@b>")
    vector = of("image/svg+xml", b"<svg onload=x>", "Content-ID: <c@d>")
    markup = (
        "<img src='cid:a%40b' alt=one><img src=cid:c@d alt=two><img src=cid:none>"
        "<img src=https://pictures.test/a.png alt=three>"
        "<img src=http://pictures.test/b.png>"
    )
    message = HEAD + multipart(
        multipart(
            of("text/plain", b"plain"),
            multipart(of("text/html", markup.encode()), picture, vector, kind="related", boundary="c"),
            kind="alternative", boundary="d",
        ),
    )
    read = mime.read(message)
    assert mime.shown(message, read)[0] == "plain" and letter_html.is_offered(read)
    assert [part.type for part in read.parts if part.is_attached] == ["image/png", "image/svg+xml"]
    held, loaded = (letter_html.formatted(message, read, with_remote=each) for each in (False, True))
    inlined = f'<img src="data:image/png;base64,{base64.b64encode(PNG).decode()}" alt="one"><img alt="two">'
    assert held.markup == f'{inlined}<img alt="three">' and held.has_remote
    assert loaded.markup == f'{inlined}<img src="https://pictures.test/a.png" alt="three">' and loaded.has_remote
    monkeypatch.setattr(letter_html, "MAX_PICTURES", 60)
    page = shown("<img src=cid:a@b>" * 50, picture)
    assert page.count("data:") == 1, "each counts as often as it is shown"
    message = HEAD + multipart(of("text/plain", b"1 < 2 & x"), of("text/html", b"<i>signed"))
    assert letter_html.formatted(message, mime.read(message), with_remote=False).markup == (
        '<div style="white-space:pre-wrap">1 &lt; 2 &amp; x</div><hr><i>signed</i>'
    )
    assert not letter_html.is_offered(mime.read(HEAD + of("text/plain", b"<b>")))


def test_a_style_sheet_keeps_what_changes_how_its_text_looks():
    found = sheet(
        "/* head */ <!-- body, #bodyTable .col > td:first-child { margin:0 auto !important; padding: 10px 20px;\n"
        "font-family: \"Helvetica Neue\", serif } --> h1{color:RGB(1,2,3)}"
        "@media only screen and (max-width: 480px) { .col { width: 100% !important; position:fixed } } "
        ".x{display:none; color:#333333; width:12345px; height:1e9px}",
        more='<body bgcolor=#fafafa class="a b"><table id=bodyTable><td class="col \u00e9">y',
    )
    assert found.styles.split("\n") == [
        "body,#bodyTable .col > td:first-child{margin:0 auto !important;padding:10px 20px;"
        "font-family:Helvetica Neue , serif}",
        "h1{color:RGB(1,2,3)}", "@media only screen and (max-width: 480px){", ".col{width:100% !important}", "}",
        ".x{display:none;color:#333333}",
    ]
    assert 'class="a b"' in found.markup and "background-color:#fafafa" in found.markup
    assert 'id="bodyTable"' in found.markup and "\u00e9" not in found.markup and not found.has_remote


HARMLESS_SHEET = re.compile(
    r"(?:@media [a-z0-9 ():.-]+\{|\}|\n|"
    r"[\w ,.#:>+~*-]+\{(?:[a-z-]+:(?:[\w #%.,+!/-]|(?:rgb|hsl)a?\([0-9 ,.%/]+\))+;?)+\})*",
    re.IGNORECASE,
)


@pytest.mark.parametrize("hostile", [
    "@import 'https://evil.test/i'; ", "@import url(//evil.test/i);", "@charset \"utf-7\";",
    "p{width:expression(alert(1))}",
    "@font-face{font-family:x;src:url(https://evil.test/f)}", "p{behavior:url(#x);-moz-binding:url(//evil.test/x)}",
    "div{position:fixed;top:0;left:0;width:100%;height:100%;z-index:9;opacity:0;transform:scale(9)}",
    "a[href^='https://a']{background:url(https://evil.test/a)}", "a::after,a:after,p::before{content:'bank.test'}",
    "p{background:url(https://evil.test/u)}", "p{list-style:url(//evil.test/l);cursor:url(//evil.test/c),auto}",
    "p{background-image:\\75rl(//evil.test/u)}", "p{color:r\\65 d}", "p{background:image-set('//evil.test/i' 1x)}",
    "@media (prefers-color-scheme:dark){p{color:#fff}}", "@supports (a:b){p{color:red}}", "p{margin:-9px;inset:0}",
    "@layer x{p{content:'y'}}", "p{--x:url(//evil.test/x);color:var(--x)}", "p{color:red;}}}} @import '//evil.test/';",
    "p{content:\"}</style><script>alert(1)</script>\"}", "</style ><script>alert(1)</script>", "<img src=x>{color:red}",
    "p{font:1px '<script>'}", "p{background:url('https://evil.test/\"</style>')}", "p{color:red",
    "@media screen{p{color:red",
    "/*", "{" * 9000, "@media screen{" * 9000, "a," * 9000 + "a{color:red}", "}" * 9000, "p" * 9000 + "{color:red}",
    "p{" + "color:red;" * 9000 + "}", ":host,:root,::part(x),html:has(a[href]){color:red}", "\x00p{color:\x00red}",
])
def test_nothing_hostile_of_a_style_sheet_stays(hostile):
    found = sheet(hostile + " b{color:blue}")
    assert HARMLESS_SHEET.fullmatch(found.styles), found.styles
    assert not re.search(r"url|import|position|content|evil|script|[<\\@](?!media)|::|after|before", found.styles)
    Harmless().feed(found.markup)
    assert found.styles.count("{") == found.styles.count("}") and len(found.styles) < 5000


def test_a_style_sheet_is_bounded_and_its_pictures_come_when_asked_for(monkeypatch):
    monkeypatch.setattr("panel.rules.letter_styles.MAX_RULES", 3)
    assert sheet("p{color:red}" * 5).styles.count("color") == 3
    monkeypatch.setattr("panel.rules.letter_styles.MAX_SHEETS", 20)
    assert sheet("p{color:red}" * 5).styles == "p{color:red}"
    monkeypatch.undo()
    styles = (
        "p{background:#fff URL( 'https://pictures.test/a.png?x=\"1' ) no-repeat}"
        "i{background:#eee url(https://pictures.test/b.png) no-repeat center / cover}"
        "b{background-image:url(http://pictures.test/c)} s{background-size:50% 10px}"
    )
    held, loaded = (sheet(styles, with_remote=each) for each in (False, True))
    assert held.styles == "i{background:#eee no-repeat center / cover}\ns{background-size:50% 10px}" and held.has_remote
    assert loaded.styles.startswith(
        'i{background:url("https://pictures.test/b.png") #eee no-repeat center / cover}'
    ) and "c)" not in loaded.styles
    assert not sheet("p{background:url(http://pictures.test/c)}").has_remote


def test_hosts_in_other_letters_are_encoded_only_so_often():
    link = "<a href='https://b\u00fccher.test/'>x</a>"
    assert shown(link * letter_html.MAX_INTERNATIONAL).count("xn--bcher-kva.test") > letter_html.MAX_INTERNATIONAL
    with pytest.raises(letter_html.TooMuch):
        shown(link * (letter_html.MAX_INTERNATIONAL + 1))
    assert "<a" not in shown("<a href='https://" + "b\u00fc" * 2000 + ".test/'>x</a>")
