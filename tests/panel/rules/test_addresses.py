"""panel/rules/addresses: what is an address, and which two are the same."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panel.rules import addresses
from panel.rules.addresses import (
    Address,
    BadAddress,
    NeedsSmtputf8,
    canonical_domain,
    decode_xtext,
    display_domain,
    encode_xtext,
    parse_address,
    parse_parameters,
    parse_path,
)

LABEL = st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True)
DOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join) | st.sampled_from(
    ["[192.0.2.1]", "[IPv6:2001:db8::1]", "xn--bcher-kva.example", "4you.test"]
)
LOCAL_PART = st.text(
    st.characters(codec="ascii", min_codepoint=32, max_codepoint=126) | st.sampled_from("éßØÅǰ例Ω+.\"\\ "),
    min_size=1,
    max_size=16,
)
ADDRESS = st.builds(Address, LOCAL_PART, DOMAIN)


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        ("shop@demo.test", Address("shop", "demo.test")),
        ("  Shop@Demo.TEST\n", Address("Shop", "demo.test")),
        ("a!#$%&'*+-/=?^_`{|}~z@demo.test", Address("a!#$%&'*+-/=?^_`{|}~z", "demo.test")),
        ('"a b"@demo.test', Address("a b", "demo.test")),
        (r'"a\"\\\b@"@demo.test', Address('a"\\b@', "demo.test")),
        ('"plain"@demo.test', Address("plain", "demo.test")),
        ("root@localhost", Address("root", "localhost")),
        ("info@Bücher.example", Address("info", "xn--bcher-kva.example")),
        ("info@faß.de", Address("info", "xn--fa-hia.de")),
        ("info@例え。テスト", Address("info", "xn--r8jz45g.xn--zckzah")),
        ("Jörg@demo.test", Address("Jörg", "demo.test")),
        ("a@[127.0.0.1]", Address("a", "[127.0.0.1]")),
        ("a@[ipv6:2001:DB8:0::1]", Address("a", "[IPv6:2001:db8::1]")),
        ("a@4you.test", Address("a", "4you.test")),
        ("a" * 64 + "@demo.test", Address("a" * 64, "demo.test")),
    ],
)
def test_address_in_a_form_is_understood(written, understood):
    assert parse_address(written) == understood


@pytest.mark.parametrize(
    ("written", "because"),
    [
        ("", "Write an address"),
        ("   ", "Write an address"),
        ("shop", "has no @"),
        ("@demo.test", "nothing before the @"),
        ('""@demo.test', "nothing before the @"),
        ("shop@", "no domain behind the @"),
        ("a b@demo.test", "not a mail address"),
        ("a..b@demo.test", "not a mail address"),
        (".a@demo.test", "not a mail address"),
        ("a.@demo.test", "not a mail address"),
        ("<a@demo.test>", "not a mail address"),
        ("Shop <a@demo.test>", "not a mail address"),
        ('"a"b@demo.test', "not a mail address"),
        ('"a@demo.test', "not a mail address"),
        ("a@b@demo.test", "not a domain name"),
        ("a@-demo.test", "not a domain name"),
        ("a@demo-.test", "not a domain name"),
        ("a@demo..test", "not a domain name"),
        ("a@demo.test.", "not a domain name"),
        ("a@de_mo.test", "not a domain name"),
        ("a@demo.test, b@demo.test", "not a domain name"),
        ("a@" + "x" * 64 + ".test", "not a domain name"),
        ("a@i❤.ws", "not an international domain name"),
        ("a@192.0.2.1", "ends in a number"),
        ("a@１２７.０.０.１", "ends in a number"),
        ("a@0x7f000001", "ends in a number"),
        ("a@[127.0.0.01]", "address literal"),
        ("a@[IPv6:fe80::1%eth0]", "address literal"),
        ("a@[x:y]", "address literal"),
        ("a@[127.0.0.1", "address literal"),
        ("a" * 65 + "@demo.test", "longer than 64 bytes"),
        ("é" * 33 + "@demo.test", "longer than 64 bytes"),
        ("\u0958" * 21 + "@demo.test", "longer than 64 bytes"),  # twice as long in NFC
        ("a@" + "x." * 130 + "test", "longer than 253 bytes"),
        ("a" * 64 + "@" + "x" * 60 + "." + "y" * 60 + "." + "z" * 60 + ".testing", "longer than 254 bytes"),
        ("a" * 100_000, "longer than 254 bytes"),
        *[
            (f"a{character}b@demo.test", "control character")
            for character in "\0\r\n\t\x7f\x85\u00a0\u200b\u2028\u2029\u202e\u2066\ufeff\ufffe\U000e0041\ud800"
        ],
        ("a@demo\u202e.test", "control character"),
    ],
)
def test_what_is_no_address_in_a_form_is_refused_with_a_sentence(written, because):
    with pytest.raises(BadAddress, match=because) as refused:
        parse_address(written)
    assert str(refused.value).endswith(".")


def test_local_part_outside_ascii_is_refused_where_only_ascii_is_taken():
    with pytest.raises(NeedsSmtputf8):
        parse_address("jörg@demo.test", smtputf8=False)
    assert parse_address("jo@bücher.example", smtputf8=False).is_ascii


@given(ADDRESS)
def test_written_address_is_read_as_the_same(address):
    assert parse_address(str(address)) == address
    assert parse_path(f"<{address}> SIZE=1".encode(), smtputf8=True) == (address, b" SIZE=1")


@given(ADDRESS)
def test_canonical_form_is_final_and_can_be_stored(address):
    canonical = address.canonical
    assert canonical.canonical is canonical
    assert unicodedata.is_normalized("NFC", canonical.local_part)
    assert parse_address(str(canonical)) == canonical
    assert len(canonical.local_part) <= 64


def test_every_character_has_one_final_canonical_form():
    for point in (*range(0xD800), *range(0xE000, 0x110000)):
        folded = addresses._fold(f"a{chr(point)}")
        assert addresses._fold(folded) == folded, hex(point)


@pytest.mark.parametrize(
    ("one", "other"),
    [("SHOP", "shop"), ("Straße", "STRASSE"), ("e\u0301", "É"), ("\u212a", "k"), ("ΌΣΟΣ", "όσος")],
)
def test_spellings_of_one_local_part_are_one(one, other):
    assert Address(one, "demo.test").canonical == Address(other, "demo.test").canonical


@pytest.mark.parametrize(
    ("local_part", "separator", "left"),
    [
        ("user+tag", "+", "user"),
        ("user+a+b", "+", "user"),
        ("user+", "+", "user"),
        ("+tag", "+", "+tag"),
        ("user+tag", "-", "user+tag"),
        ("user+tag", "", "user+tag"),
        ("user", "+", "user"),
    ],
)
def test_subaddress_is_cut_at_the_first_separator(local_part, separator, left):
    assert Address(local_part, "demo.test").without_subaddress(separator) == Address(left, "demo.test")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (" Demo.TEST ", "demo.test"),
        ("demo.test.", "demo.test"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("XN--bcher-KVA.example", "xn--bcher-kva.example"),
        ("a.b.c.test", "a.b.c.test"),
    ],
)
def test_domain_has_one_name(written, name):
    assert canonical_domain(written) == name
    assert canonical_domain(display_domain(name)) == name


@pytest.mark.parametrize(
    ("written", "because"),
    [
        ("", "Write a domain"),
        (".", "no domain|not a domain name"),
        ("demo", "only one part"),
        ("shop@demo.test", "without an @"),
        ("[192.0.2.1]", "not an IP address"),
        ("192.0.2.1", "ends in a number"),
        ("demo..test", "not a domain name"),
        (".demo.test", "not a domain name"),
        ("demo.test/", "not a domain name"),
        ("../etc.test", "not a domain name"),
        ("*.demo.test", "not a domain name"),
        ("demo.test\nx", "control character"),
        ("demo\0.test", "control character"),
        ("xn--a.test", "not an international domain name"),
        ("xn--99999999.test", "not an international domain name"),
        ("☃.test", "not an international domain name"),
    ],
)
def test_what_is_no_domain_is_refused_with_a_sentence(written, because):
    with pytest.raises(BadAddress, match=because):
        canonical_domain(written)


def test_single_label_is_a_domain_only_where_it_is_asked_for():
    assert canonical_domain("localhost", single_label=True) == "localhost"


def test_domain_is_shown_in_its_own_script_and_a_false_a_label_as_it_is():
    assert display_domain("www.xn--bcher-kva.example") == "www.bücher.example"
    assert display_domain("xn--99999999.test") == "xn--99999999.test"
    assert Address("a", "xn--bcher-kva.example").display == "a@bücher.example"


@pytest.mark.parametrize(
    ("raw", "address", "rest"),
    [
        (b"<shop@demo.test>", Address("shop", "demo.test"), b""),
        (b"  <Shop@DEMO.Test> SIZE=1", Address("Shop", "demo.test"), b" SIZE=1"),
        (b"<a@localhost>", Address("a", "localhost"), b""),
        (b"<a@4you.1and1>", Address("a", "4you.1and1"), b""),
        (b"<a%b@c>", Address("a%b", "c"), b""),
        (b'<"a b">@c>"@d> X', None, b""),
        (b'<"a>b"@c> X', Address("a>b", "c"), b" X"),
        (b'<"a@b"@c>', Address("a@b", "c"), b""),
        (b"<@x.test,@y.test:a@b> X", Address("a", "b"), b" X"),
        (b"<@x:a@b>", Address("a", "b"), b""),
        (b"<a@[127.0.0.1]>", Address("a", "[127.0.0.1]"), b""),
        (b"<a@[IPv6:::1]>", Address("a", "[IPv6:::1]"), b""),
        (b"<a@xn--99999999.test>", Address("a", "xn--99999999.test"), b""),
        (b"<" + b"v" * 200 + b"@lists.test>", Address("v" * 200, "lists.test"), b""),
        ("<jörg@Bücher.example> SMTPUTF8".encode(), Address("jörg", "xn--bcher-kva.example"), b" SMTPUTF8"),
    ],
)
def test_path_is_read_by_the_grammar(raw, address, rest):
    if address is None:
        with pytest.raises(BadAddress):
            parse_path(raw, smtputf8=True)
    else:
        assert parse_path(raw, smtputf8=True) == (address, rest)


@pytest.mark.parametrize(
    ("raw", "because"),
    [
        (b"", "angle brackets"),
        (b"a@b", "angle brackets"),
        (b"\t<a@b>", "angle brackets"),
        (b"<a b@c>", "not understood"),
        (b"<a@b", "not understood"),
        (b"<a@b c>", "not understood"),
        (b"<a@-b>", "not a domain name"),
        (b"<a..b@c>", "not understood"),
        (b"<@c>", "nothing before"),
        (b'<""@c>', "nothing before"),
        (b"<a@>", "not understood"),
        (b"<a>", "not understood"),
        (b"< a@b>", "not understood"),
        (b"<a@b >", "not understood"),
        (b"<<a@b>>", "not understood"),
        (b"<a@b>>", "space is missing"),
        (b"<a@b>SIZE=1", "space is missing"),
        (b"<a@b>\tSIZE=1", "space is missing"),
        (b"<a@b\0>", "control character|not a domain name"),
        (b"<a\0@b>", "not understood"),
        (b"<a\r\n@b>", "not understood"),
        (b'<"a\rb"@c>', "not understood"),
        (b"<a@b.>", "not a domain name"),
        (b"<a@b_c>", "not a domain name"),
        (b"<a@127.0.0.1>", "ends in a number"),
        (b"<a@b(c)>", "not understood"),
        (b"<(c)a@b>", "not understood"),
        (b"<@x:>", "not understood"),
        (b"<@x@b>", "nothing before"),
        (b"<@-x:a@b>", "not a domain name"),
        (b"<@[127.0.0.1]:a@b>", "nothing before"),
        (b"<@" + b"x," * 200 + b":a@b>", "not understood|nothing before|too long"),
        (b"<@" + b"x.y" * 90 + b":a@b>", "too long"),
        (b"<" + b"a" * 250 + b"@test>", "longer than 254 bytes"),
        (b"<a@" + b"x." * 130 + b"test>", "longer than 253 bytes"),
        (b"<a\xff@b>", "neither ASCII nor UTF-8"),
        (b"<a\xc0\x80@b>", "neither ASCII nor UTF-8"),
        ("<a\u202eb@c>".encode(), "control character"),
        ("<a@ｅxample.com>".encode(), "not an international domain name"),
        ("<a@例え。テスト>".encode(), "not an international domain name"),
        (b"<>", "only as a sender"),
        (b"<postmaster>", "not understood"),
    ],
)
def test_path_outside_the_grammar_is_refused(raw, because):
    with pytest.raises(BadAddress, match=because) as refused:
        parse_path(raw, smtputf8=True)
    assert not isinstance(refused.value, NeedsSmtputf8)


def test_null_path_and_bare_postmaster_are_taken_where_they_are_allowed():
    assert parse_path(b"<> SIZE=1", smtputf8=False, null_allowed=True) == (None, b" SIZE=1")
    postmaster = Address("postmaster", "")
    assert parse_path(b"<PostMaster>", smtputf8=False, postmaster_allowed=True) == (postmaster, b"")
    assert str(postmaster) == "postmaster"


def test_good_path_outside_ascii_needs_smtputf8_and_a_bad_one_is_just_bad():
    with pytest.raises(NeedsSmtputf8):
        parse_path("<jörg@demo.test>".encode(), smtputf8=False)
    with pytest.raises(NeedsSmtputf8):
        parse_path("<jo@bücher.example>".encode(), smtputf8=False)
    with pytest.raises(BadAddress) as refused:
        parse_path("<jörg@@demo.test>".encode(), smtputf8=False)
    assert not isinstance(refused.value, NeedsSmtputf8)


@given(st.from_regex(rf"<[{addresses.ATEXT}.]{{1,8}}@[A-Za-z0-9.-]{{1,12}}>( [A-Z]*)?", fullmatch=True))
def test_the_short_way_decides_as_the_long_way_does(text):
    def outcome(parse, *options):
        try:
            return parse(text.encode(), *options)
        except BadAddress:
            return None

    def short(raw):
        return parse_path(raw, smtputf8=False)

    assert outcome(short) == outcome(addresses._parse_any_path, False, False, False)


PIECES = st.lists(
    st.sampled_from([b"<", b">", b"@", b'"', b"\\", b"a", b".", b"-", b":", b",", b"[", b"]", b" ", b"(", b"\0"])
    | st.sampled_from(["ü", "。", "\u202e", "xn--", "İ", "\u0345"]).map(str.encode)
    | st.binary(max_size=3),
    max_size=20,
).map(b"".join)


@given(PIECES, st.booleans())
def test_bytes_of_any_kind_give_an_address_or_bad_address(raw, smtputf8):
    for parse in (
        lambda: parse_path(b"<" + raw, smtputf8=smtputf8, null_allowed=True, postmaster_allowed=True),
        lambda: parse_path(raw, smtputf8=smtputf8),
        lambda: parse_parameters(raw, smtputf8=smtputf8),
        lambda: parse_address(raw.decode("latin-1")),
        lambda: parse_address("a@xn--" + raw.decode("utf-8", "surrogateescape")),
        lambda: canonical_domain("xn--" + raw.decode("latin-1") + ".test"),
        lambda: decode_xtext(raw.decode("latin-1")),
    ):
        try:
            parse()
        except BadAddress as refused:
            assert str(refused).endswith(".")


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", {}),
        (b" ", {}),
        (b" SIZE=100", {"SIZE": "100"}),
        (b" size=100  BODY=8BITMIME", {"SIZE": "100", "BODY": "8BITMIME"}),
        (b" ENVID=aB+3D SMTPUTF8 AUTH=<>", {"ENVID": "aB+3D", "SMTPUTF8": "", "AUTH": "<>"}),
        (b" ORCPT=rfc822;Shop@demo.test", {"ORCPT": "rfc822;Shop@demo.test"}),
    ],
)
def test_parameters_are_keyword_and_value_as_it_came(raw, found):
    assert parse_parameters(raw) == found


@pytest.mark.parametrize(
    ("raw", "because"),
    [
        (b" SIZE=1 size=2", "SIZE is given twice"),
        (b" SIZE=", "not understood"),
        (b" =1", "not understood"),
        (b" -X", "not understood"),
        (b" X_Y", "not understood"),
        (b" A=b=c", "not understood"),
        (b" A=b\0", "not understood"),
        (b" A=b\tC", "not understood"),
        (b" A=b\r\n", "not understood"),
        ("  A=ü".encode(), "outside ASCII"),
        (b" A=\xff", "outside ASCII"),
    ],
)
def test_parameter_outside_the_grammar_is_refused(raw, because):
    with pytest.raises(BadAddress, match=because):
        parse_parameters(raw)


def test_parameter_may_hold_utf8_only_with_smtputf8():
    assert parse_parameters(" ORCPT=utf-8;ü@x".encode(), smtputf8=True) == {"ORCPT": "utf-8;ü@x"}
    with pytest.raises(BadAddress):
        parse_parameters(" ORCPT=utf-8;a\u202e".encode(), smtputf8=True)


@given(LOCAL_PART)
def test_xtext_is_read_as_it_was_written(text):
    written = encode_xtext(text)
    assert written.isascii() and " " not in written and "=" not in written
    assert decode_xtext(written) == text


@pytest.mark.parametrize("text", ["a b", "a=b", "+", "+2", "+zz", "+3d", "ü", "+0D+0A", "+00", "+FF", "a\r\n", "a\n"])
def test_what_is_no_xtext_or_hides_a_control_is_refused(text):
    with pytest.raises(BadAddress):
        decode_xtext(text)


@pytest.mark.parametrize("text", ["a\r\nb", "\0", "\u2028"])
def test_control_is_never_written_as_xtext(text):
    with pytest.raises(BadAddress):
        encode_xtext(text)
