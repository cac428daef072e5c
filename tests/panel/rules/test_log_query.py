"""What the words of a search in the message log mean."""

from datetime import UTC, datetime, timedelta

import pytest

from panel.rules.log_query import MOST, Fault, Told, Wrong, parse

NOW = datetime(2026, 3, 12, 14, 9, tzinfo=UTC)


def test_words_say_what_is_asked_for():
    query, faults = parse('to:Bob@Example.com from:@acme.test status:deferred after:yesterday before:2h "Re: an offer" '
                          "ip:203.0.113.0/24 id:7q2k9fm3xw000 domain:BÜCHER.example Re: 4711", NOW)
    assert not faults
    assert query.to and query.to.address == "bob@example.com"
    assert query.sender and (query.sender.domain, query.sender.address) == ("acme.test", "")
    assert query.status is Told.WAITING and query.id == "7Q2K9FM3XW000" and query.domain == "xn--bcher-kva.example"
    assert (query.after, query.before) == (datetime(2026, 3, 11, tzinfo=UTC), NOW - timedelta(hours=2))
    assert str(query.network) == "203.0.113.0/24" and query.words == ["Re: an offer", "Re:", "4711"]


def test_a_party_is_whole_or_a_beginning_and_never_a_part():
    kinds = {
        text: parse(f"from:{text}", NOW)[0].sender
        for text in ("bob@example.co", "bob", "bob@", "example.co", "@example.co", "<>")
    }
    found = {text: (each.address, each.domain, each.begins) for text, each in kinds.items() if each}
    assert found == {
        "bob@example.co": ("bob@example.co", "", ""), "bob": ("", "", "bob"), "bob@": ("", "", "bob@"),
        "example.co": ("", "example.co", ""), "@example.co": ("", "example.co", ""), "<>": ("", "", ""),
    }


@pytest.mark.parametrize(
    ("typed", "wrong"),
    [
        ("form:bob", Wrong.UNKNOWN), ("to:a to:b", Wrong.TWICE), ("to:", Wrong.EMPTY), ("to:<>", Wrong.ADDRESS),
        ("domain:a_b@", Wrong.DOMAIN), ("status:lost", Wrong.STATUS), ("after:soon", Wrong.TIME),
        ("before:2026-02-30", Wrong.TIME), ("id:short", Wrong.ID), ("ip:example.com", Wrong.IP),
        ("after:1d before:2d", Wrong.ORDER), ("x" * (MOST + 1), Wrong.LONG), ("a b c d e f g h i", Wrong.LONG),
    ],
)
def test_a_word_that_means_nothing_is_told(typed, wrong):
    _, faults = parse(typed, NOW)
    assert [fault.wrong for fault in faults] == [wrong]


def test_a_fault_keeps_what_was_typed():
    assert parse("status:lost", NOW)[1] == [Fault(Wrong.STATUS, "status", "lost")]


@pytest.mark.parametrize("typed", ["", "\x00", '"', '""', 'to:"', "::::", "\u202e\u0000", "9999999999d", "after:9999w"])
def test_hostile_text_breaks_nothing(typed):
    parse(typed, NOW)
