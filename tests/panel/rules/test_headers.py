"""panel/rules/headers: what is a header, and who its authors are."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panel.rules.addresses import Address
from panel.rules.headers import BadHeader, Field, authors, first, header_end, legible, mailboxes, split, unfold

A, B, C = Address("a", "x"), Address("b", "y"), Address("c", "z")


def encoded(text: str, charset: str = "utf-8") -> str:
    return f"=?{charset}?B?{base64.b64encode(text.encode(charset)).decode()}?="


@pytest.mark.parametrize(
    ("body", "end"),
    [
        (b"A: 1\r\n\r\ntext\r\n", 8),
        (b"\r\ntext\r\n\r\n", 2),
        (b"A: 1\r\n", 6),
        (b"A: 1\r\n\r\n", 8),
        (b"", 0),
        (b"\r\n", 2),
    ],
)
def test_header_ends_behind_the_first_blank_line(body, end):
    assert header_end(body) == end


def test_fields_are_split_with_their_folded_lines():
    block = b"Subject: one\r\n two\r\n\tthree\r\nfrom:a@x\r\nX-Empty:\r\n\r\n"
    assert split(block) == [
        Field(b"Subject", b"Subject: one\r\n two\r\n\tthree\r\n"),
        Field(b"from", b"from:a@x\r\n"),
        Field(b"X-Empty", b"X-Empty:\r\n"),
    ]
    assert split(block[:-2]) == split(block)


@pytest.mark.parametrize("block", [b"", b"\r\n"])
def test_empty_header_has_no_fields(block):
    assert split(block) == []


@pytest.mark.parametrize(
    ("block", "because"),
    [
        (b" A: 1\r\n", "first line is a continuation"),
        (b"\tA: 1\r\n", "first line is a continuation"),
        (b"A : 1\r\n", "space before a colon"),
        (b"A: 1\r\nFrom\t: a@x\r\n", "space before a colon"),
        (b"A: 1\r\nhello\r\n", "no colon"),
        (b"hello", "no colon"),
        (b": 1\r\n", "no name"),
        (b"From shop@x Tue Nov 24 10:00:00 2026\r\n", "no letter, digit or sign"),
        (b"Fr\xf6m: a@x\r\n", "no letter, digit or sign"),
        (b"Fr\0om: a@x\r\n", "NUL"),
        (b"hel\0lo\r\n", "NUL"),
        (b"A: 1\0\r\n", "NUL"),
        (b"A: 1\r\n 2\0\r\n", "NUL"),
        (b"A: 1\nFrom: b@y\r\n", "does not end with CR LF"),
        (b"A: 1\rFrom: b@y\r\n", "does not end with CR LF"),
        (b"A: 1\r\n 2\nFrom: b@y\r\n", "does not end with CR LF"),
        (b"A: 1", "does not end with CR LF"),
        (b"A: 1\r", "does not end with CR LF"),
        (b"A: 1\r\n\r\nB: 2\r\n", "blank line stands inside"),
        (b"\r\nA: 1\r\n", "blank line stands inside"),
        (b"A: 1\r\n\r\n\r\n", "blank line stands inside"),
        (b"A:\r\n" * 2001, "more than 2000 fields"),
        (b"A: " + b"x" * 1024 * 1024 + b"\r\n", "larger than"),
    ],
)
def test_block_that_is_no_header_is_refused_with_the_reason(block, because):
    with pytest.raises(BadHeader, match=because):
        split(block)


def test_what_is_legible_of_a_malformed_header_are_its_fields_alone():
    block = b" folded\r\nA: 1\r\n 2\r\nno field\r\nFrom x\r\nB: 3\0\r\nC: 4\r\n 5\0\r\n\r\nD: 6\r\nE: 7"
    assert [(field.name, unfold(field.raw)) for field in legible(block)] == [
        (b"A", b"1 2"), (b"C", b"4"), (b"D", b"6"),
    ]
    assert len(legible(b"A:\r\n" * 3000)) == 2000
    assert len(legible(b"A:\r\n \0\r\n" * 1000 + b"x" * 1024 * 1024)) == 1000


def test_header_of_a_mebibyte_is_read():
    block = b"A:" + b"x" * (1024 * 1024 - 4) + b"\r\n"
    assert split(block) == [Field(b"A", block)]
    folds = b"A: 1\r\n" + b" \r\n" * 349_000
    assert split(folds) == [Field(b"A", folds)]


def test_value_is_unfolded_onto_one_line():
    assert unfold(b"Subject:  one\r\n two:\r\n\tthree \r\n") == b"one two:\tthree"
    assert unfold(b"Subject:\r\n") == b""


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a@x", (A,)),
        ("<a@x>", (A,)),
        ("a@X , B <b@y>,c@z", (A, B, C)),
        ("Shop <a@x>", (A,)),
        ("Shop<a@x>", (A,)),
        ("John Q. Public <a@x>", (A,)),
        ('"Public, John" <a@x>', (A,)),
        (r'"John \"Jack\" Public" <a@x>', (A,)),
        ('"a@x" <b@y>', (B,)),
        ('"" <a@x>', (A,)),
        ('Dr. "John" Public <a@x>', (A,)),
        ("Jörg Müller <a@x>", (A,)),
        ("jörg@bücher.example", (Address("jörg", "xn--bcher-kva.example"),)),
        ('"john doe"@x', (Address("john doe", "x"),)),
        ("a@[192.0.2.1]", (Address("a", "[192.0.2.1]"),)),
        ("a@x (Joe Public)", (A,)),
        ("(work) a@x (Joe (the) Public)", (A,)),
        ("Joe (work) <a@x> (home), (c) b@y", (A, B)),
        ("Team: a@x, B <b@y>; ", (A, B)),
        ("Team: a@x;, c@z", (A, C)),
        ("Undisclosed recipients:;", ()),
        ("=?utf-8?q?J=C3=B6rg?= <a@x>", (A,)),
        (f"{encoded('Jörg')} {encoded('Müller', 'iso-8859-1')} <a@x>", (A,)),
        ("=?iso-8859-1?q?O=92Brien?= <a@x>", (A,)),
    ],
)
def test_address_list_is_read(value, found):
    assert mailboxes(value.encode()) == found


@pytest.mark.parametrize(
    ("value", "because"),
    [
        # Two addresses where a reader may take either.
        ("<a@x> <b@y>", "what is no comma"),
        ("a@x b@y", "what is no comma"),
        ("a@x; b@y", "what is no comma"),
        ("a@x <b@y>", "what is no comma"),
        ("Shop a@x <b@y>", "missing or not understood"),
        ("<a@x>b@y", "what is no comma"),
        ("a@x@y", "what is no comma"),
        ("<a@x@y>", "not closed"),
        ("<<a@x>>", "missing or not understood"),
        ("<a@x", "not closed"),
        ("a@x>", "what is no comma"),
        ("<@y:a@x>", "missing or not understood"),
        ("<@y,@z:a@x>", "missing or not understood"),
        # Comments and spaces within an address, addresses within comments.
        ("a@x(<b@y>)", "comment"),
        ("a@x (b@y)", "comment"),
        ("a@x (\\) b)", "comment"),
        ('(") a@x', "comment"),
        (f"a@x ({encoded('<b@y>')})", "address in brackets"),
        ("a(c)@x", "missing or not understood"),
        ("a@(c)x", "missing or not understood"),
        ("a @x", "missing or not understood"),
        ("a@ x", "missing or not understood"),
        ("< a@x>", "missing or not understood"),
        ("<a@x >", "not closed"),
        ("<a@x(c)>", "not closed"),
        ("a@x (", "not closed"),
        ("a@x (c", "not closed"),
        ("a@x )", "what is no comma"),
        ("((((((c)))))) a@x", "nested deeper"),
        # Names that show an address to somebody.
        ('"<b@y>" <a@x>', "address in brackets"),
        ('"Shop <b@y>," <a@x>', "address in brackets"),
        (f"{encoded('<b@y>')} <a@x>", "address in brackets"),
        (f"{encoded('<b')} {encoded('@y>')} <a@x>", "address in brackets"),
        (f'"{encoded("b@y>")}" <a@x>', "address in brackets"),
        ("=?utf-7?q?+ADw?= <a@x>", "encoded word that is not understood"),
        (f"{encoded(encoded('<b@y>'))} <a@x>", "encoded word that is not understood"),
        # A reader that ends the name at the control shows b@y alone.
        ("=?utf-8?q?b=40y=00?= <a@x>", "encoded control character"),
        ("=?utf-8?b?YkB5?= =?utf-8?q?=0A?= <a@x>", "encoded control character"),
        ("a@x (=?utf-8?q?=0D?=)", "encoded control character"),
        (r'"x\" y" <a@x>, "b@y" <c@z>', "backslash"),
        (r'"b\@y" <a@x>', "backslash"),
        (r'"\"b@y" <a@x>', "backslash"),
        ('"<b@y>"@x', "special characters"),
        ('"b@y"@x', "special characters"),
        (r'"b\"y"@x', "special characters"),
        # What is no address.
        ("", "missing or not understood"),
        ("Shop", "missing or not understood"),
        ("<>", "missing or not understood"),
        ("<a>", "missing or not understood"),
        ("a@", "missing or not understood"),
        ("@x", "missing or not understood"),
        ("a..b@x", "missing or not understood"),
        (".a@x", "missing or not understood"),
        ("a@-x", "missing or not understood"),
        ("a@x.", "missing or not understood"),
        ("a@x,", "missing or not understood"),
        (",a@x", "missing or not understood"),
        ("a@x,,b@y", "missing or not understood"),
        ("Public, John <a@x>", "missing or not understood"),
        ('"John <a@x>', "missing or not understood"),
        ("Team: a@x", "semicolon"),
        ("Team: Inner: a@x;;", "missing or not understood"),
        (": a@x;", "missing or not understood"),
        ("Team: a@x,;", "missing or not understood"),
        # Controls.
        ("a@x\0", "control character"),
        ("a@x\r\n b@y", "control character"),
        ("a@x\r<b@y>", "control character"),
        ("a@x\x0b", "control character"),
        ("a@x\u2028", "control character"),
        ("a\u202e@x", "missing or not understood"),
        ("a@x," * 101 + "a@x", "more than 100 addresses"),
        ("x" * 17_000, "longer than"),
    ],
)
def test_address_list_with_two_readings_is_refused_with_the_reason(value, because):
    with pytest.raises(BadHeader, match=because):
        mailboxes(value.encode())


def test_address_list_in_another_encoding_is_refused():
    with pytest.raises(BadHeader, match="neither ASCII nor UTF-8"):
        mailboxes(b"J\xf6rg <a@x>")


def test_authors_are_those_of_every_field_that_names_one():
    block = (
        b"Resent-From: c@z\r\nFROM: Shop <a@x>,\r\n b@y\r\nTo: d@w\r\nReply-To: nonsense <\r\nSender: a@x\r\n"
        b"Resent-Sender: b@y\r\nresent-from: a@x\r\n"
    )
    found = authors(split(block))
    assert found.from_count == 1
    assert found.addresses == (C, A, B, A, B, A)
    assert found.from_text == "a@x, b@y"


@pytest.mark.parametrize(("block", "count"), [(b"To: a@x\r\n", 0), (b"From: a@x\r\nTo: c@z\r\nfrom: b@y\r\n", 2)])
def test_from_fields_are_counted(block, count):
    found = authors(split(block))
    assert found.from_count == count
    assert found.addresses == (A, B)[:count]


@pytest.mark.parametrize(
    ("block", "field", "because"),
    [
        (b"From: Team:;\r\n", "From", "no address"),
        (b"From:\r\n", "From", "missing"),
        (b"From: a@x\r\n b@y\r\n", "From", "no comma"),
        (b"From: a@x\r\n \r\n ,b@y\r\n", "From", "blank"),
        (b"From: a@x\r\n \r\n", "From", "blank"),
        (b"From: a@x\r\nSender: <>\r\n", "Sender", "missing"),
        (b"From: a@x\r\nRESENT-FROM: b@y c@z\r\n", "Resent-From", "no comma"),
        (b"From: a@x\r\nResent-Sender: b\r\n", "Resent-Sender", "missing"),
        (b"Resent-From: a@x\r\n" * 101, "Resent-From", "more than 100"),
        ((b"Resent-From: a@x (" + b"c" * 9000 + b")\r\n") * 9, "Resent-From", "longer than"),
    ],
)
def test_author_field_that_is_not_understood_is_refused_by_name(block, field, because):
    with pytest.raises(BadHeader, match=because) as refused:
        authors(split(block))
    assert refused.value.field == field


def test_text_of_from_is_clamped():
    block = b"From: " + b", ".join(b"somebody%d@demo.test" % number for number in range(50)) + b"\r\n"
    assert len(authors(split(block)).from_text) == 320


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"plain", "plain"),
        ("Grüße".encode(), "Grüße"),
        (b"Gr\xfc\xdfe", "Gr\ufffd\ufffde"),
        (b"=?utf-8?Q?Gr=C3=BC=C3=9Fe_an?= alle", "Grüße an alle"),
        (b"=?utf-8?B?R3LDvMOfZQ?=", "Grüße"),
        (b"=?ISO-8859-1*de?q?Gr=FC=DFe?= =?utf-8?q?_an?=", "Grüße an"),
        (b"=?utf-8?q?a?=\r\n =?utf-8?q?b?=", "ab"),
        (b"=?x-unknown?q?a?=", "=?x-unknown?q?a?="),
        (b"=?idna?q?a?=", "=?idna?q?a?="),
        (b"=?utf-8?b?!?=", ""),
        (b"=?utf-8?b?abcde?=", "=?utf-8?b?abcde?="),
        (b"=?utf-8?q?a=0D=0Ab=00=E2=80=AE?=", "a\ufffd\ufffdb\ufffd\ufffd"),
        (b"a\x1b[31m\tb\x7f", "a\ufffd[31m b\ufffd"),
        (b"x" * 300, "x" * 199 + "…"),
    ],
)
def test_field_is_shown_decoded_clean_and_clamped(value, shown):
    assert first(split(b"X: 0\r\nsubject: " + value + b"\r\nSubject: second\r\n"), b"Subject") == shown


def test_field_that_is_missing_is_shown_as_nothing():
    assert first([], b"Subject") == ""


WORD = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)
AUTHOR = st.builds(Address, WORD, WORD.map(lambda word: f"{word.lower()}.test"))
NAME = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='<>@"\\='), max_size=12)


@given(st.lists(st.tuples(NAME, AUTHOR), min_size=1, max_size=5))
def test_written_list_is_read_as_the_same(authors_with_names):
    written = ", ".join(f'"{name}" <{address}>' for name, address in authors_with_names)
    assert mailboxes(written.encode()) == tuple(address for _, address in authors_with_names)


LIST_PIECES = st.lists(
    st.sampled_from([*'<>@,;:()[]"\\.a \t\0', "b@y", "<c@z>", "=?utf-8?q?=3C?=", "ü", "\r\n "]), max_size=25
).map(lambda pieces: "".join(pieces).encode())


@given(LIST_PIECES | st.binary(max_size=60))
def test_bytes_of_any_kind_give_authors_or_bad_header(value):
    block = b"From: " + value + b"\r\n"
    for act in (
        lambda: split(value),
        lambda: legible(value),
        lambda: mailboxes(value),
        lambda: authors(split(block)),
        lambda: first(split(block), b"From"),
        lambda: unfold(value),
    ):
        try:
            act()
        except BadHeader as refused:
            assert str(refused)


@given(LIST_PIECES)
def test_every_at_sign_outside_quotes_belongs_to_an_address_that_is_found(value):
    try:
        found = mailboxes(value)
    except BadHeader:
        return
    outside = b"".join(value.split(b'"')[::2])
    assert outside.count(b"@") == len(found)


@given(st.lists(st.tuples(st.from_regex(rb"[!-9;-~]{1,12}", fullmatch=True), st.binary(max_size=20)), max_size=8))
def test_fields_joined_are_the_block_again(pairs):
    block = b"".join(
        name + b": " + value.translate(None, b"\r\n\0") + b"\r\n folded\r\n" for name, value in pairs
    )
    fields = split(block)
    assert b"".join(field.raw for field in fields) == block
    assert [field.name for field in fields] == [name for name, _ in pairs]


@pytest.mark.parametrize(
    "value",
    [b"(" * 16_000, b"()" * 8_000 + b"a@x", b"(c)" * 5_000, b'"' * 16_000, b"\\" * 16_000, b"a " * 8_000,
     b"a." * 8_000, b'"a" ' * 4_000, b"a:" * 8_000, b"<" * 16_000, b"=?utf-8?q?" * 1_600, b"=?" * 8_000,
     "\u0345\u0301".encode() * 4_000 + b"@x"],
    ids=lambda value: value[:12].decode(),
)
def test_long_tricks_end_in_an_answer(value):
    try:
        mailboxes(value)
    except BadHeader as refused:
        assert str(refused)
    first([Field(b"Subject", b"Subject: " + value * 60 + b"\r\n")], b"Subject")
