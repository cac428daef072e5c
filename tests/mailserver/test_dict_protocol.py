"""Dovecot's look-ups: whatever login and password hold, and whatever else is sent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver import dict_protocol
from mailserver.dict_protocol import BadLine, PasswordLookup, UserLookup
from tests.support.dovecot_dict import passdb, userdb

KEY = bytes(range(32))
# What a client can send: UTF-8, and bytes that are none, as lone surrogates.
bytes_that_are_no_text = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
anything = st.text(st.characters(exclude_categories=("Cs",)) | bytes_that_are_no_text)
texts = anything.map(lambda text: text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))


@given(texts, texts)
def test_every_login_and_password_is_understood(login: str, password: str):
    found = dict_protocol.parse(passdb(login, password, KEY, protocol="pop3", ip="2001:db8::7"), KEY)
    assert found == PasswordLookup("pop3", "2001:db8::7", login, password)
    assert dict_protocol.parse(userdb(login), KEY) == UserLookup(login)


@pytest.mark.parametrize("password", ["a/b", "/", "tab\there", "new\nline", "\x01t", "$", "ends with $", "", "ü" * 100])
def test_password_may_hold_what_parts_the_line(password: str):
    assert dict_protocol.parse(passdb("a/b@demo.test", password, KEY), KEY) == PasswordLookup(
        "imap", "192.0.2.7", "a/b@demo.test", password
    )


def test_password_is_not_in_the_line_nor_in_a_repr():
    line = passdb("shop@demo.test", "right horse battery", KEY)
    assert b"horse" not in line
    assert "horse" not in repr(dict_protocol.parse(line, KEY))


@pytest.mark.parametrize(
    "line",
    [
        b"", b"L", b"L\t", b"Lshared/passdb\tx", b"Lpriv/userdb/x\tx", b"Lshared/userdb/x\ty", b"Lshared/other/x\tx",
        b"Lshared/userdb/x", b"Lshared/userdb/\x01x\tx", b"Lshared/userdb/x\x01\tx", b"I0\tshared/\t", b"B1\t",
        b"S1\tshared/userdb/x\tvalue",
        b"Lshared/passdb/imap/192.0.2.7/x/plain\tx", b"Lshared/passdb/imap/192.0.2.7/x/$$\tx",
        passdb("x", "y", KEY, ip=""), passdb("x", "y", KEY, ip="localhost"), passdb("x", "y", bytes(32)),
        userdb("x" * dict_protocol.LINE_BYTES),
    ],
)
def test_what_dovecot_does_not_send_is_refused(line: bytes):
    with pytest.raises(BadLine):
        dict_protocol.parse(line, KEY)


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"Lshared/passdb/imap/192.0.2.7/" + tail))
def test_any_bytes_are_a_look_up_or_a_bad_line(line: bytes):
    try:
        assert isinstance(dict_protocol.parse(line, KEY), PasswordLookup | UserLookup)
    except BadLine:
        pass


@given(st.dictionaries(st.text(), st.text()))
def test_an_answer_is_one_line_of_json(facts: dict[str, str]):
    answer = dict_protocol.found(facts)
    assert answer[:1] == b"O"
    assert answer.count(b"\n") == 1
    assert json.loads(answer[1:-1].replace(b"\x01t", b"\t").replace(b"\x011", b"\x01")) == facts


def test_a_failure_is_one_line():
    assert dict_protocol.failed("no\ndatabase\t\x01") == b"Fno\x01ndatabase\x01t\x011\n"
