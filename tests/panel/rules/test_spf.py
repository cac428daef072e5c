"""SPF records merged: nobody who may send loses that, and we may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panel.rules import spf

OURS = ("a:mx1.host.example",)
HOST = "mx1.host.example"
MECHANISMS = st.sampled_from([
    "include:_spf.letters.example", "include:_spf.shop.example", "a", "mx", "a:web.acme.example", "ip4:192.0.2.0/24",
    "ip6:2001:db8::/32", "exists:%{i}.acme.example", "a:MX1.host.example", "exp=why.acme.example", "-ip4:192.0.2.9",
])
RECORDS = st.builds(
    lambda terms, end: " ".join(["v=spf1", *terms, *end]),
    st.lists(MECHANISMS, max_size=8),
    st.sampled_from([[], ["~all"], ["-all"], ["?all"], ["+all"], ["redirect=_spf.acme.example"]]),
)
SEVERAL = st.lists(RECORDS, max_size=3)
SETTINGS = st.tuples(st.sampled_from([(), ("ip4:203.0.113.7",)]), st.integers(0, 12))


@given(SEVERAL, SETTINGS)
def test_merging_twice_changes_nothing(found, how):
    instead, nested = how
    once = spf.merge(found, OURS, instead=instead, nested=nested)
    assert spf.merge([once], OURS, instead=instead, nested=nested) == once
    assert spf.is_spf(once)


@given(SEVERAL, SETTINGS)
def test_what_is_merged_holds_all_that_was_there_and_ours(found, how):
    instead, nested = how
    merged = spf.parse(spf.merge(found, OURS, instead=instead, nested=nested))
    for text in found:
        one = spf.parse(text)
        lost = {term for term in one.terms if term not in merged.terms}
        # Of several explanations one is kept; it lets nobody send.
        assert all(term.startswith("exp=") for term in lost)
        if one.redirect:
            assert merged.redirect == one.redirect or f"include:{one.redirect}" in merged.terms
        if len(found) == 1:
            assert merged.all == one.all
    addresses = {HOST: ["203.0.113.7"]}
    assert spf.lets_send(merged, OURS, addresses=addresses)


@pytest.mark.parametrize(("found", "merged"), [
    ([], "v=spf1 a:mx1.host.example ~all"),
    (["v=spf1 include:_spf.letters.example ~all"],
     "v=spf1 a:mx1.host.example include:_spf.letters.example ~all"),
    (["v=spf1 -all"], "v=spf1 a:mx1.host.example -all"),
    (["V=SPF1 a:web.example -ALL a:mx1.host.example"], "v=spf1 a:mx1.host.example a:web.example -all"),
    (["v=spf1 redirect=_spf.acme.example"], "v=spf1 a:mx1.host.example redirect=_spf.acme.example"),
    (["v=spf1 mx -all", "v=spf1 redirect=_spf.x.example"], "v=spf1 a:mx1.host.example mx include:_spf.x.example -all"),
    (["v=spf1 mx"], "v=spf1 a:mx1.host.example mx"),
    (["v=spf1 ?a:mx1.host.example ~all"], "v=spf1 a:mx1.host.example ~all"),
    (["v=spf1 +a:mx1.host.example ~all"], "v=spf1 +a:mx1.host.example ~all"),
])
def test_merged(found, merged):
    assert spf.merge(found, OURS) == merged


def test_addresses_stand_in_where_a_name_would_be_the_eleventh_look_up():
    full = "v=spf1 " + " ".join(f"include:{n}.example" for n in range(6)) + " -all"
    instead = spf.networks_of(["2001:db8::7", "203.0.113.7", "203.0.113.7"])
    assert instead == ("ip4:203.0.113.7", "ip6:2001:db8::7")
    assert spf.merge([full], OURS, instead=instead, nested=3).startswith("v=spf1 a:mx1.host.example include:")
    assert spf.merge([full], OURS, instead=instead, nested=4).startswith("v=spf1 ip4:203.0.113.7 ip6:2001:db8::7 inc")


@pytest.mark.parametrize(("record", "passes"), [
    ("v=spf1 a:MX1.host.example. -all", True),
    ("v=spf1 mx -all", True),
    ("v=spf1 ip4:203.0.113.0/24 -all", True),
    ("v=spf1 +all", True),
    ("v=spf1 -all a:mx1.host.example", False),
    ("v=spf1 -a:mx1.host.example ~all", False),
    ("v=spf1 ip4:198.51.100.0/24 ip4:nonsense ~all", False),
    ("v=spf1 include:a:mx1.host.example ~all", False),
])
def test_who_is_let(record, passes):
    found = spf.parse(record)
    addresses = {HOST: ("203.0.113.7",), "in.host.example": ("203.0.113.8",), "mail.acme.example": ("203.0.113.7",)}
    assert spf.lets_send(found, OURS, addresses=addresses, mx_hosts=[HOST]) is passes
    if record == "v=spf1 mx -all":
        # Where mail comes in isn't where it goes out: receivers would refuse it.
        assert not spf.lets_send(found, OURS, addresses=addresses, mx_hosts=["in.host.example"])
        assert not spf.lets_send(found, OURS, addresses={}, mx_hosts=["in.host.example"])
        assert spf.lets_send(found, OURS, addresses=addresses, mx_hosts=["in.host.example", "mail.acme.example"])


def test_what_is_a_record():
    assert spf.is_spf("v=spf1") and spf.is_spf("V=spf1 ~all")
    assert not spf.is_spf("v=spf10 ~all") and not spf.is_spf("spf2.0/pra ~all") and not spf.is_spf(" v=spf1")
    record = spf.parse("v=spf1 include:A.example. include:%{d}.x.example redirect=b.example")
    assert spf.names_to_follow(record) == ("a.example", "b.example")
    assert record.lookups == 3
