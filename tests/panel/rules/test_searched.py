"""What a searched text can mean."""

import ipaddress

import pytest

from panel.rules.searched import MOST, Searched


def test_an_address_is_read_in_its_canonical_form():
    searched = Searched.of("  Ann@BÜCHER.example ")
    assert searched.address == searched.begins == "ann@xn--bcher-kva.example"
    assert (searched.local_part, searched.at_domain) == ("ann", "xn--bcher-kva.example")


@pytest.mark.parametrize(("typed", "begins", "local_part", "at_domain"), [
    ("Ann", "ann", None, ""),
    ("ann@", "ann@", "ann", ""),
    ("ann@acme.", "ann@acme.", "ann", "acme."),
    ("@acme.test", "@acme.test", "", "acme.test"),
    ('"a b"@acme.test', '"a b"@acme.test', "a b", "acme.test"),
])
def test_a_part_of_an_address_is_what_one_may_begin_with(typed, begins, local_part, at_domain):
    searched = Searched.of(typed)
    assert (searched.begins, searched.local_part, searched.at_domain) == (begins, local_part, at_domain)


def test_a_domain_is_read_with_and_without_its_at():
    assert Searched.of("Acme.Test").domain == Searched.of("@acme.test").domain == "acme.test"
    assert Searched.of("acme").domain == ""


def test_a_message_id_is_looked_for_with_its_brackets():
    assert "<1.x@client.example>" in Searched.of("1.x@client.example").message_ids
    assert "<1.x@client.example>" in Searched.of("<1.x@client.example>").message_ids


@pytest.mark.parametrize(("typed", "network"), [
    ("203.0.113.9", "203.0.113.9/32"), ("203.0.113.9/24", "203.0.113.0/24"), ("[203.0.113.9]", "203.0.113.9/32"),
    ("2001:DB8::1", "2001:db8::1/128"), ("[IPv6:2001:db8::1]", "2001:db8::1/128"),
    ("::ffff:203.0.113.9", "203.0.113.9/32"),
])
def test_an_ip_address_is_a_network_and_no_name(typed, network):
    searched = Searched.of(typed)
    assert searched.network == ipaddress.ip_network(network)
    assert searched.name == searched.begins == ""


@pytest.mark.parametrize("typed", ["", " \t", "\x00", "\u202e", "\ud800"])
def test_what_can_not_be_shown_is_nothing(typed):
    assert Searched.of(typed) == Searched("")


def test_a_text_that_is_too_long_means_nothing():
    searched = Searched.of("x" * (MOST + 1))
    assert searched == Searched(searched.text)
    assert len(searched.shown) < MOST
