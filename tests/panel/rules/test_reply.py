"""Every reply of the table."""

import string

import pytest

from panel.rules import reply
from panel.rules.reply import LONGEST_FACT, Reply

ALL = [(name, value) for name, value in vars(reply).items() if isinstance(value, Reply)]
WITHOUT_ENHANCED = {"GREETING", "AUTH_CONTINUE", "SEND_DATA"}
# RFC 5321 §4.2.3, RFC 4954 §6, RFC 3207 §4, RFC 7504
CODES = {
    214, 220, 221, 235, 250, 252, 334, 354, 421, 450, 451, 452, 454,
    500, 501, 502, 503, 504, 530, 535, 538, 550, 552, 553, 554, 555, 556,
}  # fmt: skip

each = pytest.mark.parametrize(("name", "value"), ALL, ids=[name for name, _ in ALL])


def placeholders(value):
    return {name for _, name, _, _ in string.Formatter().parse(value.text) if name is not None}


@each
def test_enhanced_class_equals_the_class_of_the_code(name, value):
    if name in WITHOUT_ENHANCED:
        assert value.enhanced == ""
    else:
        subject, detail = value.enhanced.split(".")[1:]
        assert value.enhanced.split(".")[0] == str(value.code)[0]
        assert 0 <= int(subject) <= 7  # RFC 3463 §3
        assert 0 <= int(detail) <= 99


@each
def test_code_is_one_that_smtp_knows(name, value):
    assert value.code in CODES


@each
def test_text_is_short_plain_ascii_on_one_line(name, value):
    assert value.text.isascii()
    assert value.text.isprintable()
    assert 0 < len(value.text) <= 400


@each
def test_placeholders_are_names_and_can_be_filled(name, value):
    names = placeholders(value)
    assert all(each.isidentifier() for each in names)
    filled = value.about(**dict.fromkeys(names, "{x}"))
    assert filled.text.count("{x}") >= len(names)
    assert (filled.code, filled.enhanced) == (value.code, value.enhanced)


@each
def test_nothing_is_left_out_of_a_text_in_silence(name, value):
    if placeholders(value):
        with pytest.raises(KeyError):
            value.about()


def test_no_two_replies_are_the_same():
    assert len({value for _, value in ALL}) == len(ALL)


def test_facts_from_outside_can_neither_end_the_line_nor_fill_it():
    hostile = "a\r\n250 2.0.0 OK\x00\x1b[2J\u2028" + "x" * 5000
    text = reply.NO_SUCH_MAILBOX.about(address=hostile).text
    assert "\r" not in text
    assert "\n" not in text
    assert text.startswith("no mailbox a 250 2.0.0 OK [2J x")
    assert len(text) < LONGEST_FACT + len(reply.NO_SUCH_MAILBOX.text)


def test_a_reply_reads_as_its_line():
    assert str(reply.QUEUED.about(queue_id="0ABC")) == "250 2.0.0 queued as 0ABC"
    assert str(reply.SEND_DATA).startswith("354 end")


def test_a_reply_knows_whether_it_is_permanent():
    assert reply.NO_RELAY.is_permanent
    assert not reply.OVER_LIMIT.is_permanent
