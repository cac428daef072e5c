"""Dovecot's look-ups: whatever login and password hold, and whatever else is sent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver import dict_protocol
from mailserver.dict_protocol import BadLine, PasswordLookup, UsageTold, UsageTransactions, UserLookup
from tests.support.dovecot_dict import HELLO, QUOTA_HELLO, passdb, told, userdb

pytestmark = pytest.mark.once("sqlite")

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


# What a mailbox holds


def take(lines: bytes) -> list[tuple[bytes, UsageTold | None]]:
    connection = UsageTransactions()
    return [found for line in lines.splitlines() if (found := connection.take(line)) != (b"", None)]


def test_the_dict_is_named_by_the_hello():
    assert dict_protocol.dict_name(QUOTA_HELLO.removesuffix(b"\n")) == dict_protocol.QUOTA
    assert dict_protocol.dict_name(HELLO.removesuffix(b"\n")) == "auth"
    with pytest.raises(BadLine):
        dict_protocol.dict_name(b"H3\t2\t0")


@given(texts.filter(lambda text: "\n" not in text), st.integers(0, 10**17), st.integers(0, 10**9))
def test_every_use_that_is_told_is_understood(login: str, used_bytes: int, messages: int):
    lines = told(login, used_bytes, messages, number=7)
    connection = UsageTransactions()
    answers = [connection.take(line) for line in lines.removesuffix(b"\n").split(b"\n")]
    assert answers == [(b"", None)] * 3 + [(b"O7\n", UsageTold(login, used_bytes, messages))]


def test_only_what_is_committed_whole_counts():
    begun = b"B1\tx\nS1\tpriv/quota/storage\t5\n"
    assert take(begun + b"C1\n") == [(b"O1\n", None)]
    assert take(begun + b"S1\tpriv/quota/messages\t1\nR1\n") == []
    assert take(begun + b"T1\t5\t0\nS1\tpriv/other\tx\nS1\tpriv/quota/messages\t-1\nC1\n") == [
        (b"O1\n", UsageTold("x", 5, 0))
    ]


@pytest.mark.parametrize(
    "lines",
    [
        b"C1", b"B1", b"Bx\ty", b"B\ty", b"B1\tx\nB1\tx", b"B1\tx\nD1", b"B1\tx\nS1\tpriv/quota/storage",
        b"B1\tx\nS1\tpriv/quota/storage\tmany", b"B1\tx\nS1\tpriv/quota/storage\t" + b"9" * 30, b"S1\ta\t1",
        b"Lshared/userdb/x\tx", b"B1\tx\x01", b"B1\t" + b"x" * dict_protocol.LINE_BYTES,
        b"\n".join(b"B%d\tx" % number for number in range(dict_protocol.MOST_OPEN + 1)),
    ],
)
def test_what_quota_clone_does_not_send_is_refused(lines: bytes):
    with pytest.raises(BadLine):
        take(lines)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"B1\tx", b"S1\tpriv/quota/storage\t5", b"C1", b"R1"])))
def test_any_lines_are_taken_or_bad(lines: list[bytes]):
    connection = UsageTransactions()
    try:
        for line in lines:
            connection.take(line)
    except BadLine:
        pass
    assert len(connection._open) <= dict_protocol.MOST_OPEN
